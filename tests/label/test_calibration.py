import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fieldmark.errors import InputError
from fieldmark.evaluation.calibration import measure_calibration
from fieldmark.label.calibration import chances, fit_sets, fit_temperature, photos_for


def drawn(count, temperature, seed=0, classes=8):
    """Scores whose truth is drawn from their softmax at a temperature."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(count, classes)).astype(np.float32) * 3
    mass = chances(scores, temperature).cumsum(axis=1)
    return scores, (draw.random((count, 1)) > mass).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    scores, labels = drawn(4000, temperature)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    new, truth = drawn(4000, temperature, seed=1)
    assert measure_calibration(new / np.float32(found), truth).ece < 3


def test_the_temperature_is_that_of_the_softmax_however_large_the_scores():
    scores, labels = drawn(300, 0.7)
    scores += np.float32(2_000)
    exact = scores.astype(np.float64)

    def loss(log_temperature):
        return -log_softmax(exact / np.exp(log_temperature), axis=1)[range(300), labels].mean()

    wanted = np.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded").x)
    assert fit_temperature(scores, labels) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_sets_cover_as_stated_even_where_the_probabilities_are_wrong(coverage):
    scores, labels = drawn(3000, 2.0)
    overconfident = chances(scores, 0.5)
    sets = fit_sets(overconfident, labels, coverage)
    new, truth = drawn(3000, 2.0, seed=1)
    members = sets.members(chances(new, 0.5))
    covered = members[np.arange(3000), truth].mean()
    assert covered == pytest.approx(coverage, abs=0.025)
    assert members.any(axis=1).all(), "no set is empty"


def test_the_rank_of_the_threshold_is_that_of_the_finite_sample():
    # Ten photos, probabilities 0.05 to 0.95 of the truth; 80 % of eleven is the ninth smallest miss.
    truth = np.zeros(20, np.int64)
    own = np.linspace(0.025, 0.975, 20)
    probabilities = np.stack([own, 1 - own], axis=1)
    rank = int(np.ceil(21 * 0.8))
    assert fit_sets(probabilities, truth, 0.8).least == pytest.approx(np.sort(own)[::-1][rank - 1])


def test_what_cannot_be_stated_is_refused():
    probabilities = np.full((50, 2), 0.5)
    with pytest.raises(InputError, match=r"99% of photos need 99 labelled .* got 50"):
        fit_sets(probabilities, np.zeros(50, np.int64), 0.99)
    with pytest.raises(InputError, match="between 0 and 1, got 1"):
        fit_sets(probabilities, np.zeros(50, np.int64), 1.0)
    with pytest.raises(InputError, match="held-out photos"):
        fit_temperature(np.empty((0, 2), np.float32), np.empty(0, np.int64))
    assert photos_for(0.9) == 9
    assert photos_for(0.99) == 99
