import numpy as np
import pytest

from fieldmark.evaluation.confusion import (
    choose_queries,
    confusable_pairs,
    neighbour_sheet,
    neighbours,
)


def test_neighbours_equal_a_sort_and_never_find_themselves():
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = unit @ unit.T - 9 * np.eye(40)
    expected = np.argsort(-similarity, axis=1)[:, :3]
    np.testing.assert_array_equal(neighbours(x, 3), expected)
    np.testing.assert_array_equal(neighbours(x, 3, queries=np.array([7, 2])), expected[[7, 2]])


def test_neighbours_of_few_photos():
    assert neighbours(np.eye(3), 10).tolist() == [[1, 2], [0, 2], [0, 1]]
    assert neighbours(np.eye(1), 5).shape == (1, 0)


def test_confusable_pairs():
    labels = np.array([0] * 10 + [1] * 10 + [2] * 10)
    predicted = labels.copy()
    predicted[[0, 1, 2]] = 1  # 3 of 20 photos of classes 0 and 1
    predicted[12] = 0  # and one the other way
    predicted[25] = 1
    first, second = confusable_pairs(predicted, labels, examples=2)
    assert (first.first, first.second, first.share) == (0, 1, 20.0)
    assert first.photos_first.tolist() == [0, 1]
    assert first.photos_second.tolist() == [12, 10]
    assert (second.first, second.second, second.share) == (1, 2, 5.0)
    assert len(confusable_pairs(predicted, labels, limit=1)) == 1
    assert confusable_pairs(labels, labels) == []


def test_queries_show_gains_losses_and_chance():
    start = np.linspace(0.1, 0.9, 30)
    trained = start.copy()
    trained[4] += 0.3
    trained[9] -= 0.3
    trained[20] = start[20] = np.nan
    rows = choose_queries(start, trained, 6)
    assert len(set(rows.tolist())) == 6
    assert {4, 9} <= set(rows.tolist())
    assert 20 not in rows
    np.testing.assert_array_equal(rows, choose_queries(start, trained, 6))
    assert len(choose_queries(start[:3], trained[:3], 6)) == 3


def test_sheet():
    x = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    rows = neighbour_sheet(x, -x, np.array([3, 11]), k=4)
    assert [row.query for row in rows] == [3, 11]
    np.testing.assert_array_equal(rows[0].start, rows[0].trained)
    assert rows[0].start.shape == (4,)
    assert rows[1].start[0] == pytest.approx(neighbours(x, 1)[11, 0])
