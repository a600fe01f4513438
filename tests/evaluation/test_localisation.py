import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.errors import InputError
from fieldmark.evaluation.localisation import (
    cover_by_boxes,
    cover_by_masks,
    measure_localisation,
)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9999), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_boxes_and_masks_cover_cells_as_counting_pixels_does(seed, rows, columns):
    draw = np.random.default_rng(seed)
    fine = 60  # a multiple of every grid
    x = np.sort(draw.integers(0, fine + 1, 2))
    y = np.sort(draw.integers(0, fine + 1, 2))
    mask = np.zeros((fine, fine), bool)
    mask[y[0] : y[1], x[0] : x[1]] = True
    counted = mask.reshape(rows, fine // rows, columns, fine // columns).mean(axis=(1, 3))
    box = np.array([[x[0], y[0], x[1], y[1]]]) / fine
    np.testing.assert_allclose(cover_by_boxes(box, (rows, columns))[0], counted, atol=1e-12)
    np.testing.assert_allclose(cover_by_masks([mask], (rows, columns))[0], counted, atol=1e-12)


def test_masks_whose_pixels_do_not_fit_the_grid_keep_their_area():
    draw = np.random.default_rng(0)
    masks = [draw.random((h, w)) < 0.3 for h, w in ((7, 5), (31, 17), (4, 4))]
    covers = cover_by_masks(masks, (3, 4))
    for cover, mask in zip(covers, masks, strict=True):
        assert cover.mean() == pytest.approx(mask.mean())
        assert cover.min() >= -1e-12
        assert cover.max() <= 1 + 1e-12


def test_a_box_beyond_the_picture_is_cut():
    cover = cover_by_boxes(np.array([[-1.0, 0.5, 9.0, 2.0]]), (2, 2))
    assert cover.tolist() == [[[0, 0], [1, 1]]]


def test_a_map_on_the_object_a_blind_one_and_one_beside_it():
    objects = np.zeros((3, 4, 4))
    objects[:, :2, :2] = 1
    maps = np.zeros((3, 4, 4))
    maps[0, :2, :2] = 1
    maps[1] = 1
    maps[2, 2:, 2:] = 1
    on, blind, beside = (
        measure_localisation(maps[i : i + 1], objects[i : i + 1]) for i in range(3)
    )
    assert on[:6] == (100, 100, 25, 4, 100, 100)
    assert (blind.energy, blind.lift, blind.iou, blind.found) == (25, 1, 25, 0)
    assert (beside.pointing, beside.energy, beside.lift, beside.iou) == (0, 0, 0, 0)
    together = measure_localisation(maps, objects)
    assert together.energy == pytest.approx((100 + 25 + 0) / 3)
    assert together.per_photo["lift"].tolist() == [4, 1, 0]


def test_one_threshold_serves_all_photos():
    # The object is where a map is above 0.5 of its largest; below lies a plateau beside it.
    objects, maps = np.zeros((2, 1, 10)), np.full((2, 1, 10), 0.3)
    objects[:, 0, :3] = 1
    maps[0, 0, :3] = [0.6, 1.0, 0.9]
    maps[1, 0, :3] = [4.0, 5.0, 3.0]
    maps[1, 0, 3:] = 1.0
    found = measure_localisation(maps, objects)
    assert 0.3 < found.threshold <= 0.6
    assert (found.iou, found.found) == (100, 100)
    scaled = measure_localisation(maps * 7, objects)
    assert scaled[:7] == pytest.approx(found[:7])


def test_maps_that_say_nothing_are_refused():
    maps, objects = np.ones((2, 2, 2)), np.ones((2, 2, 2))
    for value in (np.nan, -1.0):
        broken = maps.copy()
        broken[1, 0, 0] = value
        with pytest.raises(InputError, match="map 1 is negative somewhere, not finite, or zero"):
            measure_localisation(broken, objects)
    with pytest.raises(InputError, match=r"map 0 is .*; 2 of 2 are"):
        measure_localisation(maps * 0, objects)
    with pytest.raises(InputError, match="photo 0 shows no object"):
        measure_localisation(maps, objects * 0)
    with pytest.raises(InputError, match="at least one map"):
        measure_localisation(maps[:0], objects[:0])
