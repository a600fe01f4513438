import numpy as np
import pytest

from fieldmark.data.look import look_at
from fieldmark.explain.drawing import (
    box_around,
    cut,
    enlarge,
    frame,
    half_share,
    middle,
    number,
    part,
    seen,
    shade,
    square,
)


def test_pictures_show_the_part_that_the_encoder_sees():
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[:, :, 0] = np.arange(120)
    pixels[:, :, 1] = np.arange(60)[:, None]
    fine, coarse = seen(pixels, 32, 0.8, 64), look_at(pixels, 32, 0.8)
    means = fine.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(means - coarse)[2:-2, 2:-2].max() < 1.5


def test_high_places_keep_their_colours_and_low_ones_are_dimmed():
    picture = np.full((80, 80, 3), (200, 60, 60), np.uint8)
    cells = np.zeros((4, 4))
    cells[1, 1] = 3
    cells[3, 3] = -9
    shown = shade(picture, cells).astype(int)
    assert np.abs(shown[30, 30] - (200, 60, 60)).max() < 12
    low = shown[70, 70]
    assert low.max() < 80
    assert np.ptp(low) < 3
    assert (shown.min(2) > 240).any()
    even = shade(picture, np.zeros((4, 4)))
    assert even.max() < 80


def test_maps_are_enlarged_around_the_middles_of_cells():
    cells = np.zeros((4, 4))
    cells[1, 2] = 1
    found = enlarge(cells, 80)
    assert np.unravel_index(found.argmax(), found.shape) in {(29, 49), (29, 50), (30, 49), (30, 50)}
    assert middle((1, 2), (4, 4)) == (0.375, 0.625)


def test_squares_stay_inside_the_picture_and_crops_show_them():
    assert box_around(0.5, 0.5, 0.2) == pytest.approx((0.4, 0.4, 0.6, 0.6))
    assert box_around(0.0, 1.0, 0.2) == pytest.approx((0.8, 0.0, 1.0, 0.2))
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[60:80, 10:30] = 255
    assert cut(picture, 0.7, 0.2, 0.2, 50)[5:-5, 5:-5].min() > 240
    marked = number(picture, [(0.7, 0.2), (0.2, 0.7)], share=0.3)
    assert marked.shape == picture.shape
    assert (marked[:40, 50:] > 0).any()


def test_half_of_a_map():
    assert half_share(np.ones((4, 4))) == 0.5
    one = np.zeros((4, 4))
    one[0, 0] = 1
    assert half_share(one) == 1 / 16
    assert half_share(-one) == 1


def test_a_box_of_a_photo_is_framed_and_cut_out():
    photo = np.zeros((100, 200, 3), np.uint8)
    photo[40:60, 150:180] = (0, 255, 0)
    box = (0.75, 0.4, 0.9, 0.6)
    picture, inside = square(photo, box, 300)
    # The square goes as far to the right as it can.
    assert inside == pytest.approx((0.5, 0.4, 0.8, 0.6))
    x0, y0, x1, y1 = (round(edge * 300) for edge in inside)
    assert picture[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3, 1].min() > 225
    assert picture[:, : x0 - 5].max() < 30
    framed = frame(picture, inside, 2)
    changed = np.abs(framed.astype(int) - picture).max(axis=2) > 40
    assert changed[y0 : y0 + 3, x0:x1].any()
    assert not changed[y0 + 15 : y1 - 15, x0 + 15 : x1 - 15].any()
    assert not changed[: y0 - 4].any()
    assert part(photo, (0.8, 0.45, 0.85, 0.55), 50)[2:-2, 2:-2, 1].min() > 225
    whole, all_of_it = square(photo, (0.0, 0.0, 1.0, 1.0), 100)
    assert whole.shape == (100, 100, 3)
    assert all_of_it == (0, 0, 1, 1)
    assert part(photo, (0.0, 0.0, 1.0, 1.0), 60).shape == (60, 60, 3)
