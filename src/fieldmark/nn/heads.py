"""Projection and prediction heads: small multilayer perceptrons on pooled features."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.backbones.normalization import SyncedBatchNorm


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, optionally with batch-norm.

    Args:
        dims: Width of the input, of every hidden layer, and of the output; at least two.
        batch_norm: Normalise after each hidden layer (linear layers before it have no bias).
        last_batch_norm: Normalise the output too, without learnable scale and shift, as MoCo v3
            and SimCLR's released code do.
        bias: Whether linear layers that no batch-norm follows have a bias.

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
    ) -> None:
        super().__init__()
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
        self.layers = nn.Sequential(*layers)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """Map pooled features to the space of the loss."""
        return self.layers(pooled)
