import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from planted import CELL, GRID, noise, patches, put, stamp

from fieldmark.errors import InputError
from fieldmark.explain.cells import directions_of, read_cells
from fieldmark.explain.faithfulness import draw_chance, measure_faithfulness
from fieldmark.explain.maps import toward
from fieldmark.explain.pair import apart, explain_pair, far


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


def test_a_patch_that_was_moved_is_found_and_is_what_makes_the_photos_alike(spec, pair):
    found = explain_pair(spec, pair)
    places = {(match.first, match.second) for match in found.matches[:2]}
    assert places == {((1, 1), (4, 3)), ((4, 4), (1, 2))}
    assert all(match.alike > 0.99 for match in found.matches[:2])
    assert all(match.adds > 0.1 for match in found.matches[:2])
    top = found.first.flatten().topk(2).indices.tolist()
    assert {divmod(index, GRID) for index in top} == {(1, 1), (4, 4)}
    top = found.second.flatten().topk(2).indices.tolist()
    assert {divmod(index, GRID) for index in top} == {(4, 3), (1, 2)}


def test_matches_are_each_others_nearest_and_do_not_overlap(spec):
    images = noise(2, seed=4)
    for index in range(GRID):
        put(images, stamp(index), index, 0)
        put(images, stamp(index + 20), index, 1)
    side = 2 * GRID
    found = explain_pair(spec, images, steps=2, count=20).matches
    assert len(found) > 2
    directions = directions_of(spec, read_cells(spec, images, steps=2).tokens)
    alike = directions[0] @ directions[1].T
    for match in found:
        first, second = (row * side + column for row, column in (match.first, match.second))
        assert int(alike[first].argmax()) == second
        assert int(alike[:, second].argmax()) == first
    assert apart((side, side)) == 2
    for index, one in enumerate(found):
        for other in found[:index]:
            assert far(one.first, other.first) >= 2
            assert far(one.second, other.second) >= 2


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
