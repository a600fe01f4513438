"""Labels that are probably wrong."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Suspect(NamedTuple):
    """A photo whose label looks wrong."""

    row: int
    given: int
    """Class of its label."""
    suggested: int
    """Class that it looks like."""
    score: float
    """How much likelier the suggested class is, as the logarithm of the ratio; above 0."""


_FLOOR = 1e-9


def suspects(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]
) -> list[Suspect]:
    """Photos that a head which has not seen them takes for another class, surest first.

    Ordered by the logarithm of how much likelier the other class is. With one label of twenty made
    wrong this found more of them than the probability of the given label, and than its distance from
    the other's (results/label.json).

    Args:
        probabilities: Held-out probabilities of each labelled photo; rows of NaN are passed over.
        labels: Their classes.
    """
    rows = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    chances = np.maximum(probabilities[rows], _FLOOR)
    given = labels[rows]
    own = chances[np.arange(len(rows)), given]
    other = chances.argmax(axis=1)
    score = np.log(chances.max(axis=1) / own)
    order = np.lexsort((rows, -score))
    return [
        Suspect(int(rows[at]), int(given[at]), int(other[at]), float(score[at]))
        for at in order
        if other[at] != given[at] and score[at] > 0
    ]
