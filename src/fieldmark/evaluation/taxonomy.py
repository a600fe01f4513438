"""How far is a mistake? Wrong answers measured in a hierarchy of classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from fieldmark.errors import InputError


def measure_mistakes(
    labels: Int[np.ndarray, " N"],
    predicted: Int[np.ndarray, " N"],
    levels: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Wrong answers by how far they are from the truth.

    Args:
        labels: True classes.
        predicted: Predicted classes.
        levels: For each coarser level, such as genus and family, the group that each class belongs
            to. Their order does not matter: a level of more groups is the finer one.

    Returns:
        ``mistakes``: share of photos that are wrong. ``within LEVEL``: share of the wrong ones whose
        answer is at least of the true group of that level. ``severity``: mean number of steps up to
        the first level that truth and answer share, 1 for the finest level and one more than there
        are levels where they share none; of the wrong ones (0 where none is wrong). All in percent
        but severity.

    Raises:
        InputError: If a level does not name a group for every class.

    Source:
        Bertinetto et al. 2020, arXiv:1912.09393, section 3 (severity is the height of the lowest
        common ancestor).

    Example:
        >>> levels = {"genus": ["a", "a", "b"]}
        >>> measure_mistakes(np.array([0, 0, 1]), np.array([1, 2, 1]), levels)["severity"]
        1.5
    """
    highest = int(max(labels.max(initial=-1), predicted.max(initial=-1)))
    for level, groups in levels.items():
        if len(groups) <= highest:
            raise InputError(
                f"level '{level}' names groups for {len(groups)} classes; there are {highest + 1} or more."
            )
    wrong = labels != predicted
    finest_first = sorted(levels, key=lambda level: len(set(levels[level])), reverse=True)
    steps = np.full(int(wrong.sum()), len(finest_first) + 1)
    found = {"mistakes": float(100 * wrong.mean()) if len(labels) else float("nan")}
    for step, level in reversed(list(enumerate(finest_first, 1))):
        names = np.array(levels[level], dtype=object)
        same = names[labels[wrong]] == names[predicted[wrong]]
        found[f"within {level}"] = float(100 * same.mean()) if len(same) else float("nan")
        steps = np.where(same, np.minimum(steps, step), steps)
    found["severity"] = float(steps.mean()) if len(steps) else 0.0
    return found
