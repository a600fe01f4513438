"""Where a photo becomes what it is while it is made sharp.

The cells of a network's last map are no places: a cell sees far around, and where strides pad on one
side only its middle lies up to half a cell away from where it is drawn. What is explained can be
followed back to the pixels instead. A blurred photo says hardly anything; on the way from there to
the photo itself, each pixel's change times the slope at that point is what the pixel brings, and
all of them together bring the whole difference.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fieldmark.explain.cells import soften
from fieldmark.explain.faithfulness import blurred
from fieldmark.nn.cam import gradients
from fieldmark.nn.spec import EncoderSpec

GRID = 16
"""Rows and columns of the maps."""
FINE, BROAD = 1 / 16, 0.12
"""Width of the Gaussian that softens them, as a share of the side: fine to point at one mark, broad
to say what a whole likeness is made of. Fine maps of two classes point at drawn marks more often,
broad maps of pairs are more faithful (docs/explain.md)."""
_BLURS = (4, 8)
_POINTS = 2
# Gradients hold all of a network's maps at once.
_BATCH = 16


class Sharpened(NamedTuple):
    """What each place brings to ``embedding · direction`` while the photo is made sharp."""

    maps: Float[Tensor, "B g g"]
    """Signed; their sums are about ``gained``."""
    gained: Float[Tensor, " B"]
    """``embedding · direction`` of the photo, less the mean over its blurred forms."""


def sharpening_maps(
    spec: EncoderSpec,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    *,
    grid: int = GRID,
    points: int = _POINTS,
    soft: float = FINE,
) -> Sharpened:
    """What each place of each photo brings to ``embedding · direction``.

    Integrated gradients from two blurred forms of the photo (its mean colours on 4 × 4 and on 8 × 8
    squares), each with its mirror image: a slope at few points is rough, and the mean over four
    ways is smoother than more points on one. Pixels are summed over cells, and the cells softened.
    Works for every network that has a derivative.

    Args:
        spec: An encoder.
        images: In [0, 1], of its size.
        directions: One per photo: another photo's embedding, or what tells two classes apart.
        grid: Rows and columns of the maps, at most the photo's.
        points: On each of the four ways; the middle of equal parts.
        soft: Width of the Gaussian that softens the maps, as a share of the side.

    Source:
        Sundararajan, Taly and Yan 2017, arXiv:1703.01365; blurred baselines: Xu, Venugopalan and
        Sundararajan 2020, arXiv:2004.03383.
    """
    parts = zip(images.split(_BATCH), directions.split(_BATCH))
    found = [_sharpened(spec, some, toward, grid, points, soft) for some, toward in parts]
    return Sharpened(*(torch.cat(part) for part in zip(*found)))


def _sharpened(
    spec: EncoderSpec,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    grid: int,
    points: int,
    soft: float,
) -> Sharpened:
    with torch.inference_mode(mode=False), torch.enable_grad():
        # Made here: what was made in inference mode can never carry a gradient.
        images, directions = images.clone(), directions.clone()
        total = images.new_zeros(len(images), *images.shape[2:])
        start = [blurred(images, side) for side in _BLURS]
        for hazy in start:
            change = images - hazy
            for point in range(points):
                way = hazy + (point + 0.5) / points * change
                for mirrored in (False, True):
                    look = way.detach().clone().requires_grad_()
                    seen = spec(look.flip(3) if mirrored else look).float()
                    (slope,) = gradients((seen * directions).sum(), [look])
                    total += (slope * change).sum(1)
        total /= 2 * points * len(start)
    cell = images.shape[2] * images.shape[3] / grid**2
    maps = functional.adaptive_avg_pool2d(total[:, None], grid)[:, 0] * cell
    with torch.no_grad():
        ends = [(spec(look) * directions).sum(1) for look in (images, *start)]
    return Sharpened(soften(maps.detach(), soft), ends[0] - torch.stack(ends[1:]).mean(0))
