import numpy as np
import pytest

from fieldmark.evaluation.projection import project


def groups(each=20, dim=12, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), each)
    return 4 * np.eye(3, dim)[labels] + generator.standard_normal((3 * each, dim)), labels


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_look_alikes_lie_together(method):
    x, labels = groups()
    (place,) = project(x, method=method).places
    assert place.shape == (60, 2)
    assert np.abs(place).max() == pytest.approx(1)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2) + 9 * np.eye(60)
    assert (labels[distance.argmin(axis=1)] == labels).mean() > 0.9


def test_same_seed_same_map():
    x, _ = groups()
    one, two = project(x, seed=3), project(x, seed=3)
    np.testing.assert_array_equal(one.places[0], two.places[0])


def test_maps_are_turned_towards_the_first():
    x, _ = groups()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0]
    first, second = project(x, x @ turn, method="pca").places
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_photos_are_thinned_out():
    x, _ = groups()
    found = project(x, x, limit=15, method="pca")
    assert len(found.rows) == 15
    assert (np.diff(found.rows) > 0).all()
    assert found.how == "first two principal components, 15 of 60 photos"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_photos(count):
    (place,) = project(np.eye(count, 4) + 0.1).places
    assert place.shape == (count, 2)
    assert np.isfinite(place).all()


def test_identical_photos():
    (place,) = project(np.ones((30, 4)), method="pca").places
    assert np.isfinite(place).all()
