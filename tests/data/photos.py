"""A photo store in memory."""

import numpy as np
from PIL import Image

from fieldmark.data.layout import MemoryPhotos


def textured(height, width, seed):
    """Smooth shapes with sharp noise on top: resizing errors show in both."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 12), max(2, width // 12), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 25, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


SHAPES = [(160, 160), (160, 213), (240, 160), (97, 300), (400, 31), (20, 24), (1, 50), (160, 173)]


def ragged():
    return MemoryPhotos([textured(h, w, seed) for seed, (h, w) in enumerate(SHAPES)])
