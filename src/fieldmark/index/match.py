"""Where in other photos is this part? Templates of cells, laid over grids of cells.

A region of the query becomes a small grid of cells, each the average of the photo's cells that lie
under it, weighted by how much of them does. It is laid on every place of every other grid, and its
mirror image too. The score is the mean of two cosines: of cells with the region's cells that they
lie under, and with the region's mean.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8

from fieldmark.errors import InputError

STEPS = 127
"""Cells are kept as whole numbers from -127 to 127, of unit vectors."""
ARRANGED = 0.5
"""Share of a template's cell that is its own; the rest is the mean of the region, which stands
everywhere. 1 insists on the arrangement inside the region, 0 knows nothing of it."""
SHORTLIST = 4096
"""Photos that are looked at closely; of more, those whose places are most like the region's mean."""

Grids = Int8[np.ndarray, "N h w D"]
Boxes = Float[np.ndarray, "N 4"]


class Region(NamedTuple):
    """A box as fractions of a photo's width and height, from its upper left corner."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Read ``x0,y0,x1,y1``.

        Raises:
            InputError: If it is no such box inside the photo.
        """
        words = [word for word in re.split(r"[,\s]+", text.strip()) if word]
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != 4:
            raise InputError(
                f"the region {text!r} is no box; give four numbers x0,y0,x1,y1, fractions of the photo's "
                "width and height from its upper left corner, such as 0.4,0.1,0.6,0.3."
            )
        region = cls(*numbers)
        if not all(0 <= number <= 1 for number in numbers):
            pixels = " Pixels are divided by width and height." if max(numbers) > 1 else ""
            raise InputError(
                f"the region {text!r} leaves the photo; x0,y0,x1,y1 are fractions of its width and height, "
                f"each from 0 to 1.{pixels}"
            )
        if region.x0 >= region.x1 or region.y0 >= region.y1:
            raise InputError(
                f"the region {text!r} is empty; x0 must be less than x1 (got {region.x0:g} and "
                f"{region.x1:g}) and y0 less than y1 (got {region.y0:g} and {region.y1:g})."
            )
        return region


class Template(NamedTuple):
    """A region, as it is laid over grids."""

    cells: Float[np.ndarray, "r c D"]
    """Unit vectors."""
    extent: tuple[float, float]
    """Height and width of the region in cells of its own photo, fractions too."""


class Place(NamedTuple):
    """The best place of one photo."""

    key: str
    score: float
    """In [-1, 1]; comparable within one search only."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1 as fractions of the photo."""


def cut_template(cells: Float[np.ndarray, "h w D"], region: Region) -> Template:
    """The cells under a region, as many as fit.

    Args:
        cells: Of the query.
        region: In the query.
    """
    height, width = cells.shape[:2]
    extent = ((region.y1 - region.y0) * height, (region.x1 - region.x0) * width)
    rows, columns = (max(1, round(length)) for length in extent)
    down = _overlap(float(region.y0) * height, float(region.y1) * height, rows, height)
    across = _overlap(float(region.x0) * width, float(region.x1) * width, columns, width)
    found = np.einsum("ih,jw,hwd->ijd", down, across, cells.astype(np.float64))
    return Template(_unit(found).astype(np.float32), extent)


def _overlap(start: float, end: float, pieces: int, cells: int) -> Float[np.ndarray, "p n"]:
    """Share of each piece of a stretch that lies in each cell; rows sum to 1."""
    edges = np.linspace(start, end, pieces + 1)[:, None]
    marks = np.arange(cells + 1)[None]
    inside = np.minimum(edges[1:], marks[:, 1:]) - np.maximum(edges[:-1], marks[:, :-1])
    share = np.clip(inside, 0, None)
    return share / share.sum(axis=1, keepdims=True)


def _unit(x: Float[np.ndarray, "*N D"]) -> Float[np.ndarray, "*N D"]:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _blended(template: Template, shape: tuple[int, int]) -> Float[np.ndarray, "m r c D"]:
    """The template and its mirror image, no larger than a grid."""
    cells = template.cells.astype(np.float64)
    size = tuple(min(length, most) for length, most in zip(cells.shape[:2], shape, strict=True))
    if size != cells.shape[:2]:
        down, across = (
            _overlap(0.0, float(length), pieces, length)
            for length, pieces in zip(cells.shape[:2], size, strict=True)
        )
        cells = _unit(np.einsum("ih,jw,hwd->ijd", down, across, cells))
    mixed = ARRANGED * cells + (1 - ARRANGED) * _mean(template)
    return np.stack([mixed, mixed[:, ::-1]]).astype(np.float32)


def _mean(template: Template) -> Float[np.ndarray, " D"]:
    return _unit(template.cells.astype(np.float64).mean(axis=(0, 1)))


def glance(grids: Grids, template: Template) -> Float[np.ndarray, " N"]:
    """Best score of each photo as far as the region's mean tells, whatever its arrangement."""
    mean = (_mean(template) / STEPS).astype(np.float32)
    likeness = grids.astype(np.float32) @ mean
    rows, columns = (min(a, b) for a, b in zip(template.cells.shape[:2], likeness.shape[1:]))
    summed = np.pad(likeness.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))
    summed = summed[:, rows:] - summed[:, :-rows]
    summed = np.pad(summed.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    summed = summed[:, :, columns:] - summed[:, :, :-columns]
    return summed.max(axis=(1, 2)) / (rows * columns)


def lay(
    grids: Grids, template: Template
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N 4"]]:
    """Best place of each photo.

    Args:
        grids: Of photos of one shape.
        template: What is looked for.

    Returns:
        Score, in [-1, 1], and x0 y0 x1 y1 as fractions of the photo. The box is as large as
        the region was in its own photo, in cells, and lies inside the photo.
    """
    count, height, width, dim = grids.shape
    looks = _blended(template, (height, width))
    rows, columns = looks.shape[1:3]
    across, down = width - columns + 1, height - rows + 1
    flat = grids.reshape(-1, dim).astype(np.float32)
    best = np.full(count, -np.inf, np.float32)
    corner = np.zeros((count, 2))
    for look in looks if rows * columns > 1 else looks[:1]:
        shares = flat @ (look.reshape(-1, dim).T / (STEPS * rows * columns))
        shares = shares.reshape(count, height, width, rows * columns)
        scores = np.zeros((count, down, across), np.float32)
        for index in range(rows * columns):
            y, x = divmod(index, columns)
            scores += shares[:, y : y + down, x : x + across, index]
        found = scores.reshape(count, -1)
        at = found.argmax(axis=1)
        top = found[np.arange(count), at]
        better = top > best
        corner[better] = _between(scores[better], at[better])
        best = np.where(better, top, best)
    middle = np.add(corner, [columns / 2, rows / 2]) / [width, height]
    size = np.minimum([template.extent[1] / width, template.extent[0] / height], 1)
    first = np.clip(middle - size / 2, 0, 1 - size)
    return best, np.concatenate([first, first + size], axis=1)


def _between(
    scores: Float[np.ndarray, "N y x"], at: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "N 2"]:
    """Column and row of the best scores, between cells: where a parabola through the neighbours peaks."""
    down, across = scores.shape[1:]
    rows = np.arange(len(scores))
    y, x = at // across, at % across
    shifts = []
    for place, length, beside in (
        (x, across, lambda step: scores[rows, y, np.clip(x + step, 0, across - 1)]),
        (y, down, lambda step: scores[rows, np.clip(y + step, 0, down - 1), x]),
    ):
        before, top, after = (beside(step).astype(np.float64) for step in (-1, 0, 1))
        bend = 2 * top - before - after
        shift = np.where(bend > 1e-9, (after - before) / 2 / np.maximum(bend, 1e-9), 0)
        # At an edge nothing is known of one side.
        inside = (place > 0) & (place < length - 1)
        shifts.append(place + np.where(inside, np.clip(shift, -0.5, 0.5), 0))
    return np.stack(shifts, axis=1)


def find_places(
    chunks: Iterable[tuple[Sequence[str], Int8[np.ndarray, "_N _h _w D"]]],
    template: Template,
    k: int,
    *,
    shortlist: int = SHORTLIST,
) -> list[Place]:
    """The photos with the best places, best first, ties by key.

    Args:
        chunks: Keys and grids of photos; those of one chunk have one shape.
        template: What is looked for.
        k: How many.
        shortlist: Photos that are looked at closely.
    """
    kept: list[tuple[float, str, Int8[np.ndarray, "h w D"]]] = []
    total = 0
    for keys, grids in chunks:
        total += len(keys)
        seen = glance(grids, template)
        chosen = np.argsort(-seen, kind="stable")[:shortlist]
        # Copied: a view of one photo would hold its whole chunk.
        kept += [(float(seen[row]), keys[row], grids[row].copy()) for row in chosen]
        if len(kept) > 2 * shortlist:
            kept = sorted(kept, key=lambda one: (-one[0], one[1]))[:shortlist]
    kept = sorted(kept, key=lambda one: (-one[0], one[1]))[: max(shortlist, k)]
    by_shape: dict[tuple[int, ...], list[tuple[str, Int8[np.ndarray, "h w D"]]]] = {}
    for _, key, grid in kept:
        by_shape.setdefault(grid.shape, []).append((key, grid))
    places: list[Place] = []
    for entries in by_shape.values():
        for start in range(0, len(entries), 512):
            part = entries[start : start + 512]
            scores, boxes = lay(np.stack([grid for _, grid in part]), template)
            places += [
                Place(key, float(np.clip(score, -1, 1)), tuple(map(float, box)))  # type: ignore[arg-type]
                for (key, _), score, box in zip(part, scores, boxes, strict=True)
            ]
    return sorted(places, key=lambda place: (-place.score, place.key))[:k]
