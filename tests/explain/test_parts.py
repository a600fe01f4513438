import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from planted import CELL, GRID, noise, patches, put, stamp

from fieldmark.explain.drawing import cut
from fieldmark.explain.parts import (
    PART,
    apart,
    corners,
    describe,
    losses,
    strongest,
    summed,
    without,
)


@pytest.fixture(scope="module")
def spec():
    return patches()


def test_strongest_places_keep_apart_and_count_for_and_against():
    maps = torch.zeros(2, 16, 16)
    maps[0, 3, 3], maps[0, 3, 4], maps[0, 12, 10] = 2, 1, -5
    maps[1, 8, 8] = 1
    found = strongest(maps, 3)
    assert found.shape == (2, 3)
    places = [divmod(int(cell), 16) for cell in found[0]]
    near = [max(abs(a - b) for a, b in zip(places[0], (12, 10)))]
    near += [max(abs(a - b) for a, b in zip(places[1], (3, 4)))]
    assert max(near) <= PART * 16 / 2
    for photo in found.tolist():
        spots = [divmod(cell, 16) for cell in photo]
        for index, one in enumerate(spots):
            for other in spots[:index]:
                assert max(abs(a - b) for a, b in zip(one, other)) >= apart(16)
    assert strongest(torch.ones(1, 2, 2), 9).shape[1] <= 4


def test_sums_over_parts_are_plain_sums():
    maps = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    found = summed(maps)
    reach = round((PART * 16 - 1) / 2)
    for row, column in ((0, 0), (7, 9), (15, 3)):
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        assert float(found[0, row, column]) == pytest.approx(
            float(maps[0, rows, columns].sum()), abs=1e-4
        )


def test_what_is_blurred_is_what_the_close_up_shows():
    images = noise(1, seed=2)
    for row, column in ((2, 13), (0, 0), (8, 15)):
        cell = torch.tensor([row * 16 + column])
        changed = (without(images, cell, 16) != images).any(1)[0]
        side = changed.shape[0]
        top, left = (corners(cell, 16)[0] * side).tolist()
        rows, columns = torch.nonzero(changed, as_tuple=True)
        assert rows.min() == pytest.approx(top, abs=1)
        assert rows.max() + 1 == pytest.approx(top + PART * side, abs=1)
        assert columns.min() == pytest.approx(left, abs=1)
        assert columns.max() + 1 == pytest.approx(left + PART * side, abs=1)
        picture = np.repeat(changed.numpy()[:, :, None], 3, 2).astype(np.uint8) * 255
        shown = cut(picture, (row + 0.5) / 16, (column + 0.5) / 16, PART, 40)
        assert shown[4:-4, 4:-4].min() > 200


def test_parts_are_described_by_themselves_wherever_they_are(spec):
    images = noise(2, seed=4)
    for image, (row, column) in zip(images, ((1, 1), (4, 3))):
        put(image, stamp(11), row, column)
    # On a grid as fine as the pixels, so that both close-ups cut the stamp alike.
    side = CELL * GRID
    at = torch.tensor([[12 * side + 12, 36 * side + 12], [36 * side + 28, 12 * side + 40]])
    looks = describe(spec, images, at, side)
    assert float(looks[0, 0] @ looks[1, 0]) > 0.95
    assert float(looks[0, 0] @ looks[1, 1]) < 0.9


def test_hiding_the_part_that_tells_costs_what_it_costs(spec):
    images = put(noise(2, seed=5), stamp(8), 1, 2)
    directions = spec(images).flip(0)
    cells = torch.tensor([4 * 16 + 6, 13 * 16 + 13])
    found = losses(spec, images, directions, cells, 16)
    hidden = spec(without(images, cells, 16))
    wanted = ((spec(images) - hidden) * directions).sum(1)
    torch.testing.assert_close(found, wanted)
    assert float(found[0]) > 10 * abs(float(found[1]))
