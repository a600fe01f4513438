"""What separates two classes: a direction, the places that speak for it, the marks seen in both."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from fieldmark.errors import InputError
from fieldmark.explain.parts import describe, losses, strongest, summed
from fieldmark.explain.sharpening import GRID, sharpening_maps
from fieldmark.nn.losses import normalize
from fieldmark.nn.spec import EncoderSpec

_BATCH = 64
_CANDIDATES = 6
_EXAMPLES = 3
# Of the strongest mark: weaker ones are what is left over, not marks.
_LEAST_STRENGTH = 0.3
_LEAST_CONSISTENT = 2 / 3


class Decision(NamedTuple):
    """A line between two classes: positive speaks for the first."""

    direction: Float[Tensor, " E"]
    """Scaled so that the two classes' means lie at +1 and -1."""
    offset: float
    """Subtracted from ``embedding · direction``."""


class Mark(NamedTuple):
    """One part of the animal that looks different in the two classes."""

    strength: float
    """Mean over both classes of what blurring the part takes from its own class; the classes' means
    lie 2 apart, so 1 brings a typical photo to the line between them."""
    consistent: float
    """Share of photos that blurring the part moves towards the other class, 0 to 1; one half is
    what chance gives."""
    rows: Int[Tensor, " N"]
    """Row of the part in each photo, on the grid of the maps."""
    columns: Int[Tensor, " N"]
    alike: Float[Tensor, " N"]
    """How surely it is the same part: cosine of the part's embedding with the mark's, with what
    separates the classes taken out."""
    adds: Float[Tensor, " N"]
    """What blurring it takes from the photo's own class."""
    examples: tuple[tuple[int, int], ...]
    """Photos of the first and of the second class, whose parts are best laid side by side: alike but
    for what separates the classes, and telling in both. Best first, no photo twice."""


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
    maps: Float[Tensor, "N g g"]
    """What each place brings for the photo's own class, by the direction fitted without the photo
    (:func:`sharpening_maps`)."""
    gained: Float[Tensor, " N"]
    """What the maps sum to, about: the decision on each photo less that on its blurred forms."""
    telling: Mark
    """The place of each photo that speaks most for its class: not always the same part."""
    marks: tuple[Mark, ...]
    """The same part in all photos; strongest first. Those that speak for the right class in fewer than
    two thirds of the photos are left out."""

    @property
    def right(self) -> float:
        """Share of photos on the right side of a line fitted without them."""
        return float(((self.held_out > 0) == self.first).double().mean())


class Part(NamedTuple):
    """The same part of all photos."""

    cells: Int[Tensor, " N"]
    """Number of its cell in each photo."""
    alike: Float[Tensor, " N"]
    """How alike it is to the part that was looked for."""
    looks: Float[Tensor, "N E"]
    """Its embedding in each photo, less what separates the classes; of length 1."""


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
    fine: Float[Tensor, "N 3 S S"] | None = None,
    folds: int = 5,
    count: int = 4,
) -> ClassPair:
    """Find what an encoder tells two classes apart by.

    Args:
        spec: An encoder.
        images: Photos of both classes, in [0, 1], of its size.
        first: Which are of the first class.
        fine: The same, larger where they are: parts are compared by their close-ups.
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
    with torch.no_grad():
        embedding = torch.cat([spec(part) for part in images.split(_BATCH)])
    sign = torch.where(first, 1.0, -1.0).to(embedding)
    directions, held_out = _held_out(embedding, first, min(folds, *sizes))
    directions = directions * sign[:, None]
    maps, gained = sharpening_maps(spec, images, directions)
    cells = strongest(maps, _CANDIDATES)
    close = images if fine is None else fine
    looks = describe(spec, close, cells, GRID)
    best = strongest(maps.clamp_min(0), 1)
    alone = describe(spec, close, best, GRID)[:, 0]
    part = Part(best[:, 0], torch.ones_like(gained), alone)
    telling = _measured(spec, images, directions, first, part)
    marks = []
    for part in find_marks(looks, cells, maps, first, count=count):
        mark = _measured(spec, images, directions, first, part)
        if mark.strength > 0 and mark.consistent >= _LEAST_CONSISTENT:
            marks.append(mark)
    marks.sort(key=lambda mark: -mark.strength * (2 * mark.consistent - 1))
    decision = fit_decision(embedding, first)
    return ClassPair(first, decision, held_out, directions, maps, gained, telling, tuple(marks))


def _measured(
    spec: EncoderSpec,
    images: Float[Tensor, "N 3 H W"],
    directions: Float[Tensor, "N E"],
    first: Bool[Tensor, " N"],
    part: Part,
) -> Mark:
    """A mark by what happens when it is blurred, photo by photo."""
    adds = losses(spec, images, directions, part.cells, GRID)
    sides = (first, ~first)
    strength = sum(float(adds[side].mean()) for side in sides) / 2
    consistent = sum(float((adds[side] > 0).double().mean()) for side in sides) / 2
    examples = _side_by_side(part.looks, adds, first)
    rows, columns = part.cells // GRID, part.cells % GRID
    return Mark(strength, consistent, rows, columns, part.alike, adds, examples)


def _side_by_side(
    looks: Float[Tensor, "N E"], adds: Float[Tensor, " N"], first: Bool[Tensor, " N"]
) -> tuple[tuple[int, int], ...]:
    rows = [torch.nonzero(side)[:, 0] for side in (first, ~first)]
    alike = (looks[rows[0]] @ looks[rows[1]].T).clamp_min(0)
    # A pair tells no more than the weaker of the two does.
    score = alike.sqrt() * torch.minimum(adds[rows[0]][:, None], adds[rows[1]][None])
    found: list[tuple[int, int]] = []
    for _ in range(min(_EXAMPLES, *score.shape)):
        one, other = divmod(int(score.argmax()), score.shape[1])
        if score[one, other] <= 0:
            break
        found.append((int(rows[0][one]), int(rows[1][other])))
        score[one] = score[:, other] = -1
    return tuple(found)


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
    looks: Float[Tensor, "N P E"],
    cells: Int[Tensor, "N P"],
    maps: Float[Tensor, "N g g"],
    first: Bool[Tensor, " N"],
    *,
    count: int = 4,
) -> list[Part]:
    """Parts that look different in two classes, each found in every photo.

    The strongest places of each photo, for its class or against it, are candidates. A candidate is
    looked for among the places of all photos by its embedding, less the direction in which the
    classes' strongest places differ, so that the same part of the other class is found although it
    looks different. It counts by what its part brings where it is found, averaged over each class
    and then over both, times the share of photos in which it speaks for the right class beyond one
    half; the next must be another place in most photos.

    Args:
        looks: Embeddings of the places.
        cells: Where they are: numbers of the maps' cells.
        maps: What each cell brings for the photo's own class.
        first: Which photos are of the first class.
        count: Most marks.

    Returns:
        Best first.
    """
    brings = summed(maps).flatten(1).gather(1, cells)
    plain = _without_difference(looks, brings, first)
    plain = normalize(plain.flatten(0, 1)).view_as(looks)
    alike, which = torch.einsum("qd,npd->qnp", plain.flatten(0, 1), plain).max(2)
    adds = brings.gather(1, which.T).T
    sides = (first, ~first)
    strength = torch.stack([adds[:, side].mean(1) for side in sides]).mean(0)
    consistent = torch.stack([(adds[:, side] > 0).to(adds).mean(1) for side in sides]).mean(0)
    ranking = strength * (2 * consistent - 1).clamp_min(0)
    chosen: list[int] = []
    for index in ranking.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count or ranking[index] <= 0:
            break
        if chosen and strength[index] < _LEAST_STRENGTH * strength[chosen[0]]:
            continue
        shared = [float((which[index] == which[one]).double().mean()) for one in chosen]
        if all(share < 0.5 for share in shared):
            chosen.append(index)
    photos = torch.arange(len(cells), device=cells.device)
    return [
        Part(cells[photos, which[one]], alike[one], plain[photos, which[one]]) for one in chosen
    ]


def _without_difference(
    looks: Float[Tensor, "N P E"], brings: Float[Tensor, "N P"], first: Bool[Tensor, " N"]
) -> Float[Tensor, "N P E"]:
    """Embeddings less the direction in which what speaks for the one class differs from the other."""
    weights = brings.clamp_min(0)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    means = torch.einsum("np,npd->nd", weights, looks)
    away = normalize((means[first].mean(0) - means[~first].mean(0))[None])[0]
    return looks - (looks @ away)[..., None] * away
