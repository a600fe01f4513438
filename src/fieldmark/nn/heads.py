"""Projection and prediction heads: small multilayer perceptrons on pooled features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark import runtime


class SyncedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose training statistics are those of the batch of all processes.

    Works with every backend, unlike ``torch.nn.SyncBatchNorm``, which needs a GPU. Computes in at
    least float32, also under autocast.
    """

    def forward(self, input: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Normalise each feature over the batch of all processes."""
        with torch.autocast(input.device.type, enabled=False):
            if input.dtype in (torch.float16, torch.bfloat16):
                input = input.float()
            if not self.training or runtime.world_size() == 1:
                return super().forward(input)
            count = len(input) * runtime.world_size()
            mean = runtime.sum_with_gradient(input.sum(0)) / count
            variance = runtime.sum_with_gradient((input - mean).square().sum(0)) / count
            if self.running_mean is not None and self.running_var is not None:
                with torch.no_grad():
                    share = self.momentum or 0.1
                    self.running_mean.lerp_(mean, share)
                    self.running_var.lerp_(variance * (count / max(1, count - 1)), share)
            output = (input - mean) * torch.rsqrt(variance + self.eps)
            return output * self.weight + self.bias if self.affine else output


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
