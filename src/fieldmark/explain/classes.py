"""What separates two classes: a direction, the places that speak for it, the marks seen in both."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from fieldmark.errors import InputError
from fieldmark.explain.cells import directions_of, read_cells
from fieldmark.explain.maps import toward_of
from fieldmark.explain.pair import apart, near
from fieldmark.nn.losses import normalize
from fieldmark.nn.spec import EncoderSpec

_BATCH = 16
_CANDIDATES = 3
# Of the strongest mark: weaker ones are what is left over, not marks.
_LEAST_STRENGTH = 0.3


class Decision(NamedTuple):
    """A line between two classes: positive speaks for the first."""

    direction: Float[Tensor, " E"]
    """Scaled so that the two classes' means lie at +1 and -1."""
    offset: float
    """Subtracted from ``embedding · direction``."""


class Mark(NamedTuple):
    """One part of the animal that looks different in the two classes."""

    strength: float
    """Mean over both classes of what the part adds for its own class; the classes' means lie 2
    apart, and one part is about a tenth of the photo's width across."""
    consistent: float
    """Share of photos where the part speaks for the right class, 0 to 1."""
    rows: Int[Tensor, " N"]
    """Row of the part in each photo."""
    columns: Int[Tensor, " N"]
    alike: Float[Tensor, " N"]
    """How surely it is the same part: cosine of the cell's feature with the mark's, with what
    separates the classes taken out."""
    adds: Float[Tensor, " N"]
    """What it adds for the photo's own class."""


class ClassPair(NamedTuple):
    """Two classes of photos, told apart."""

    first: Bool[Tensor, " N"]
    """Whether each photo is of the first class."""
    decision: Decision
    """Fitted on all photos."""
    held_out: Float[Tensor, " N"]
    """Decision on each photo by a direction fitted without it; positive: the first class."""
    directions: Float[Tensor, "N E"]
    """Those directions, signed so that positive speaks for the photo's own class."""
    maps: Float[Tensor, "N h w"]
    """What each cell adds for the photo's own class, by the direction fitted without the photo."""
    marks: tuple[Mark, ...]
    """Strongest first."""
    exact: bool
    shape: tuple[int, int]

    @property
    def right(self) -> float:
        """Share of photos on the right side of a line fitted without them."""
        return float(((self.held_out > 0) == self.first).double().mean())


def fit_decision(embeddings: Float[Tensor, "N E"], first: Bool[Tensor, " N"]) -> Decision:
    """Regularised linear discriminant between two classes.

    ``w = ((1 - a) S + a v I)^-1 (mean_1 - mean_2)`` with S the covariance within classes, v its mean
    variance and a chosen by Ledoit and Wolf's formula; solved in the space that the photos span.

    Args:
        embeddings: L2-normalised.
        first: Which are of the first class; each class needs a photo.

    Raises:
        InputError: If one class has no photo, or the classes' means are the same.

    Source:
        Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
        matrices".
    """
    if not bool(first.any()) or bool(first.all()):
        raise InputError(
            f"a line between two classes needs photos of both, got {int(first.sum())} and "
            f"{int((~first).sum())}; add photos."
        )
    x = embeddings.detach().cpu().double()
    first = first.cpu()
    means = x[first].mean(0), x[~first].mean(0)
    within = x - torch.where(first[:, None], means[0], means[1])
    gap = means[0] - means[1]
    count, dim = within.shape
    variance = float(within.pow(2).mean())
    if float(gap.norm()) < 1e-9:
        raise InputError(
            "the two classes have the same mean embedding, so nothing separates them; check that "
            "they do not hold the same photos."
        )
    mixed = 1.0
    if variance > 1e-12 and dim > 1:
        mixed = float(ledoit_wolf_shrinkage(within.numpy(), assume_centered=True))
    ridge = max(mixed * variance, 1e-9)
    kept = (1 - mixed) / count
    # Woodbury: photos are fewer than numbers, so the small system is the one between photos.
    inner = within @ within.T * (kept / ridge) + torch.eye(count, dtype=x.dtype)
    w = (gap - within.T @ torch.linalg.solve(inner, within @ gap) * (kept / ridge)) / ridge
    w = w * (2 / (w @ gap))
    offset = float(w @ (means[0] + means[1]) / 2)
    return Decision(w.to(embeddings), offset)


def explain_classes(
    spec: EncoderSpec,
    images: Float[Tensor, "N 3 H W"],
    first: Bool[Tensor, " N"],
    *,
    steps: int = 1,
    folds: int = 5,
    count: int = 4,
) -> ClassPair:
    """Find what an encoder tells two classes apart by.

    Args:
        spec: An encoder.
        images: Photos of both classes, in [0, 1], of its size.
        first: Which are of the first class.
        steps: How many times as fine as the network's own grid.
        folds: Every photo's own map comes from a direction that was fitted without its fold.
        count: Most marks.

    Raises:
        InputError: If a class has fewer than two photos.
    """
    sizes = int(first.sum()), int((~first).sum())
    if min(sizes) < 2:
        raise InputError(
            f"each class needs at least 2 photos, got {sizes[0]} and {sizes[1]}: with one, what is "
            "the class's own and what is the photo's cannot be told apart. Add photos; 10 of each "
            "are a good start."
        )
    batches = [slice(start, start + _BATCH) for start in range(0, len(images), _BATCH)]
    embedding = torch.cat([read_cells(spec, images[part]).embedding for part in batches])
    sign = torch.where(first, 1.0, -1.0).to(embedding)
    directions, held_out = _held_out(embedding, first, min(folds, *sizes))
    directions = directions * sign[:, None]
    tokens, maps, shape, exact = [], [], (1, 1), True
    for part in batches:
        cells = read_cells(spec, images[part], steps=steps)
        shape, exact = cells.shape, cells.exact
        tokens.append(cells.tokens)
        maps.append(toward_of(spec, images[part], cells, directions[part], steps=steps).maps)
    own = torch.cat(maps)
    marks = find_marks(directions_of(spec, torch.cat(tokens)), own, first, shape, count=count)
    decision = fit_decision(embedding, first)
    return ClassPair(first, decision, held_out, directions, own, marks, exact, shape)


def _held_out(
    embedding: Float[Tensor, "N E"], first: Bool[Tensor, " N"], folds: int
) -> tuple[Float[Tensor, "N E"], Float[Tensor, " N"]]:
    """For each photo a direction fitted without its fold, and the decision it makes."""
    fold = torch.empty(len(first), dtype=torch.long)
    for side in (first, ~first):
        rows = torch.nonzero(side)[:, 0]
        fold[rows] = torch.arange(len(rows)) % folds
    directions = torch.empty_like(embedding)
    decisions = embedding.new_empty(len(embedding))
    for number in range(folds):
        test = fold == number
        fitted = fit_decision(embedding[~test], first[~test])
        directions[test] = fitted.direction
        decisions[test] = embedding[test] @ fitted.direction - fitted.offset
    return directions, decisions


def find_marks(
    looks: Float[Tensor, "N T D"],
    maps: Float[Tensor, "N h w"],
    first: Bool[Tensor, " N"],
    shape: tuple[int, int],
    *,
    count: int = 4,
) -> tuple[Mark, ...]:
    """Parts that look different in two classes, each found in every photo.

    The strongest cells of each photo are candidates. A candidate is looked for in all photos by its
    feature, less the direction in which the classes' strongest cells differ, so that the same part
    of the other class is found although it looks different. A mark counts by what its part adds
    where it is found, averaged over each class and then over both, times the share of photos in
    which it speaks for the right class beyond one half; the next mark must lie elsewhere in most
    photos.

    Args:
        looks: Unit vectors of the cells.
        maps: What each cell adds for the photo's own class.
        first: Which photos are of the first class.
        shape: Rows and columns of the cells.
        count: Most marks.
    """
    radius = apart(shape)
    smooth = _summed(maps, max(0, (radius - 1) // 2))
    flat = smooth.flatten(1)
    plain = normalize(_without_difference(looks, flat, first).flatten(0, 1)).view_as(looks)
    places = _strongest(flat, shape, radius)
    photos = torch.arange(len(looks)).repeat_interleave(places.shape[1])
    queries = plain[photos, places.flatten()]
    alike, at = torch.einsum("qd,ntd->qnt", queries, plain).max(2)
    adds = flat.gather(1, at.T).T
    sides = [adds[:, side].mean(1) for side in (first, ~first)]
    strength = (sides[0] + sides[1]) / 2
    consistent = (
        (adds[:, first] > 0).double().mean(1) + (adds[:, ~first] > 0).double().mean(1)
    ) / 2
    ranking = strength * (2 * consistent.to(strength) - 1).clamp_min(0)
    rows, columns = at // shape[1], at % shape[1]
    chosen: list[int] = []
    for index in ranking.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count or ranking[index] <= 0:
            break
        if chosen and strength[index] < _LEAST_STRENGTH * strength[chosen[0]]:
            continue
        far = [
            torch.maximum(
                (rows[index] - rows[other]).abs(), (columns[index] - columns[other]).abs()
            )
            >= 2 * radius
            for other in chosen
        ]
        if all(bool(one.double().mean() >= 0.5) for one in far):
            chosen.append(index)
    return tuple(
        Mark(float(strength[i]), float(consistent[i]), rows[i], columns[i], alike[i], adds[i])
        for i in chosen
    )


def _summed(maps: Float[Tensor, "N h w"], radius: int) -> Float[Tensor, "N h w"]:
    """Each cell with those around it, added up."""
    side = 2 * radius + 1
    return torch.nn.functional.avg_pool2d(maps[:, None], side, 1, radius)[:, 0] * side**2


def _without_difference(
    looks: Float[Tensor, "N T D"], flat: Float[Tensor, "N T"], first: Bool[Tensor, " N"]
) -> Float[Tensor, "N T D"]:
    """Features less the direction in which what speaks for the one class differs from the other."""
    weights = flat.clamp_min(0)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    means = torch.einsum("nt,ntd->nd", weights, looks)
    away = normalize((means[first].mean(0) - means[~first].mean(0))[None])[0]
    return looks - (looks @ away)[..., None] * away


def _strongest(
    flat: Float[Tensor, "N T"], shape: tuple[int, int], radius: int
) -> Int[Tensor, "N K"]:
    """The few highest cells of each photo that keep apart."""
    left = flat.clone()
    found = []
    for _ in range(min(_CANDIDATES, max(1, math.prod(shape) // (2 * radius) ** 2))):
        best = left.argmax(1)
        found.append(best)
        for photo, place in enumerate(best.tolist()):
            around = near(divmod(place, shape[1]), shape, radius)
            left[photo, around] = -torch.inf
    return torch.stack(found, 1)
