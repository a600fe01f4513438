"""Photos in memory behind the interface of a photo store."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32, Int64, UInt8


class ArrayStore:
    """A store over arrays: what views and training read, without files.

    Attributes:
        usable: Rows that can be shown, int64 ``[M]``.
        shapes: Height and width of each row, int32 ``[N, 2]``; 0 where not usable.
        data: All pixels one after another, uint8, row-major RGB.
        offsets: Where each row starts in ``data``, int64 ``[N]``.
        short_side: Shortest side of any usable photo in pixels.
    """

    def __init__(
        self, photos: Sequence[npt.NDArray[np.uint8]] | UInt8[np.ndarray, "N H W 3"]
    ) -> None:
        """Keep photos.

        Args:
            photos: One array ``[N, H, W, 3]`` (kept without a copy), or arrays ``[H, W, 3]`` of any
                shapes; an array without pixels is a row that cannot be used.
        """
        count = len(photos)
        self.shapes: Int32[np.ndarray, "N 2"] = np.asarray(
            [photo.shape[:2] for photo in photos], dtype=np.int32
        ).reshape(count, 2)
        self.shapes[(self.shapes == 0).any(axis=1)] = 0
        sizes = self.shapes.astype(np.int64).prod(axis=1) * 3
        self.offsets: Int64[np.ndarray, " N"] = np.cumsum(sizes) - sizes
        if isinstance(photos, np.ndarray):
            self.data: UInt8[np.ndarray, " P"] = np.ascontiguousarray(photos).reshape(-1)
        else:
            flat = [np.ascontiguousarray(photo).reshape(-1) for photo in photos]
            self.data = np.concatenate(flat) if flat else np.zeros(0, np.uint8)
        self.usable: Int64[np.ndarray, " M"] = np.flatnonzero(sizes).astype(np.int64)
        used = self.shapes[self.usable]
        self.short_side = int(used.min()) if len(used) else 0

    def __len__(self) -> int:
        return len(self.shapes)

    def photo(self, row: int | np.integer) -> UInt8[np.ndarray, "H W 3"]:
        """Pixels of one row, without a copy."""
        height, width = (int(side) for side in self.shapes[row])
        start = int(self.offsets[row])
        return self.data[start : start + height * width * 3].reshape(height, width, 3)
