"""Parts of photos: which places are worth a look, which show the same part, what hiding one does.

A part is a square of the photo. It is compared by what the encoder makes of the square alone,
enlarged, so that nothing around it takes part; and it is measured by blurring the square and
letting the encoder look again at the whole photo, so that what is said of it is what happened.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from fieldmark.explain.faithfulness import blurred
from fieldmark.nn.spec import EncoderSpec

PART = 0.25
"""Side of a part as a share of the photo's: about a bird's head where the bird fills the photo."""
_BATCH = 64


def strongest(maps: Float[Tensor, "N g g"], count: int) -> Int[Tensor, "N P"]:
    """The parts of each photo that matter most, for or against, and keep apart from each other.

    A part's middle is where the map itself is highest, so that the close-up shows the mark in its
    middle; what a part brings in all is much the same for squares that barely hold it. A part that
    is chosen is taken out of the map before the next is looked for.

    Args:
        maps: Signed and soft.
        count: Most parts; fewer where so many do not keep apart.

    Returns:
        Numbers of the cells in their middles, row-major, the strongest first; as many for each photo.
    """
    side = maps.shape[1]
    reach, half = apart(side), _half(side)
    line = torch.arange(side, device=maps.device)
    left, free = maps.clone(), torch.ones_like(maps, dtype=torch.bool)
    found: list[Tensor] = []
    while len(found) < count and bool(free.flatten(1).any(1).all()):
        best = left.abs().masked_fill(~free, -1.0).flatten(1).argmax(1)
        found.append(best)
        down = (line[None] - (best // side)[:, None]).abs()[:, :, None]
        across = (line[None] - (best % side)[:, None]).abs()[:, None, :]
        away = torch.maximum(down, across)
        left = left.masked_fill(away <= half, 0.0)
        free &= away >= reach
    return torch.stack(found, 1)


def apart(side: int) -> int:
    """Cells that chosen places keep from each other: a part's width."""
    return max(1, round(PART * side))


def summed(maps: Float[Tensor, "N g g"]) -> Float[Tensor, "N g g"]:
    """What lies within a part around each cell, added up."""
    half = _half(maps.shape[1])
    side = 2 * half + 1
    return functional.avg_pool2d(maps[:, None], side, 1, half)[:, 0] * side**2


def _half(side: int) -> int:
    """Cells on each side of a part's middle one."""
    return max(0, round((PART * side - 1) / 2))


def corners(cells: Int[Tensor, " N"], grid: int) -> Float[Tensor, "N 2"]:
    """Top and left of the parts around cells, as shares of the side; parts stay inside the photo."""
    middles = (torch.stack([cells // grid, cells % grid], 1).double() + 0.5) / grid
    return (middles - PART / 2).clamp(0, 1 - PART)


@torch.no_grad()
def describe(
    spec: EncoderSpec,
    images: Float[Tensor, "N 3 S S"],
    cells: Int[Tensor, "N P"],
    grid: int,
) -> Float[Tensor, "N P E"]:
    """What the encoder makes of each part alone: embeddings of length 1."""
    size = spec.size
    photos = torch.arange(len(images), device=images.device).repeat_interleave(cells.shape[1])
    places = corners(cells.flatten(), grid).to(images)
    found = []
    for some, at in zip(photos.split(_BATCH), places.split(_BATCH)):
        # From -1 to 1 over the photo, at the middles of the part's new pixels.
        line = (torch.arange(size, device=images.device) + 0.5) / size * PART
        y, x = (2 * (at[:, axis, None] + line) - 1 for axis in (0, 1))
        points = torch.stack(
            [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], 3
        )
        cut = functional.grid_sample(
            images[some], points, mode="bicubic", padding_mode="border", align_corners=False
        )
        found.append(spec(cut.clamp(0, 1)))
    return torch.cat(found).unflatten(0, cells.shape)


def without(
    images: Float[Tensor, "N 3 S S"], cells: Int[Tensor, " N"], grid: int
) -> Float[Tensor, "N 3 S S"]:
    """Each photo with one part blurred away."""
    inside = _inside(images, corners(cells, grid).to(images))
    return torch.where(inside[:, None], blurred(images, 4), images)


def _inside(
    images: Float[Tensor, "N 3 S S"], places: Float[Tensor, "N 2"]
) -> Bool[Tensor, "N S S"]:
    line = (torch.arange(images.shape[2], device=images.device) + 0.5) / images.shape[2]
    down, across = (
        (line >= places[:, axis, None]) & (line <= places[:, axis, None] + PART) for axis in (0, 1)
    )
    return down[:, :, None] & across[:, None, :]


@torch.no_grad()
def losses(
    spec: EncoderSpec,
    images: Float[Tensor, "N 3 S S"],
    directions: Float[Tensor, "N E"],
    cells: Int[Tensor, " N"],
    grid: int,
) -> Float[Tensor, " N"]:
    """By how much ``embedding · direction`` falls when one part of each photo is blurred away."""
    found = []
    for some, toward, at in zip(
        images.split(_BATCH), directions.split(_BATCH), cells.split(_BATCH)
    ):
        change = spec(some) - spec(without(some, at, grid))
        found.append((change * toward).sum(1))
    return torch.cat(found)
