"""Heads: classifiers of embeddings for which a few labels are enough, and which of them to take.

All work on unit vectors and give a score for each class; probabilities are the softmax of scores over
a temperature (fieldmark.label.calibration). Which head suits is asked of the labelled photos by
cross-validation, for it depends on how many there are.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark.errors import InputError
from fieldmark.evaluation.knn import neighbour_votes
from fieldmark.evaluation.linear import Probe, logistic_probe
from fieldmark.evaluation.retrieval import unit_rows
from fieldmark.rng import seed_of

Vectors = Float[np.ndarray, "N D"]
Classes = Int[np.ndarray, " N"]
Scores = Float[np.ndarray, "N C"]
Kind = Literal["mean", "logistic", "neighbours"]

TOLERANCE, HELD_OUT_TOLERANCE = 1e-4, 1e-3
"""How closely a logistic head is fitted, and one that is only asked about held-out photos. Against 1e-7
they take a third and a quarter of the steps and moved accuracy by 0.3 points at most, either way."""
_SMOOTHING = 1e-3
"""Vote of a class that no neighbour is of."""


class HeadSpec(NamedTuple):
    """A kind of head and its one setting."""

    kind: Kind
    setting: float = 0.0
    """Of ``logistic`` the weight of the data against the penalty, of ``neighbours`` how many vote."""

    def __str__(self) -> str:
        words = {
            "mean": "nearest mean of class",
            "logistic": f"logistic regression (C = {self.setting:g})",
            "neighbours": f"{self.setting:g} nearest neighbours",
        }
        return words[self.kind]


CANDIDATES = (
    HeadSpec("mean"),
    HeadSpec("logistic", 1.0),
    HeadSpec("logistic", 10.0),
    HeadSpec("logistic", 100.0),
    HeadSpec("neighbours", 1),
    HeadSpec("neighbours", 5),
    HeadSpec("neighbours", 20),
)
"""Simplest first: of equally good ones the first is taken."""


class Neighbours(NamedTuple):
    """Labelled photos that vote."""

    memory: Float[np.ndarray, "M D"]
    labels: Int[np.ndarray, " M"]
    classes: int
    k: int

    def scores(self, embeddings: Vectors) -> Scores:
        """Logarithm of each class's share of the votes, smoothed."""
        votes = neighbour_votes(
            self.memory, self.labels, embeddings, classes=self.classes, k=self.k
        )
        shares = [part / part.sum(axis=1, keepdims=True) for part in votes]
        found = np.concatenate(shares) if shares else np.empty((0, self.classes))
        return np.log(found + _SMOOTHING).astype(np.float32)


Head = Probe | Neighbours
"""A fitted head; classes without labelled photos score lowest."""


def fit_head(
    spec: HeadSpec,
    embeddings: Vectors,
    labels: Classes,
    classes: int,
    *,
    start: Head | None = None,
    tolerance: float = TOLERANCE,
) -> Head:
    """Fit one head.

    Args:
        spec: Which.
        embeddings: Of the labelled photos; any length above 0.
        labels: Their classes, 0 to ``classes - 1``.
        classes: Number of classes; those without a photo are never predicted.
        start: A head fitted before; a logistic one of the same classes is gone on from.
        tolerance: How closely a logistic head is fitted.

    Raises:
        InputError: If there is no photo, or a number is out of range.
    """
    if spec.kind == "logistic":
        begin = start if isinstance(start, Probe) else None
        if begin is not None and begin.weight.shape != (classes, embeddings.shape[1]):
            begin = None
        return logistic_probe(
            embeddings,
            labels,
            classes=classes,
            strength=spec.setting,
            tolerance=tolerance,
            start=begin,
        )
    x = unit_rows(embeddings, "embeddings of labelled photos")
    if spec.kind == "mean":
        return _means(x, labels, classes)
    if spec.setting < 1:
        raise InputError(f"at least one neighbour must vote, got {spec.setting:g}.")
    return Neighbours(x, labels, classes, int(spec.setting))


def _means(x: Vectors, labels: Classes, classes: int) -> Probe:
    """Cosine with each class's mean, as a linear layer."""
    means = class_means(x, labels, classes)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    weight = np.divide(means, lengths, out=np.zeros_like(means), where=lengths > 0)
    seen = np.bincount(labels, minlength=classes) > 0
    return Probe(weight, np.where(seen, 0.0, -2.0).astype(np.float32))


def class_means(x: Vectors, labels: Classes, classes: int) -> Float[np.ndarray, "C D"]:
    """Mean of each class; zeros where it has no photo."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=classes)
    means = np.zeros((classes, x.shape[1]), np.float32)
    seen = np.flatnonzero(counts)
    if len(seen):
        first = np.concatenate([[0], np.cumsum(counts[seen])[:-1]])
        means[seen] = np.add.reduceat(x[order], first, axis=0) / counts[seen, None]
    return means


class Folds(NamedTuple):
    """Which labelled photos are held out together."""

    of: Int[np.ndarray, " N"]
    """Fold of each photo; -1 for those that are always learnt from."""
    number: int


def deal(labels: Classes, count: int, *, groups: np.ndarray | None = None, seed: int = 0) -> Folds:
    """Deal labelled photos into folds, each class as evenly as it goes.

    Photos of one group (a burst, an individual) are held out together, else a photo's own twin would
    tell its class. A class with one group is always learnt from: held out it could not be predicted.

    Args:
        labels: Class of each photo.
        count: Folds, >= 2.
        groups: Group of each photo; every photo is its own by default.
        seed: Of the order.

    Raises:
        InputError: With fewer than two folds.
    """
    if count < 2:
        raise InputError(f"cross-validation needs two folds or more, got {count}.")
    order = np.random.default_rng(seed_of("folds", seed)).permutation(len(labels))
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold_of_unit: dict[int, int] = {}
    classes = int(labels.max()) + 1 if len(labels) else 0
    filled = np.zeros((classes, count), np.int64)
    units_of_class: list[set[int]] = [set() for _ in range(classes)]
    for row in order:
        units_of_class[labels[row]].add(int(units[row]))
    found = np.full(len(labels), -1)
    load = np.zeros(count, np.int64)
    for row in order:
        label, unit = int(labels[row]), int(units[row])
        if unit not in fold_of_unit:
            # The fold with the fewest of this class; of those the emptiest.
            fold_of_unit[unit] = int(np.lexsort((load, filled[label]))[0])
        fold = fold_of_unit[unit]
        filled[label, fold] += 1
        load[fold] += 1
        if len(units_of_class[label]) > 1:
            found[row] = fold
    return Folds(found, count)


def held_out_scores(
    specs: Sequence[HeadSpec], embeddings: Vectors, labels: Classes, classes: int, folds: Folds
) -> list[Scores]:
    """Scores of each photo by heads that have not seen it; NaN for photos that are never held out.

    Args:
        specs: Heads; logistic ones go on from one to the next, so give them in order of strength.
        embeddings: Of the labelled photos.
        labels: Their classes.
        classes: Number of classes.
        folds: From :func:`deal`.
    """
    found = [np.full((len(labels), classes), np.nan, np.float32) for _ in specs]
    for fold in range(folds.number):
        held = folds.of == fold
        if not held.any() or held.all():
            continue
        start: Head | None = None
        for spec, scores in zip(specs, found, strict=True):
            head = fit_head(
                spec,
                embeddings[~held],
                labels[~held],
                classes,
                start=start,
                tolerance=HELD_OUT_TOLERANCE,
            )
            start = head if spec.kind == "logistic" else start
            scores[held] = head.scores(embeddings[held])
    return found


class Choice(NamedTuple):
    """What cross-validation found."""

    spec: HeadSpec
    accuracy: dict[str, float]
    """Held-out accuracy of each candidate, in [0, 1]; empty where there was nothing to hold out."""
    scores: Scores
    """Held-out scores of the chosen one; NaN for photos that were never held out."""


def choose_head(
    embeddings: Vectors,
    labels: Classes,
    classes: int,
    folds: Folds,
    candidates: tuple[HeadSpec, ...] = CANDIDATES,
) -> Choice:
    """The head that is right most often on photos that it has not seen.

    Where no class has two photos nothing can be held out, and the first candidate is taken.

    Args:
        embeddings: Of the labelled photos.
        labels: Their classes.
        classes: Number of classes.
        folds: From :func:`deal`.
        candidates: Simplest first.

    Raises:
        InputError: Without candidates.
    """
    if not candidates:
        raise InputError("no head to choose from; give at least one.")
    held = folds.of >= 0
    if not held.any():
        return Choice(candidates[0], {}, np.full((len(labels), classes), np.nan, np.float32))
    found = held_out_scores(candidates, embeddings, labels, classes, folds)
    right = [float((scores[held].argmax(axis=1) == labels[held]).mean()) for scores in found]
    best = int(np.argmax(right))
    accuracy = {str(spec): share for spec, share in zip(candidates, right, strict=True)}
    return Choice(candidates[best], accuracy, found[best])
