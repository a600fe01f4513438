"""Signed distances on a pixel grid, and laying colours on it.

Distances take and return float32 arrays ``[B, S, S]`` (parameters ``[B, 1, 1]``) and use only
operations that IEEE 754 rounds exactly (+ - * / sqrt min max), so that pixels are the same on
every processor. Distances are negative inside. Formulas: Inigo Quilez, "2D distance functions".
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Value = Any  # a grid, a [B, 1, 1] array, or a plain number


def grid(values: Array) -> Array:
    """Turn one value per photo into float32 that broadcasts over its pixels."""
    return np.asarray(values, dtype=np.float32)[..., None, None]


def lay(canvas: Array, colour: Array, coverage: Array) -> None:
    """Paint a colour, ``[B, 3]`` or ``[B, 3, S, S]``, over ``[B, 3, S, S]`` in place."""
    if colour.ndim == 2:
        colour = grid(colour)
    canvas += coverage[:, None] * (colour - canvas)


def ellipse(x: Array, y: Array, rx: Value, ry: Value) -> Array:
    """Ellipse around the origin; the distance is exact to first order at the edge."""
    a, b = x / rx, y / ry
    outer = np.sqrt(a * a + b * b)
    a, b = a / rx, b / ry
    return outer * (outer - 1) / (np.sqrt(a * a + b * b) + np.float32(1e-6))


def circle(x: Array, y: Array, radius: Value) -> Array:
    """Circle around the origin."""
    return np.sqrt(x * x + y * y) - radius


def capsule(x: Array, y: Array, length: Value, start: Value, end: Value) -> Array:
    """Line from the origin along +x whose radius goes from ``start`` to ``end``."""
    t = np.clip(x / length, 0, 1)
    dx = x - t * length
    return np.sqrt(dx * dx + y * y) - (start + t * (end - start))


def leaf(x: Array, y: Array, length: Value, width: Value) -> Array:
    """Pointed leaf from the origin along +x, ``width`` to each side."""
    t = np.clip(x / length, 0, 1)
    dx = x - t * length
    return np.sqrt(dx * dx + y * y) - 4 * width * t * (1 - t)


def join(a: Array, b: Array, softness: Value) -> Array:
    """Union with a rounded seam (polynomial smooth minimum)."""
    h = np.maximum(softness - np.abs(a - b), 0) / softness
    return np.minimum(a, b) - h * h * softness * 0.25


def band(along: Array, centre: Value, half: Value) -> Array:
    """Band across an axis."""
    return np.abs(along - centre) - half


def both(*distances: Array) -> Array:
    """Intersection."""
    return np.maximum.reduce(distances)


def cover(distance: Array, pixel: Value) -> Array:
    """Share of each pixel that is covered, for an edge ``pixel`` wide."""
    return np.clip(0.5 - distance / pixel, 0, 1)


class Frame(NamedTuple):
    """A place and a direction per photo, each float64 ``[B]``."""

    x: Array
    y: Array
    angle: Array

    def on(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Coordinates of grid points in this frame."""
        dx, dy = x - grid(self.x), y - grid(self.y)
        cosine, sine = grid(np.cos(self.angle)), grid(np.sin(self.angle))
        return cosine * dx + sine * dy, cosine * dy - sine * dx

    def out(self, u: Value, v: Value) -> tuple[Array, Array]:
        """Where this frame's point (u, v) lies outside it."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return self.x + cosine * u - sine * v, self.y + sine * u + cosine * v

    def within(self, u: Value, v: Value, angle: Value) -> "Frame":
        """A frame at (u, v) of this one, turned by ``angle``."""
        x, y = self.out(u, v)
        return Frame(x, y, self.angle + angle)
