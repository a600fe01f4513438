import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fieldmark.errors import InputError
from fieldmark.evaluation import linear
from fieldmark.evaluation.linear import (
    Probe,
    _Logistic,
    _Objective,
    label_subset,
    logistic_probe,
    sgd_probe,
)


def clusters(seed=0, count=200, dim=12, classes=6, noise=0.8):
    # The clusters' centres are the same for every seed.
    centres = np.random.default_rng(99).standard_normal((classes, dim))
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    x = centres[labels] + noise * generator.standard_normal((count, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("strength", [1.0, 20.0])
def test_logistic_probe_solves_the_same_problem_as_scikit_learn(strength):
    x, labels = clusters()
    ours = logistic_probe(x, labels, classes=6, strength=strength)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=2_000).fit(
        x.astype(np.float64), labels
    )
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=0.02 * np.abs(theirs.coef_).max())
    test, _ = clusters(1)
    assert (ours.predict(test) == theirs.predict(test)).mean() >= 0.99


def test_the_gradient_is_that_of_the_objective_whatever_the_features_mean():
    x, labels = clusters()
    x = torch.from_numpy(x + 3.0)
    problem = _Logistic(x, torch.from_numpy(labels), _Objective(6, 20.0, 300, 1e-7))
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 12, generator=draw, requires_grad=True)
    bias = torch.randn(6, generator=draw, requires_grad=True)
    logits = (x - x.mean(dim=0)) @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    loss = loss + weight.square().sum() / (2 * 20.0 * len(x))
    loss.backward()
    plain = logits.detach()
    torch.testing.assert_close(problem._logits(weight.detach(), bias.detach()), plain)
    assert problem._value(plain, weight.detach()) == pytest.approx(loss.item(), rel=1e-5)
    found = problem._gradient(plain, weight.detach())
    torch.testing.assert_close(found[0], weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], bias.grad, atol=1e-5, rtol=1e-4)


def test_chunks_of_photos_change_nothing(monkeypatch):
    x, labels = clusters()
    whole = logistic_probe(x, labels, classes=6)
    monkeypatch.setattr(linear, "_ROWS", 7)
    parts = logistic_probe(x, labels, classes=6)
    np.testing.assert_allclose(parts.weight, whole.weight, atol=2e-3 * np.abs(whole.weight).max())


def test_features_far_from_zero_and_more_dimensions_than_photos_are_solved_too():
    x, labels = clusters(count=60, dim=200)
    x = x + 0.5
    ours = logistic_probe(x, labels, classes=6, strength=20.0)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    theirs = LogisticRegression(C=20.0, tol=1e-8, max_iter=5_000).fit(
        unit.astype(np.float64), labels
    )
    scale = np.abs(theirs.decision_function(unit)).max()
    ours_logits, their_logits = ours.scores(x), theirs.decision_function(unit)
    gap = (ours_logits - ours_logits.mean(1, keepdims=True)) - (
        their_logits - their_logits.mean(1, keepdims=True)
    )
    assert np.abs(gap).max() < 0.02 * scale


def test_logistic_probe_is_deterministic_and_ignores_length():
    x, labels = clusters()
    one = logistic_probe(x, labels, classes=6)
    np.testing.assert_array_equal(one.weight, logistic_probe(x, labels, classes=6).weight)
    longer = logistic_probe(torch.from_numpy(x) * 4, labels, classes=6)
    np.testing.assert_allclose(longer.weight, one.weight, atol=0.02)


def test_classes_without_photos_are_never_predicted():
    x, labels = clusters(classes=3)
    probe = logistic_probe(x, labels * 2, classes=6)
    assert set(probe.predict(x).tolist()) <= {0, 2, 4}
    assert (probe.predict(x) == labels * 2).mean() > 0.8


def test_one_class_only():
    x, _ = clusters()
    assert set(logistic_probe(x, np.full(200, 3), classes=6).predict(x).tolist()) == {3}


def test_sgd_probe_learns_and_is_seeded():
    x, labels = clusters()
    test, expected = clusters(1)
    views = [(x, labels), (np.roll(x, 1, axis=0), np.roll(labels, 1))]
    probe = sgd_probe(views, classes=6, total_epochs=20, batch_size=64)
    assert (probe.predict(test) == expected).mean() > 0.8
    again = sgd_probe(iter(views), classes=6, total_epochs=20, batch_size=64)
    np.testing.assert_array_equal(probe.weight, again.weight)
    other = sgd_probe(views, classes=6, total_epochs=20, batch_size=64, seed=1)
    assert not np.array_equal(probe.weight, other.weight)


def test_sgd_probe_takes_the_step_of_the_protocol():
    """One epoch of one batch from the seeded weights, by hand."""
    x, labels = clusters(count=16)
    before = sgd_probe([(x, labels)], classes=6, total_epochs=0)
    after = sgd_probe([(x, labels)], classes=6, total_epochs=1, milestones=())
    scores = torch.from_numpy(x) @ torch.from_numpy(before.weight).T
    residual = torch.softmax(scores, dim=1) - torch.eye(6)[torch.from_numpy(labels)]
    step = 30 * residual.T @ torch.from_numpy(x) / 16
    np.testing.assert_allclose(after.weight, before.weight - step.numpy(), atol=1e-4)
    dropped = sgd_probe([(x, labels)], classes=6, total_epochs=1, milestones=(0.0, 0.0))
    np.testing.assert_allclose(dropped.weight, before.weight - step.numpy() / 100, atol=1e-5)
    assert before.bias.max() == 0
    assert before.weight.std() == pytest.approx(0.01, rel=0.3)


@settings(deadline=None, max_examples=50)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    seed=st.integers(0, 5),
    fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_subsets_are_stratified_and_nested(labels, seed, fractions):
    labels = np.array(labels)
    small, large = (label_subset(labels, f, seed) for f in sorted(fractions))
    assert set(small.tolist()) <= set(large.tolist())
    for label in np.unique(labels):
        expected = math.ceil(round(min(fractions) * (labels == label).sum(), 9))
        assert (labels[small] == label).sum() == expected
    assert label_subset(labels, 1.0, seed).tolist() == list(range(len(labels)))


def test_subsets_follow_published_counts():
    # CUB-200-2011, 30 a class: 600, 1,800 and 3,000 photos.
    labels = np.repeat(np.arange(200), 30)
    assert [len(label_subset(labels, f)) for f in (0.1, 0.3, 0.5)] == [600, 1_800, 3_000]


def test_subsets_depend_on_the_seed_only():
    labels = np.repeat(np.arange(4), 25)
    assert not np.array_equal(label_subset(labels, 0.2, 0), label_subset(labels, 0.2, 1))
    # Other classes do not change what is drawn of one.
    kept = label_subset(labels, 0.2, 0)
    np.testing.assert_array_equal(label_subset(labels[:50], 0.2, 0), kept[kept < 50])


def test_values_are_checked():
    x, labels = clusters()
    with pytest.raises(InputError, match="fraction"):
        label_subset(labels, 0.0)
    with pytest.raises(InputError, match="labels run"):
        logistic_probe(x, labels, classes=3)
    with pytest.raises(InputError, match="strength"):
        logistic_probe(x, labels, classes=6, strength=0.0)
    with pytest.raises(InputError, match="no views"):
        sgd_probe([], classes=6)
    x[3] = np.nan
    with pytest.raises(InputError, match="row 3"):
        logistic_probe(x, labels, classes=6)


def test_no_step_from_a_probe_is_that_probe():
    x, labels = clusters()
    classes = int(labels.max()) + 1
    probe = logistic_probe(x + 1.0, labels, classes=classes)
    same = logistic_probe(x + 1.0, labels, classes=classes, start=probe, max_steps=0)
    np.testing.assert_allclose(same.weight, probe.weight, atol=1e-6)
    np.testing.assert_allclose(same.bias, probe.bias, atol=1e-4)
    other = np.zeros((classes + 1, x.shape[1]), np.float32)
    with pytest.raises(InputError, match="the probe to begin at has weights of shape"):
        logistic_probe(x, labels, classes=classes, start=Probe(other, other[:, 0]))
