"""Is a map true? Hide the cells that it names and see whether what it explains goes away."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fieldmark import rng
from fieldmark.errors import InputError

Encode = Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B E"]]
Fill = Literal["blur", "mean"]
_BATCH = 64


class Faithfulness(NamedTuple):
    """Deletion and insertion of one map per photo, against random orders; averages over photos."""

    score: float
    """Mean of the two gains; > 0 is better than chance, in units of what is explained."""
    deletion: float
    """Area between the random curve and the map's while cells are hidden, the map's first cell
    first; > 0: what is explained goes away faster."""
    insertion: float
    """Area between the map's curve and the random one while cells are uncovered; > 0: it comes
    back faster."""
    chance: float
    """Standard deviation of a single random order's score: what is no more than luck."""
    curves: dict[str, list[float]]
    """``deletion``, ``insertion`` and both ``random_…``, from none of the cells to all."""
    per_photo: Float[np.ndarray, " B"]
    """The score of each photo."""


def hidden(images: Float[Tensor, "B 3 H W"], fill: Fill) -> Float[Tensor, "B 3 H W"]:
    """What stands where a cell is hidden.

    Args:
        images: In [0, 1].
        fill: ``blur``: the photo itself so soft that only large patches of colour are left.
            ``mean``: the photo's mean colour.
    """
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return blurred(images, 4)


def blurred(images: Float[Tensor, "B 3 H W"], squares: int) -> Float[Tensor, "B 3 H W"]:
    """Photos of which only the mean colours on so many by so many squares are left, joined softly."""
    coarse = functional.adaptive_avg_pool2d(images, squares)
    side = images.shape[2:]
    return functional.interpolate(coarse, side, mode="bilinear", align_corners=False)


def cover(
    images: Float[Tensor, "B 3 H W"],
    filling: Float[Tensor, "B 3 H W"],
    shown: Float[Tensor, "B h w"],
) -> Float[Tensor, "B 3 H W"]:
    """Images where ``shown`` is 1, the filling where it is 0; cells have sharp edges."""
    mask = functional.interpolate(shown[:, None], images.shape[2:], mode="nearest")
    return images * mask + filling * (1 - mask)


class Chance(NamedTuple):
    """Curves of random orders: the same for all maps of one grid."""

    deletion: Float[Tensor, "R B S"]
    insertion: Float[Tensor, "R B S"]


@torch.inference_mode()
def curve(
    encode: Encode,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    order: Int[Tensor, "B T"],
    shape: tuple[int, int],
    *,
    insert: bool,
    steps: int = 8,
    fill: Fill = "blur",
) -> Float[Tensor, "B S"]:
    """``embedding · direction`` while cells are hidden, or uncovered, in order.

    Args:
        encode: Makes embeddings of images in [0, 1].
        images: Photos.
        directions: What is explained, one direction per photo.
        order: Cells of each photo, the first to change first.
        shape: Rows and columns of the cells.
        insert: Start from everything hidden and uncover, instead of hiding.
        steps: Into how many about equal parts the cells are divided.
        fill: See :func:`hidden`.

    Returns:
        steps + 1 values per photo: no cell changed up to all changed.
    """
    count = order.shape[1]
    steps = min(steps, count)
    edges = torch.linspace(0, count, steps + 1).round().long()
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(count).expand_as(order).contiguous())
    changed = (rank[:, None] < edges[:, None]).to(images.dtype)
    shown = (changed if insert else 1 - changed).unflatten(2, shape)
    filling = hidden(images, fill)
    values: list[Tensor] = []
    flat = [(photo, step) for photo in range(len(images)) for step in range(steps + 1)]
    for start in range(0, len(flat), _BATCH):
        photos, places = (torch.tensor(part) for part in zip(*flat[start : start + _BATCH]))
        covered = cover(images[photos], filling[photos], shown[photos, places])
        values.append((encode(covered).cpu() * directions[photos].cpu()).sum(1))
    return torch.cat(values).view(len(images), steps + 1)


def draw_chance(
    encode: Encode,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    shape: tuple[int, int],
    *,
    steps: int = 8,
    draws: int = 5,
    seed: int = 0,
    fill: Fill = "blur",
) -> Chance:
    """Curves of random orders, to compare several maps of one grid with.

    Args:
        encode: Makes embeddings of images in [0, 1].
        images: Photos.
        directions: What is explained.
        shape: Rows and columns of the maps.
        steps: Points of each curve.
        draws: Random orders per photo, >= 2.
        seed: Of the orders.
        fill: What hides a cell.

    Raises:
        InputError: If there are fewer than two draws.
    """
    if draws < 2:
        raise InputError(f"draws must be >= 2 to know what luck does, got {draws}; 5 is usual.")
    photos, cells = np.arange(len(images))[:, None], np.arange(shape[0] * shape[1])
    found = []
    for draw in range(draws):
        numbers = rng.mix("explain", seed, draw, photos, cells)
        order = torch.from_numpy(np.argsort(numbers, axis=1, kind="stable"))
        found.append(_both(encode, images, directions, order, shape, steps, fill))
    return Chance(*(torch.stack(part) for part in zip(*found)))


def measure_faithfulness(
    encode: Encode,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    maps: Float[Tensor, "B h w"],
    *,
    chance: Chance | None = None,
    steps: int = 8,
    draws: int = 5,
    seed: int = 0,
    fill: Fill = "blur",
) -> Faithfulness:
    """Compare a map's order of cells with random orders.

    Args:
        encode: Makes embeddings of images in [0, 1], such as ``encoder.encode``.
        images: Photos.
        directions: What the maps explain: ``embedding · direction`` of each photo.
        maps: Higher cells are said to speak more for the direction; signed maps too.
        chance: From :func:`draw_chance` with the same settings; else it is drawn here.
        steps: Points of each curve.
        draws: Random orders per photo, >= 2.
        seed: Of the random orders.
        fill: What hides a cell.

    Raises:
        InputError: If a map is not finite, or there are fewer than two draws.

    Source:
        Petsiuk et al. 2018, arXiv:1806.07421 (RISE): deletion and insertion.
    """
    if not bool(torch.isfinite(maps).all()):
        raise InputError("a map holds NaN or infinity; check the encoder's weights.")
    shape = (maps.shape[1], maps.shape[2])
    images, directions = images.cpu(), directions.cpu()
    if chance is None:
        chance = draw_chance(
            encode, images, directions, shape, steps=steps, draws=draws, seed=seed, fill=fill
        )
    order = maps.flatten(1).cpu().argsort(dim=1, descending=True, stable=True)
    deletion, insertion = _both(encode, images, directions, order, shape, steps, fill)
    lost, found = chance
    gains = _area(lost).mean(0) - _area(deletion), _area(insertion) - _area(found).mean(0)
    per_photo = (gains[0] + gains[1]) / 2
    single = (_area(found) - _area(lost)) / 2
    luck = float(single.std(0, correction=1).pow(2).mean().sqrt())

    def mean(x: Tensor) -> list[float]:
        return [round(float(value), 6) for value in x.mean(0)]

    return Faithfulness(
        float(per_photo.mean()),
        float(gains[0].mean()),
        float(gains[1].mean()),
        luck,
        {
            "deletion": mean(deletion),
            "insertion": mean(insertion),
            "random_deletion": mean(lost.mean(0)),
            "random_insertion": mean(found.mean(0)),
        },
        per_photo.numpy(),
    )


def _both(
    encode: Encode,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    order: Int[Tensor, "B T"],
    shape: tuple[int, int],
    steps: int,
    fill: Fill,
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"]]:
    """Deletion and insertion in one order."""
    deletion, insertion = (
        curve(encode, images, directions, order, shape, insert=insert, steps=steps, fill=fill)
        for insert in (False, True)
    )
    return deletion.double(), insertion.double()


def _area(curves: Float[Tensor, "*B S"]) -> Float[Tensor, "*B"]:
    """Mean height of curves by the trapezium rule, on [0, 1]."""
    return torch.trapezoid(curves, dim=-1) / (curves.shape[-1] - 1)
