from itertools import permutations

import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.clusters import agreement, cluster


def best_match_by_trying_all(clusters, labels, count):
    return max(
        np.mean([order[c] == label for c, label in zip(clusters, labels, strict=True)])
        for order in permutations(range(count))
    )


def test_accuracy_is_that_of_the_best_one_to_one_match():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        labels, clusters = draw.integers(0, 4, 30), draw.integers(0, 4, 30)
        expected = 100 * best_match_by_trying_all(clusters, labels, 4)
        assert agreement(clusters, labels).accuracy == pytest.approx(expected)


def test_names_of_clusters_do_not_matter_and_chance_is_zero():
    labels = np.repeat(np.arange(5), 40)
    renamed = agreement((labels + 3) % 5 + 70, labels)
    assert renamed == pytest.approx((100, 100, 100))
    drawn = agreement(np.random.default_rng(0).integers(0, 5, 200), labels)
    assert abs(drawn.ari) < 3
    assert drawn.nmi < 6


def test_one_cluster_for_all_knows_nothing():
    labels = np.repeat(np.arange(4), 10)
    lumped = agreement(np.zeros(40, np.int64), labels)
    assert lumped == pytest.approx((0, 0, 25))
    # More clusters than classes: one of each class counts, the others are lost.
    assert agreement(np.arange(40), labels).accuracy == pytest.approx(10)


def test_separated_classes_are_found_whatever_their_length():
    draw = np.random.default_rng(1)
    means = np.eye(6)[:4] * 5 + 2
    labels = np.repeat(np.arange(4), 25)
    x = (means[labels] + draw.normal(0, 0.1, (100, 6))) * draw.uniform(0.1, 9, (100, 1))
    found = cluster(x.astype(np.float32), labels)
    assert found.measures == pytest.approx({"nmi": 100, "ari": 100, "cluster_accuracy": 100})
    assert found.clusters.shape == (3, 100)
    assert max(found.spread.values()) < 1e-9
    assert cluster(x.astype(np.float32), labels, clusters=2).measures["cluster_accuracy"] == 50


def test_the_same_seed_gives_the_same_clusters():
    x = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    labels = np.arange(60) % 3
    one, other = (cluster(x, labels, seeds=[5]) for _ in range(2))
    np.testing.assert_array_equal(one.clusters, other.clusters)


def test_impossible_requests_are_refused():
    x, labels = np.eye(3, dtype=np.float32), np.arange(3)
    with pytest.raises(InputError, match="3 photos cannot make 4 clusters"):
        cluster(x, labels, clusters=4)
    with pytest.raises(InputError, match="0 clustered photos and 0 labels"):
        agreement(np.zeros(0, np.int64), np.zeros(0, np.int64))
