"""Does a map lie on the object? Pointing, energy, lift and overlap with boxes or masks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

from fieldmark.errors import InputError


class Localisation(NamedTuple):
    """How well maps find objects; means over photos, percent but lift."""

    pointing: float
    """Share of photos whose largest cell has its middle on the object (the pointing game)."""
    energy: float
    """Share of the map's sum that falls on the object."""
    area: float
    """Share of the photo that the object covers: what a blind map has for energy."""
    lift: float
    """Mean of energy over area; 1 is blind."""
    iou: float
    """Overlap of the object and the cells above the best threshold, the same for all photos."""
    found: float
    """Share of photos whose overlap at that threshold is at least one half."""
    threshold: float
    """That threshold, as share of each map's largest value."""
    per_photo: dict[str, Float[np.ndarray, " N"]]
    """``pointing``, ``energy``, ``lift`` and ``iou`` of each photo, in [0, 1] (lift: 0 and above)."""


def measure_localisation(
    maps: Float[np.ndarray, "N h w"], objects: Float[np.ndarray, "N h w"]
) -> Localisation:
    """Compare maps with where objects are.

    Args:
        maps: Not negative; what each cell adds, on the grid of what the network saw.
        objects: Share of each cell that the object covers, in [0, 1]; from :func:`cover_by_boxes` or
            :func:`cover_by_masks`.

    Raises:
        InputError: If a map is negative, not finite or zero everywhere, or a photo shows no object.

    Source:
        Pointing game: Zhang et al. 2016, arXiv:1608.00507. One threshold for all photos, the best:
        Choe et al. 2020, arXiv:2001.07437 (MaxBoxAcc), here of cells, not of a box around them.
    """
    if not len(maps):
        raise InputError("localisation needs at least one map.")
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    bad = ~np.isfinite(total) | (maps < 0).any(axis=(1, 2)) | (total <= 0)
    if bad.any():
        raise InputError(
            f"map {int(np.flatnonzero(bad)[0])} is negative somewhere, not finite, or zero everywhere; "
            f"{int(bad.sum())} of {len(maps)} are. Maps must not be negative and need a largest cell."
        )
    area = objects.mean(axis=(1, 2), dtype=np.float64)
    if (area <= 0).any():
        raise InputError(
            f"photo {int(np.flatnonzero(area <= 0)[0])} shows no object; leave such photos out."
        )
    cells = maps.shape[1] * maps.shape[2]
    flat, covered = maps.reshape(-1, cells), objects.reshape(-1, cells)
    largest = flat.argmax(axis=1)
    # The middle of a cell lies on an object that covers more than half of it, nearly always.
    pointing = (covered[np.arange(len(flat)), largest] > 0.5).astype(np.float64)
    energy = (flat * covered).sum(axis=1, dtype=np.float64) / total
    lift = energy / area
    best, threshold = _best_overlap(flat, covered, area * cells)
    return Localisation(
        pointing=float(100 * pointing.mean()),
        energy=float(100 * energy.mean()),
        area=float(100 * area.mean()),
        lift=float(lift.mean()),
        iou=float(100 * best.mean()),
        found=float(100 * (best >= 0.5).mean()),
        threshold=threshold,
        per_photo={"pointing": pointing, "energy": energy, "lift": lift, "iou": best},
    )


def _best_overlap(
    flat: npt.NDArray[np.floating], covered: npt.NDArray[np.floating], size: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Intersection over union of each photo at the threshold whose mean is largest."""
    shares = flat / flat.max(axis=1, keepdims=True)
    found: list[tuple[float, npt.NDArray[np.float64]]] = []
    for threshold in np.arange(0.05, 1.0, 0.05):
        chosen = shares >= threshold
        inside = (chosen * covered).sum(axis=1, dtype=np.float64)
        found.append((float(threshold), inside / (chosen.sum(axis=1) + size - inside)))
    threshold, overlap = max(found, key=lambda pair: pair[1].mean())
    return overlap, round(threshold, 2)


def cover_by_boxes(
    boxes: Float[np.ndarray, "N 4"], shape: tuple[int, int]
) -> Float[np.ndarray, "N h w"]:
    """Share of each cell that lies in a box.

    Args:
        boxes: x0 y0 x1 y1 as fractions of what the network saw; may reach beyond it.
        shape: Rows and columns of the grid.

    Example:
        >>> cover_by_boxes(np.array([[0.0, 0.0, 0.25, 1.0]]), (1, 2)).tolist()
        [[[0.5, 0.0]]]
    """

    def along(
        low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], count: int
    ) -> npt.NDArray[np.float64]:
        edges = np.arange(count + 1) / count
        ends = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
        return np.clip(ends, 0, None) * count

    x0, y0, x1, y1 = np.asarray(boxes, np.float64).T
    return along(y0, y1, shape[0])[:, :, None] * along(x0, x1, shape[1])[:, None, :]


def cover_by_masks(
    masks: Sequence[Bool[np.ndarray, "_ _"]], shape: tuple[int, int]
) -> Float[np.ndarray, "N h w"]:
    """Share of each cell that a mask covers.

    Args:
        masks: True on the object; of any sizes, each showing what the network saw.
        shape: Rows and columns of the grid.
    """
    covers = np.empty((len(masks), *shape))
    for cover, mask in zip(covers, masks, strict=True):
        # Summed areas, read at the edges of cells, which may lie within a pixel.
        summed = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
        summed[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
        rows = _between(summed, shape[0])
        corners = _between(rows.T, shape[1]).T
        cells = np.diff(np.diff(corners, axis=0), axis=1)
        cover[:] = cells * (shape[0] * shape[1]) / mask.size
    return covers


def _between(summed: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Rows of a summed-area table at the edges of cells, linearly between pixels."""
    places = np.arange(count + 1) * (len(summed) - 1) / count
    low = np.minimum(places.astype(np.int64), len(summed) - 2)
    share = (places - low)[:, None]
    return summed[low] * (1 - share) + summed[low + 1] * share
