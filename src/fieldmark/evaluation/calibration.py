"""Does a classifier know how sure it may be? Expected calibration error."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark.errors import InputError

_ROWS = 8_192
"""Photos whose probabilities are held at a time."""


class Calibration(NamedTuple):
    """How far confidence and accuracy are apart."""

    ece: float
    """Expected calibration error, percent."""
    confidence: Float[np.ndarray, " B"]
    """Mean confidence in each bin; NaN where no photo fell."""
    accuracy: Float[np.ndarray, " B"]
    """Share of right answers in each bin; NaN where no photo fell."""
    photos: Int[np.ndarray, " B"]
    """Photos in each bin."""


def measure_calibration(
    logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], *, bins: int = 15
) -> Calibration:
    """Expected calibration error of softmax probabilities.

    Photos are sorted into ``bins`` equally wide bins of the largest probability; the error is the mean
    over photos of how far their bin's accuracy and mean confidence are apart.

    Args:
        logits: Score of each class for each test photo.
        labels: True classes, 0 to C - 1.
        bins: >= 1.

    Raises:
        InputError: If there is no photo, a logit is not finite or ``bins`` is not positive.

    Source:
        Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599, Eq. 5, with 15 bins (L1).
    """
    if bins < 1 or not len(logits) or not np.isfinite(logits).all():
        raise InputError(
            f"calibration needs at least one bin, one photo and finite logits, got {bins} bins and "
            f"{len(logits)} photos."
        )
    sure = np.empty(len(logits))
    for first in range(0, len(logits), _ROWS):  # float64 of everything would be large
        part = np.asarray(logits[first : first + _ROWS], np.float64)
        largest = part.max(axis=1, keepdims=True)
        sure[first : first + _ROWS] = 1 / np.exp(part - largest).sum(axis=1)
    right = (logits.argmax(axis=1) == labels).astype(np.float64)
    # A bin holds its upper end.
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    photos = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, sure, bins) / photos
        accuracy = np.bincount(place, right, bins) / photos
    apart = np.nansum(np.abs(accuracy - confidence) * photos) / len(sure)
    return Calibration(float(100 * apart), confidence, accuracy, photos)
