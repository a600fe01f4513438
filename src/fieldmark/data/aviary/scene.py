"""What differs from photo to photo and says nothing about the species.

Photos are painted in the coordinates of the picture: -1 to 1 from left to right and from bottom
to top.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark import rng
from fieldmark.data.aviary.shapes import Frame, circle, cover, grid, lay, leaf

Array = npt.NDArray[Any]
Palette = tuple[tuple[int, int, int], ...]

# sRGB. The same palettes serve every species.
PLUMAGE: Palette = (
    (198, 92, 62), (214, 148, 62), (172, 132, 92), (134, 122, 76), (108, 140, 92), (76, 142, 138),
    (84, 128, 180), (112, 108, 168), (158, 98, 142), (196, 104, 120), (128, 132, 142), (150, 106, 76),
)  # fmt: skip
PALE: Palette = ((252, 248, 236), (252, 240, 204), (250, 232, 172), (240, 246, 250))
DARK: Palette = ((34, 30, 34), (46, 30, 26), (26, 34, 48), (40, 24, 40))
BILLS: Palette = ((236, 158, 48), (224, 110, 58), (84, 76, 74), (214, 188, 120))
_PLACES: Palette = (
    (190, 216, 232), (140, 182, 214), (236, 216, 176), (158, 184, 120), (98, 138, 92),
    (70, 104, 92), (206, 190, 150), (228, 192, 170), (168, 176, 190), (124, 112, 96),
)  # fmt: skip
_LEAVES: Palette = (
    (96, 140, 70), (62, 108, 66), (150, 160, 72), (190, 132, 62), (176, 84, 58), (92, 120, 98),
)  # fmt: skip
_BARK: Palette = ((104, 82, 66), (126, 112, 98), (86, 74, 70), (140, 106, 76))
_TILE = 64


class Dice:
    """Numbers addressed by (seed, what for, photo), so that photo i is the same in any drawing."""

    def __init__(self, seed: int, photos: npt.NDArray[np.int64]) -> None:
        self.count = len(photos)
        self._seed, self._photos = seed, photos

    def share(self, name: str, count: int = 1) -> Array:
        """Uniform in [0, 1), float64 ``[B]``, or ``[B, count]`` when count > 1."""
        drawn = rng.uniform(count, "aviary", self._seed, name, self._photos)
        return drawn if count > 1 else drawn[:, 0]

    def between(self, name: str, low: float, high: float, count: int = 1) -> Array:
        """Uniform between two bounds."""
        return low + (high - low) * self.share(name, count)

    def middle(self, name: str, low: float, high: float) -> Array:
        """Between two bounds with the middle likelier (mean of two uniforms)."""
        return low + (high - low) * (self.share(name) + self.share(f"{name}, again")) / 2

    def coin(self, name: str, probability: float = 0.5) -> Array:
        """True with the given probability, bool ``[B]``."""
        return self.share(name) < probability

    def colour(self, name: str, palette: Palette, vary: float = 0.0) -> Array:
        """One of a palette, each channel off by up to ``vary``; float64 ``[B, 3]`` in [0, 1]."""
        draws = self.share(name, 4)
        base = np.asarray(palette, dtype=np.float64)[(draws[:, 0] * len(palette)).astype(np.int64)]
        return np.clip(base / 255 + vary * (2 * draws[:, 1:] - 1), 0, 1)


class Picture(NamedTuple):
    """Coordinates of the pixels' centres and the width of one pixel."""

    x: Array
    y: Array
    pixel: float

    @classmethod
    def of(cls, count: int, size: int) -> "Picture":
        """The grid of ``count`` square pictures."""
        centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
        x = np.broadcast_to(centre[None, None, :], (count, size, size))
        y = np.broadcast_to(-centre[None, :, None], (count, size, size))
        return cls(x, y, 2 / size)


def surroundings(dice: Dice, picture: Picture) -> Array:
    """Soft colours out of focus: a gradient, discs of light, blurred leaves."""
    x, y = picture.x, picture.y
    top, bottom = dice.colour("top", _PLACES, 0.06), dice.colour("bottom", _PLACES, 0.06)
    t = np.clip(0.5 - 0.6 * (y + grid(dice.between("lean", -0.4, 0.4)) * x), 0, 1)
    t = t * t * (3 - 2 * t)
    canvas = grid(top) + (grid(bottom) - grid(top)) * t[:, None]
    for i in range(6):
        distance = circle(
            x - grid(dice.between(f"disc x {i}", -1.1, 1.1)),
            y - grid(dice.between(f"disc y {i}", -1.1, 1.1)),
            grid(dice.between(f"disc size {i}", 0.12, 0.5)),
        )
        strength = grid(dice.between(f"disc strength {i}", 0.1, 0.6))
        blur = grid(dice.between(f"disc blur {i}", 0.1, 0.5))
        colour = dice.colour(f"disc {i}", _PLACES + _LEAVES, 0.1)
        lay(canvas, colour, strength * cover(distance, blur))
    for i in range(5):
        u, v = _anywhere(dice, f"far {i}").on(x, y)
        length = grid(dice.between(f"far length {i}", 0.3, 0.8))
        width = grid(dice.between(f"far width {i}", 0.08, 0.2))
        strength = grid(dice.between(f"far strength {i}", 0.2, 0.7) * dice.coin(f"far? {i}", 0.7))
        lay(
            canvas,
            dice.colour(f"far {i}", _LEAVES, 0.08),
            strength * cover(leaf(u, v, length, width), 0.14),
        )
    return canvas


def twig(dice: Dice, picture: Picture, canvas: Array, x: Array, y: Array) -> None:
    """Paint a twig whose upper edge passes through (x, y)."""
    dx = picture.x - grid(x)
    thick = dice.between("twig thick", 0.05, 0.1)
    bent = grid(dice.between("twig slope", -0.25, 0.25)) * dx
    bent = bent + grid(dice.between("twig bend", -0.06, 0.06)) * dx * dx
    across = picture.y - grid(y - thick) - bent
    shade = 1 + 2.4 * np.clip(across, -0.1, 0.1)
    colour = grid(dice.colour("bark", _BARK, 0.05)) * shade[:, None]
    lay(canvas, colour, cover(np.abs(across) - grid(thick), picture.pixel * 1.5))


def leaves_in_front(dice: Dice, picture: Picture) -> list[tuple[Array, Array]]:
    """Leaves nearer than the bird: their colours ``[B, 3, S, S]`` and coverages ``[B, S, S]``."""
    leaves = []
    for i in range(2):
        u, v = _anywhere(dice, f"near {i}").on(picture.x, picture.y)
        length = grid(dice.between(f"near length {i}", 0.4, 0.7))
        width = grid(dice.between(f"near width {i}", 0.1, 0.17))
        there = grid(dice.coin(f"near? {i}", 0.4))
        vein = 1 + 0.35 * np.clip(1 - np.abs(v) / 0.03, 0, 1) - 0.6 * np.clip(v, -0.2, 0.2)
        colour = grid(dice.colour(f"near {i}", _LEAVES, 0.06)) * vein[:, None]
        leaves.append((colour, there * cover(leaf(u, v, length, width), picture.pixel * 1.5)))
    return leaves


def expose(dice: Dice, picture: Picture, canvas: Array) -> npt.NDArray[np.uint8]:
    """Light, fall-off to the corners and sensor noise, then bytes ``[B, S, S, 3]``."""
    x, y = picture.x, picture.y
    gain = dice.between("gain", 0.78, 1.12)[:, None] * dice.between("tint", 0.93, 1.07, 3)
    light = 1 + grid(dice.between("light x", -0.12, 0.12)) * x
    light = light + grid(dice.between("light y", -0.05, 0.15)) * y
    light = light - grid(dice.between("fall-off", 0.0, 0.12)) * (x * x + y * y)
    out = canvas * grid(gain) * light[:, None]
    out += _noise(dice, canvas.shape[-1]) * grid(dice.between("noise", 0.0, 0.04))[:, None]
    out = np.clip(out * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out.transpose(0, 2, 3, 1))


def _anywhere(dice: Dice, name: str) -> Frame:
    at = dice.between(f"{name} at", -1.15, 1.15, 2)
    return Frame(at[:, 0], at[:, 1], dice.between(f"{name} angle", 0.0, 2 * np.pi))


@functools.cache
def _grain(side: int) -> npt.NDArray[np.float32]:
    rows, columns = np.arange(side)[:, None], np.arange(side)
    grain = rng.uniform(6, "aviary grain", rows, columns).reshape(side, side, 3, 2)
    return (grain.sum(axis=-1) - 1).astype(np.float32).transpose(2, 0, 1)


def _noise(dice: Dice, size: int) -> npt.NDArray[np.float32]:
    # Every photo cuts its noise from one grain at its own place: hashing each pixel of each
    # photo would cost more than painting it.
    grain = _grain(size + _TILE)
    at = (dice.share("grain", 2) * _TILE).astype(np.int64)
    return np.stack([grain[:, r : r + size, c : c + size] for r, c in at])
