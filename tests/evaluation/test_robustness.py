import numpy as np
import pytest
import torch

from fieldmark.errors import InputError
from fieldmark.evaluation.robustness import COVERED, KINDS, corrupt, swap_backgrounds


def images(count=4, side=64):
    # Smooth pictures with some edges, as photos are.
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=draw)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="nearest")


ROWS = np.array([3, 14, 15, 92])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_photo_always_suffers_alike_and_only_by_its_own_row(kind):
    before = images()
    kept = before.clone()
    after = corrupt(before, kind, ROWS)
    assert torch.equal(before, kept)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
    assert not torch.equal(after, before)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(corrupt(before[order], kind, ROWS[order]), after[order])
    torch.testing.assert_close(corrupt(before[:1], kind, ROWS[:1]), after[:1])


def test_a_quarter_of_the_picture_is_covered_at_places_that_differ():
    after = corrupt(images(), "cover", ROWS)
    grey = (after == 0.5).all(dim=1)
    assert grey.flatten(1).float().mean(dim=1).tolist() == pytest.approx([COVERED] * 4)
    places = {tuple(torch.nonzero(mask)[0].tolist()) for mask in grey}
    assert len(places) == 4


def test_blur_removes_detail_and_keeps_the_mean_and_large_inputs_are_blurred_as_much():
    before = images()
    after = corrupt(before, "blur", ROWS)
    assert after.var() < 0.95 * before.var()
    assert after.mean() == pytest.approx(float(before.mean()), abs=0.01)
    twice = corrupt(images(side=128), "blur", ROWS)
    small = torch.nn.functional.interpolate(twice, (64, 64), mode="area")
    assert (small - after).abs().mean() < 0.02


def test_jpeg_changes_pixels_a_little_and_averages_hardly():
    before = images()
    changed = (corrupt(before, "jpeg", ROWS) - before).abs().mean()
    assert 0.002 < changed < 0.1


def test_an_unknown_kind_is_named():
    with pytest.raises(InputError, match="unknown corruption 'blurr'; did you mean 'blur'"):
        corrupt(images(), "blurr", ROWS)


def test_an_object_is_put_before_other_surroundings_and_no_second_object_shows():
    # A red square on a blue photo, a green square elsewhere on a yellow one.
    blue, yellow = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    blue[:, 2], yellow[:, :2] = 1.0, 1.0
    mask, other = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    mask[:, 4:12, 4:12], other[:, 16:28, 16:28] = 1, 1
    blue[:, :, 4:12, 4:12] = torch.tensor([1.0, 0, 0])[:, None, None]
    yellow[:, :, 16:28, 16:28] = torch.tensor([0, 1.0, 0])[:, None, None]
    made = swap_backgrounds(blue, mask, yellow, other)
    assert made[0, :, 8, 8].tolist() == [1, 0, 0]
    assert made[0, :, 2, 30].tolist() == [1, 1, 0]
    torch.testing.assert_close(made[0, :, 22, 22], torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    assert not (made[0, 2] > 1e-6).any()
    # With nothing cut out the other photo's surroundings are all there is.
    alone = swap_backgrounds(blue, mask * 0, yellow, other * 0)
    torch.testing.assert_close(alone, yellow)


def test_surroundings_that_are_all_object_do_not_break():
    whole = torch.ones(2, 32, 32)
    made = swap_backgrounds(images(2, 32), whole * 0, images(2, 32), whole)
    assert torch.isfinite(made).all()
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
