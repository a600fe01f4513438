"""Things that are no birds, drawn with aviary's brush: what a text-image teacher must tell apart.

Ten kinds, painted before the same surroundings, twigs, leaves and light as aviary's birds, so that
nothing but the thing itself says what it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fieldmark.data.aviary.scene import (
    DARK,
    PALE,
    PLUMAGE,
    Array,
    Dice,
    Picture,
    expose,
    leaves_in_front,
    surroundings,
    twig,
)
from fieldmark.data.aviary.shapes import (
    Frame,
    band,
    both,
    capsule,
    circle,
    cover,
    ellipse,
    grid,
    lay,
)

_SKIN = ((232, 190, 160), (198, 144, 108), (140, 96, 70), (94, 64, 50))
_HIDE = ((96, 104, 62), (84, 90, 70), (120, 112, 70), (70, 84, 60))
_FUR = ((150, 104, 66), (70, 58, 52), (214, 190, 150), (120, 112, 108), (188, 128, 72))
_GREEN = ((84, 128, 62), (62, 108, 66), (110, 140, 74))


class Things(NamedTuple):
    """Pictures of one kind."""

    images: Array
    """uint8 [B, S, S, 3]."""
    backgrounds: Array
    """The same without the thing."""
    masks: Array
    """bool [B, S, S], pixels that show the thing."""


class _Canvas:
    def __init__(self, dice: Dice, canvas: Array, x: Array, y: Array, edge: Array) -> None:
        self.dice, self.canvas, self.x, self.y, self.edge = dice, canvas, x, y, edge
        self.covered = np.zeros_like(x)

    def shape(self, colour: Array, distance: Array, within: Array | float = 1.0) -> Array:
        coverage = cover(distance, self.edge) * within
        lay(self.canvas, colour, coverage)
        self.covered = np.maximum(self.covered, coverage)
        return coverage

    def at(self, u: float, v: float, angle: float) -> tuple[Array, Array]:
        count = self.dice.count
        return Frame(np.full(count, u), np.full(count, v), np.full(count, angle)).on(self.x, self.y)


def _box(x: Array, y: Array, half_width: Any, half_height: Any) -> Array:
    return both(np.abs(x) - half_width, np.abs(y) - half_height)


def _road(c: _Canvas, low: float) -> None:
    shown = cover(c.y - low, c.edge)
    lay(
        c.canvas,
        c.dice.colour("road", ((110, 108, 106), (84, 82, 84), (140, 132, 122)), 0.04),
        shown,
    )
    lay(
        c.canvas,
        c.dice.colour("line", PALE, 0.02),
        shown * cover(band(c.y, low - 0.3, 0.03), c.edge),
    )


def _wheels(c: _Canvas, low: float, radius: float, places: tuple[float, ...]) -> None:
    for place in places:
        c.shape(c.dice.colour("tyre", DARK, 0.02), circle(c.x - place, c.y - low, radius))
        c.shape(c.dice.colour("hub", PALE, 0.1), circle(c.x - place, c.y - low, radius * 0.45))


def _car(c: _Canvas) -> None:
    _road(c, -0.45)
    paint, glass = c.dice.colour("paint", PLUMAGE, 0.1), c.dice.colour("glass", PALE, 0.1) * 0.85
    slope = 0.62 - 0.5 * (c.y - 0.3)
    c.shape(paint, both(band(c.y, 0.32, 0.24), np.abs(c.x + 0.1) - slope))
    c.shape(glass, both(band(c.y, 0.32, 0.16), np.abs(c.x + 0.1) - slope + 0.12))
    c.shape(
        paint, band(c.x, -0.1, 0.04) + 0 * c.y, within=cover(_box(c.x, c.y - 0.3, 0.3, 0.2), c.edge)
    )
    c.shape(paint, _box(c.x, c.y + 0.12, 1.0, 0.26))
    _wheels(c, -0.4, 0.25, (-0.58, 0.6))
    c.shape(c.dice.colour("lamp", PALE, 0.02), ellipse(c.x - 0.93, c.y + 0.03, 0.09, 0.07))


def _bus(c: _Canvas) -> None:
    _road(c, -0.62)
    paint, glass = c.dice.colour("paint", PLUMAGE, 0.1), c.dice.colour("glass", PALE, 0.1) * 0.8
    c.shape(paint, _box(c.x, c.y, 1.25, 0.52))
    for i in range(5):
        c.shape(glass, _box(c.x + 1.0 - 0.5 * i, c.y - 0.2, 0.2, 0.17))
    c.shape(paint * 0.6, _box(c.x, c.y + 0.2, 1.25, 0.05))
    _wheels(c, -0.52, 0.2, (-0.75, 0.75))


def _flower(c: _Canvas) -> None:
    green = c.dice.colour("green", _GREEN, 0.05)
    c.shape(green, capsule(*c.at(0, 0, -1.6), 1.5, 0.06, 0.07))
    for turn, low in ((-0.6, -0.9), (3.7, -0.7)):
        u, v = c.at(0, low, turn)
        c.shape(green * 0.9, ellipse(u - 0.35, v, 0.36, 0.13))
    petal, count = c.dice.colour("petal", PLUMAGE, 0.15), 7
    petal = np.clip(petal * 1.25, 0, 1)
    for i in range(count):
        u, v = c.at(0, 0.25, i * 2 * np.pi / count)
        c.shape(petal * (0.85 + 0.15 * (i % 2)), ellipse(u - 0.42, v, 0.34, 0.2))
    c.shape(
        c.dice.colour("heart", ((236, 190, 60), (120, 80, 50)), 0.08), circle(c.x, c.y - 0.25, 0.2)
    )


def _snake(c: _Canvas) -> None:
    hide = c.dice.colour("hide", PLUMAGE, 0.1) * 0.8
    bend = grid(c.dice.between("bend", 2.6, 4.2))
    wave = 0.34 * np.sin(bend * c.x)
    steep = np.sqrt(1 + (0.34 * bend * np.cos(bend * c.x)) ** 2)
    wide = 0.15 * np.clip((c.x + 1.4) / 0.9, 0.15, 1)
    body = c.shape(hide, both(np.abs(c.y - wave) / steep - wide, np.abs(c.x) - 1.25))
    rings = cover(np.abs((c.x * 4) % 1 - 0.5) - 0.16, c.edge * 4)
    lay(c.canvas, hide * 0.55, body * rings)
    tip = 0.34 * np.sin(bend * 1.25)
    c.shape(hide, ellipse(c.x - 1.3, c.y - tip, 0.27, 0.19))
    c.shape(c.dice.colour("eye", DARK, 0.0), circle(c.x - 1.36, c.y - tip - 0.06, 0.05))


def _crocodile(c: _Canvas) -> None:
    hide = c.dice.colour("hide", _HIDE, 0.06)
    c.shape(hide * 0.9, capsule(*c.at(-0.6, 0.0, 3.3), 1.0, 0.24, 0.02))
    for place in (-0.55, -0.3, 0.35, 0.6):
        c.shape(hide * 0.8, capsule(*c.at(place, -0.15, -1.8), 0.3, 0.1, 0.08))
    c.shape(hide, ellipse(c.x, c.y, 0.85, 0.3))
    for i in range(8):
        c.shape(hide * 0.7, circle(c.x + 0.8 - 0.2 * i, c.y - 0.26 + 0.02 * abs(i - 4), 0.07))
    c.shape(hide, capsule(*c.at(0.7, 0.1, 0.16), 0.75, 0.16, 0.07))
    c.shape(hide * 0.9, capsule(*c.at(0.7, -0.04, -0.14), 0.68, 0.12, 0.05))
    for i in range(4):
        c.shape(c.dice.colour("teeth", PALE, 0.0), circle(c.x - 0.95 - 0.13 * i, c.y - 0.03, 0.04))
    c.shape(c.dice.colour("eye", PALE, 0.0), circle(c.x - 0.75, c.y - 0.26, 0.06))


def _dog(c: _Canvas) -> None:
    fur = c.dice.colour("fur", _FUR, 0.06)
    c.shape(fur * 0.9, capsule(*c.at(-0.7, 0.15, 2.2), 0.5, 0.09, 0.05))
    for place in (-0.62, -0.42, 0.38, 0.58):
        c.shape(fur * 0.85, capsule(*c.at(place, -0.15, -1.57), 0.62, 0.12, 0.09))
    c.shape(fur, ellipse(c.x, c.y, 0.8, 0.33))
    c.shape(fur, capsule(*c.at(0.55, 0.1, 0.9), 0.4, 0.22, 0.2))
    c.shape(fur, circle(c.x - 0.85, c.y - 0.5, 0.28))
    c.shape(fur * 1.05, ellipse(c.x - 1.12, c.y - 0.42, 0.22, 0.13))
    c.shape(fur * 0.6, ellipse(c.x - 0.68, c.y - 0.5, 0.11, 0.26))
    c.shape(c.dice.colour("nose", DARK, 0.0), circle(c.x - 1.3, c.y - 0.45, 0.06))
    c.shape(c.dice.colour("nose", DARK, 0.0), circle(c.x - 0.92, c.y - 0.58, 0.05))


def _human(c: _Canvas) -> None:
    skin = c.dice.colour("skin", _SKIN, 0.04)
    shirt, trousers = c.dice.colour("shirt", PLUMAGE, 0.1), c.dice.colour("trousers", PLUMAGE, 0.1)
    for side in (-1, 1):
        c.shape(
            trousers * 0.7, capsule(*c.at(0.14 * side, -0.25, -1.57 + 0.1 * side), 0.95, 0.15, 0.11)
        )
        c.shape(
            shirt * 0.9, capsule(*c.at(0.3 * side, 0.45, -1.57 + 0.35 * side), 0.55, 0.11, 0.09)
        )
        c.shape(skin, circle(c.x - 0.5 * side, c.y + 0.15, 0.1))
    c.shape(shirt, ellipse(c.x, c.y - 0.18, 0.36, 0.5))
    c.shape(skin, circle(c.x, c.y - 0.88, 0.24))
    hair = c.dice.colour("hair", _FUR + DARK, 0.04)
    c.shape(hair, both(circle(c.x, c.y - 0.9, 0.27), 0.97 - c.y))


def _fish(c: _Canvas) -> None:
    skin = c.dice.colour("skin", PLUMAGE, 0.12)
    u, v = -c.x - 0.75, c.y
    c.shape(skin * 0.8, both(np.abs(v) - 0.7 * u - 0.02, u - 0.5, -u))
    c.shape(skin * 0.75, both(ellipse(c.x, c.y - 0.3, 0.4, 0.3), 0.2 - c.y))
    body = c.shape(skin, ellipse(c.x, c.y, 0.9, 0.42))
    lay(c.canvas, np.clip(skin * 1.4, 0, 1), body * cover(c.y + 0.15, 0.2))
    c.shape(skin * 0.6, band(circle(c.x - 0.25, c.y, 0.35), 0, 0.03), within=body * (c.x > 0.3))
    c.shape(c.dice.colour("white", PALE, 0.0), circle(c.x - 0.62, c.y - 0.1, 0.1))
    c.shape(c.dice.colour("eye", DARK, 0.0), circle(c.x - 0.64, c.y - 0.1, 0.05))


def _fruit(c: _Canvas) -> None:
    peel = np.clip(c.dice.colour("peel", PLUMAGE, 0.12) * 1.2, 0, 1)
    c.shape(c.dice.colour("stalk", _FUR, 0.04) * 0.7, capsule(*c.at(0, 0.5, 1.3), 0.4, 0.05, 0.04))
    u, v = c.at(0.05, 0.7, 0.4)
    c.shape(c.dice.colour("leaf", _GREEN, 0.05), ellipse(u - 0.3, v, 0.3, 0.12))
    shade = 1 - 0.35 * np.clip(np.sqrt((c.x + 0.2) ** 2 + (c.y - 0.2) ** 2) - 0.3, 0, 1)
    c.shape(grid(peel) * shade[:, None], ellipse(c.x, c.y, 0.72, 0.66))
    c.shape(np.clip(peel * 1.4, 0, 1), ellipse(c.x + 0.28, c.y - 0.28, 0.13, 0.09))


def _building(c: _Canvas) -> None:
    wall, roof = c.dice.colour("wall", PLUMAGE, 0.1), c.dice.colour("roof", _FUR, 0.06) * 0.8
    c.shape(np.clip(wall * 1.15, 0, 1), _box(c.x, c.y + 0.2, 0.85, 0.7))
    c.shape(roof, both(np.abs(c.x) - 1.0 + 1.1 * (c.y - 0.5), 0.5 - c.y, c.y - 1.0))
    for i in range(3):
        for j in range(2):
            c.shape(
                c.dice.colour("glass", DARK, 0.1) + 0.15,
                _box(c.x - 0.5 + 0.5 * i, c.y + 0.45 * j - 0.15, 0.14, 0.14),
            )
    c.shape(roof * 0.7, _box(c.x, c.y + 0.65, 0.13, 0.25))


KINDS: dict[str, Callable[[_Canvas], None]] = {
    "dog": _dog,
    "bus": _bus,
    "snake": _snake,
    "crocodile": _crocodile,
    "car": _car,
    "flower": _flower,
    "human": _human,
    "fish": _fish,
    "fruit": _fruit,
    "building": _building,
}


def draw_things(kind: str, count: int, size: int, seed: int) -> Things:
    """Draw pictures of one kind; picture i depends on (kind, seed, i) and the size."""
    parts = [
        _paint(kind, np.arange(i, min(count, i + 64)), size, seed) for i in range(0, count, 64)
    ]
    return Things(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _paint(kind: str, photos: Array, size: int, seed: int) -> Things:
    dice = Dice(seed * 1000 + list(KINDS).index(kind) + 500, photos)
    picture = Picture.of(dice.count, size)
    scale, side = dice.middle("scale", 0.42, 0.68), np.where(dice.coin("side"), 1.0, -1.0)
    at_x, at_y = dice.between("at x", -0.25, 0.25), dice.between("at y", -0.2, 0.2)
    canvas = surroundings(dice, picture)
    lean = Frame(at_x, at_y, dice.middle("tilt", -0.3, 0.3))
    u, v = lean.on(picture.x, picture.y)
    thick = dice.coin("twig?", 0.5)
    twigs = canvas.copy()
    twig(dice, picture, twigs, at_x, at_y - scale * dice.between("twig at", 0.3, 1.2))
    canvas = np.where(thick[:, None, None, None], twigs, canvas)
    backgrounds = canvas.copy()
    x, y = u * grid(side / scale), v / grid(scale)
    brush = _Canvas(dice, canvas, x, y, np.float32(picture.pixel) / grid(scale))
    KINDS[kind](brush)
    hidden = np.zeros_like(brush.covered)
    for colour, coverage in leaves_in_front(dice, picture):
        lay(canvas, colour, coverage)
        lay(backgrounds, colour, coverage)
        hidden = np.maximum(hidden, coverage)
    return Things(
        expose(dice, picture, canvas),
        expose(dice, picture, backgrounds),
        brush.covered * (1 - hidden) > 0.5,
    )
