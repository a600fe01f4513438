import numpy as np
import pytest
from vectors import ENCODER, OTHER, unit

from fieldmark.errors import InputError
from fieldmark.index import alike as module
from fieldmark.index.alike import (
    close_pairs,
    connected,
    doubt_labels,
    neighbours,
    read_items,
    unlikeness,
    usual_distance,
)


def normal(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_neighbours_equal_brute_force_and_leave_the_photo_itself_out(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 7)
    x = unit(40)
    x[20:24] = x[3]  # several that are the same: the photo itself need not be among its nearest
    cosines = x @ x.T
    np.fill_diagonal(cosines, -2)
    found = neighbours(x, 3)
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :3], atol=1e-6)
    assert not (found.rows == np.arange(40)[:, None]).any()
    np.testing.assert_allclose(
        found.cosines, np.take_along_axis(cosines, found.rows, axis=1), atol=1e-6
    )
    assert neighbours(x[:2], 5).rows.tolist() == [[1], [0]]
    assert neighbours(x[:1], 5).rows.tolist() == [[-1]]
    assert usual_distance(neighbours(x[:1], 5)) == 0


def test_the_usual_distance_is_not_moved_by_copies():
    x = unit(200, 16)
    noise = np.random.default_rng(1).normal(size=(200, 16)) * 0.01
    both = np.concatenate([x, normal(x + noise)])
    alone, copied = (usual_distance(neighbours(each)) for each in (x, both))
    assert copied == pytest.approx(alone, rel=0.25)
    assert copied > 20 * (1 - neighbours(both).cosines[:, 0]).mean()


def test_close_pairs_come_once_and_are_connected():
    angles = np.radians([0, 1, 2, 40, 41, 90, 180])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    pairs = close_pairs(neighbours(x), np.cos(np.radians(1.5)))
    assert sorted(map(tuple, pairs.rows.tolist())) == [(0, 1), (1, 2), (3, 4)]
    assert (np.diff(pairs.cosines) <= 0).all()
    assert connected(pairs.rows, 7) == [[0, 1, 2], [3, 4]]
    assert connected(np.zeros((0, 2), np.int64), 3) == []
    assert connected(np.zeros((0, 2), np.int64), 0) == []


def kinds(count=40, each=20, dim=32, spread=0.25, seed=0):
    random = np.random.default_rng(seed)
    centres = normal(random.normal(size=(count, dim)))
    labels = np.repeat(np.arange(count), each)
    x = normal(centres[labels] + spread * random.normal(size=(len(labels), dim)) / dim**0.5)
    return x, labels


def test_a_foreign_kind_is_unlike_the_rest_though_it_is_like_itself():
    x, _ = kinds()
    x[:, -1] = 0.5  # what all own photos share
    x = normal(x)
    foreign = np.zeros((16, 32), np.float32)
    foreign[:, 0] = 1
    foreign[:, -1] = -0.5
    foreign = normal(foreign + 0.02 * np.random.default_rng(1).normal(size=foreign.shape))
    both = np.concatenate([x, foreign])
    score = unlikeness(both)
    assert set(np.argsort(-score)[:16]) == set(range(len(x), len(both)))
    nearest = 1 - neighbours(both, 10).cosines.mean(axis=1)
    assert nearest[-16:].max() < nearest[:-16].min()  # their nearest say the opposite
    chunks = unlikeness(both[::-1])[::-1]
    np.testing.assert_allclose(chunks, score, atol=0.1)


def test_wrong_labels_are_doubted_and_who_they_are_like_is_said(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 6)
    x, labels = kinds(8)
    given = labels.copy()
    given[[0, 25, 50]] = [3, 3, 6]
    given[100] = -1
    found = doubt_labels(x, given)
    assert set(np.flatnonzero(found.score > 0)) == {0, 25, 50}
    assert found.nearest[[0, 25, 50]].tolist() == [0, 1, 2]
    assert np.flatnonzero(np.isnan(found.score)).tolist() == [100]
    # Against plain loops.
    cosines = x @ x.T
    for row in (0, 1, 25, 77):
        own = np.flatnonzero((given == given[row]) & (np.arange(len(x)) != row))
        other = np.flatnonzero((given != given[row]) & (given >= 0))
        wanted = np.sort(cosines[row, other])[-3:].mean() - np.sort(cosines[row, own])[-3:].mean()
        assert found.score[row] == pytest.approx(wanted, abs=1e-5)


def test_a_label_of_one_photo_is_not_judged():
    x, labels = kinds(2, 3)
    labels[0] = 2
    assert np.isnan(doubt_labels(x, labels).score[0])
    assert np.isnan(doubt_labels(x, np.zeros(6, np.int64)).score).all()
    assert np.isnan(doubt_labels(x, np.full(6, -1)).score).all()


def test_an_index_that_was_never_filled_is_told(reopen):
    with pytest.raises(InputError, match="is empty"):
        read_items(reopen())


def test_items_come_with_their_vectors_and_those_without_are_left_out(index, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 2)
    x = unit(5)
    index.add(list("cabed"), x)
    index.set_labels({"a": "wren", "c": "wren"})
    held = read_items(index)
    assert [item.key for item in held.items] == list("abcde")
    np.testing.assert_array_equal(held.vectors, x[[1, 2, 0, 4, 3]])
    some = read_items(index, 'label = "wren"')
    np.testing.assert_array_equal(some.vectors, x[[1, 0]])
    index.add_space(OTHER, 8)
    index.update(["b"], vectors=x[:1], identity=OTHER)
    assert [item.key for item in read_items(index, identity=OTHER).items] == ["b"]
    assert len(read_items(index, identity=ENCODER).items) == 5
