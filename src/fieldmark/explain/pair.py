"""Why two photos are alike: their cosine over places and over cells, and parts found in both."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmark.explain.cells import read_cells
from fieldmark.explain.maps import toward_of
from fieldmark.explain.parts import describe, strongest, summed, without
from fieldmark.explain.sharpening import BROAD, sharpening_maps
from fieldmark.nn.spec import EncoderSpec

LEAST_ALIKE = 0.35
"""Parts less alike than this are no match."""
_CANDIDATES = 10
# Of what the most telling one does: less is what any twig does.
_LEAST_ADDED = 0.15


class Match(NamedTuple):
    """One part seen in both photos."""

    first: tuple[int, int]
    """Row and column of the part's middle in the first photo, on the grid of ``Pair.places``."""
    second: tuple[int, int]
    alike: float
    """Cosine of the embeddings of the two parts alone, -1 to 1."""
    adds: float
    """By how much the photos' cosine falls when the part is blurred in one of them; the mean of the
    one and the other."""


class Pair(NamedTuple):
    """Two photos' cosine, taken apart."""

    similarity: float
    """Cosine of the two embeddings."""
    places: Float[Tensor, "2 g g"]
    """What each place of the first photo, and of the second, brings to it, followed back to the
    pixels (:func:`sharpening_maps`): signed."""
    first: Float[Tensor, "h w"]
    """What each cell of the network's last map adds to it, of the first photo: signed. Cells see
    far beyond their own square: for places see ``places``."""
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
    fine: Float[Tensor, "2 3 S S"] | None = None,
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
        fine: The same, larger where they are: parts are compared by their close-ups.
        steps: How many times as fine as the network's own grid.
        count: Most matches.
    """
    cells = read_cells(spec, images, steps=steps)
    other = cells.embedding.flip(0)
    found = toward_of(spec, images, cells, other, steps=steps)
    between = cells.parts[0] @ cells.parts[1].T if found.exact else None
    places = sharpening_maps(spec, images, other, soft=BROAD).maps
    return Pair(
        float(found.total[0]),
        places,
        found.maps[0],
        found.maps[1],
        between,
        (float(found.rest[0]), float(found.rest[1])),
        found.exact,
        cells.pooling,
        tuple(find_matches(spec, images, places, fine=fine, count=count)),
    )


@torch.no_grad()
def find_matches(
    spec: EncoderSpec,
    images: Float[Tensor, "2 3 H W"],
    places: Float[Tensor, "2 g g"],
    *,
    fine: Float[Tensor, "2 3 S S"] | None = None,
    count: int = 5,
) -> list[Match]:
    """Parts of two photos that are each other's nearest, those that the similarity would miss most first.

    Candidates are the strongest places of both photos that speak for the similarity. They are
    ranked by how alike they are, times the square root of what both bring; parts less alike than
    ``LEAST_ALIKE`` are left out. What each does to the similarity is measured by blurring it in one
    photo and then in the other, and parts that do next to nothing beside the first are left
    out too.

    Args:
        spec: An encoder.
        images: The two photos.
        places: What each of their places brings to the similarity.
        fine: The photos, larger.
        count: Most matches.
    """
    grid = places.shape[1]
    cells = strongest(places.clamp_min(0), _CANDIDATES)
    brings = summed(places).flatten(1).gather(1, cells).clamp_min(0)
    looks = describe(spec, images if fine is None else fine, cells, grid)
    alike = looks[0] @ looks[1].T
    to, back = alike.argmax(1), alike.argmax(0)
    first = torch.nonzero(back[to] == torch.arange(len(to), device=to.device))[:, 0]
    second = to[first]
    score = alike[first, second]
    ranking = score * (brings[0, first] * brings[1, second]).sqrt()
    embeddings = spec(images)
    whole = float(embeddings[0] @ embeddings[1])
    chosen: list[Match] = []
    for index in ranking.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count or ranking[index] <= 0:
            break
        if score[index] < LEAST_ALIKE:
            continue
        at = torch.stack([cells[0, first[index]], cells[1, second[index]]])
        found = spec(without(images, at, grid))
        falls = whole - float((found * embeddings.flip(0)).sum()) / 2
        if falls > 0:
            i, j = (divmod(int(cell), grid) for cell in at)
            chosen.append(Match(i, j, float(score[index]), falls))
    most = max((match.adds for match in chosen), default=0.0)
    kept = [match for match in chosen if match.adds >= _LEAST_ADDED * most]
    return sorted(kept, key=lambda match: -match.adds)
