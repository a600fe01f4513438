import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

sys.path.insert(0, str(Path(__file__).parent))

from planted import GRID, noise, patches, put, stamp

from fieldmark.data.aviary import AviaryConfig, draw
from fieldmark.errors import InputError
from fieldmark.explain import drawn
from fieldmark.explain.classes import explain_classes, fit_decision
from fieldmark.explain.drawn import find_drawn_marks
from fieldmark.explain.parts import without

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
    rows, columns = found.maps.flatten(1).argmax(1) // 16, found.maps.flatten(1).argmax(1) % 16
    # The mirrored looks see another patch, so a photo or two may point elsewhere.
    assert ((rows < 16 / GRID) & (columns < 16 / GRID)).double().mean() > 0.9
    best = found.marks[0]
    assert ((best.rows <= 16 / GRID) & (best.columns <= 16 / GRID)).double().mean() > 0.9
    assert best.consistent > 0.9
    assert best.strength > 0.5


def test_a_mark_is_what_blurring_it_did_and_its_examples_show_it_in_both(spec, corner):
    found = explain_classes(spec, corner, FIRST)
    for mark in found.marks:
        cells = mark.rows * 16 + mark.columns
        change = spec(corner) - spec(without(corner, cells, 16))
        torch.testing.assert_close(
            mark.adds, (change * found.directions).sum(1), atol=1e-4, rtol=1e-3
        )
        sides = [mark.adds[FIRST], mark.adds[~FIRST]]
        assert mark.strength == pytest.approx(float(sum(s.mean() for s in sides)) / 2, abs=1e-5)
        assert mark.consistent == pytest.approx(
            float(sum((s > 0).double().mean() for s in sides)) / 2
        )
        first, second = zip(*mark.examples)
        assert all(FIRST[list(first)])
        assert not any(FIRST[list(second)])
        assert len(set(first)) == len(first)
        assert len(set(second)) == len(second)
        assert (mark.adds[list(first + second)] > 0).all()


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


def test_the_drawn_marks_of_two_species_are_found_more_often_than_by_chance(spec):
    aviary = draw(AviaryConfig(species=2, per_species=30, size=GRID * 8))
    found = find_drawn_marks(spec, aviary, (0, 1))
    assert found.photos > 50
    assert found.rate > 1.5 * found.chance
    assert found.chance < found.on_bird
    with pytest.raises(InputError, match="48 px and the birds are drawn at 32 px"):
        find_drawn_marks(spec, draw(AviaryConfig(species=2, per_species=2, size=32)), (0, 1))


@pytest.mark.parametrize("truly", [True, False])
def test_maps_that_know_the_marks_find_all_of_them(spec, monkeypatch, truly):
    aviary = draw(AviaryConfig(species=2, per_species=6, size=GRID * 8))
    size, cells = aviary.config.size, 24
    differ = [a != b for a, b in zip(aviary.species[0].forms, aviary.species[1].forms)]
    maps = torch.zeros(12, cells, cells)
    for photo in range(12):
        boxes = aviary.mark_boxes[photo] / size
        visible = [bool(d and v > 0.5) for d, v in zip(differ, aviary.mark_visible[photo])]
        x0, y0, x1, y1 = boxes[visible.index(True)]
        maps[photo, int((y0 + y1) / 2 * cells), int((x0 + x1) / 2 * cells)] = 1
    told = explain_classes(spec, noise(12), torch.arange(12) < 6)
    told = told._replace(maps=maps if truly else 1 - maps.cumsum(1).cumsum(2).clamp_max(1))
    monkeypatch.setattr(drawn, "explain_classes", lambda *_, **__: told)
    found = find_drawn_marks(spec, aviary, (0, 1))
    assert (found.rate == 1) is truly
