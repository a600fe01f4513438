import numpy as np
import pytest
from scipy import stats

from fieldmark.errors import InputError
from fieldmark.evaluation.compare import paired_bootstrap
from fieldmark.evaluation.significance import combine_seeds, compare_ranks, correct, find


def draws(seed, seeds, gain, between, photos=400, classes=40):
    """Gains of photos of alike classes, by seeds that differ among themselves."""
    draw = np.random.default_rng(seed)
    labels = np.arange(photos) % classes
    of_class = draw.normal(0, 0.05, classes)[labels]
    shared = gain + of_class + draw.normal(0, 0.3, photos)
    own = draw.normal(0, between, (seeds, 1)) + draw.normal(0, 0.05, (seeds, photos))
    return np.zeros((seeds, photos)), shared + own, labels


def test_one_seed_is_the_paired_bootstrap():
    start, trained, labels = draws(0, 1, 0.02, 0.0)
    gain = combine_seeds(start, trained, labels)
    photos = paired_bootstrap(start[0], trained[0], labels)
    assert (gain.value, gain.low, gain.high) == photos
    assert np.isnan(gain.seed_spread)


def test_seeds_that_differ_make_the_interval_wider_and_more_of_them_narrower():
    alike = combine_seeds(*draws(1, 3, 0.02, 0.0))
    apart = combine_seeds(*draws(1, 3, 0.02, 0.1))
    many = combine_seeds(*draws(1, 30, 0.02, 0.1))
    width = [gain.high - gain.low for gain in (alike, many, apart)]
    assert width[0] < width[1] < width[2]
    assert apart.seed_spread == pytest.approx(0.1, abs=0.08)


def test_intervals_hold_the_true_gain_as_often_as_they_say():
    true = 0.03
    for seeds, between in ((3, 0.03), (5, 0.1)):
        held = []
        for trial in range(150):
            gain = combine_seeds(*draws(trial, seeds, true, between))
            held.append(gain.low <= true <= gain.high)
        # 95 % with a standard error of 1.8; an interval that ignored seeds held it far less often.
        assert np.mean(held) >= 0.90, (seeds, between)


def test_nothing_found_where_there_is_nothing():
    small = [combine_seeds(*draws(trial, 3, 0.0, 0.05)).p < 0.05 for trial in range(150)]
    assert np.mean(small) <= 0.10


def test_lone_queries_and_a_certain_gain():
    start, trained, labels = draws(2, 2, 0.0, 0.0)
    start[:, 0] = trained[:, 0] = np.nan
    assert np.isfinite(combine_seeds(start, trained, labels).low)
    sure = combine_seeds(np.zeros((2, 6)), np.ones((2, 6)), np.arange(6) % 3)
    assert (sure.value, sure.low, sure.high, sure.p) == (1, 1, 1, 0)
    one_class = combine_seeds(np.zeros((1, 1)), np.ones((1, 1)), np.zeros(1, np.int64))
    assert np.isnan(one_class.p)
    assert find(one_class.value, one_class.p) == "not shown"


def test_no_seed_at_all_is_refused():
    with pytest.raises(InputError, match="a run on both sides, got 0 and 0"):
        combine_seeds(np.zeros((0, 5)), np.zeros((0, 5)), np.arange(5))


def test_sides_of_different_numbers_of_seeds_are_compared_each_with_its_own_spread():
    _, trained, labels = draws(4, 5, 0.02, 0.1)
    start = np.zeros((1, len(labels)))
    found = combine_seeds(start, trained, labels)
    # A start that is the same for all seeds adds no spread: as if it stood beside each of them.
    beside = combine_seeds(start.repeat(5, axis=0), trained, labels)
    assert (found.low, found.high) == pytest.approx((beside.low, beside.high))
    # Pairs that move together differ less than the sides do.
    moving = trained - 0.02
    paired = combine_seeds(moving, trained, labels)
    loose = combine_seeds(moving[:4], trained, labels)
    assert paired.seed_spread == pytest.approx(0, abs=1e-9)
    assert loose.high - loose.low > paired.high - paired.low


def test_holm_by_hand_and_its_properties():
    found = correct({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": float("nan")})
    assert found["d"] == pytest.approx(0.02)
    assert found["a"] == pytest.approx(0.03)
    assert found["c"] == pytest.approx(0.06)
    assert found["b"] == pytest.approx(0.06)  # never below that of a smaller p
    assert np.isnan(found["e"])
    assert correct({"a": 0.7, "b": 0.8})["b"] == 1.0


def test_what_may_be_said():
    gain = combine_seeds(*draws(3, 3, 0.5, 0.0))
    assert find(gain.value, gain.p) == "better"
    assert find(gain.value, 0.05) == "not shown"
    assert find(-gain.value, 0.01) == "worse"


def test_ranks_friedman_and_the_critical_difference():
    # Demsar 2006, table 6: four methods, 14 data sets; critical difference of Nemenyi 1.25.
    draw = np.random.default_rng(0)
    rows = {
        f"set {i}": dict(
            zip("abcd", (draw.normal(size=4) + np.array([0, 0, 0, 9])).tolist(), strict=True)
        )
        for i in range(14)
    }
    found = compare_ranks(rows)
    assert found.critical == pytest.approx(1.25, abs=0.01)
    assert next(iter(found.ranks)) == "d"
    assert found.ranks["d"] == 1
    table = np.array([list(row.values()) for row in rows.values()])
    assert found.p == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    # d stands apart; nothing tells a, b and c apart.
    assert [set(clique) for clique in found.cliques] == [{"a", "b", "c"}]


def test_ties_share_their_rank_and_gaps_are_refused():
    found = compare_ranks({key: {"a": 1.0, "b": 1.0, "c": 0.0} for key in "xy"})
    assert found.ranks == {"a": 1.5, "b": 1.5, "c": 3.0}
    with pytest.raises(InputError, match="of every method on every data set; y has"):
        compare_ranks({"x": {"a": 1.0, "b": 1.0}, "y": {"a": 1.0}})
    with pytest.raises(InputError, match="two methods and two data sets"):
        compare_ranks({"x": {"a": 1.0, "b": 1.0}})
