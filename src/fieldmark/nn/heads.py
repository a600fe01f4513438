"""Projection and prediction heads: small multilayer perceptrons on pooled features."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.backbones.normalization import SyncedBatchNorm
from fieldmark.types import Features


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, optionally with batch-norm.

    Args:
        dims: Width of the input, of every hidden layer, and of the output; at least two.
        batch_norm: Normalise after each hidden layer (linear layers before it have no bias).
        last_batch_norm: Normalise the output too, without learnable scale and shift, as MoCo v3
            and SimCLR's released code do.
        bias: Whether linear layers that no batch-norm follows have a bias.
        dropout: Share of each hidden layer's outputs that is dropped while training, in [0, 1).

    Raises:
        ValueError: If fewer than two widths are given.

    Example:
        >>> MLPHead([8, 16, 4])(torch.zeros(2, 8)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        dims: Sequence[int],
        *,
        batch_norm: bool = False,
        last_batch_norm: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self._settings = {
            "dims": list(dims),
            "batch_norm": batch_norm,
            "last_batch_norm": last_batch_norm,
            "bias": bias,
            "dropout": dropout,
        }
        if len(dims) < 2:
            raise ValueError(f"a head needs an input and an output width, got {list(dims)}.")
        layers: list[nn.Module] = []
        for index, (wide, narrow) in enumerate(pairwise(dims)):
            last = index == len(dims) - 2
            normalised = last_batch_norm if last else batch_norm
            layers.append(nn.Linear(wide, narrow, bias=bias and not normalised))
            if normalised:
                layers.append(SyncedBatchNorm(narrow, affine=not last))
            if not last:
                layers.append(nn.ReLU(inplace=True))
                if dropout:
                    layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """Map pooled features to the space of the loss."""
        return self.layers(pooled)

    def describe(self) -> dict[str, Any]:
        """The arguments that make the same head."""
        return dict(self._settings)


class PooledHead(nn.Module):
    """Heads that ship: what they make of the pooled feature takes its place.

    Args:
        heads: Heads in order (held, not copied), or what they were described by. The last one's
            output is as wide as the feature that it replaces.

    Raises:
        ValueError: If the width changes.
    """

    kind: ClassVar[str] = "pooled_head"

    def __init__(self, heads: Iterable[MLPHead | dict[str, Any]]) -> None:
        super().__init__()
        self.heads = nn.Sequential(
            *(head if isinstance(head, MLPHead) else MLPHead(**head) for head in heads)
        )
        settings = self.describe()["heads"]
        wide, narrow = settings[0]["dims"][0], settings[-1]["dims"][-1]
        if wide != narrow:
            raise ValueError(
                f"heads that ship must give the width they take, {wide}, got {narrow}; "
                "set the last width."
            )

    @classmethod
    def inserted(cls, *heads: nn.Module) -> dict[str, nn.Module]:
        """What an ``EncoderSpec`` takes to ship these heads; other modules are passed over."""
        found = [head for head in heads if isinstance(head, MLPHead)]
        return {cls.kind: cls(found)} if found else {}

    def forward(self, features: Features) -> Features:
        """Replace the pooled feature; tokens, class token and maps stay."""
        return features._replace(pooled=self.heads(features.pooled))

    def describe(self) -> dict[str, Any]:
        """The arguments that make the same module."""
        return {"heads": [head.describe() for head in self.heads]}  # type: ignore[operator]
