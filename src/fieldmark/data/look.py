"""The look that an encoder takes at one photo: resize, then cut the centre, as one linear map.

The same geometry as ``views.center_views``, for photos that are not in a store. Without torch, as
an exported encoder is used; photos that are tensors: ``looktensor``.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Box = tuple[float, float, float, float]


def short_side(size: int, crop: float) -> int:
    """Short side that a photo is resized to before the centre is cut, in pixels."""
    return round(size / crop)


def window(height: int, width: int, size: int, crop: float) -> Box:
    """Part of a photo that ends up in the square, as x0 y0 x1 y1 in its own pixels."""
    short = short_side(size, crop)
    box = []
    for length in (width, height):
        # As torchvision: the long side is rounded down, the centre to the nearest pixel.
        resized = short * length // min(height, width)
        skipped = float(np.rint((resized - size) / 2))
        box.append((skipped * length / resized, (skipped + size) * length / resized))
    return box[0][0], box[1][0], box[0][1], box[1][1]


def look_at(
    pixels: UInt8[np.ndarray, "H W 3"], size: int, crop: float
) -> UInt8[np.ndarray, "S S 3"]:
    """Resize with antialiasing and cut the centre.

    Args:
        pixels: Upright RGB photo of any shape.
        size: Side of the result in pixels.
        crop: Share of the short side that is kept, in (0, 1].
    """
    height, width = pixels.shape[:2]
    box = window(height, width, size, crop)
    if box[2] - box[0] == size and box[3] - box[1] == size:
        left, top = int(box[0]), int(box[1])
        return np.ascontiguousarray(pixels[top : top + size, left : left + size])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
