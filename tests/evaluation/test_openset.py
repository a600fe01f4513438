import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.openset import auroc, fpr95, open_set


def test_auroc_and_fpr95_equal_loops_with_ties():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        scores = draw.integers(0, 6, 40) / 2
        positive = draw.random(40) < 0.5
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
        assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
        # The largest threshold that keeps 95 % of the positives.
        kept = [t for t in np.unique(scores) if (scores[positive] >= t).mean() >= 0.95]
        expected = (scores[~positive] >= max(kept)).mean()
        assert fpr95(scores, positive) == pytest.approx(expected)


def classes(spread, count=10, each=12, dim=24):
    draw = np.random.default_rng(3)
    labels = np.repeat(np.arange(count), each)
    means = draw.normal(size=(count, dim))
    x = (means[labels] + spread * draw.normal(size=(len(labels), dim))).astype(np.float32)
    return x[::2], labels[::2], x[1::2], labels[1::2]


def test_classes_far_apart_are_noticed_and_noise_is_not():
    near = open_set(*classes(0.05))
    assert near.measures["auroc"] == pytest.approx(100)
    assert near.measures["fpr95"] == pytest.approx(0)
    noise = open_set(*classes(30.0), seeds=range(20))
    assert abs(noise.measures["auroc"] - 50) < 6
    assert noise.spread["auroc"] > 0


def test_unknown_classes_leave_no_photo_in_the_memory():
    # All photos alike but for their class's own direction: known only by their own class's photos.
    labels = np.arange(6)
    x = np.eye(6, dtype=np.float32)
    found = open_set(x, labels, x, labels, k=1, known=0.5, seeds=[0])
    assert found.measures == {"auroc": 100.0, "fpr95": 0.0}


def test_impossible_requests_are_refused():
    x, labels, tests, truth = classes(1.0)
    with pytest.raises(InputError, match="between 0 and 1"):
        open_set(x, labels, tests, truth, known=1.0)
    with pytest.raises(InputError, match="needs two classes"):
        open_set(x[:3], labels[:3] * 0, tests, truth)
    one = truth == 0
    with pytest.raises(InputError, match="no draw had test photos of known and of unknown"):
        open_set(x, labels, tests[one], truth[one], seeds=[0])
