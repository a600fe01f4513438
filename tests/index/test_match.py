"""Templates laid over grids, against plain loops."""

import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.index.match import (
    ARRANGED,
    STEPS,
    Region,
    Template,
    cut_template,
    find_places,
    glance,
    lay,
)


def units(*shape, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def grids(*shape, seed=0):
    return np.rint(units(*shape, seed=seed) * STEPS).astype(np.int8)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.1,0.2,0.3", "four numbers"),
        ("a,b,c,d", "four numbers"),
        ("10,20,30,40", "divided by width and height"),
        ("-0.1,0,0.5,0.5", "from 0 to 1"),
        ("0.5,0.1,0.4,0.3", "x0 must be less than x1"),
        ("0.1,0.3,0.4,0.3", "y0 less than y1"),
        ("nan,0,1,1", "from 0 to 1"),
    ],
)
def test_regions_that_are_none_say_what_is_allowed(text, why):
    with pytest.raises(InputError, match=why):
        Region.parse(text)


def test_a_region_is_read():
    assert Region.parse(" 0, 0.25,1 ,0.5") == (0, 0.25, 1, 0.5)


def test_a_template_weighs_cells_by_how_much_of_them_it_covers():
    cells = units(4, 5, 6).astype(np.float32)
    # Rows 0.6 to 2.4 of 4 in two pieces, columns 1.1 to 2.0 of 5 in one.
    found = cut_template(cells, Region(1.1 / 5, 0.6 / 4, 2.0 / 5, 2.4 / 4))
    assert found.extent == pytest.approx((1.8, 0.9))
    first = 0.4 * cells[0, 1] + 0.5 * cells[1, 1]
    second = 0.5 * cells[1, 1] + 0.4 * cells[2, 1]
    wanted = np.stack([first, second])[:, None]
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.cells, wanted, atol=1e-6)


def by_loops(grid, template):
    """Best score of one photo, and the middle of where it is, in cells."""
    cells = template.cells.astype(float)
    mean = cells.mean((0, 1))
    mean /= np.linalg.norm(mean)
    rows, columns = cells.shape[:2]
    best = (-9.0, None)
    for mirrored in (cells, cells[:, ::-1]):
        for y in range(grid.shape[0] - rows + 1):
            for x in range(grid.shape[1] - columns + 1):
                score = 0.0
                for i in range(rows):
                    for j in range(columns):
                        cell = grid[y + i, x + j] / STEPS
                        score += ARRANGED * (mirrored[i, j] @ cell) + (1 - ARRANGED) * (mean @ cell)
                best = max(best, (score / rows / columns, (y + rows / 2, x + columns / 2)))
    return best


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 1)])
def test_laying_agrees_with_plain_loops(shape):
    photos = grids(7, 5, 6, 8)
    template = Template(units(*shape, 8, seed=1).astype(np.float32), (shape[0], shape[1]))
    scores, boxes = lay(photos, template)
    for grid, score, box in zip(photos, scores, boxes):
        wanted, (y, x) = by_loops(grid, template)
        assert score == pytest.approx(wanted, abs=1e-5)
        # Between cells, but never nearer to another one.
        assert abs((box[0] + box[2]) / 2 * 6 - x) <= 0.5 + 1e-9
        assert abs((box[1] + box[3]) / 2 * 5 - y) <= 0.5 + 1e-9
        assert box[2] - box[0] == pytest.approx(shape[1] / 6)
        assert box[3] - box[1] == pytest.approx(shape[0] / 5)


def test_a_glance_is_what_laying_the_mean_gives():
    photos = grids(9, 6, 5, 8)
    template = Template(units(3, 2, 8, seed=2).astype(np.float32), (3, 2))
    mean = template.cells.mean((0, 1))
    mean /= np.linalg.norm(mean)
    flat = Template(np.broadcast_to(mean, template.cells.shape).copy(), (3, 2))
    np.testing.assert_allclose(glance(photos, template), lay(photos, flat)[0], atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_put_elsewhere_is_found_where_it_is(mirrored):
    photos = grids(3, 8, 8, 16)
    part = photos[0, 2:4, 5:8]
    photos[2, 5:7, 0:3] = part[:, ::-1] if mirrored else part
    template = cut_template(photos[0] / STEPS, Region(5 / 8, 2 / 8, 1, 4 / 8))
    scores, boxes = lay(photos, template)
    assert np.argsort(-scores)[:2].tolist() in ([0, 2], [2, 0])
    np.testing.assert_allclose(boxes[0], [5 / 8, 2 / 8, 1, 4 / 8], atol=0.5 / 8)
    np.testing.assert_allclose(boxes[2], [0, 5 / 8, 3 / 8, 7 / 8], atol=0.5 / 8)


def test_a_region_larger_than_a_grid_covers_it_all():
    template = cut_template(units(9, 3, 8).astype(np.float32), Region(0, 0, 1, 1))
    scores, boxes = lay(grids(2, 3, 9, 8), template)
    assert np.isfinite(scores).all()
    # As wide as three cells and as high as nine, of which the photo has three.
    np.testing.assert_allclose(boxes[:, 3] - boxes[:, 1], 1)
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], 3 / 9)


def test_photos_of_all_shapes_are_ranked_together_and_ties_go_by_key():
    first, second = grids(4, 5, 5, 8), grids(3, 4, 6, 8, seed=3)
    first[3] = first[1]
    keys = [["d", "c", "a", "b"], ["x", "y", "z"]]
    template = cut_template(units(5, 5, 8, seed=4).astype(np.float32), Region(0.1, 0.1, 0.5, 0.5))
    chunks = list(zip(keys, (first, second)))
    found = find_places(chunks, template, 5)
    scores = {
        key: score
        for names, photos in chunks
        for key, score in zip(names, lay(photos, template)[0])
    }
    order = sorted(scores, key=lambda key: (-scores[key], key))
    assert [place.key for place in found] == order[:5]
    assert order.index("b") == order.index("c") - 1


def test_a_shortlist_lets_the_best_through_chunk_by_chunk():
    photos = grids(400, 4, 4, 16)
    template = cut_template(photos[333] / STEPS, Region(0.25, 0.25, 0.75, 0.75))
    chunks = [
        ([f"{start + i:03d}" for i in range(40)], photos[start : start + 40])
        for start in range(0, 400, 40)
    ]
    whole = find_places(chunks, template, 3)
    short = find_places(chunks, template, 3, shortlist=20)
    assert whole[0].key == short[0].key == "333"
    assert len(short) == 3


def test_ties_go_by_key_across_shapes():
    cell = grids(1, 1, 1, 8)[0, 0, 0]
    square, row = np.zeros((2, 2, 2, 8), np.int8), np.zeros((1, 1, 3, 8), np.int8)
    square[:, 1, 0] = row[0, 0, 2] = cell
    template = cut_template(cell[None, None] / STEPS, Region(0.0, 0.0, 1.0, 1.0))
    found = find_places([(["a", "c"], square), (["b"], row)], template, 3)
    assert [place.key for place in found] == ["a", "b", "c"]
    assert found[1].box == pytest.approx((2 / 3, 0, 1, 1), abs=0.2)
