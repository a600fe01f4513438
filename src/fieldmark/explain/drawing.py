"""Pictures for sheets: photos as the encoder sees them, maps over them, numbered parts, crops."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from fieldmark.data.look import window

Pixels = UInt8[np.ndarray, "S S 3"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#3453C4", "#6B3A1E", "#555555")
"""Okabe and Ito's palette, darkened where white figures stand on it: told apart by colour-blind
readers too; every mark also has its number."""


def seen(pixels: UInt8[np.ndarray, "H W 3"], size: int, crop: float, side: int) -> Pixels:
    """The part of a photo that an encoder sees, sharper than it sees it.

    Args:
        pixels: Upright photo.
        size: Side of the encoder's input in pixels.
        crop: Share of the short side that it keeps.
        side: Side of the result.
    """
    height, width = pixels.shape[:2]
    box = window(height, width, size, crop)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


def enlarge(cells: Float[np.ndarray, "h w"], side: int) -> Float[np.ndarray, "S S"]:
    """A map on the pixels of a square picture, smooth between the middles of its cells."""
    image = Image.fromarray(np.ascontiguousarray(cells, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def shade(picture: Pixels, cells: Float[np.ndarray, "h w"]) -> Pixels:
    """A photo that keeps colour and light where the map is high, and a line around what is highest.

    Dimming reads as *look here* at once, needs no key, and leaves the plumage its own colours, which
    colours laid over it would not. Below zero counts as zero. The line is where the map has half of
    its largest value.

    Args:
        picture: Square photo.
        cells: Map on a grid of the same square.
    """
    positive = np.clip(enlarge(np.clip(cells, 0, None), picture.shape[0]), 0, None)
    top = float(positive.max())
    share = positive / top if top > 0 else np.zeros_like(positive)
    light = np.sqrt(share)[:, :, None]
    photo = picture.astype(np.float32)
    grey = (photo @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
    # Grey lifted a little: a dark bird on dark water must stay visible where it is dimmed.
    dimmed = 18 + 0.36 * grey
    result = dimmed * (1 - light) + photo * light
    if top > 0:
        slope = np.hypot(*np.gradient(share)) + 1e-6
        away = np.abs(share - 0.5) / slope
        for width, colour in ((3.2, 20.0), (1.7, 255.0)):
            line = np.clip(width - away, 0, 1)[:, :, None]
            result = result * (1 - line) + colour * line
    return np.clip(result + 0.5, 0, 255).astype(np.uint8)


def number(
    picture: Pixels,
    places: Sequence[tuple[float, float]],
    *,
    share: float = 0.0,
    labels: Sequence[int] | None = None,
) -> Pixels:
    """Numbered discs on a picture, each with a square around its part.

    Args:
        picture: Square photo.
        places: Row and column of each middle as shares of the side, 0 to 1.
        share: Side of the squares as a share of the picture's; 0 draws none.
        labels: Numbers, from 1; by default in order.
    """
    side = picture.shape[0]
    scale = 2
    image = Image.fromarray(picture).resize((side * scale,) * 2, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    radius = max(11, round(side * 0.034)) * scale
    face = ImageFont.load_default(round(radius * 1.35))
    corners = []
    for index, (row, column) in enumerate(places):
        label = index + 1 if labels is None else labels[index]
        colour = COLOURS[(label - 1) % len(COLOURS)]
        left, top, right, bottom = (edge * side * scale for edge in box_around(row, column, share))
        if share:
            pen.rectangle((left, top, right, bottom), outline="white", width=4 * scale)
            inner = (left + scale, top + scale, right - scale, bottom - scale)
            pen.rectangle(inner, outline=colour, width=2 * scale)
        corners.append((label, colour, left, top))
    for label, colour, left, top in corners:
        # On the square's corner, so that the part itself stays free.
        x = min(max(left, radius + scale), side * scale - radius - scale)
        y = min(max(top, radius + scale), side * scale - radius - scale)
        disc = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(disc, fill=colour, outline="white", width=2 * scale)
        pen.text((x, y), str(label), "white", face, anchor="mm")
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def box_around(row: float, column: float, share: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a square inside the picture, around a place; all as shares."""
    left, top = (min(max(at - share / 2, 0.0), 1 - share) for at in (column, row))
    return left, top, left + share, top + share


def cut(
    picture: Pixels, row: float, column: float, share: float, side: int
) -> UInt8[np.ndarray, "C C 3"]:
    """The square around a place, enlarged."""
    box = tuple(edge * picture.shape[0] for edge in box_around(row, column, share))
    image = Image.fromarray(picture)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


def middle(place: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float]:
    """Middle of a cell as shares of the picture: row, column."""
    return (place[0] + 0.5) / shape[0], (place[1] + 0.5) / shape[1]


def half_share(cells: npt.NDArray[np.floating]) -> float:
    """Smallest share of the photo that holds half of a map's positive part."""
    values = np.sort(np.clip(cells, 0, None).ravel())[::-1]
    total = values.sum()
    if total <= 0:
        return 1.0
    return float((np.searchsorted(np.cumsum(values), total / 2) + 1) / len(values))


Box = tuple[float, float, float, float]


def square(pixels: UInt8[np.ndarray, "H W 3"], box: Box, side: int) -> tuple[Pixels, Box]:
    """The largest square of a photo that holds as much of a box as can be, the box in its middle.

    Args:
        pixels: Photo of any shape.
        box: x0 y0 x1 y1 as fractions of the photo.
        side: Of the result in pixels.

    Returns:
        The picture, and the box as fractions of it.
    """
    height, width = pixels.shape[:2]
    short = min(height, width)
    edges = []
    for low, high, length in ((box[0], box[2], width), (box[1], box[3], height)):
        edges.append(min(max((low + high) / 2 * length - short / 2, 0), length - short))
    left, top = edges
    image = Image.fromarray(np.ascontiguousarray(pixels))
    cut_out = (left, top, left + short, top + short)
    picture = image.resize((side, side), Image.Resampling.LANCZOS, box=cut_out)
    inside = (
        (box[0] * width - left) / short,
        (box[1] * height - top) / short,
        (box[2] * width - left) / short,
        (box[3] * height - top) / short,
    )
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in inside)
    return np.asarray(picture), (x0, y0, x1, y1)


def frame(picture: Pixels, box: Box, label: int | None = None) -> Pixels:
    """A frame around a box, light with a coloured core, so that it is seen on every photo.

    Args:
        picture: Square photo.
        box: x0 y0 x1 y1 as fractions of it.
        label: Number whose colour it takes, from 1.
    """
    side, scale = picture.shape[0], 2
    colour = COLOURS[((label or 1) - 1) % len(COLOURS)]
    image = Image.fromarray(picture).resize((side * scale,) * 2, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    line = max(2, side // 75) * scale
    last = side * scale - 1
    x0, y0, x1, y1 = (round(edge * last) for edge in box)
    pen.rectangle((x0, y0, x1, y1), outline="white", width=2 * line)
    inset = line // 2
    # A box of a few pixels has no room for a core.
    if x1 - x0 > 2 * inset and y1 - y0 > 2 * inset:
        inner = (x0 + inset, y0 + inset, x1 - inset, y1 - inset)
        pen.rectangle(inner, outline=colour, width=line)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def part(pixels: UInt8[np.ndarray, "H W 3"], box: Box, side: int) -> Pixels:
    """A box of a photo, enlarged, with what is around it where it is no square.

    Args:
        pixels: Photo of any shape.
        box: x0 y0 x1 y1 as fractions of it.
        side: Of the result in pixels.
    """
    height, width = pixels.shape[:2]
    longest = max((box[2] - box[0]) * width, (box[3] - box[1]) * height, 8.0)
    length = min(longest, height, width)
    left = min(max((box[0] + box[2]) / 2 * width - length / 2, 0), width - length)
    top = min(max((box[1] + box[3]) / 2 * height - length / 2, 0), height - length)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    place = (left, top, left + length, top + length)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=place))
