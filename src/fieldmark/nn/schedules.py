"""Schedules: pure functions of how much of the run is done (docs/design.md, rule 3)."""

import math
from collections.abc import Sequence


def cosine(start: float, end: float, fraction: float) -> float:
    """Half a cosine from ``start`` at 0 to ``end`` at 1.

    Args:
        start: Value at fraction 0.
        end: Value at fraction 1.
        fraction: Share done; clipped to [0, 1].

    Source:
        Loshchilov and Hutter 2017, arXiv:1608.03983, Eq. 5, without restarts.

    Example:
        >>> cosine(1.0, 0.0, 0.5)
        0.5
    """
    fraction = min(1.0, max(0.0, fraction))
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * fraction))


def linear(start: float, end: float, fraction: float) -> float:
    """A straight line from ``start`` at 0 to ``end`` at 1; ``fraction`` is clipped to [0, 1]."""
    fraction = min(1.0, max(0.0, fraction))
    return start + (end - start) * fraction


def steps(value: float, milestones: Sequence[float], factor: float, epoch: float) -> float:
    """Multiply by ``factor`` at each milestone that has been reached.

    Args:
        value: Value before the first milestone.
        milestones: Epochs, in any order.
        factor: Usually 0.1.
        epoch: Epochs done, with fraction.

    Example:
        >>> round(steps(1.0, [60, 80], 0.1, 60.0), 3)
        0.1
    """
    return value * factor ** sum(epoch >= milestone for milestone in milestones)


def warm_up(value: float, epoch: float, warmup_epochs: float) -> float:
    """Scale linearly from 0 while ``epoch`` is below ``warmup_epochs`` (Goyal et al. 2017)."""
    return value * min(1.0, epoch / warmup_epochs) if warmup_epochs > 0 else value
