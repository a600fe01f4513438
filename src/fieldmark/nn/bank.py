"""One vector per photo, filled once and saved with the run."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class PhotoBank(nn.Module):
    """Vectors by catalog row. Empty until filled; a checkpoint brings its own length with it.

    Args:
        dim: Length of a vector, > 0.

    Example:
        >>> bank = PhotoBank(2)
        >>> bank.fill(torch.tensor([7, 3]), torch.eye(2))
        >>> bank.of(torch.tensor([3])).tolist()
        [[0.0, 1.0]]
    """

    any_length: ClassVar = ("vectors", "rows")
    """State whose number of rows a checkpoint decides."""

    vectors: Float[Tensor, "N D"]
    rows: Int[Tensor, " N"]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(0, dim))
        self.register_buffer("rows", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def fill(self, rows: Int[Tensor, " N"], vectors: Float[Tensor, "N D"]) -> None:
        """Replace everything that is kept; rows may come in any order, each once."""
        order = rows.argsort()
        self.rows = rows[order].to(self.rows.device)
        self.vectors = vectors[order].to(self.vectors)

    def holds(self, rows: Int[Tensor, " B"]) -> Bool[Tensor, ""]:
        """Whether all these photos have a vector."""
        return torch.isin(rows, self.rows).all()

    def places(self, rows: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Where the vectors of these photos are; every row must be held."""
        return torch.searchsorted(self.rows, rows)

    def of(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """The vectors of these photos; every row must be held."""
        return self.vectors[self.places(rows)]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in self.any_length:
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            # Only the number of photos may differ: another width is another method's bank.
            if saved is not None and saved.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)
