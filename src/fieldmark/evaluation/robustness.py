"""What photos in the wild suffer, done to test photos: blur, compression, something in front."""

from collections.abc import Callable

import numpy as np
import simplejpeg
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from fieldmark import rng
from fieldmark.config import suggest
from fieldmark.errors import InputError

BLUR_SHARE = 1 / 64
"""Standard deviation of the blur, as share of the picture's side: 2 px of 128."""
JPEG_QUALITY = 15
"""Blocks are plain to see at it."""
COVERED = 0.25
"""Share of the picture that stands behind a grey square."""


def corrupt(
    images: Float[Tensor, "B 3 H W"], kind: str, rows: Int[np.ndarray, " B"]
) -> Float[Tensor, "B 3 H W"]:
    """Photos as one kind of trouble leaves them; the same photo always in the same way.

    Args:
        images: In [0, 1], at the network's input.
        kind: One of ``KINDS``.
        rows: Catalog rows; they say where a photo is covered, so that all encoders see the same.

    Raises:
        InputError: If there is no such kind.

    Source:
        Blur and JPEG: Hendrycks and Dietterich 2019, arXiv:1903.12261, one severity each; covering:
        DeVries and Taylor 2017, arXiv:1708.04552.
    """
    if kind not in KINDS:
        raise InputError(suggest(kind, KINDS, "corruption"))
    return KINDS[kind](images, rows)


def _blur(images: Tensor, rows: Int[np.ndarray, " B"]) -> Tensor:
    sigma = BLUR_SHARE * images.shape[-1]
    return gaussian_blur(images, 2 * int(np.ceil(3 * sigma)) + 1, [sigma, sigma])


def _jpeg(images: Tensor, rows: Int[np.ndarray, " B"]) -> Tensor:
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    coded = (
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(p), quality=JPEG_QUALITY, colorsubsampling="420"
        )
        for p in pixels
    )
    decoded = np.stack([simplejpeg.decode_jpeg(data) for data in coded])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(images) / 255


def _cover(images: Tensor, rows: Int[np.ndarray, " B"]) -> Tensor:
    height, width = images.shape[2:]
    high, wide = (max(1, round(COVERED**0.5 * side)) for side in (height, width))
    drawn = rng.mix("cover", np.asarray(rows, np.int64))
    top = (drawn >> np.uint64(32)) % np.uint64(height - high + 1)
    left = (drawn & np.uint64(0xFFFFFFFF)) % np.uint64(width - wide + 1)
    covered = images.clone()
    for image, y, x in zip(covered, top.tolist(), left.tolist(), strict=True):
        image[:, y : y + high, x : x + wide] = 0.5
    return covered


KINDS: dict[str, Callable[[Tensor, Int[np.ndarray, " B"]], Tensor]] = {
    "blur": _blur,
    "jpeg": _jpeg,
    "cover": _cover,
}
"""Kinds of trouble by name."""


def swap_backgrounds(
    images: Float[Tensor, "B 3 H W"],
    masks: Float[Tensor, "B H W"],
    others: Float[Tensor, "B 3 H W"],
    other_masks: Float[Tensor, "B H W"],
) -> Float[Tensor, "B 3 H W"]:
    """Objects cut out and put before the surroundings of other photos.

    What stood in those surroundings is painted over with what is around it, so that no second object
    shows.

    Args:
        images: In [0, 1].
        masks: Share of each pixel that is the object, in [0, 1].
        others: Photos whose surroundings are taken.
        other_masks: Their objects.

    Source:
        Xiao et al. 2020, arXiv:2006.09994 (mixed-rand), with painting over instead of tiling.
    """
    empty = (1 - other_masks)[:, None]
    # Wide first, so that places far inside the object are filled; nearer surroundings then count more.
    filled = (others * empty).sum((2, 3), keepdim=True) / empty.sum((2, 3), keepdim=True).clamp(
        1e-6
    )
    filled = filled.expand_as(others)
    for share in (1 / 4, 1 / 8, 1 / 16):
        sigma = share * images.shape[-1]
        side = 2 * int(np.ceil(2 * sigma)) + 1
        seen = gaussian_blur(empty.expand(-1, 3, -1, -1), side, [sigma, sigma])
        near = gaussian_blur(others * empty, side, [sigma, sigma])
        # Where hardly any surroundings are within reach, what was painted before stays.
        sure = (seen / 0.1).clamp(0, 1)
        filled = sure * near / seen.clamp_min(1e-6) + (1 - sure) * filled
    surroundings = others * empty + filled * (1 - empty)
    mask = masks[:, None]
    return images * mask + surroundings * (1 - mask)
