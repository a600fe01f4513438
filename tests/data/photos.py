"""A photo store in memory."""

import numpy as np
from PIL import Image

from fieldmark.data.layout import pack, unpack


class ArrayPhotos:
    """Ragged photos as one flat array, the way the store keeps them."""

    def __init__(self, photos):
        sizes = [photo.size for photo in photos]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self.shapes = np.array([photo.shape[:2] for photo in photos], dtype=np.int32)
        self.data = np.concatenate([pack(photo).ravel() for photo in photos])
        self.usable = np.flatnonzero(self.shapes[:, 0] > 0)
        self.short_side = int(self.shapes.min())

    def __len__(self):
        return len(self.offsets)

    def photo(self, row):
        height, width = self.shapes[row].tolist()
        begin = self.offsets[row]
        return unpack(self.data[begin : begin + height * width * 3], height, width)


def textured(height, width, seed):
    """Smooth shapes with sharp noise on top: resizing errors show in both."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 12), max(2, width // 12), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 25, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


SHAPES = [(160, 160), (160, 213), (240, 160), (97, 300), (400, 31), (20, 24), (1, 50), (160, 173)]


def ragged():
    return ArrayPhotos([textured(h, w, seed) for seed, (h, w) in enumerate(SHAPES)])
