import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F  # noqa: N812

from fieldmark.data.colour import BRIGHTNESS, CONTRAST, HUE, SATURATION, compose, rotate_hue
from fieldmark.data.sampling import ColourDraws

RNG = np.random.default_rng(0)


def draws(factors, order=None, gray=False):
    order = [BRIGHTNESS, CONTRAST, SATURATION, HUE] if order is None else order
    return ColourDraws(
        np.asarray([factors], float), np.asarray([order], np.int64), np.asarray([gray])
    )


def apply(drawn, image):
    matrix, of_mean = compose(drawn)
    mean = image.mean((1, 2)).double().numpy()
    flat = matrix[0] @ image.double().flatten(1).numpy() + (of_mean[0] @ mean)[:, None]
    return torch.from_numpy(flat).view(image.shape).float()


def picture(low=0.0, high=1.0):
    return torch.from_numpy(RNG.uniform(low, high, (3, 24, 20))).float()


STEPS = {
    BRIGHTNESS: F.adjust_brightness,
    CONTRAST: F.adjust_contrast,
    SATURATION: F.adjust_saturation,
}


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 1, 0, 3], [1, 3, 2, 0], [2, 0, 3, 1]])
@pytest.mark.parametrize("gray", [False, True])
def test_chains_equal_torchvision_where_nothing_is_clamped(order, gray):
    # Mild changes of a mild picture stay inside [0, 1], so clamping never acts.
    image = picture(0.4, 0.6)
    factors = [1.1, 0.8, 1.2, 0.0]
    expected = image
    for which in order:
        if which != HUE:
            expected = STEPS[which](expected, factors[which])
    if gray:
        expected = F.rgb_to_grayscale(expected, num_output_channels=3)
    ours = apply(draws(factors, order, gray), image)
    assert (ours - expected).abs().max() <= 1e-3 / 2


def test_clamping_once_differs_little_from_clamping_each_time():
    image, differences = picture(), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        factors, order = [*rng.uniform(0.6, 1.4, 3), 0.0], list(rng.permutation(4))
        expected = image
        for which in order:
            if which != HUE:
                expected = STEPS[which](expected, factors[which])
        ours = apply(draws(factors, order), image).clamp(0, 1)
        differences.append((ours - expected).abs().mean())
    assert np.mean(differences) < 4 / 255


def test_hue_keeps_the_mean_and_gray_and_turns_as_torchvision_does():
    image = picture(0.3, 0.7)
    for turn in (-0.3, -0.1, 0.05, 0.25):
        ours = apply(draws([1, 1, 1, turn]), image)
        torch.testing.assert_close(ours.mean(0), image.mean(0), atol=1e-5, rtol=0)
        gray = image.mean(0).expand(3, -1, -1)
        torch.testing.assert_close(apply(draws([1, 1, 1, turn]), gray), gray, atol=1e-5, rtol=0)
    # A positive turn takes red towards yellow and green, as in HSV.
    red = torch.tensor([0.7, 0.3, 0.3])[:, None, None].expand(3, 4, 4)
    for turn in (0.1, -0.1):
        ours = apply(draws([1, 1, 1, turn]), red)[:, 0, 0]
        theirs = F.adjust_hue(red, turn)[:, 0, 0]
        assert (ours[1] > ours[2]) == (theirs[1] > theirs[2])


def test_hue_turns_add_up():
    both = rotate_hue(np.array([0.13])) @ rotate_hue(np.array([0.2]))
    np.testing.assert_allclose(both, rotate_hue(np.array([0.33])), atol=1e-9)
    np.testing.assert_allclose(rotate_hue(np.array([1.0]))[0], np.eye(3), atol=1e-9)


def hue_angle(colours):
    """Hue in turns of ``[3, N]`` colours, by HSV's definition."""
    return np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours.T.numpy()])


def test_hue_angles_follow_torchvisions():
    colours = torch.from_numpy(RNG.uniform(0.3, 0.7, (3, 1, 400))).float()
    for turn in (-0.1, 0.03, 0.1):
        ours = apply(draws([1, 1, 1, turn]), colours)[:, 0]
        theirs = F.adjust_hue(colours, turn)[:, 0]
        off = (hue_angle(ours) - hue_angle(theirs) + 0.5) % 1 - 0.5
        # The hexagon of HSV against a circle: at most 2 x 1.12 degrees apart for any shift.
        assert np.abs(off).max() * 360 < 2.5


def test_neutral_draws_change_nothing():
    image = picture()
    torch.testing.assert_close(apply(draws([1, 1, 1, 0]), image), image)
