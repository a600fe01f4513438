"""The types that pass between layers (docs/design.md, Core types)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Features(NamedTuple):
    """What a backbone makes of a batch of images."""

    pooled: Float[Tensor, "B D"]
    """The network's own global feature."""
    tokens: Float[Tensor, "B T D"]
    """Last feature map, flattened row-major; class and register tokens excluded."""
    shape: tuple[int, int]
    """Rows and columns of the full token grid."""
    cls: Float[Tensor, "B D"] | None = None
    """Class token, where the network has one."""
    stages: tuple[Float[Tensor, "B _ _ _"], ...] = ()
    """Feature maps of earlier stages, when asked for."""
    attention: tuple[Float[Tensor, "B heads S S"], ...] = ()
    """Attention of each transformer block, when asked for."""
    last: Float[Tensor, "B ..."] | None = None
    """The network's own last map, in its own layout, class and register tokens included: what
    ``pooled`` is made of."""


class View(NamedTuple):
    """One augmented look at each photo of a batch."""

    images: Float[Tensor, "B 3 H W"]
    """RGB in [0, 1], not normalised: each network normalises its own input."""
    rows: Int[Tensor, " B"]
    """Catalog rows shown."""
    boxes: Float[Tensor, "B 4"]
    """x0 y0 x1 y1 of the crop as fractions of the upright photo."""
    flipped: Bool[Tensor, " B"]
    """Whether the crop was mirrored left to right."""


class Batch(NamedTuple):
    """What a method sees of one micro-batch. There is no label field."""

    views: tuple[View, ...]
    rows: Int[Tensor, " B"]
    key: int
    """Seeds whatever the method draws itself."""


class Progress(NamedTuple):
    """Where the run is; schedules are functions of this and of nothing else."""

    step: int
    """Optimiser steps done."""
    total: int
    """Optimiser steps of the whole run."""
    epoch: float
    """Epochs done, with fraction."""

    @property
    def fraction(self) -> float:
        """Share of the run done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.total))


class LossOutput(NamedTuple):
    """What ``Method.forward`` returns."""

    loss: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    """Detached scalars for the log."""
    carry: dict[str, Tensor] = {}
    """Detached tensors for ``after_step``, first axis is the photo."""
    similarity: Float[Tensor, " B"] | None = None
    """Similarity of each photo's own pair of views, with gradient, where the loss has pairs: the
    score that gradient maps may be taken of."""


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Put every tensor of a batch on a device."""
    views = tuple(View(*(field.to(device) for field in view)) for view in batch.views)
    return Batch(views, batch.rows.to(device), batch.key)
