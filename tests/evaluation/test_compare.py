import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.compare import (
    Interval,
    decide,
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
    found = paired_bootstrap(start, trained, labels, seed=3)
    assert found.value == pytest.approx((trained - start).mean())
    # 40 classes: the small-sample factor is 1.045.
    assert found.width == pytest.approx(np.ptp(by_class) * 1.045, rel=0.05)
    assert found.low == pytest.approx(by_class[0], abs=0.004)


def test_queries_win_when_classes_agree():
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(20), 50)
    # Every class has the same mean, so drawing classes shows almost no spread.
    gain = np.repeat(generator.normal(0, 1, 50), 20)
    found = paired_bootstrap(np.zeros(1000), gain, labels, samples=2_000)
    assert found.width == pytest.approx(2 * 1.96 * gain.std() / np.sqrt(1000), rel=0.1)


def test_same_seed_same_interval_and_others_differ():
    start, trained, labels = draw(1)
    one = paired_bootstrap(start, trained, labels, samples=500, seed=4)
    assert paired_bootstrap(start, trained, labels, samples=500, seed=4) == one
    assert paired_bootstrap(start, trained, labels, samples=500, seed=5) != one


def test_is_paired():
    start, _, labels = draw(2)
    found = paired_bootstrap(start, start + 0.01, labels, samples=500)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)


def test_lone_queries_are_left_out():
    start, trained, labels = draw(3, classes=10)
    holes_start, holes_trained = start.copy(), trained.copy()
    holes_start[::7] = holes_trained[::7] = np.nan
    kept = ~np.isnan(holes_start)
    found = paired_bootstrap(holes_start, holes_trained, labels, samples=3_000)
    alone = paired_bootstrap(start[kept], trained[kept], labels[kept], samples=3_000)
    assert found.value == pytest.approx(alone.value)
    assert found.width == pytest.approx(alone.width, rel=0.05)


def test_several_measures_at_once_equal_one_by_one():
    start, trained, labels = draw(4)
    both = paired_bootstraps({"a": (start, trained), "b": (trained, start)}, labels, samples=300)
    assert both["a"] == pytest.approx(paired_bootstrap(start, trained, labels, samples=300))
    assert both["b"].value == -both["a"].value


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_queries_have_no_interval(count):
    found = paired_bootstrap(np.zeros(count), np.ones(count), np.zeros(count, np.int64), samples=10)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_a_single_class_falls_back_on_queries():
    start, trained, _ = draw(5)
    found = paired_bootstrap(start, trained, np.zeros(len(start), np.int64), samples=1_000)
    assert found.width == pytest.approx(2 * 1.96 * (trained - start).std() / 20, rel=0.1)


def test_few_classes_widen_the_interval():
    start, trained, labels = draw(6, classes=5, each=40)
    bare = plain(start, trained, labels, 0)
    assert paired_bootstrap(start, trained, labels).width > 1.4 * np.ptp(bare)


def test_bad_arguments():
    start, trained, labels = draw(7)
    with pytest.raises(InputError, match="resample"):
        paired_bootstrap(start, trained, labels, samples=0)


ABOVE, BELOW, AROUND = Interval(1, 0.5, 1.5), Interval(-1, -1.5, -0.5), Interval(0.1, -0.4, 0.6)


@pytest.mark.parametrize(
    ("map_gain", "rank1_gain", "expected"),
    [
        (ABOVE, ABOVE, "helped"),
        (ABOVE, AROUND, "helped"),
        (ABOVE, BELOW, "hurt"),
        (AROUND, ABOVE, "no difference shown"),
        (AROUND, AROUND, "no difference shown"),
        (AROUND, BELOW, "hurt"),
        (BELOW, ABOVE, "hurt"),
        (BELOW, BELOW, "hurt"),
        (Interval(0, 0, 0), Interval(0, 0, 0), "no difference shown"),
        (None, ABOVE, "not measured"),
        (ABOVE, None, "not measured"),
        (Interval(1, float("nan"), float("nan")), ABOVE, "not measured"),
    ],
)
def test_verdict_rule(map_gain, rank1_gain, expected):
    assert decide(map_gain, rank1_gain) == expected


def test_sentence():
    verdict = judge(
        {"map": 15.8, "rank1": 37.0},
        {"map": 17.5, "rank1": 36.9},
        {"map": Interval(1.7, 1.2, 2.2), "rank1": Interval(-0.1, -0.8, 0.6)},
        photos=3_033,
        classes=200,
    )
    assert verdict.text == "helped"
    assert verdict.sentence == (
        "Training helped: mAP rose from 15.8 to 17.5 (+1.7, 95 % interval +1.2 to +2.2) and rank-1 "
        "fell from 37.0 to 36.9 (-0.1, 95 % interval -0.8 to +0.6) on 3,033 test photos of 200 classes."
    )


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
        found = paired_bootstrap(start, trained, labels, samples=1_000, seed=seed)
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / runs <= 0.99
