import itertools

import numpy as np
import pytest

from fieldmark.evaluation import compare as compare_module
from fieldmark.evaluation.compare import (
    Interval,
    judge,
    paired_bootstrap,
    paired_bootstraps,
)


def draw(seed, classes=40, each=10, class_noise=0.1, noise=0.2, gain=0.0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    start = generator.random(classes * each)
    effect = generator.normal(0, class_noise, classes)[labels]
    return start, start + gain + effect + generator.normal(0, noise, len(labels)), labels


def plain(start, trained, groups, seed, samples=2_000):
    """Resampling written out: draw groups, pool their photos, take the mean."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    gain, means = trained - start, []
    for _ in range(samples):
        drawn = generator.integers(0, len(members), len(members))
        means.append(gain[np.concatenate([members[i] for i in drawn])].mean())
    return np.quantile(means, [0.025, 0.975])


def test_is_the_wider_of_two_plain_bootstraps():
    start, trained, labels = draw(0)
    by_class = plain(start, trained, labels, 1)
    by_query = plain(start, trained, np.arange(len(labels)), 2)
    assert np.ptp(by_class) > 1.3 * np.ptp(by_query)
    found = paired_bootstrap(start, trained, labels)
    assert found.value == pytest.approx((trained - start).mean())
    # 40 classes: the small-sample factor is 1.045.
    assert found.width == pytest.approx(np.ptp(by_class) * 1.045, rel=0.05)
    assert found.low == pytest.approx(by_class[0], abs=0.004)


def test_queries_win_when_classes_agree():
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(20), 50)
    # Every class has the same mean, so drawing classes shows almost no spread.
    gain = np.repeat(generator.normal(0, 1, 50), 20)
    found = paired_bootstrap(np.zeros(1000), gain, labels)
    assert found.width == pytest.approx(2 * 1.96 * gain.std() / np.sqrt(1000), rel=0.1)


def every_resample(values, labels):
    """The mean of each of the C^C equally likely resamples of whole classes."""
    members = [values[labels == label] for label in np.unique(labels)]
    drawn = itertools.product(members, repeat=len(members))
    return np.sort([np.concatenate(each).mean() for each in drawn])


@pytest.mark.parametrize(
    "sizes", [(4, 4, 4, 4, 4), (1, 7, 3, 2, 5), (30, 1, 1, 1, 2), (2, 5, 3), (1, 2)]
)
def test_the_ends_are_those_of_all_resamples_that_there_could_be(sizes):
    generator = np.random.default_rng(sum(sizes))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    values = generator.normal(0, 1, len(labels)) + labels
    means = every_resample(values, labels)
    sums, counts = np.bincount(labels, weights=values), np.bincount(labels).astype(float)
    for share in (0.025, 0.3, 0.975):
        (found,) = compare_module._percentiles(sums, counts, (share,))
        # Beside that place in the list of all means.
        place = share * len(means)
        reach = max(1, len(means) // 80)
        low, high = np.clip([int(place) - reach, int(place) + reach], 0, len(means) - 1)
        span = 1e-3 * np.ptp(means)
        assert means[low] - span <= found <= means[high] + span


def test_many_units_agree_with_drawing_them():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 60, 300)
    labels = np.repeat(np.arange(300), sizes)
    # Rare large values: far from a bell.
    values = generator.exponential(1, len(labels)) ** 3 * (generator.random(len(labels)) < 0.1)
    drawn = plain(np.zeros_like(values), values, labels, 1, samples=8_000)
    sums, counts = np.bincount(labels, weights=values), np.bincount(labels).astype(float)
    found = compare_module._percentiles(sums, counts, (0.025, 0.975))
    assert found == pytest.approx(drawn, abs=0.02 * np.ptp(drawn))
    alone = compare_module._percentiles(values, np.ones_like(values), (0.025, 0.975))
    again = plain(np.zeros_like(values), values, np.arange(len(values)), 1, samples=2_000)
    assert alone == pytest.approx(again, abs=0.04 * np.ptp(again))


def test_units_and_scale_do_not_matter():
    start, trained, labels = draw(1)
    one = paired_bootstrap(start, trained, labels)
    assert paired_bootstrap(start, trained, labels) == one
    larger = paired_bootstrap(1e6 * start, 1e6 * trained, labels)
    assert larger == pytest.approx(one.scaled(1e6))
    order = np.random.default_rng(0).permutation(len(labels))
    assert paired_bootstrap(start[order], trained[order], labels[order]) == pytest.approx(one)
    mirrored = paired_bootstrap(trained, start, labels)
    assert (mirrored.low, mirrored.high) == pytest.approx((-one.high, -one.low))


def test_is_paired():
    start, _, labels = draw(2)
    found = paired_bootstrap(start, start + 0.01, labels)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)


def test_lone_queries_are_left_out():
    start, trained, labels = draw(3, classes=10)
    holes_start, holes_trained = start.copy(), trained.copy()
    holes_start[::7] = holes_trained[::7] = np.nan
    kept = ~np.isnan(holes_start)
    found = paired_bootstrap(holes_start, holes_trained, labels)
    alone = paired_bootstrap(start[kept], trained[kept], labels[kept])
    assert found.value == pytest.approx(alone.value)
    assert found.width == pytest.approx(alone.width, rel=0.05)


def test_several_measures_at_once_equal_one_by_one():
    start, trained, labels = draw(4)
    both = paired_bootstraps({"a": (start, trained), "b": (trained, start)}, labels)
    assert both["a"] == pytest.approx(paired_bootstrap(start, trained, labels))
    assert both["b"].value == -both["a"].value


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_queries_have_no_interval(count):
    found = paired_bootstrap(np.zeros(count), np.ones(count), np.zeros(count, np.int64))
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_a_single_class_falls_back_on_queries():
    start, trained, _ = draw(5)
    found = paired_bootstrap(start, trained, np.zeros(len(start), np.int64))
    assert found.width == pytest.approx(2 * 1.96 * (trained - start).std() / 20, rel=0.1)


def test_few_classes_widen_the_interval():
    start, trained, labels = draw(6, classes=5, each=40)
    bare = plain(start, trained, labels, 0)
    assert paired_bootstrap(start, trained, labels).width > 1.4 * np.ptp(bare)


def test_sentence_without_enough_photos():
    verdict = judge({}, {}, {}, photos=1, classes=1)
    assert verdict.text == "not measured"
    assert "1 of 1 class;" in verdict.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "each", "class_noise"), [(8, 30, 0.1), (50, 10, 0.1), (50, 10, 0)]
)
def test_coverage_under_a_simulated_null(classes, each, class_noise):
    """The true gain 0 lies in about 95 % of intervals; more where the wider bootstrap is idle."""
    runs, covered = 400, 0
    for seed in range(runs):
        start, trained, labels = draw(seed, classes, each, class_noise)
        found = paired_bootstrap(start, trained, labels)
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / runs <= 0.99


@pytest.mark.parametrize(("gain", "told"), [(-0.04, "stayed at 50.0 (+0.0,"), (-0.06, "fell from")])
def test_a_verdict_never_speaks_of_minus_nothing(gain, told):
    interval = Interval(gain, -0.02, 0.02)
    sides = {"map": 50.0, "rank1": 60.0}
    moved = {name: value + gain for name, value in sides.items()}
    verdict = judge(sides, moved, {"map": interval, "rank1": interval}, photos=300, classes=30)
    assert f"mAP {told}" in verdict.sentence
    assert "interval +0.0 to +0.0" in verdict.sentence
    assert "-0.0" not in verdict.sentence
