"""Why two photos are alike: their cosine taken apart over cells, and parts found in both."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmark.explain.cells import Cells, directions_of, read_cells
from fieldmark.explain.maps import toward_of
from fieldmark.nn.spec import EncoderSpec

LEAST_ALIKE = 0.35
"""Cells less alike than this are no match: pairs drawn by chance get there."""


class Match(NamedTuple):
    """One part seen in both photos."""

    first: tuple[int, int]
    """Row and column of the cell in the first photo."""
    second: tuple[int, int]
    alike: float
    """Cosine of the two cells' features, -1 to 1."""
    adds: float
    """What the surroundings of the two cells, taken together, add to the photos' cosine; 0 where
    that cannot be told."""


class Pair(NamedTuple):
    """Two photos' cosine, taken apart."""

    similarity: float
    """Cosine of the two embeddings."""
    first: Float[Tensor, "h w"]
    """What each cell of the first photo adds to it: signed."""
    second: Float[Tensor, "h w"]
    between: Float[Tensor, "T T"] | None
    """What each cell of the first adds together with each of the second; None where the pooling
    cannot be taken apart. It sums to ``similarity`` less what ``rest`` says."""
    rest: tuple[float, float]
    """What no cell of the first, and none of the second, adds."""
    exact: bool
    pooling: str
    """How the cells are joined, in words."""
    matches: tuple[Match, ...]
    """Strongest first."""


def explain_pair(
    spec: EncoderSpec,
    images: Float[Tensor, "2 3 H W"],
    *,
    steps: int = 1,
    count: int = 5,
) -> Pair:
    """Take the similarity of two photos apart.

    ``cos(a, b) = sum over i, j of part_i(a) · part_j(b)``: the parts of :func:`read_cells` sum to
    the embeddings, so their products sum to the cosine, exactly where the pooling is a sum over
    cells and ``steps`` is 1.

    Args:
        spec: An encoder.
        images: The two photos, in [0, 1], of its size.
        steps: How many times as fine as the network's own grid.
        count: Most matches.
    """
    cells = read_cells(spec, images, steps=steps)
    other = cells.embedding.flip(0)
    found = toward_of(spec, images, cells, other, steps=steps)
    between = cells.parts[0] @ cells.parts[1].T if found.exact else None
    return Pair(
        float(found.total[0]),
        found.maps[0],
        found.maps[1],
        between,
        (float(found.rest[0]), float(found.rest[1])),
        found.exact,
        cells.pooling,
        tuple(find_matches(spec, cells, found.maps, count=count)),
    )


def find_matches(
    spec: EncoderSpec,
    cells: Cells,
    maps: Float[Tensor, "2 h w"],
    *,
    count: int = 5,
) -> list[Match]:
    """Cells of two photos that are each other's nearest, the most telling first.

    They are ranked by how alike they are, times how much both are part of what makes the photos
    alike (the square root of the product of what they add, negative counting as nothing), and
    chosen so that none overlaps another. Where nothing adds, being alike decides. Cells less alike
    than ``LEAST_ALIKE`` are left out.

    Args:
        spec: An encoder.
        cells: Of the two photos.
        maps: What each cell adds to the similarity.
        count: Most matches.
    """
    directions = directions_of(spec, cells.tokens)
    alike = directions[0] @ directions[1].T
    to, back = alike.argmax(1), alike.argmax(0)
    first = torch.nonzero(back[to] == torch.arange(len(to), device=to.device))[:, 0]
    second = to[first]
    score = alike[first, second]
    weights = maps.flatten(1).clamp_min(0)
    weight = (weights[0, first] * weights[1, second]).sqrt()
    ranking = score.clamp_min(0) * weight if bool((weight > 0).any()) else score
    joint = cells.parts[0] @ cells.parts[1].T
    radius = apart(cells.shape)
    chosen: list[Match] = []
    for index in ranking.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count:
            break
        if score[index] < LEAST_ALIKE:
            continue
        i, j = (divmod(int(x[index]), cells.shape[1]) for x in (first, second))
        free = all(far(i, one.first) >= radius and far(j, one.second) >= radius for one in chosen)
        if free:
            around = [
                near(place, cells.shape, (radius - 1) // 2 + (radius > 1)) for place in (i, j)
            ]
            adds = joint[around[0]][:, around[1]].sum() if cells.exact else joint.new_zeros(())
            chosen.append(Match(i, j, float(score[index]), float(adds)))
    return chosen


def apart(shape: tuple[int, int]) -> int:
    """Cells that chosen places keep from each other: about a fifth of the photo."""
    return max(1, round(min(shape) / 5))


def far(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Rows or columns between two cells, whichever are more."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def near(place: tuple[int, int], shape: tuple[int, int], radius: int) -> list[int]:
    """Numbers of the cells at most ``radius`` rows and columns away."""
    rows = range(max(0, place[0] - radius), min(shape[0], place[0] + radius + 1))
    columns = range(max(0, place[1] - radius), min(shape[1], place[1] + radius + 1))
    return [row * shape[1] + column for row in rows for column in columns]
