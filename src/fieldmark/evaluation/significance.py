"""Gains over several seeds, and many of them side by side: what may be called better?"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from fieldmark.errors import InputError
from fieldmark.evaluation.compare import LEVEL, paired_bootstraps

Finding = Literal["better", "worse", "not shown"]
_ERROR = round(1 - LEVEL, 9)


class Gain(NamedTuple):
    """How much better one side is than the other, over all seeds."""

    value: float
    """Mean over seeds and queries, in the unit of the measure."""
    low: float
    high: float
    """Ends of the 95 % interval."""
    p: float
    """Chance of a gain as far from 0 as this where there is none; NaN where it cannot be said."""
    seeds: int
    seed_spread: float
    """Standard deviation between seeds; NaN with one seed, which says nothing of others."""

    def scaled(self, factor: float) -> "Gain":
        """The same gain in another unit, as percent."""
        ends = {name: factor * getattr(self, name) for name in ("value", "low", "high")}
        return self._replace(**ends, seed_spread=factor * self.seed_spread)


def combine_seeds(
    start: Float[np.ndarray, "R Q"],
    trained: Float[np.ndarray, "S Q"],
    labels: Int[np.ndarray, " Q"],
) -> Gain:
    """The gain over several runs that differ in their seed, on the same photos.

    Two things make a gain uncertain: other photos might have been in the test set, and other seeds
    might have been drawn. The first is the paired bootstrap's of the gains averaged over seeds (the
    wider one of photos and classes); the second is the spread between seeds, of the gain where both
    sides have as many (they are taken in pairs), else of each side. The variances add, and the
    quantile is Student's with the degrees of freedom of Welch and Satterthwaite, so that three seeds
    are taken for three, not for many. Where no side has a second seed the interval is the bootstrap's
    alone.

    Args:
        start: Measure of each query by each seed under the one side; NaN where it has none.
        trained: The same of the other side.
        labels: Class of each query.

    Raises:
        InputError: If a side has no seed.

    Source:
        Satterthwaite 1946, Biometrics Bulletin 2(6); Bouthillier et al. 2021, arXiv:2103.03098, on why
        seeds and test photos both count.
    """
    if not len(start) or not len(trained):
        raise InputError(f"a gain needs a run on both sides, got {len(start)} and {len(trained)}.")
    mean = trained.mean(axis=0) - start.mean(axis=0)
    # Intervals of paired differences from nothing.
    photos = paired_bootstraps({"gain": (np.zeros_like(mean), mean)}, labels)["gain"]
    queried = ~np.isnan(mean)
    units = len(np.unique(labels[queried]))
    z = stats.norm.ppf((1 + LEVEL) / 2)
    variances = [(photos.width / (2 * z)) ** 2]
    freedom = [max(units - 1, 1)]
    spread = float("nan")
    paired = len(start) == len(trained)
    for side in (trained - start,) if paired else (start, trained):
        if len(side) > 1 and queried.any():
            spread = float(side[:, queried].mean(axis=1).std(ddof=1))
            variances.append(spread**2 / len(side))
            freedom.append(len(side) - 1)
    seeds = max(len(start), len(trained))
    total = sum(variances)
    if not np.isfinite(total) or total == 0:
        p = float("nan") if not np.isfinite(total) else float(photos.value == 0)
        return Gain(photos.value, photos.low, photos.high, p, seeds, spread)
    error = float(np.sqrt(total))
    degrees = total**2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True))
    p = float(2 * stats.t.sf(abs(photos.value) / error, degrees))
    if len(variances) == 1:
        return Gain(photos.value, photos.low, photos.high, p, seeds, spread)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    return Gain(photos.value, photos.value - reach, photos.value + reach, p, seeds, spread)


def correct(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: p values of many comparisons, made to hold for all of them together.

    Args:
        p_values: By comparison; NaN stays NaN and is not counted.

    Returns:
        Corrected p values: whatever is below 0.05 then is so with a chance of at most 5 % that any
        of them is by accident.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6(2).

    Example:
        >>> correct({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    known = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    corrected = {name: float("nan") for name in p_values}
    largest = 0.0
    for place, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - place)))
        corrected[name] = largest
    return corrected


def find(gain: float, corrected: float) -> Finding:
    """What may be said of a gain.

    Args:
        gain: Of one comparison, in any unit.
        corrected: Its p value, corrected for all comparisons that are shown together.
    """
    if np.isnan(corrected) or corrected >= _ERROR:
        return "not shown"
    return "better" if gain > 0 else "worse"


class RankComparison(NamedTuple):
    """Methods by their mean rank over data sets."""

    ranks: dict[str, float]
    """1 is best; ties share the mean."""
    critical: float
    """Mean ranks that are less apart than this are not shown to differ."""
    p: float
    """Friedman's test that all methods are alike."""
    cliques: list[tuple[str, ...]]
    """Groups of methods, best first, within which no difference is shown."""


def compare_ranks(scores: Mapping[str, Mapping[str, float]]) -> RankComparison:
    """What a critical-difference diagram shows.

    Args:
        scores: Larger is better, by data set and method; every data set has every method.

    Raises:
        InputError: With fewer than two methods or data sets, or gaps.

    Source:
        Demsar 2006, JMLR 7: Friedman's test, then Nemenyi's critical difference at 0.05.
    """
    methods = list(next(iter(scores.values()), {}))
    if len(methods) < 2 or len(scores) < 2:
        raise InputError(
            f"mean ranks need two methods and two data sets at least, got {len(methods)} and {len(scores)}."
        )
    for dataset, row in scores.items():
        if set(row) != set(methods) or not np.isfinite(list(row.values())).all():
            raise InputError(
                f"mean ranks need a number of every method on every data set; {dataset} has {sorted(row)}."
            )
    table = np.array([[row[method] for method in methods] for row in scores.values()])
    ranked = stats.rankdata(-table, axis=1)
    means = ranked.mean(axis=0)
    count, sets = len(methods), len(scores)
    quantile = stats.studentized_range.ppf(LEVEL, count, np.inf) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * sets)))
    p = float(stats.friedmanchisquare(*table.T).pvalue) if count > 2 else float("nan")
    order = np.argsort(means, kind="stable")
    cliques: list[tuple[str, ...]] = []
    for first in range(count):
        near = [m for m in order[first:] if means[m] - means[order[first]] < critical]
        names = tuple(methods[m] for m in near)
        # A group inside a larger one says nothing new.
        if len(names) > 1 and not any(set(names) <= set(other) for other in cliques):
            cliques.append(names)
    ranks = {methods[m]: float(means[m]) for m in order}
    return RankComparison(ranks, critical, p, cliques)


def wilson(right: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share that was seen ``right`` times of ``total``, which stays within [0, 1].

    Args:
        right: At least 0, at most ``total``.
        total: 0 tells nothing: the interval is everything.
        z: Of the normal distribution; 1.96 for 95 %.

    Source:
        Wilson 1927, Journal of the American Statistical Association 22.

    Example:
        >>> [round(end, 3) for end in wilson(9, 10)]
        [0.596, 0.982]
    """
    if not total:
        return 0.0, 1.0
    share, extra = right / total, z * z / total
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * (share * (1 - share) / total + extra / (4 * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
