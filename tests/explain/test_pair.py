import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from planted import CELL, GRID, noise, patches, put, stamp

from fieldmark.errors import InputError
from fieldmark.explain.faithfulness import draw_chance, measure_faithfulness
from fieldmark.explain.maps import toward
from fieldmark.explain.pair import explain_pair
from fieldmark.explain.parts import PART, apart, describe, without


@pytest.fixture(scope="module")
def spec():
    return patches()


@pytest.fixture(scope="module")
def pair():
    """Two photos that share two patches at different places."""
    images = noise(2)
    put(images[0], stamp(11), 1, 1)
    put(images[1], stamp(11), 4, 3)
    put(images[0], stamp(12), 4, 4)
    put(images[1], stamp(12), 1, 2)
    return images


def touches(place, spot):
    """Whether the part around a place of the maps' grid holds some of a planted cell."""
    reach = (PART + 1 / GRID) / 2
    # Parts stay inside the photo.
    middles = [min(max((at + 0.5) / 16, PART / 2), 1 - PART / 2) for at in place]
    return all(abs(at - (cell + 0.5) / GRID) < reach for at, cell in zip(middles, spot))


def test_a_patch_that_was_moved_is_found_and_is_what_makes_the_photos_alike(spec):
    # Moved by as much as the encoder's patches and the maps' cells have in common.
    images = noise(2)
    spots = (((1, 1), (4, 4)), ((4, 1), (1, 4)))
    for number, (here, there) in enumerate(spots):
        put(images[0], stamp(11 + number), *here)
        put(images[1], stamp(11 + number), *there)
    found = explain_pair(spec, images)
    for photo, map_ in enumerate(found.places):
        place = divmod(int(map_.argmax()), 16)
        assert any(touches(place, spot[photo]) for spot in spots)
    best = found.matches[0]
    assert any(touches(best.first, here) and touches(best.second, there) for here, there in spots)
    assert best.adds > 0.1
    for photo, cells in enumerate((found.first, found.second)):
        top = cells.flatten().topk(2).indices.tolist()
        assert {divmod(index, GRID) for index in top} == {spot[photo] for spot in spots}


def test_what_is_said_of_a_match_is_what_blurring_it_does(spec, pair):
    found = explain_pair(spec, pair)
    falls = [match.adds for match in found.matches]
    assert falls == sorted(falls, reverse=True)
    for match in found.matches:
        cells = torch.tensor([row * 16 + column for row, column in (match.first, match.second)])
        plain, soft = spec(pair), spec(without(pair, cells, 16))
        left = (float(soft[0] @ plain[1]) + float(plain[0] @ soft[1])) / 2
        assert match.adds == pytest.approx(found.similarity - left, abs=1e-5)


def test_matches_are_each_others_nearest_and_do_not_overlap(spec):
    images = noise(2, seed=4)
    for index in range(GRID):
        put(images, stamp(index), index, 0)
        put(images, stamp(index + 20), index, 3)
    found = explain_pair(spec, images, count=20).matches
    assert len(found) > 2
    looks = describe(
        spec,
        images,
        torch.tensor(
            [
                [row * 16 + column for row, column in (getattr(match, side) for match in found)]
                for side in ("first", "second")
            ]
        ),
        16,
    )
    alike = looks[0] @ looks[1].T
    assert (alike.argmax(1) == torch.arange(len(found))).all()
    assert (alike.argmax(0) == torch.arange(len(found))).all()
    for index, one in enumerate(found):
        for other in found[:index]:
            for side in ("first", "second"):
                a, b = getattr(one, side), getattr(other, side)
                assert max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= apart(16)


def test_photos_without_a_common_part_have_no_match(spec):
    images = noise(2, seed=5)
    put(images[0], stamp(1), 1, 1)
    put(images[1], stamp(2), 1, 1)
    strong = [match for match in explain_pair(spec, images).matches if match.adds > 0.1]
    assert not strong


def test_a_true_map_is_better_than_chance_and_its_opposite_worse(spec, pair):
    directions = spec(pair).flip(0)
    maps = toward(spec, pair, directions).maps
    chance = draw_chance(spec, pair, directions, (GRID, GRID), draws=8)
    true = measure_faithfulness(spec, pair, directions, maps, chance=chance)
    false = measure_faithfulness(spec, pair, directions, -maps, chance=chance)
    assert true.score > 2 * true.chance
    assert true.deletion > 0
    assert true.insertion > 0
    assert false.score < -true.chance
    assert true.curves["deletion"][0] == pytest.approx(true.curves["insertion"][-1], abs=1e-5)
    assert true.curves["deletion"][-1] == pytest.approx(true.curves["insertion"][0], abs=1e-5)
    assert true.score == pytest.approx(float(true.per_photo.mean()))


def test_random_maps_are_chance_and_the_seed_decides(spec, pair):
    directions = spec(pair).flip(0)
    generator = torch.Generator().manual_seed(0)
    chance = draw_chance(spec, pair, directions, (GRID, GRID), draws=8)
    drawn = [torch.rand(2, GRID, GRID, generator=generator) for _ in range(6)]
    scores = [measure_faithfulness(spec, pair, directions, one, chance=chance) for one in drawn]
    mean = sum(one.score for one in scores) / len(scores)
    assert abs(mean) < 2 * scores[0].chance / 12**0.5 * 1.5
    maps = torch.rand(2, GRID, GRID, generator=generator)
    first, again, other = (
        measure_faithfulness(spec, pair, directions, maps, draws=2, seed=seed).score
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_curves_hide_exactly_the_first_cells(spec):
    seen = []

    def encode(images):
        seen.append(images)
        return images.flatten(1)[:, :1]

    images = noise(1, seed=7)
    maps = torch.arange(GRID * GRID).float().view(1, GRID, GRID)
    measure_faithfulness(
        encode, images, torch.ones(1, 1), maps, steps=GRID * GRID, draws=2, fill="mean"
    )
    ours = torch.cat(seen)[-2 * (GRID * GRID + 1) :]
    changed = (ours != images).any(1).unfold(1, CELL, CELL).unfold(2, CELL, CELL).any(-1).any(-1)
    for step in range(GRID * GRID + 1):
        hidden = torch.nonzero(changed[step].flatten())[:, 0]
        assert set(hidden.tolist()) == set(range(GRID * GRID - step, GRID * GRID))
        left = torch.nonzero(changed[GRID * GRID + 1 + step].flatten())[:, 0]
        assert set(left.tolist()) == set(range(GRID * GRID - step))


def test_maps_that_hold_no_numbers_and_too_few_draws_are_refused(spec, pair):
    directions = spec(pair).flip(0)
    with pytest.raises(InputError, match="NaN"):
        measure_faithfulness(spec, pair, directions, torch.full((2, GRID, GRID), torch.nan))
    with pytest.raises(InputError, match=r"draws must be >= 2.*got 1"):
        measure_faithfulness(spec, pair, directions, torch.rand(2, GRID, GRID), draws=1)
