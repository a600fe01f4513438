"""How sure a head may be: a temperature, and sets that hold the truth as often as they say."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from fieldmark.errors import InputError

Scores = Float[np.ndarray, "N C"]
Chances = Float[np.ndarray, "N C"]

_RANGE = (-6.0, 6.0)
"""Of the temperature's logarithm."""
LEAST_HELD_OUT = 20
"""Held-out photos from which on a temperature is fitted and sets are made."""


def fit_temperature(scores: Scores, labels: Int[np.ndarray, " N"]) -> float:
    """The temperature under which held-out labels are most likely.

    Args:
        scores: Of photos that the head has not seen.
        labels: Their classes.

    Raises:
        InputError: If there is no photo.

    Source:
        Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599, section 4.2.
    """
    if not len(labels):
        raise InputError("a temperature needs held-out photos; label at least two of some class.")
    # Below each photo's best, so that no exponential overflows; in place, for it is done thirty times.
    below = scores - scores.max(axis=1, keepdims=True).astype(np.float64)
    own = below[np.arange(len(labels)), labels]
    room = np.empty_like(below)

    def loss(log_temperature: float) -> float:
        sharpness = np.exp(-log_temperature)
        np.exp(np.multiply(below, sharpness, out=room), out=room)
        return float((np.log(room.sum(axis=1)) - sharpness * own).mean())

    return float(np.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded").x))


def chances(scores: Scores, temperature: float) -> Chances:
    """Probability of each class."""
    return softmax(scores.astype(np.float64) / temperature, axis=1)


class Sets(NamedTuple):
    """Conformal prediction sets: the classes that a photo may be of.

    The true class is in the set of a new photo with the stated chance, if new photos are drawn like the
    labelled ones; nothing is assumed of the head. It holds over all photos together, not for each
    class, and not for photos of classes that no label names.
    """

    coverage: float
    """Stated share, in (0, 1)."""
    least: float
    """Probability from which on a class is in the set."""

    def members(self, probabilities: Chances) -> Bool[np.ndarray, "N C"]:
        """Which classes are in each photo's set; the most likely always is."""
        inside = probabilities >= self.least
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside


def fit_sets(probabilities: Chances, labels: Int[np.ndarray, " N"], coverage: float = 0.9) -> Sets:
    """Sets that cover as stated, from held-out photos.

    Sets of all classes above one probability are the shortest that cover as much; on birds they held
    half as many classes as the adaptive sets of arXiv:2009.14193, which covered too much.

    Args:
        probabilities: Of photos that the head has not seen.
        labels: Their classes.
        coverage: Share of new photos whose true class shall be in their set, in (0, 1).

    Raises:
        InputError: If the share is out of range or there are too few photos for it.

    Source:
        Sadinle, Lei and Wasserman 2019, arXiv:1609.00451; held-out scores from cross-validation:
        Vovk 2015, arXiv:1208.0806.
    """
    if not 0 < coverage < 1:
        raise InputError(
            f"coverage must lie between 0 and 1, got {coverage:g}; as 0.9 for nine photos of ten."
        )
    needed = max(photos_for(coverage), LEAST_HELD_OUT)
    if len(labels) < needed:
        raise InputError(
            f"sets that hold the truth in {coverage:.0%} of photos need {needed} labelled photos that "
            f"can be held out, got {len(labels)}; label more, or state less."
        )
    strange = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    return Sets(coverage, float(1 - strange[int(np.ceil((len(labels) + 1) * coverage)) - 1]))


def photos_for(coverage: float) -> int:
    """Held-out photos below which no set but that of all classes covers as stated.

    Example:
        >>> photos_for(0.9)
        9
    """
    return int(np.ceil(round(coverage / (1 - coverage), 9)))
