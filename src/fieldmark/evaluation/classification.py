"""How well a classifier tells classes apart: shares of photos, means over classes, confusions."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark.errors import InputError
from fieldmark.evaluation.retrieval import percent

LABELS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "recall": "macro recall (mean accuracy of a class)",
    "precision": "macro precision",
    "f1": "macro F1",
    "f1_paper": "F1 of the MSAM paper (harmonic mean of top-1 and macro recall)",
}
"""What each measure is, in words for tables."""


class Classification(NamedTuple):
    """What a classifier reaches on test photos."""

    measures: dict[str, float]
    """Percent, by the keys of ``LABELS``; NaN without test photos."""
    confusion: Int[np.ndarray, "C C"]
    """Test photos by true class (line) and predicted class (column), int64."""


def measure_classification(
    logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]
) -> Classification:
    """Measure a classifier from its logits.

    Means over classes are over the classes that have test photos; a class that is never predicted
    has precision 0, and F1 0. Of equal logits the smaller class counts first.

    Args:
        logits: Score of each class for each test photo; only their order matters.
        labels: True classes, 0 to C - 1.

    Returns:
        ``f1`` is the mean of the F1 of each class. ``f1_paper`` is what Lin et al. 2025 (MSAM-CL)
        call F1: the harmonic mean of top-1 accuracy and macro recall, which is not an F1.

    Raises:
        InputError: If a label is out of range, or a logit is not finite.

    Example:
        >>> found = measure_classification(np.eye(3), np.array([0, 1, 1]))
        >>> found.confusion.tolist()
        [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
        >>> round(found.measures["recall"], 2)
        75.0
    """
    _check(logits, labels)
    count, classes = logits.shape
    own = logits[np.arange(count), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    rank = (logits > own).sum(1) + ((logits == own) & earlier).sum(1)
    confusion = confusion_matrix(
        labels, logits.argmax(1) if count else np.zeros(0, np.int64), classes
    )
    right = np.diag(confusion).astype(np.float64)
    asked, said = confusion.sum(1), confusion.sum(0)
    there = asked > 0
    top1, recall = percent((rank < 1) * 1.0), percent(right[there] / asked[there])
    measures = {
        "top1": top1,
        "top5": percent((rank < 5) * 1.0),
        "recall": recall,
        "precision": percent(right[there] / np.maximum(said[there], 1)),
        # 2 P R / (P + R) with P = right / said and R = right / asked.
        "f1": percent(2 * right[there] / (asked + said)[there]),
        "f1_paper": _harmonic(top1, recall),
    }
    return Classification(measures, confusion)


def confusion_matrix(
    labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "C C"]:
    """Count photos by true class (line) and predicted class (column).

    Args:
        labels: True classes, 0 to ``classes - 1``.
        predicted: Predicted classes, 0 to ``classes - 1``.
        classes: Number of classes.
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confusion_table(confusion: Int[np.ndarray, "C C"], classes: Sequence[str]) -> str:
    """A confusion matrix as CSV: true classes down, predicted classes across."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true class", *classes])
    for name, row in zip(classes, confusion.tolist(), strict=True):
        writer.writerow([name, *row])
    return text.getvalue()


def _harmonic(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second > 0 else first


def _check(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> None:
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(1))[0])
        raise InputError(
            f"the logits of photo {row} are not finite; the classifier is broken (was its learning "
            "rate too high?)."
        )
    classes = logits.shape[1]
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}; with {classes} classes they must run "
            f"from 0 to {classes - 1}."
        )
