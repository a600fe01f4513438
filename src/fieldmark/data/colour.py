"""Colour changes composed to one affine map per view.

Brightness, contrast, saturation, hue and grayscale are affine in the pixel's RGB, with the offset
of contrast linear in the view's mean colour. A chain of them in any order is therefore

    out = M · pixel + D · mean

with two 3 × 3 matrices known before a single pixel is read.

What differs from torchvision's ColorJitter: values are clamped to [0, 1] once, at the end, not
after each operation; and hue turns the colour plane about the gray axis of RGB, which keeps the
mean of the three channels and the distance from gray, where torchvision shifts the hue of HSV, which
keeps the largest and the smallest channel. Both turn red through yellow to green for a positive
shift, leave grays alone, and give the same hue angle to within a few degrees; brightness differs.
Of the rotations tried (YIQ, YCbCr, gray axis) this one is nearest to torchvision on photos.
"""

import numpy as np
from jaxtyping import Float

from fieldmark.data.sampling import ColourDraws

LUMA = np.array([0.2989, 0.587, 0.114])
"""Weights of gray, ITU-R BT.601, as torchvision rounds them."""
_LUMA = LUMA / LUMA.sum()
_GRAY = np.tile(_LUMA, (3, 1))

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def rotate_hue(turns: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B 3 3"]:
    """Matrices that turn colours about the gray axis; 1 is the whole circle."""
    angle = 2 * np.pi * turns[:, None, None]
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3).
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    along = np.full((3, 3), 1 / 3)
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * along


def compose(draws: ColourDraws) -> tuple[Float[np.ndarray, "B 3 3"], Float[np.ndarray, "B 3 3"]]:
    """Turn drawn colour changes into the matrices (M, D) of ``out = M · pixel + D · mean``."""
    count = len(draws.gray)
    factors = draws.factors
    identity = np.eye(3)
    steps = np.empty((count, 4, 3, 3))
    for index in (BRIGHTNESS, CONTRAST, SATURATION):
        steps[:, index] = factors[:, index, None, None] * identity
    steps[:, SATURATION] += (1 - factors[:, SATURATION, None, None]) * _GRAY
    steps[:, HUE] = rotate_hue(factors[:, HUE])
    matrix = np.tile(identity, (count, 1, 1))
    of_mean = np.zeros((count, 3, 3))
    view = np.arange(count)
    for place in range(4):
        which = draws.order[:, place]
        step = steps[view, which]
        # Contrast pulls towards the mean gray of what it is given, M · mean + D · mean.
        pull = np.where(which == CONTRAST, 1 - factors[:, CONTRAST], 0.0)[:, None, None]
        of_mean = step @ of_mean + pull * (_GRAY @ (matrix + of_mean))
        matrix = step @ matrix
    matrix[draws.gray] = _GRAY @ matrix[draws.gray]
    of_mean[draws.gray] = _GRAY @ of_mean[draws.gray]
    return matrix, of_mean
