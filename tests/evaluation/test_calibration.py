import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fieldmark.errors import InputError
from fieldmark.evaluation.calibration import measure_calibration


def by_loops(logits, labels, bins):
    error = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = []
        for row, label in zip(logits, labels, strict=True):
            p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            if low < p.max() <= high:
                inside.append((p.max(), p.argmax() == label))
        if inside:
            sure, right = np.mean([i[0] for i in inside]), np.mean([i[1] for i in inside])
            error += len(inside) / len(labels) * abs(sure - right)
    return 100 * error


def test_equals_loops():
    for seed in range(10):
        draw = np.random.default_rng(seed)
        # Some photos are hardly surer than chance, so that low bins are used too.
        spread = draw.uniform(0, 3, (80, 1))
        logits, labels = spread * draw.normal(size=(80, 7)), draw.integers(0, 7, 80)
        for bins in (1, 5, 15):
            found = measure_calibration(logits, labels, bins=bins)
            assert found.ece == pytest.approx(by_loops(logits, labels, bins))
            assert found.photos.sum() == 80


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharper_ones_are_not():
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (20_000, 5))
    labels = np.array([draw.choice(5, p=p) for p in softmax(logits, axis=1)])
    assert measure_calibration(logits, labels).ece < 1
    assert measure_calibration(3 * logits, labels).ece > 15
    # Only differences of logits matter.
    shifted = measure_calibration(log_softmax(logits, axis=1) + 7, labels)
    assert shifted.ece == pytest.approx(measure_calibration(logits, labels).ece)


def test_sure_and_always_right_or_always_wrong():
    logits = np.eye(3) * 1000
    assert measure_calibration(logits, np.arange(3)).ece == pytest.approx(0)
    assert measure_calibration(logits, (np.arange(3) + 1) % 3).ece == pytest.approx(100)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="finite logits"):
        measure_calibration(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(InputError, match="0 bins"):
        measure_calibration(np.eye(2), np.arange(2), bins=0)
