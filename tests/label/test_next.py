import numpy as np
import pytest
from madeup import clusters

from fieldmark.errors import InputError
from fieldmark.label.next import fit_likeness, pick_next


def dense(x, width):
    x = x - x.mean(axis=0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.exp((x @ x.T - 1) / width)


def greedy(stands, labelled, count, weight):
    """Gains of the same choice in loops, over all pairs."""
    covered = stands[:, labelled].max(axis=1) if labelled.any() else np.zeros(len(stands))
    taken, best = labelled.copy(), []
    for _ in range(count):
        gains = [
            -1 if taken[row] else weight @ np.maximum(stands[row] - covered, 0)
            for row in range(len(stands))
        ]
        row = int(np.argmax(gains))
        best.append(gains[row])
        taken[row] = True
        covered = np.maximum(covered, stands[row])
    return np.array(best)


def test_the_lazy_choice_is_that_of_plain_loops():
    x, labels = clusters(5, 12)
    labelled = np.zeros(60, bool)
    labelled[:4] = True
    weight = np.ones(60)
    found = pick_next(fit_likeness(x), labelled, 10)
    wanted = greedy(dense(x, 0.15), labelled, 10, weight / 60)
    np.testing.assert_allclose(found.gains, wanted, rtol=1e-4)
    assert (np.diff(found.gains) <= 1e-6).all(), "gains shrink"
    mass = np.eye(5)[labels] * 0.9 + 0.02
    mass[:30] = mass[:30].mean(axis=0)
    weight = (mass @ (1 / mass.sum(axis=0))) ** 0.5
    found = pick_next(fit_likeness(x), labelled, 10, probabilities=mass)
    wanted = greedy(dense(x, 0.15), labelled, 10, weight / weight.sum())
    np.testing.assert_allclose(found.gains, wanted, rtol=1e-4)
    assert len(set(found.rows)) == 10


def test_the_first_choices_reach_every_kind_and_no_twins():
    x, labels = clusters(8, 15, spread=0.3)
    found = pick_next(fit_likeness(np.vstack([x, x])), np.zeros(240, bool), 8)
    assert len({int(labels[row % 120]) for row in found.rows}) == 8
    labelled = np.zeros(240, bool)
    labelled[np.flatnonzero(np.tile(labels, 2) != 3)] = True
    first = pick_next(fit_likeness(np.vstack([x, x])), labelled, 1).rows[0]
    assert labels[first % 120] == 3, "what no label stands for comes first"


def test_classes_that_seem_rare_count_more():
    x, labels = clusters(2, 60, spread=0.3)
    keep = (labels == 0) | (np.arange(120) < 24)
    x, labels = x[keep], labels[keep]
    mass = np.eye(2)[labels] * 0.98 + 0.01
    none = np.zeros(len(x), bool)
    likeness = fit_likeness(x)

    def share(balance):
        rows = pick_next(likeness, none, 20, probabilities=mass, balance=balance).rows
        return (labels[rows] == 1).mean()

    assert share(1.0) > share(0.0)


def test_a_shared_mean_changes_nothing():
    x, _ = clusters(5, 12)
    none = np.zeros(60, bool)
    plain = pick_next(fit_likeness(x), none, 10).rows
    # Lengths change with the mean; only photos whose order is not close are compared.
    shifted = pick_next(fit_likeness(x + 4.0), none, 10).rows
    assert len(set(plain) & set(shifted)) >= 5


def test_what_may_be_chosen_and_what_is_covered():
    x, _ = clusters(5, 12)
    likeness = fit_likeness(x, neighbours=5)
    none, some = np.zeros(60, bool), np.arange(60) < 50
    allowed = np.arange(60) >= 40
    found = pick_next(likeness, some, 30, allowed=allowed)
    assert set(found.rows) == set(range(50, 60))
    assert likeness.covered(none) == 0
    assert likeness.covered(~none) == pytest.approx(1)
    assert 0 < likeness.covered(some) < 1
    with pytest.raises(InputError, match="at least 1, got 0"):
        pick_next(likeness, none, 0)
    with pytest.raises(InputError, match="width must be above 0"):
        fit_likeness(x, width=0.0)
