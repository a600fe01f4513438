"""Paint a batch of birds.

A bird is painted in its own coordinates: one unit is about half the length of the body, +x is
where it looks, +y is up. Sizes of marks are chosen so that all forms of a mark cover about the
same area: how much pale or dark there is in a photo does not tell the species, where it is does.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark.data.aviary.scene import (
    BILLS,
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
    join,
    lay,
)

PARTS = ("bill", "eye", "crown", "breast", "wing", "tail", "feet")
"""Named points of a bird."""

_CREAM = np.array([0.97, 0.92, 0.82])
_BLACK = np.array([0.07, 0.06, 0.07])


class Painted(NamedTuple):
    """A batch of photos and what is true of them; see ``Aviary`` for the fields."""

    images: npt.NDArray[np.uint8]
    backgrounds: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float32]
    parts: npt.NDArray[np.float32]
    mark_boxes: npt.NDArray[np.float32]
    mark_visible: npt.NDArray[np.float32]


class _Pose:
    """Where the bird is and how it holds itself; frames are in bird coordinates."""

    def __init__(self, dice: Dice) -> None:
        self.scale = dice.middle("scale", 0.45, 0.58)
        self.side = np.where(dice.coin("side"), 1.0, -1.0)
        self.x = dice.between("at x", -0.13, 0.13)
        self.y = dice.between("at y", -0.16, 0.08)
        self.plump = dice.between("plump", 0.68, 0.84)
        tilt = dice.middle("tilt", -0.05, 0.75)
        origin = np.zeros(dice.count)
        self.body = Frame(origin, origin, tilt)
        neck_x, neck_y = self.body.out(0.66, 0.34)
        self.head = Frame(
            neck_x + dice.between("head x", -0.12, 0.12),
            neck_y + dice.between("head y", 0.08, 0.28),
            dice.middle("head turn", -0.35, 0.35),
        )
        lift = dice.between("wing lift", -0.1, 0.28)
        self.wing = self.body.within(0.30, 0.10, np.pi + lift)
        self.tail = self.body.within(-0.72, 0.02, np.pi + dice.between("tail lift", -0.45, 0.3))
        # Lowest point of the tilted ellipse, and the feet a little below.
        self.low = np.sqrt((0.98 * np.sin(tilt)) ** 2 + (self.plump * np.cos(tilt)) ** 2)
        self.feet = (self.body.out(0.05, 0.0)[0], -self.low - 0.16)

    def picture(self, x: Array, y: Array) -> tuple[Array, Array]:
        """From bird coordinates to the picture's."""
        return self.x + self.side * self.scale * x, self.y + self.scale * y

    def bird(self, picture: Picture) -> tuple[Array, Array, Array]:
        """Bird coordinates of all pixels, and a pixel's width in them."""
        x = (picture.x - grid(self.x)) * grid(self.side / self.scale)
        y = (picture.y - grid(self.y)) / grid(self.scale)
        return x, y, np.float32(picture.pixel) / grid(self.scale)


class _Colours(NamedTuple):
    """Plumage is free; the colours of marks come from one palette for all species."""

    plumage: Array
    belly: Array
    wing: Array
    tail: Array
    pale: Array
    dark: Array
    bill: Array
    feet: Array

    @classmethod
    def drawn(cls, dice: Dice) -> "_Colours":
        def one(name: str, low: float, high: float) -> Array:
            return dice.between(name, low, high)[:, None]

        plumage = dice.colour("plumage", PLUMAGE, 0.08)
        wing = plumage * one("wing shade", 0.48, 0.62)
        return cls(
            plumage=plumage,
            belly=plumage + (_CREAM - plumage) * one("belly", 0.35, 0.75),
            wing=wing,
            tail=wing * one("tail shade", 0.8, 1.0),
            pale=dice.colour("pale", PALE, 0.02),
            dark=dice.colour("dark", DARK, 0.03),
            bill=dice.colour("bill", BILLS, 0.04),
            feet=dice.colour("feet", BILLS, 0.03) * 0.8,
        )


class _Brush:
    """One batch of canvases with the forms of its species."""

    def __init__(self, canvas: Array, forms: npt.NDArray[np.int64], edge: Array) -> None:
        self.canvas, self.edge = canvas, edge
        self._has = [[grid(forms[:, m] == f) for f in range(4)] for m in range(forms.shape[1])]

    def shape(self, colour: Array, distance: Array) -> Array:
        coverage = cover(distance, self.edge)
        lay(self.canvas, colour, coverage)
        return coverage

    def form(self, mark: int, distances: tuple[Array, Array, Array, Array]) -> Array:
        """Coverage of the form that each photo's species has."""
        coverage: Array = np.zeros_like(distances[0])
        for has, distance in zip(self._has[mark], distances, strict=True):
            coverage += has * cover(distance, self.edge)
        return coverage


def paint(
    photos: npt.NDArray[np.int64],
    forms: npt.NDArray[np.int64],
    size: int,
    seed: int,
    places: npt.NDArray[np.int64] | None = None,
) -> Painted:
    """Paint photos.

    Args:
        photos: Photo numbers ``[B]``; all but the marks' forms follows from (seed, number).
        forms: Form of each mark ``[B, 5]``.
        size: Side in pixels.
        seed: Seed of the drawing.
        places: Photos ``[B]`` whose surroundings and twig are painted instead of their own. Leaves
            before the bird, light and noise stay, so that the bird's pixels do.
    """
    dice = Dice(seed, photos)
    elsewhere = dice if places is None else Dice(seed, places)
    picture = Picture.of(dice.count, size)
    pose = _Pose(dice)
    canvas = surroundings(elsewhere, picture)
    twig(elsewhere, picture, canvas, *pose.picture(*pose.feet))
    backgrounds = canvas.copy()
    bird, marks = _bird(dice, picture, pose, canvas, forms)
    hidden = np.zeros_like(bird)
    for colour, coverage in leaves_in_front(dice, picture):
        lay(canvas, colour, coverage)
        lay(backgrounds, colour, coverage)
        hidden = np.maximum(hidden, coverage)
    area = np.maximum(marks.sum(axis=(2, 3)), np.float32(1e-6))
    return Painted(
        images=expose(dice, picture, canvas),
        backgrounds=expose(dice, picture, backgrounds),
        masks=bird * (1 - hidden) > 0.5,
        boxes=_boxes(bird > 0.5),
        parts=_parts(pose, size),
        mark_boxes=_boxes(marks > 0.25),
        mark_visible=((marks * (1 - hidden)[:, None]).sum(axis=(2, 3)) / area).astype(np.float32),
    )


def _bird(
    dice: Dice, picture: Picture, pose: _Pose, canvas: Array, forms: npt.NDArray[np.int64]
) -> tuple[Array, Array]:
    """Paint the birds; returns their coverage ``[B, S, S]`` and their marks' ``[B, 5, S, S]``."""
    x, y, edge = pose.bird(picture)
    colours = _Colours.drawn(dice)
    brush = _Brush(canvas, forms, edge)
    tail, tail_mark = _tail(brush, colours, *pose.tail.on(x, y))
    head_x, head_y = pose.head.on(x, y)
    head = circle(head_x, head_y, 0.56)
    whole = join(ellipse(*pose.body.on(x, y), 0.98, grid(pose.plump)), head, 0.3)
    for side in (-0.13, 0.15):
        u, v = Frame(pose.feet[0] + side, pose.feet[1] + 0.3, np.full(dice.count, -np.pi / 2)).on(
            x, y
        )
        brush.shape(colours.feet, capsule(u, v, 0.3, 0.045, 0.045))
    light = 0.96 + 0.16 * np.clip(y, -1, 1.2) + 0.5 * np.clip(whole, -0.12, 0)
    body = brush.shape(grid(colours.plumage) * light[:, None], whole)
    u, v = pose.body.on(x, y)
    soft_belly = cover(ellipse(u - 0.22, v + 0.42, 0.72, 0.5), 0.3) * body
    lay(canvas, grid(colours.belly) * light[:, None], soft_belly)
    crown_mark = _crown(brush, colours, head_x, head_y, head)
    bill_mark = _bill(brush, colours, head_x, head_y)
    eye_mark = _eye(brush, colours, head_x, head_y, head)
    wing, wing_mark = _wing(brush, colours, *pose.wing.on(x, y), body)
    tail_mark = tail_mark * (1 - np.maximum(body, wing))
    bird = np.maximum.reduce([tail, body, wing, bill_mark, crown_mark])
    return bird, np.stack([wing_mark, eye_mark, bill_mark, crown_mark, tail_mark], axis=1)


def _tail(brush: _Brush, colours: _Colours, u: Array, v: Array) -> tuple[Array, Array]:
    v = -v  # the frame points backwards; up again
    wide = 0.15 + 0.13 * np.clip(u / 0.86, 0, 1)
    distance = both(np.abs(v) - wide, u - 0.86, -u - 0.2)
    quills = 1 - 0.16 * np.clip(1 - np.abs(np.abs(v) - wide * 0.4) / 0.03, 0, 1)
    tail = brush.shape(grid(colours.tail) * (quills * (0.9 + 0.35 * v))[:, None], distance)
    mark = tail * brush.form(4, (
        band(u, 0.44, 0.125),
        0.65 - u,
        np.minimum(band(u, 0.30, 0.068), band(u, 0.62, 0.058)),
        both(wide - 0.095 - np.abs(v), 0.12 - u),
    ))  # fmt: skip
    lay(brush.canvas, colours.pale, mark)
    return tail, mark


def _crown(brush: _Brush, colours: _Colours, x: Array, y: Array, head: Array) -> Array:
    count = len(x)
    crest = Frame(np.full(count, -0.1), np.full(count, 0.45), np.full(count, 2.24))
    mark = brush.form(3, (
        both(head, 0.345 - (y + 0.1 * x)),
        capsule(*crest.on(x, y), 0.46, 0.17, 0.01),
        both(head, ellipse(x + 0.46, y - 0.16, 0.22, 0.33)),
        both(head, ellipse(x - 0.40, y - 0.33, 0.27, 0.31)),
    ))  # fmt: skip
    lay(brush.canvas, colours.dark, mark)
    return mark


def _bill(brush: _Brush, colours: _Colours, x: Array, y: Array) -> Array:
    u, v = x - 0.46, y + 0.03
    bend = 0.55 * u * u
    mark = brush.form(2, (
        capsule(u, v, 0.33, 0.195, 0.02),
        capsule(u, v, 0.72, 0.115, 0.02),
        capsule(u, v + bend, 0.66, 0.12, 0.02),
        capsule(u, v - bend, 0.66, 0.12, 0.02),
    ))  # fmt: skip
    shade = 0.88 + 0.9 * np.clip(v, -0.15, 0.15)
    lay(brush.canvas, grid(colours.bill) * shade[:, None], mark)
    return mark


def _eye(brush: _Brush, colours: _Colours, x: Array, y: Array, head: Array) -> Array:
    u, v = x - 0.19, y - 0.07
    away = circle(u, v, 0)
    mark = brush.form(1, (
        both(head, band(away, 0.175, 0.062)),
        both(head, band(v + 0.04 * u, 0, 0.068), band(u, -0.2, 0.5)),
        both(head, band(v + 0.12 * u * u, 0.21, 0.074), band(u, -0.1, 0.48)),
        both(head, ellipse(u + 0.02, v + 0.29, 0.225, 0.165)),
    ))  # fmt: skip
    lay(brush.canvas, colours.pale, mark)
    count = len(x)
    brush.shape(np.tile(_BLACK, (count, 1)), away - 0.115)
    brush.shape(np.tile(_CREAM, (count, 1)), circle(u - 0.04, v - 0.045, 0.036))
    return mark


def _wing(brush: _Brush, colours: _Colours, u: Array, v: Array, body: Array) -> tuple[Array, Array]:
    v = -v  # the frame points backwards; up again
    distance = capsule(u, v + 0.06 * u * u, 1.12, 0.36, 0.05)
    shadow = 0.5 * cover(distance - 0.04, brush.edge * 2) * body
    lay(brush.canvas, colours.plumage * 0.35, shadow)
    feathers = np.clip(1 - np.abs(np.abs(v + 0.1) - 0.1) / 0.03, 0, 1)
    feathers = feathers * np.clip(u * 3.6 - 1.8, 0, 1)
    light = (1 - 0.2 * feathers) * (1 + 0.3 * np.clip(v, -0.4, 0.4))
    light = light * (1 + 1.6 * np.clip(distance, -0.08, 0))
    wing = brush.shape(grid(colours.wing) * light[:, None], distance)
    aslant = u + 0.22 * v
    mark = wing * brush.form(0, (
        band(aslant, 0.42, 0.13),
        np.minimum(band(aslant, 0.24, 0.062), band(aslant, 0.58, 0.078)),
        circle(u, v - 0.03, 0.212),
        0.645 - aslant,
    ))  # fmt: skip
    lay(brush.canvas, colours.pale, mark)
    return wing, mark


def _parts(pose: _Pose, size: int) -> npt.NDArray[np.float32]:
    """Pixel positions ``[B, 7, 2]`` of ``PARTS``."""
    places: list[tuple[Any, Any]] = [
        pose.head.out(0.7, -0.03),
        pose.head.out(0.19, 0.07),
        pose.head.out(0.0, 0.48),
        pose.body.out(0.55, -0.3),
        pose.wing.out(0.5, 0.0),
        pose.tail.out(0.5, 0.0),
        pose.feet,
    ]
    points = [pose.picture(*place) for place in places]
    pixels = [np.stack([(x + 1) * size / 2, (1 - y) * size / 2], axis=-1) for x, y in points]
    return np.stack(pixels, axis=1).astype(np.float32)


def _boxes(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """x0 y0 x1 y1 around what is true in ``[..., S, S]``, in pixels; zeros where nothing is."""
    columns: Any = masks.any(axis=-2)
    rows: Any = masks.any(axis=-1)
    size = masks.shape[-1]
    corners = [
        columns.argmax(axis=-1),
        rows.argmax(axis=-1),
        size - columns[..., ::-1].argmax(axis=-1),
        size - rows[..., ::-1].argmax(axis=-1),
    ]
    found = columns.any(axis=-1)[..., None]
    return (np.stack(corners, axis=-1) * found).astype(np.float32)
