import json

import pytest

from fieldmark.errors import CollapseError, NonFiniteError, TrainingError
from fieldmark.training.config import GuardConfig
from fieldmark.training.guard import Guard, check_finite

GOOD = {"feature_spread": 0.8, "effective_rank": 30.0, "view_recall": 0.9}


def test_finite_numbers_pass():
    check_finite({"loss": 1.0, "grad_norm": 0.0}, 1, [1], "fp32", str)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_names_step_photos_and_remedy(value):
    with pytest.raises(NonFiniteError) as caught:
        check_finite({"loss": value, "grad_norm": 1.0}, 12, range(40), "bf16", lambda: "Kept.")
    text = str(caught.value)
    assert "before step 12" in text
    assert f"loss is {value}" in text
    assert "grad_norm" not in text
    assert "0, 1, 2" in text
    assert "Kept." in text
    assert "train.precision='fp32'" in text
    assert "train.lr" in text
    assert (caught.value.step, len(caught.value.rows)) == (12, 40)


def losses(values, **settings):
    guard = Guard(GuardConfig(patience_steps=5, **settings))
    for step, value in enumerate(values, 1):
        guard.check_loss(value, step, str)
    return guard


def test_a_rising_loss_is_healthy():
    losses([0.6 + 0.05 * step for step in range(60)])


def test_divergence_stops_the_run():
    with pytest.raises(TrainingError, match=r"diverged.*train\.lr"):
        losses([2.0] * 20 + [200.0] * 20)


def test_one_outlier_does_not():
    losses([2.0] * 20 + [50.0] + [2.0] * 20)


def test_collapse_is_named_with_causes():
    guard = Guard(GuardConfig())
    guard.check_health(GOOD, 0, str)
    guard.check_health({**GOOD, "feature_spread": 0.06}, 5, str)
    with pytest.raises(CollapseError, match=r"step 9.*spread 0\.0020, 0\.8000.*Kept\..*momentum"):
        guard.check_health({**GOOD, "feature_spread": 0.002}, 9, lambda: "Kept.")
    with pytest.raises(CollapseError, match=r"effective rank 1\.2, 30\.0"):
        guard.check_health({**GOOD, "effective_rank": 1.2}, 9, str)


def test_a_random_start_that_differs_little_is_not_a_collapse():
    guard = Guard(GuardConfig())
    flat = {"feature_spread": 0.04, "effective_rank": 3.0, "view_recall": 0.1}
    guard.check_health(flat, 0, str)
    guard.check_health({**flat, "feature_spread": 0.03, "effective_rank": 1.9}, 1, str)


def test_collapse_may_be_allowed():
    guard = Guard(GuardConfig(collapse=False))
    guard.check_health(GOOD, 0, str)
    guard.check_health({**GOOD, "feature_spread": 0.0}, 1, str)


def test_features_must_be_finite():
    with pytest.raises(NonFiniteError, match="features hold NaN"):
        Guard(GuardConfig()).check_health({**GOOD, "alignment": float("nan")}, 3, str)


def test_state_is_plain_data_and_continues():
    first = losses([2.0] * 8)
    first.check_health(GOOD, 0, str)
    second = Guard(first.config)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert second.state() == first.state()
    fresh = Guard(first.config)
    fresh.restore(json.loads(json.dumps(fresh.state(), allow_nan=False)))
