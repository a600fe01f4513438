import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

sys.path.insert(0, str(Path(__file__).parent))

from planted import GRID, noise, patches, put, stamp

from fieldmark.data.aviary import AviaryConfig, draw
from fieldmark.data.aviary.species import MARKS
from fieldmark.errors import InputError
from fieldmark.explain.classes import explain_classes, fit_decision

FIRST = torch.arange(24) < 12


@pytest.fixture(scope="module")
def spec():
    return patches()


@pytest.fixture(scope="module")
def corner():
    """Two classes that differ in the patch in one corner; another patch moves freely in both."""
    images = noise(24, seed=1)
    generator = np.random.default_rng(0)
    for index in range(24):
        row, column = generator.integers(2, GRID, 2)
        put(images[index], stamp(5), int(row), int(column))
    put(images[:12], stamp(8), 0, 0)
    put(images[12:], stamp(9), 0, 0)
    return images


def test_the_line_is_the_regularised_discriminant(spec, corner):
    embeddings = spec(corner)
    found = fit_decision(embeddings, FIRST)
    x = embeddings.double().numpy()
    first = FIRST.numpy()
    means = x[first].mean(0), x[~first].mean(0)
    within = x - np.where(first[:, None], means[0], means[1])
    covariance = LedoitWolf(assume_centered=True).fit(within).covariance_
    wanted = np.linalg.solve(covariance, means[0] - means[1])
    cosine = wanted @ found.direction.numpy() / np.linalg.norm(wanted) / found.direction.norm()
    assert float(cosine) == pytest.approx(1, abs=1e-4)
    decisions = embeddings @ found.direction - found.offset
    assert float(decisions[FIRST].mean()) == pytest.approx(1, abs=1e-3)
    assert float(decisions[~FIRST].mean()) == pytest.approx(-1, abs=1e-3)


def test_the_corner_where_two_classes_differ_is_their_mark(spec, corner):
    found = explain_classes(spec, corner, FIRST)
    assert found.right == 1
    assert found.exact
    assert (found.maps.flatten(1).argmax(1) == 0).all()
    best = found.marks[0]
    assert (best.rows == 0).all()
    assert (best.columns == 0).all()
    assert best.consistent == 1
    assert best.strength > 0.5
    totals = found.maps.sum((1, 2))
    sign = torch.where(FIRST, 1.0, -1.0)
    torch.testing.assert_close(totals, (spec(corner) * found.directions).sum(1), atol=1e-4, rtol=1e-4)
    assert (totals - sign * 0 > totals.median() - 10).all()


def test_classes_that_do_not_differ_are_not_told_apart(spec):
    images = noise(24, seed=9)
    found = explain_classes(spec, images, FIRST)
    assert 0.2 < found.right < 0.8


def test_a_photo_takes_no_part_in_the_line_that_judges_it(spec):
    images = noise(8, seed=2)
    first = torch.arange(8) < 4
    before = explain_classes(spec, images, first, folds=4)
    images[0] = 1 - images[0]
    after = explain_classes(spec, images, first, folds=4)
    torch.testing.assert_close(before.directions[0], after.directions[0])
    assert not torch.allclose(before.directions[1], after.directions[1])


def test_one_photo_of_a_class_is_too_few(spec):
    with pytest.raises(InputError, match="at least 2 photos, got 1 and 3"):
        explain_classes(spec, noise(4), torch.tensor([True, False, False, False]))
    with pytest.raises(InputError, match="photos of both, got 4 and 0"):
        fit_decision(torch.rand(4, 3), torch.ones(4, dtype=torch.bool))


def test_the_drawn_marks_of_aviary_are_found(spec):
    """Colour patches alone know where two species differ better than chance does."""
    aviary = draw(AviaryConfig(species=2, per_species=30, size=GRID * 8))
    images = torch.from_numpy(aviary.images).permute(0, 3, 1, 2).float() / 255
    found = explain_classes(spec, images, torch.from_numpy(aviary.labels == 0))
    differ = [
        index
        for index in range(len(MARKS))
        if aviary.species[0].forms[index] != aviary.species[1].forms[index]
    ]
    assert len(differ) == 4
    assert found.maps.shape == (60, GRID, GRID)
