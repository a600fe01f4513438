"""Did training help? Paired bootstrap intervals and the verdict in words (docs/protocols.md)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from scipy import stats

from fieldmark.errors import InputError

Outcome = Literal["helped", "hurt", "no difference shown", "not measured"]
LEVEL = 0.95
"""Share of intervals meant to contain the true gain."""
_CHUNK = 500
"""Resamples drawn at a time: 500 x 3,000 queries take 12 MB."""


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
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean gain per query, paired.

    Two bootstraps are made, one drawing queries, one drawing whole classes (queries of a class are
    alike, and other classes may come); the wider interval is returned. Ends are percentiles,
    stretched about the gain by ``sqrt(n / (n - 1)) t_{n-1} / z`` with n the number of units drawn,
    without which intervals over a dozen classes would be too short; at 200 classes it is 1 %.

    Args:
        start: Measure of each query under the start, any unit; NaN where it has none.
        trained: The same queries under the other encoder.
        labels: Class of each query.
        samples: Number of resamples, >= 1.
        seed: Same seed, same interval.

    Returns:
        Mean of ``trained - start`` over queries that both have, in their unit; NaN ends when there
        are fewer than two such queries.

    Raises:
        InputError: If lengths differ or ``samples`` is not positive.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; small-sample
        factor: Hesterberg 2015, The American Statistician 69(4), section 5.

    Example:
        >>> gain = paired_bootstrap(np.zeros(50), np.ones(50), np.arange(50) % 5, samples=100)
        >>> gain.value, gain.low, gain.high
        (1.0, 1.0, 1.0)
    """
    gains = paired_bootstraps({"gain": (start, trained)}, labels, samples=samples, seed=seed)
    return gains["gain"]


def paired_bootstraps(
    pairs: Mapping[str, tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]],
    labels: Int[np.ndarray, " Q"],
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """:func:`paired_bootstrap` of several measures of the same queries, drawn once for all."""
    if samples < 1:
        raise InputError(
            f"the bootstrap needs at least one resample, got {samples}; 10,000 is usual."
        )
    differences = []
    for name, (start, trained) in pairs.items():
        if len(start) != len(labels) or len(trained) != len(labels):
            raise InputError(
                f"{name}: {len(start)} queries under the start, {len(trained)} under the other "
                f"encoder and {len(labels)} labels; a paired interval needs the same queries in all."
            )
        differences.append(np.asarray(trained, np.float64) - np.asarray(start, np.float64))
    if not differences:
        return {}
    stacked = np.stack(differences, axis=1)
    units = np.arange(len(labels)), np.unique(labels, return_inverse=True)[1].astype(np.int64)
    results = [_bootstrap(stacked, unit, samples, seed) for unit in units]
    return {name: _wider(results[0][i], results[1][i]) for i, name in enumerate(pairs)}


def _wider(by_query: Interval, by_class: Interval) -> Interval:
    # NaN (a single class) never wins over an interval.
    return by_class if by_class.width > by_query.width else by_query


def _bootstrap(
    values: npt.NDArray[np.float64], unit: npt.NDArray[np.int64], samples: int, seed: int
) -> list[Interval]:
    """Percentile intervals of column means when whole units are drawn with replacement."""
    known = ~np.isnan(values)
    count = int(unit.max(initial=-1)) + 1
    # A resample's mean is the drawn units' sums over the drawn units' sizes.
    sums = np.zeros((count, values.shape[1]))
    sizes = np.zeros((count, values.shape[1]))
    np.add.at(sums, unit, np.where(known, values, 0))
    np.add.at(sizes, unit, known)
    totals = sizes.sum(axis=0)
    with np.errstate(invalid="ignore"):
        centre = sums.sum(axis=0) / totals
    present = (sizes > 0).sum(axis=0)
    drawable = np.flatnonzero(sizes.any(axis=1))  # lone queries are not drawn
    sums, sizes = sums[drawable], sizes[drawable]
    count = len(drawable)
    means = np.empty((samples, values.shape[1]))
    generator = np.random.default_rng(seed)
    for first in range(0, samples, _CHUNK):
        rows = min(_CHUNK, samples - first)
        if count == 0:
            break
        drawn = generator.integers(0, count, (rows, count), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        weights = times.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[first : first + rows] = (weights @ sums) / (weights @ sizes)
    intervals = []
    for column, middle in enumerate(centre):
        drawn_units = int(present[column])
        if drawn_units < 2:
            intervals.append(Interval(float(middle), float("nan"), float("nan")))
            continue
        low, high = np.nanquantile(means[:, column], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        stretch = _small_sample_factor(drawn_units)
        intervals.append(
            Interval(
                float(middle),
                float(middle + (low - middle) * stretch),
                float(middle + (high - middle) * stretch),
            )
        )
    return intervals


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
    word = "rose" if gain.value > 0 else "fell" if gain.value < 0 else "stayed"
    numbers = f"from {before:.1f} to {after:.1f}" if gain.value else f"at {before:.1f}"
    return (
        f"{word} {numbers} ({gain.value:+.1f}, 95 % interval {gain.low:+.1f} to {gain.high:+.1f})"
    )
