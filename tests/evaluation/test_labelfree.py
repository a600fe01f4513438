import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.compare import Interval
from fieldmark.evaluation.labelfree import (
    agreement,
    changed_neighbours,
    decide_without_labels,
    gain_of_agreement,
    gain_of_views,
    judge_without_labels,
    measure_views,
)


def test_views_that_find_each_other():
    x = np.random.default_rng(0).standard_normal((30, 8))
    found = measure_views(x, x + 0.01)
    assert found.view_recall == 100
    assert 6 < found.effective_rank <= 8
    assert measure_views(x, np.roll(x, 1, axis=0)).view_recall == 0


def test_collapse_scores_zero():
    found = measure_views(np.ones((20, 4)), np.ones((20, 4)))
    assert found.view_recall == 0
    assert found.effective_rank == pytest.approx(1, abs=0.01)


def test_gain_is_paired():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((100, 8))
    poor = measure_views(x, x + 2 * generator.standard_normal(x.shape))
    good = measure_views(x, x + 0.5 * generator.standard_normal(x.shape))
    gain = gain_of_views(poor, good)
    assert gain.value == pytest.approx(good.view_recall - poor.view_recall)
    assert gain.low > 0
    verdict = judge_without_labels(poor.to_dict(), good.to_dict(), gain, photos=100)
    assert verdict.text == "not measured"
    assert f"{good.view_recall:.1f} % of 100 photos" in verdict.sentence
    assert f"{gain.low:+.1f} to {gain.high:+.1f}" in verdict.sentence


def test_nothing_measured_is_said_so():
    sentence = judge_without_labels({}, {}, None, photos=0).sentence
    assert sentence.startswith("Not measured: there are no labelled test photos. A table")


def agreement_by_loop(x, reference, k):
    """Average precision of every ranking, photo by photo."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    other = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    values = []
    for i in range(len(x)):
        rest = [j for j in range(len(x)) if j != i]
        relevant = sorted(rest, key=lambda j: -(other[i] @ other[j]))[:k]
        order = sorted(rest, key=lambda j: -(unit[i] @ unit[j]))
        places = sorted(order.index(j) + 1 for j in relevant)
        values.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
    return np.array(values)


@pytest.mark.parametrize(("photos", "k"), [(41, 4), (150, 10), (8, 1)])
def test_agreement_against_a_plain_loop(photos, k):
    generator = np.random.default_rng(photos)
    reference = generator.standard_normal((photos, 6))
    x = np.concatenate([reference, generator.standard_normal((photos, 6))], axis=1)
    np.testing.assert_allclose(agreement(x, reference), agreement_by_loop(x, reference, k))
    np.testing.assert_allclose(agreement(reference, reference), 1)


def test_a_collapsed_encoder_agrees_with_nothing():
    reference = np.random.default_rng(0).standard_normal((101, 6))
    # Every photo is as near as every other, so those to be found come last.
    expected = np.mean(np.arange(1, 11) / 100)
    np.testing.assert_allclose(agreement(np.ones((101, 3)), reference), expected)


def test_agreement_needs_the_same_photos():
    with pytest.raises(InputError, match="3 photos and the reference 4"):
        agreement(np.ones((3, 2)), np.ones((4, 2)))
    assert np.isnan(agreement(np.ones((1, 2)), np.ones((1, 2)))).all()


@pytest.mark.parametrize(
    ("interval", "reading"),
    [
        ((1.0, 0.2, 1.8), "helped"),
        ((1.0, -0.2, 2.2), "no difference shown"),
        ((-1.0, -1.8, -0.2), "hurt"),
        ((1.0, float("nan"), float("nan")), "not measured"),
    ],
)
def test_what_the_agreement_says(interval, reading):
    learnt = Interval(*interval)
    assert decide_without_labels(learnt) == reading
    assert decide_without_labels(None) == "not measured"
    trained = {"agreement": 43.0, "neighbours_changed": 40.0}
    verdict = judge_without_labels(
        {"agreement": 40.0}, trained, None, photos=9, learnt=learnt, held_out=120
    )
    assert verdict.text == "not measured"  # never more than was measured
    assert "On 120 photos kept from training" in verdict.sentence
    assert "from 40.0 to 43.0 %; less 2.0 for the 40 % of neighbours that" in verdict.sentence


def test_the_gain_of_agreement_is_paired():
    start = np.linspace(0.1, 0.6, 50)
    gain = gain_of_agreement(start, start + 0.06, np.full(50, 0.2))
    assert gain == pytest.approx((5.0, 5.0, 5.0))


def test_what_only_moves_photos_about_earns_nothing():
    start = np.linspace(0.1, 0.6, 50)
    assert gain_of_agreement(start, start + 0.04, np.ones(50)).value == pytest.approx(-1.0)


@pytest.mark.parametrize(("photos", "k"), [(41, 4), (150, 10), (8, 1)])
def test_changed_neighbours_against_a_plain_loop(photos, k):
    generator = np.random.default_rng(photos)
    before = generator.standard_normal((photos, 5))
    after = before + generator.standard_normal((photos, 5))
    expected = []
    for i in range(photos):
        rest = [j for j in range(photos) if j != i]
        near = [
            set(sorted(rest, key=lambda j: -(u[i] @ u[j]))[:k])
            for u in (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (before, after))
        ]
        expected.append(1 - len(near[0] & near[1]) / k)
    found = changed_neighbours(before, after)
    np.testing.assert_allclose(found, expected)
    assert 0 < found.mean() < 1
    assert not changed_neighbours(before, 3 * before).any()
    assert changed_neighbours(before[:1], after[:1]).tolist() == [0]
