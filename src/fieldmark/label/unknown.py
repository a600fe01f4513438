"""Is a photo of any of the classes at all?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cholesky, eigh, solve_triangular

from fieldmark.errors import InputError
from fieldmark.evaluation.openset import auroc
from fieldmark.evaluation.retrieval import unit_rows
from fieldmark.label.heads import class_means
from fieldmark.rng import seed_of

Vectors = Float[np.ndarray, "N D"]
Classes = Int[np.ndarray, " N"]

_SHRINK = 0.4
"""Of both covariances towards the sphere: chosen by trial on birds200 and cub50 with 2 to 30 photos a
class. Ledoit and Wolf's share came out far too small where class means are taken off."""
WIDEST = 256
"""Numbers from which on embeddings are narrowed first."""
_ROWS = 16_384
"""Photos whose distances are held at a time."""


class Metric(NamedTuple):
    """A shrunk covariance as a map under which its ellipsoid is the unit sphere."""

    root: Float[np.ndarray, "D D"]
    share: float
    """What one photo's outer product with itself counts in the covariance."""


def _scatter(differences: Vectors) -> Float[np.ndarray, "D D"]:
    """Sum of the rows' outer products with themselves."""
    exact = differences.astype(np.float64)
    # Of one array with itself only half is computed.
    product: Float[np.ndarray, "D D"] = exact.T @ exact
    return product


def _fit_metric(scatter: Float[np.ndarray, "D D"], freedom: int) -> Metric:
    level = float(np.trace(scatter)) / max(freedom, 1)
    dim = len(scatter)
    if level <= 0 or freedom < 1:
        return Metric(np.eye(dim, dtype=np.float32), 0.0)
    share = (1 - _SHRINK) / freedom
    covariance = scatter * share
    covariance[np.diag_indices(dim)] += _SHRINK * level / dim
    root = solve_triangular(cholesky(covariance, lower=True), np.eye(dim), lower=True).T
    return Metric(np.ascontiguousarray(root, np.float32), share)


class Narrowing(NamedTuple):
    """Principal directions of wide embeddings, halfway to whitened.

    Covariances of 1,280 numbers from a few thousand photos say little: on birds200 with the start's
    plain features familiarity was worse than the largest probability, and 2 points better narrowed.
    """

    mean: Float[np.ndarray, " D"]
    directions: Float[np.ndarray, "D E"]

    def __call__(self, x: Vectors) -> Float[np.ndarray, "N E"]:
        """Unit vectors."""
        turned = (x - self.mean) @ self.directions
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)


def _fit_narrowing(x: Vectors) -> Narrowing | None:
    if x.shape[1] <= WIDEST or len(x) < 3:
        return None
    mean = x.mean(axis=0)
    kept = min(WIDEST, len(x) - 1)
    covariance = np.cov((x - mean).T)
    last = len(covariance) - 1
    values, vectors = eigh(covariance, subset_by_index=[last - kept + 1, last])
    whitened = vectors * np.maximum(values, 1e-12) ** -0.25
    return Narrowing(mean, whitened.astype(np.float32))


class Familiarity(NamedTuple):
    """How much better a photo fits its nearest class than photos at large.

    The difference of two squared Mahalanobis distances: from the mean of all, under the covariance of
    all, and from the nearest class's mean, under the covariance within classes. What makes every
    photo strange, known or not, cancels out.

    Source:
        Ren, Fort, Liu, Roy, Padhy and Lakshminarayanan 2021, arXiv:2106.09022.
    """

    within: Metric
    means: Float[np.ndarray, "K D"]
    """Of classes."""
    overall: Metric
    mean: Float[np.ndarray, " D"]
    """Of all."""
    narrowing: Narrowing | None = None

    def seen(self, embeddings: Vectors) -> Float[np.ndarray, "N E"]:
        """Embeddings as distances are taken of them."""
        x = unit_rows(embeddings, "embeddings")
        return x if self.narrowing is None else self.narrowing(x)

    def scores(self, embeddings: Vectors) -> Float[np.ndarray, " N"]:
        """Larger is more familiar; any real number."""
        x = self.seen(embeddings)
        centres = self.means @ self.within.root
        found = np.empty(len(x), np.float32)
        for first in range(0, len(x), _ROWS):
            part = x[first : first + _ROWS]
            near = _squares(part @ self.within.root, centres).min(axis=1)
            far = ((part - self.mean) @ self.overall.root).astype(np.float32)
            found[first : first + _ROWS] = np.square(far).sum(axis=1) - near
        return found


def _squares(x: Vectors, centres: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "N K"]:
    """Squared distances."""
    return np.square(x).sum(axis=1)[:, None] + np.square(centres).sum(axis=1) - 2 * x @ centres.T


def fit_familiarity(
    embeddings: Vectors, labels: Classes, *, narrowing: Narrowing | None = None
) -> Familiarity:
    """What labelled photos look like.

    Args:
        embeddings: Of the labelled photos.
        labels: Their classes, any integers.
        narrowing: Of wide embeddings; fitted on these photos by default.

    Raises:
        InputError: If there is no photo.
    """
    if not len(embeddings):
        raise InputError("what is known cannot be learnt from no photo; label some.")
    x = unit_rows(embeddings, "embeddings of labelled photos")
    narrowing = narrowing or _fit_narrowing(x)
    x = x if narrowing is None else narrowing(x)
    names, of = np.unique(labels, return_inverse=True)
    means = class_means(x, of, len(names))
    mean = x.mean(axis=0)
    inside = _scatter(x - means[of])
    # The scatter of all is that within classes and that of their means: one product of all photos does.
    counts = np.bincount(of, minlength=len(names))[:, None]
    everywhere = inside + _scatter((means - mean) * np.sqrt(counts).astype(np.float32))
    # Each class mean takes a degree of freedom with it.
    within = _fit_metric(inside, len(x) - len(names))
    return Familiarity(within, means, _fit_metric(everywhere, len(x) - 1), mean, narrowing)


def left_out_scores(
    known: Familiarity, embeddings: Vectors, labels: Classes
) -> Float[np.ndarray, " M"]:
    """Scores of the very photos that it was fitted on, each as if it had been left out.

    Exact but for the degrees of freedom and the shrinking: taking a photo out moves its class's mean
    and changes the covariance by a matrix of rank one (Sherman and Morrison). Photos that are alone in
    their class have none: left out, their class would not be known.

    Args:
        known: Fitted on these photos.
        embeddings: Of the labelled photos.
        labels: Their classes.
    """
    x = known.seen(embeddings)
    names, of = np.unique(labels, return_inverse=True)
    counts = np.bincount(of, minlength=len(names))[of].astype(np.float64)
    several = np.flatnonzero(counts > 1)
    centres = (known.means @ known.within.root).astype(np.float64)
    between = centres @ centres.T
    found = np.empty(len(several))
    for first in range(0, len(several), _ROWS):
        rows = several[first : first + _ROWS]
        at = np.arange(len(rows))
        turned = (x[rows] @ known.within.root).astype(np.float64)
        own = turned - centres[of[rows]]
        grown = counts[rows] / (counts[rows] - 1)
        weight = known.within.share * grown
        length = np.square(own).sum(axis=1)
        # Both distances to all classes are of these products, and are worked out in place: they fill
        # the memory, and time goes by the passes over it.
        products = turned @ centres.T
        along = between[of[rows]]
        along -= products
        along += (own * turned).sum(axis=1)[:, None]
        np.square(along, out=along)
        along *= (weight / (1 - weight * length))[:, None]
        products *= -2
        products += np.square(turned).sum(axis=1)[:, None]
        products += np.square(centres).sum(axis=1)
        squares = np.add(products, along, out=along)
        squares[at, of[rows]] *= grown**2
        far = np.square((x[rows] - known.mean) @ known.overall.root).sum(axis=1, dtype=np.float64)
        all_grown = len(x) / (len(x) - 1)
        far = all_grown**2 * far / (1 - known.overall.share * all_grown * far)
        found[first : first + _ROWS] = far - squares.min(axis=1)
    return found


class Rejection(NamedTuple):
    """From where on a photo is taken for unknown."""

    threshold: float
    """Familiarity below which it is."""
    lost: float
    """Stated share of photos of known classes that are rejected too, in (0, 1)."""
    auroc: float
    """Measured on classes of one's own that were held out in turn: chance that a photo of a known class
    is more familiar than one of an unknown class; NaN with too few classes."""
    caught: float
    """Share of photos of held-out classes that were rejected; NaN with too few classes."""


_TURNS = 5
"""Classes are held out a fifth at a time: with fewer left, the others would be easier to tell from."""


def fit_rejection(
    known: Familiarity,
    embeddings: Vectors,
    labels: Classes,
    *,
    lost: float = 0.05,
    seed: int = 0,
    measure: bool = True,
) -> Rejection:
    """Choose the threshold on left-out photos, and measure on left-out classes what it catches.

    Args:
        known: Fitted on these photos.
        embeddings: Of the labelled photos.
        labels: Their classes.
        lost: Share of photos of known classes that may be rejected, in (0, 1).
        seed: Of the draw of classes.
        measure: Whether to measure it, which takes most of the time.

    Raises:
        InputError: If the share is out of range or no class has two photos.
    """
    if not 0 < lost < 1:
        raise InputError(
            f"the share of known photos that may be rejected must lie between 0 and 1, got {lost:g}; as "
            "0.05."
        )
    inside = left_out_scores(known, embeddings, labels)
    if not len(inside):
        raise InputError(
            "whether a photo is unknown can only be said with a class of two photos; label more."
        )
    names = np.unique(labels)
    order = np.random.default_rng(seed_of("unknown", seed)).permutation(len(names))
    found = []
    for turn in range(_TURNS if measure and len(names) >= _TURNS else 0):
        new = np.isin(labels, names[order % _TURNS == turn])
        rest = fit_familiarity(embeddings[~new], labels[~new], narrowing=known.narrowing)
        familiar = left_out_scores(rest, embeddings[~new], labels[~new])
        if len(familiar):
            strange = rest.scores(embeddings[new])
            scores = np.concatenate([familiar, strange]).astype(np.float64)
            area = auroc(scores, np.arange(len(scores)) < len(familiar))
            found.append((area, float((strange < np.quantile(familiar, lost)).mean())))
    area, caught = np.mean(found, axis=0) if found else (np.nan, np.nan)
    return Rejection(float(np.quantile(inside, lost)), lost, float(area), float(caught))
