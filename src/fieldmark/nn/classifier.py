"""A whole encoder with a linear layer to class logits."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.nn.spec import EncoderSpec


class ClassHead(nn.Linear):
    """A linear layer that learns at a rate of its own.

    Args:
        dim: Width of the pooled feature.
        classes: Number of classes.
        lr_ratio: Learning rate relative to that of the network, > 0.

    Source:
        Weights from N(0, 0.01) and zero bias, as the linear classifiers of MoCo and LCR.
    """

    def __init__(self, dim: int, classes: int, *, lr_ratio: float = 1.0) -> None:
        super().__init__(dim, classes)
        self.lr_ratio = lr_ratio
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser, as backbones tell it."""
        return [
            {"params": [self.weight], "lr_ratio": self.lr_ratio, "decay": True, "name": "head"},
            {"params": [self.bias], "lr_ratio": self.lr_ratio, "decay": False, "name": "head.bias"},
        ]


class EmbeddingHead(nn.Linear):
    """A linear layer on finished embeddings, as few labels make one (fieldmark.label).

    Args:
        weight: Of each class.
        bias: Of each class.
    """

    def __init__(self, weight: Float[Tensor, "C E"], bias: Float[Tensor, " C"]) -> None:
        super().__init__(weight.shape[1], weight.shape[0])
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)


class Classifier(nn.Module):
    """Backbone, inserted modules, readout and a linear layer.

    The head sees the pooled feature as it is, neither normalised nor whitened.

    Args:
        spec: The encoder; held, not copied.
        head: Linear layer of ``spec.raw_dim`` inputs.

    Raises:
        ValueError: If the head's width is not that of the pooled feature.
    """

    def __init__(self, spec: EncoderSpec, head: ClassHead) -> None:
        super().__init__()
        if head.in_features != spec.raw_dim:
            raise ValueError(
                f"the head takes {head.in_features} numbers and the encoder's pooled feature has "
                f"{spec.raw_dim}; build the head for this encoder."
            )
        self.spec = spec
        self.head = head

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.head.out_features

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits of images in [0, 1]."""
        return self.head(self.spec.readout(self.spec.features(images)))

    @torch.inference_mode()
    def predict(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits in float32; the classifier must be in evaluation mode."""
        return self(images).float()
