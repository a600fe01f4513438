import numpy as np
import pytest
from madeup import clusters
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from fieldmark.errors import InputError
from fieldmark.evaluation.knn import weighted_knn
from fieldmark.label.heads import (
    CANDIDATES,
    HeadSpec,
    choose_head,
    class_means,
    deal,
    fit_head,
    held_out_scores,
)


def test_class_means_are_those_of_plain_loops_and_zero_without_photos():
    x, labels = clusters(4, 5)
    labels = np.where(labels == 2, 3, labels)
    found = class_means(x, labels, 6)
    for label in range(6):
        own = x[labels == label]
        np.testing.assert_allclose(found[label], own.mean(axis=0) if len(own) else 0, atol=1e-6)


def test_nearest_mean_is_the_cosine_with_each_mean():
    x, labels = clusters()
    head = fit_head(HeadSpec("mean"), 3 * x, labels, 7)
    query, _ = clusters(seed=1)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(6)])
    cosines = query @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    np.testing.assert_allclose(head.scores(query)[:, :6], cosines, atol=1e-5)
    assert (head.scores(query).argmax(axis=1) != 6).all()


def test_the_logistic_head_is_that_of_scikit_learn():
    x, labels = clusters()
    query, _ = clusters(seed=1)
    theirs = LogisticRegression(C=10, tol=1e-6, max_iter=1000).fit(x, labels)
    ours = fit_head(HeadSpec("logistic", 10.0), x, labels, 6)
    assert (ours.scores(query).argmax(axis=1) == theirs.predict(query)).mean() > 0.98


def test_a_head_that_goes_on_from_another_ends_where_one_from_zero_does():
    x, labels = clusters(each=40)
    before = fit_head(HeadSpec("logistic", 10.0), x[:200], labels[:200], 6, tolerance=1e-9)
    cold = fit_head(HeadSpec("logistic", 10.0), x, labels, 6, tolerance=1e-9)
    warm = fit_head(HeadSpec("logistic", 10.0), x, labels, 6, start=before, tolerance=1e-9)
    np.testing.assert_allclose(warm.scores(x), cold.scores(x), atol=0.05)
    untouched = fit_head(HeadSpec("logistic", 10.0), x, labels, 6, start=before, tolerance=1e9)
    assert np.abs(untouched.scores(x) - before.scores(x)).max() > 0, "one step is made at least"
    apart = np.abs(untouched.scores(x) - cold.scores(x)).mean()
    assert apart < np.abs(cold.scores(x)).mean() / 5, "it began where the other ended"


def test_neighbours_vote_as_weighted_knn_does_and_one_neighbour_as_scikit_learn_says():
    x, labels = clusters()
    query, _ = clusters(seed=1)
    five = fit_head(HeadSpec("neighbours", 5), x, labels, 6).scores(query)
    assert (five.argmax(axis=1) == weighted_knn(x, labels, query, classes=6, k=5)).all()
    one = fit_head(HeadSpec("neighbours", 1), x, labels, 6).scores(query)
    nearest = KNeighborsClassifier(1).fit(x, labels).predict(query)
    assert (one.argmax(axis=1) == nearest).all()
    with pytest.raises(InputError, match="at least one neighbour"):
        fit_head(HeadSpec("neighbours", 0), x, labels, 6)


def test_folds_are_even_in_every_class_and_keep_groups_together():
    labels = np.repeat([0, 1, 2, 3], [50, 7, 2, 1])
    folds = deal(labels, 5)
    for label, count in ((0, 50), (1, 7)):
        sizes = np.bincount(folds.of[labels == label], minlength=5)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1
    assert set(folds.of[labels == 2]) <= set(range(5))
    assert len(set(folds.of[labels == 2])) == 2
    assert (folds.of[labels == 3] == -1).all(), "alone in its class: always learnt from"
    groups = np.arange(60) // 3
    together = deal(labels, 5, groups=groups)
    for group in range(20):
        assert len(set(together.of[(groups == group) & (together.of >= 0)])) <= 1
    with pytest.raises(InputError, match="two folds"):
        deal(labels, 1)


def test_held_out_scores_come_from_heads_that_have_not_seen_the_photo():
    x, labels = clusters(spread=2.0)
    # Labels at random: only a head that has seen the photo could know them.
    labels = np.random.default_rng(3).integers(0, 6, len(labels))
    folds = deal(labels, 5)
    [held] = held_out_scores([HeadSpec("neighbours", 1)], x, labels, 6, folds)
    assert (held.argmax(axis=1) == labels).mean() < 0.4
    seen = fit_head(HeadSpec("neighbours", 1), x, labels, 6).scores(x)
    assert (seen.argmax(axis=1) == labels).all()


def test_the_head_that_is_right_most_often_is_chosen():
    # Rings: the class is told by the nearest photos, and by no line.
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    labels = (np.arange(240) // 6) % 2
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    choice = choose_head(x, labels, 2, deal(labels, 5))
    assert choice.spec.kind == "neighbours"
    assert choice.accuracy[str(choice.spec)] == max(choice.accuracy.values())
    assert len(choice.accuracy) == len(CANDIDATES)
    lone = choose_head(x[:2], np.array([0, 1]), 2, deal(np.array([0, 1]), 5))
    assert lone.spec == CANDIDATES[0]
    assert np.isnan(lone.scores).all()
