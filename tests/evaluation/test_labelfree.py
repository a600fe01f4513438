import numpy as np
import pytest

from fieldmark.evaluation.labelfree import gain_of_views, judge_without_labels, measure_views


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
