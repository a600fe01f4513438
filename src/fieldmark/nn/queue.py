"""A first-in first-out store of keys (He et al. 2020, arXiv:1911.05722, section 3.2)."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from fieldmark.rng import seed_of

NO_ROW = -1
"""Row of a slot that no photo has filled yet."""


class KeyQueue(nn.Module):
    """The newest ``size`` keys with the catalog rows they came from; all of it is saved.

    Slots that nothing was pushed to hold random unit vectors, as in the paper's code, so the loss
    has its full number of negatives from the first step.

    Args:
        size: Number of keys, > 0. Any number of keys may be pushed at once.
        dim: Length of a key.
        seed: Seed of the random start.

    Raises:
        ValueError: If size or dim is not positive.
    """

    keys: Float[Tensor, "K D"]
    rows: Int[Tensor, " K"]
    pointer: Int[Tensor, ""]

    def __init__(self, size: int, dim: int, seed: int = 0) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a queue needs size >= 1 and dim >= 1, got {size} and {dim}.")
        generator = torch.Generator().manual_seed(seed_of("queue", seed, size, dim))
        self.register_buffer("keys", F.normalize(torch.randn(size, dim, generator=generator)))
        self.register_buffer("rows", torch.full((size,), NO_ROW))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "B D"], rows: Int[Tensor, " B"]) -> None:
        """Replace the oldest keys, in order; of more than ``size`` keys the last ones stay."""
        size = len(self.keys)
        slots = (self.pointer + torch.arange(len(keys), device=self.keys.device)) % size
        slots = slots[-size:]
        self.keys[slots] = keys[-size:].to(self.keys.dtype)
        self.rows[slots] = rows[-size:]
        self.pointer.add_(len(keys)).remainder_(size)

    def same_photo(self, rows: Int[Tensor, " B"]) -> Tensor:
        """Which keys come from the photos given: ``Bool[Tensor, "B K"]``."""
        return rows[:, None] == self.rows[None, :]
