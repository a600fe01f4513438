"""Are two photos the same picture, or do they merely look alike?

The same picture, saved again: smaller, compressed harder, mirrored, brighter, with some of the border cut
off. Not the same: the next shot of a burst, another bird on the same branch. So the two are first laid over
each other as well as possible, coarsely among listed crops and mirrorings, then finely by least squares
(Lucas and Kanade 1981: position and scale of both axes, brightness and contrast); then they must agree
*everywhere*: what counts is the correlation of small windows where they agree least, for the head that
turned is a small part of a picture whose branches stand still.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from fieldmark.data.decode import Pixels

SAME = 0.93
"""Sameness from which on it is one picture (benchmarks/duplicates.py)."""
DECODE_SIDE = 96
"""Short side, in pixels, that photos should be decoded to for :func:`look`."""
_SMALL, _LARGE = 32, 64
_CROPS = (0.95, 0.9)
"""Share of a side that may be left after cropping; the fine step goes a little beyond."""
_HOPELESS = 0.8
"""Correlation of the coarse step below which the fine one cannot save it."""
_STEPS, _LONGEST = 10, (0.03, 1.5)
_WINDOW, _STRIDE, _MARGIN = 12, 6, 2
_DETAIL = 4.0
"""Standard deviation of a window, in grey levels, below which there is nothing to compare."""
_WORST = 0.1
"""Share of the windows that are allowed to agree less: overlaid text, saturated sky."""
_OVERLAP = 0.7

Small = Float[np.ndarray, "32 32"]
Large = Float[np.ndarray, "64 64"]
Unit = Float[np.ndarray, "W 1024"]


class Look(NamedTuple):
    """What is compared of a photo: its grey values, squeezed into squares."""

    small: Small
    large: Large


class _Place(NamedTuple):
    """Where one picture lies in another: the share of its side, and where that begins."""

    scale: float
    start: float


_PLACES = [_Place(1, 0), *(_Place(s, o * (1 - s)) for s in _CROPS for o in (0, 0.5, 1))]


def _resampling(place: _Place) -> Float[np.ndarray, "32 32"]:
    """Linear interpolation of a part of an axis as a matrix."""
    at = (place.start + place.scale * (np.arange(_SMALL) + 0.5) / _SMALL) * _SMALL - 0.5
    low = np.clip(np.floor(at).astype(int), 0, _SMALL - 1)
    share = np.clip(at - low, 0, 1)
    matrix = np.zeros((_SMALL, _SMALL), np.float32)
    matrix[np.arange(_SMALL), low] += (1 - share).astype(np.float32)
    matrix[np.arange(_SMALL), np.minimum(low + 1, _SMALL - 1)] += share.astype(np.float32)
    return matrix


_AXES = np.stack([_resampling(place) for place in _PLACES])


def look(pixels: Pixels) -> Look:
    """Make a photo ready for comparing; aspect is ignored."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    box = Image.Resampling.BOX
    small, large = (
        np.asarray(image.resize((side, side), box), np.float32) for side in (_SMALL, _LARGE)
    )
    return Look(small, large)


def sameness(one: Look, other: Look) -> float:
    """How far two photos agree where they agree least, laid over each other.

    Returns:
        In [-1, 1]; from ``SAME`` on they are one picture.
    """
    best, how = -1.0, (False, False, 0)
    for swapped, (inner, outer) in enumerate(((other, one), (one, other))):
        whole = _unit(inner.small.reshape(1, -1))[0]
        for mirrored in (False, True):
            found = _parts(outer.small[:, ::-1] if mirrored else outer.small) @ whole
            if found.max() > best:
                best, how = float(found.max()), (bool(swapped), mirrored, int(found.argmax()))
    if best < _HOPELESS:
        return best
    swapped_too, mirrored, number = how
    inner, outer = (one, other) if swapped_too else (other, one)
    down, across = _PLACES[number // len(_PLACES)], _PLACES[number % len(_PLACES)]
    return _agreement(outer.large[:, ::-1] if mirrored else outer.large, inner.large, down, across)


def _parts(picture: Small) -> Unit:
    """Every listed part of a picture, stretched to the whole."""
    rows = _AXES @ picture
    parts = np.einsum("ayx,bzx->abyz", rows, _AXES, optimize=True)
    return _unit(parts.reshape(-1, _SMALL**2))


def _unit(rows: Unit) -> Unit:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def _agreement(outer: Large, inner: Large, down: _Place, across: _Place) -> float:
    """Lay the inner picture into the outer one by least squares, then compare windows."""
    source, target = (gaussian_filter(x.astype(np.float64), 0.7) for x in (outer, inner))
    gradients = np.gradient(source)
    cells = np.arange(_LARGE, dtype=np.float64)
    y, x = np.meshgrid(cells, cells, indexing="ij")
    edge = slice(_MARGIN, -_MARGIN)
    # Cell u of the inner picture lies at scale · u + shift of the outer one.
    p = np.array([v for at in (down, across) for v in (at.scale, _shift(at))])
    for _ in range(_STEPS):
        places = [p[0] * y + p[1], p[2] * x + p[3]]
        seen = map_coordinates(source, places, order=1, mode="nearest")
        by_y, by_x = (map_coordinates(g, places, order=1, mode="nearest") for g in gradients)
        columns = (by_y * y, by_y, by_x * x, by_x, seen, np.ones_like(seen))
        matrix = np.stack([column[edge, edge].ravel() for column in columns], axis=1)
        found = np.linalg.lstsq(matrix, target[edge, edge].ravel(), rcond=None)[0]
        # The solution holds contrast times movement.
        contrast = found[4] if abs(found[4]) > 0.2 else 1.0
        step = np.clip(found[:4] / contrast, -np.tile(_LONGEST, 2), np.tile(_LONGEST, 2))
        p = p + step
        if np.abs(step[[1, 3]]).max() < 0.01:
            break
    places = [p[0] * y + p[1], p[2] * x + p[3]]
    inside = np.all([(at >= 0) & (at <= _LARGE - 1) for at in places], axis=0)
    if inside.mean() < _OVERLAP:
        return -1.0
    seen = map_coordinates(source, places, order=1, mode="nearest")
    return _worst_windows(np.where(inside, seen, np.nan), np.where(inside, target, np.nan))


def _shift(at: _Place) -> float:
    return at.start * _LARGE + 0.5 * at.scale - 0.5


def _worst_windows(one: Large, other: Large) -> float:
    """Correlation of windows with detail: the tenth part that agrees least."""
    size = (_WINDOW, _WINDOW)
    windows = [
        np.lib.stride_tricks.sliding_window_view(each, size)[
            _MARGIN::_STRIDE, _MARGIN::_STRIDE
        ].reshape(-1, _WINDOW**2)
        for each in (one, other)
    ]
    known = ~np.isnan(windows[0]).any(axis=1)
    a, b = (each[known] - each[known].mean(axis=1, keepdims=True) for each in windows)
    detail = np.maximum(a.std(axis=1), b.std(axis=1))
    both = np.maximum(a.std(axis=1) * b.std(axis=1), 1e-6)
    found = ((a * b).mean(axis=1) / both)[detail >= _DETAIL]
    return float(np.quantile(found, _WORST)) if len(found) else -1.0
