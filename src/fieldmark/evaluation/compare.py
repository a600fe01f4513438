"""Did training help? Paired bootstrap intervals and the verdict in words (docs/protocols.md)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from scipy import fft, optimize, stats

from fieldmark.errors import InputError

Outcome = Literal["helped", "hurt", "no difference shown", "not measured"]
LEVEL = 0.95
"""Share of intervals meant to contain the true gain."""
_REACH = 8.0
"""Standard deviations on both sides of the mean that a resampled sum's distribution is held for."""


class Interval(NamedTuple):
    """A gain and its 95 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """The same interval in another unit, as percent."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    @property
    def width(self) -> float:
        """Upper minus lower end."""
        return self.high - self.low


class Verdict(NamedTuple):
    """The answer in one word and in one sentence."""

    text: Outcome
    sentence: str


def paired_bootstrap(
    start: Float[np.ndarray, " Q"],
    trained: Float[np.ndarray, " Q"],
    labels: Int[np.ndarray, " Q"],
) -> Interval:
    """Interval of the mean gain per query, paired.

    Two bootstraps are made, one drawing queries, one drawing whole classes (queries of a class are
    alike, and other classes may come); the wider interval is returned. Nothing is drawn at random:
    the distribution of the mean over all resamples that there could be is computed, so that the same
    measures always have the same interval. Ends are its percentiles, stretched about the gain by ``sqrt(n / (n - 1)) t_{n-1} / z`` with n the number of units drawn,
    without which intervals over a dozen classes would be too short; at 200 classes it is 1 %.

    Args:
        start: Measure of each query under the start, any unit; NaN where it has none.
        trained: The same queries under the other encoder.
        labels: Class of each query.

    Returns:
        Mean of ``trained - start`` over queries that both have, in their unit; NaN ends when there
        are fewer than two such queries.

    Raises:
        InputError: If lengths differ.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; small-sample
        factor: Hesterberg 2015, The American Statistician 69(4), section 5.

    Example:
        >>> gain = paired_bootstrap(np.zeros(50), np.ones(50), np.arange(50) % 5)
        >>> gain.value, gain.low, gain.high
        (1.0, 1.0, 1.0)
    """
    gains = paired_bootstraps({"gain": (start, trained)}, labels)
    return gains["gain"]


def paired_bootstraps(
    pairs: Mapping[str, tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]],
    labels: Int[np.ndarray, " Q"],
) -> dict[str, Interval]:
    """:func:`paired_bootstrap` of several measures of the same queries."""
    intervals = {}
    classes = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    for name, (start, trained) in pairs.items():
        if len(start) != len(labels) or len(trained) != len(labels):
            raise InputError(
                f"{name}: {len(start)} queries under the start, {len(trained)} under the other "
                f"encoder and {len(labels)} labels; a paired interval needs the same queries in all."
            )
        gain = np.asarray(trained, np.float64) - np.asarray(start, np.float64)
        known = ~np.isnan(gain)
        by_query = _bootstrap(gain[known], np.arange(int(known.sum())))
        intervals[name] = _wider(by_query, _bootstrap(gain[known], classes[known]))
    return intervals


def _wider(by_query: Interval, by_class: Interval) -> Interval:
    # NaN (a single class) never wins over an interval.
    return by_class if by_class.width > by_query.width else by_query


def _bootstrap(values: npt.NDArray[np.float64], unit: npt.NDArray[np.int64]) -> Interval:
    """Percentile interval of the mean when whole units are drawn with replacement."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    middle = float(values.mean())
    _, unit = np.unique(unit, return_inverse=True)
    sums = np.bincount(unit, weights=values).astype(np.float64)
    sizes = np.bincount(unit).astype(np.float64)
    if len(sums) < 2:
        return Interval(middle, float("nan"), float("nan"))
    low, high = _percentiles(sums, sizes, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    stretch = _small_sample_factor(len(sums))
    return Interval(middle, middle + (low - middle) * stretch, middle + (high - middle) * stretch)


def _percentiles(
    sums: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], shares: tuple[float, ...]
) -> list[float]:
    """Percentiles of the mean over as many units as there are, drawn with replacement."""
    means = sums / sizes
    if np.ptp(means) <= 1e-12 * np.abs(means).max():
        return [float(sums.sum() / sizes.sum())] * len(shares)
    if (sizes == sizes[0]).all():
        places, below = _distribution(sums)
        return [float(np.interp(share, below, places)) / sizes.sum() for share in shares]

    def chance(mean: float) -> float:
        # The mean is below this where the sum of what exceeds it is below 0.
        places, below = _distribution(sums - mean * sizes)
        return float(np.interp(0.0, places, below))

    low, high = float(means.min()), float(means.max())
    ends = chance(low), chance(high)
    found = []
    for share in shares:
        if share <= ends[0] or share >= ends[1]:
            found.append(low if share <= ends[0] else high)
        else:
            root = optimize.brentq(lambda m, s=share: chance(m) - s, low, high, rtol=1e-6)
            found.append(float(root))
    return found


def _distribution(
    values: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum of as many values as there are, drawn with replacement: places, and the chance below each.

    Draws are independent, so the sum's characteristic function is one draw's to the power of their
    number, and two Fourier transforms take the place of all resamples.
    """
    count, mean, spread = len(values), float(values.mean()), float(values.std())
    if spread <= 1e-12 * max(abs(mean), 1e-12):
        return np.array([-1e-9, 1e-9]) + count * mean, np.array([0.0, 1.0])
    # Fine beside the sum's spread, and beside one value's, whose variance the grid adds to.
    cells = 2**15 if count < 4_096 else 2**17 if count < 100_000 else 2**18
    step = 2 * _REACH * spread * np.sqrt(count) / cells
    place = (values - mean) / step
    cell = np.floor(place)
    share = place - cell
    cell = cell.astype(np.int64)
    # Each value is shared between two cells, so that the mean stays what it is.
    one = np.bincount(cell % cells, weights=1 - share, minlength=cells)
    one += np.bincount((cell + 1) % cells, weights=share, minlength=cells)
    total = fft.irfft(fft.rfft(one / count) ** count, cells)
    below = np.maximum.accumulate(np.cumsum(fft.fftshift(total)))
    places = (np.arange(cells) - cells // 2 + 0.5) * step + count * mean
    return places, below


def _small_sample_factor(units: int) -> float:
    quantile = (1 + LEVEL) / 2
    return float(
        np.sqrt(units / (units - 1)) * stats.t.ppf(quantile, units - 1) / stats.norm.ppf(quantile)
    )


def decide(map_interval: Interval | None, rank1_interval: Interval | None) -> Outcome:
    """The verdict's rule.

    *helped*: mAP's interval lies above 0 and rank-1's not below. *hurt*: either interval lies below
    0. Else *no difference shown*. *not measured* without intervals.

    Example:
        >>> decide(Interval(1.7, 1.2, 2.2), Interval(0.3, -0.4, 1.0))
        'helped'
    """
    if map_interval is None or rank1_interval is None:
        return "not measured"
    if not np.isfinite([*map_interval, *rank1_interval]).all():
        return "not measured"
    if map_interval.high < 0 or rank1_interval.high < 0:
        return "hurt"
    return "helped" if map_interval.low > 0 else "no difference shown"


_OPENING: dict[Outcome, str] = {
    "helped": "Training helped",
    "hurt": "Training hurt",
    "no difference shown": "No difference was shown",
}


def judge(
    start: Mapping[str, float],
    trained: Mapping[str, float],
    intervals: Mapping[str, Interval],
    *,
    photos: int,
    classes: int,
) -> Verdict:
    """Verdict and its sentence from numbers in percent.

    Args:
        start: ``map`` and ``rank1`` of the start.
        trained: The same of the other encoder.
        intervals: Gains of ``map`` and ``rank1`` in points.
        photos: Number of test photos that queried.
        classes: Number of their classes.
    """
    map_gain, rank1_gain = intervals.get("map"), intervals.get("rank1")
    text = decide(map_gain, rank1_gain)
    if text == "not measured" or map_gain is None or rank1_gain is None:
        return Verdict(
            "not measured",
            "Not measured: the labelled test photos are too few to compare "
            f"({photos} of {classes} {_plural('class', classes)}; at least two photos of one class "
            "are needed, and a dozen classes to see a gain).",
        )
    return Verdict(
        text,
        f"{_OPENING[text]}: mAP {_moved(start['map'], trained['map'], map_gain)} and rank-1 "
        f"{_moved(start['rank1'], trained['rank1'], rank1_gain)} on {photos:,} test photos of "
        f"{classes:,} {_plural('class', classes)}.",
    )


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}es"


def _moved(before: float, after: float, gain: Interval) -> str:
    # As it is read: a gain of -0.04 points is +0.0.
    moved = round(gain.value, 1)
    word = "rose" if moved > 0 else "fell" if moved < 0 else "stayed"
    numbers = f"from {before:.1f} to {after:.1f}" if moved else f"at {before:.1f}"
    return f"{word} {numbers} ({gain.value:+z.1f}, 95 % interval {gain.low:+z.1f} to {gain.high:+z.1f})"
