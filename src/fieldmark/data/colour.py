"""Colour changes composed to one affine map per view.

Brightness, contrast, saturation, hue and grayscale are affine in the pixel's RGB, with the offset
of contrast linear in the view's mean colour. A chain of them in any order is therefore

    out = M · pixel + D · mean

with two 3 × 3 matrices known before a single pixel is read.

What differs from torchvision's ColorJitter: values are clamped to [0, 1] once, at the end, not
after each operation; and hue is a rotation of the chroma plane of YIQ, which keeps luma, where
torchvision shifts the hue of HSV, which keeps the largest channel. Both turn red through yellow to
green for a positive shift and agree on grays.
"""

import numpy as np
from jaxtyping import Float

from fieldmark.data.sampling import ColourDraws

LUMA = np.array([0.2989, 0.587, 0.114])
"""Weights of gray, ITU-R BT.601, as torchvision rounds them."""
_LUMA = LUMA / LUMA.sum()
_YIQ = np.array(
    [_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], dtype=np.float64
)
_RGB = np.linalg.inv(_YIQ)
_GRAY = np.tile(_LUMA, (3, 1))

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def rotate_hue(turns: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B 3 3"]:
    """Matrices that turn the chroma plane; 1 is the whole circle."""
    # Red, green and blue lie clockwise in the (I, Q) plane, hence the sign.
    angle = -2 * np.pi * turns
    turn = np.zeros((len(turns), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
    return _RGB @ turn @ _YIQ


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
