"""A sheet that explains: one description, written as a self-contained page or as a picture.

Nothing is fetched and nothing foreign can run: as in the reports, the page's content security
policy allows ``data:`` pictures and the styles and the script written here, named by their hashes;
names of files and classes are escaped by jinja2.
"""

import base64
import io
import unicodedata
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont, features

from fieldmark import storage
from fieldmark.errors import OutputError
from fieldmark.evaluation.report.render import page_text, security_policy
from fieldmark.explain.drawing import COLOURS, Pixels

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Pictures that a sheet can be written as, beside .html."""
_PAGES = (".html", ".htm")
_INK, _FAINT, _PAPER, _LINE = "#1d2422", "#56605b", "#fffefb", "#dedacd"
_MARGIN, _GAP = 40, 16
_SIGNS: dict[int, str] = {
    ord(sign): written
    for sign, written in zip("–’·×−±“”", ("-", "'", "-", "x", "-", "+/-", '"', '"'))
}


class Tile(NamedTuple):
    """One picture with what is under it."""

    pixels: Pixels
    alt: str
    caption: str = ""
    faint: str = ""


class Strip(NamedTuple):
    """Pictures side by side, told apart from other strips by a number and a line of text."""

    tiles: tuple[Tile, ...]
    title: str = ""
    text: str = ""
    number: int | None = None


class Section(NamedTuple):
    """One heading with strips."""

    anchor: str
    title: str
    text: str
    strips: tuple[Strip, ...]
    size: Literal["photos", "crops", "halves"] = "photos"
    """photos: large. crops: small. halves: two things face to face, two tiles or four in a row, the
    first half of a row left."""


class Curves(NamedTuple):
    """What hiding and uncovering did."""

    quantity: str
    """What is explained, as it stands on the axis."""
    values: dict[str, list[float]]
    """``deletion``, ``insertion``, ``random_deletion``, ``random_insertion``."""


class Sheet(NamedTuple):
    """Everything that a sheet says."""

    kind: str
    title: str
    lede: str
    belief: str
    """How far the maps are to be believed, in a sentence or two."""
    tone: Literal["up", "flat", "down"]
    """Whether the maps are shown to be better than chance, not shown, or worse."""
    sections: tuple[Section, ...]
    curves: Curves | None
    facts: tuple[tuple[str, str], ...]
    reading: tuple[str, ...]
    """How to read it, a line each."""


def check_out(out: Path) -> None:
    """Refuse a name that no sheet can be written to, before any work is done.

    Raises:
        OutputError: If the suffix is none that is known.
    """
    if out.suffix.lower() not in (*_PAGES, *FORMATS):
        known = ", ".join((*_PAGES, *FORMATS))
        raise OutputError(
            f"a sheet is a page or a picture, and '{out.name}' does not end in one of {known}; name "
            "it for example sheet.html or sheet.png."
        )


def write_sheet(sheet: Sheet, out: Path) -> Path:
    """Write a sheet as a page or a picture, by the suffix.

    Args:
        sheet: What to say.
        out: .html, .png, .jpg or .webp; replaced as a whole or not at all.

    Raises:
        OutputError: If the suffix is none of these, or the place cannot be written.
        StorageError: If the disk is full.
    """
    check_out(out)
    storage.make_folder(out.parent)
    if out.suffix.lower() in _PAGES:
        storage.write_text(out, page_of(sheet))
        return out
    buffer = io.BytesIO()
    Image.fromarray(picture_of(sheet)).save(buffer, FORMATS[out.suffix.lower()], quality=92)
    storage.write_bytes(out, buffer.getvalue())
    return out


def page_of(sheet: Sheet) -> str:
    """A sheet as HTML text."""
    style, theme = Markup(page_text("style.css")), Markup(page_text("theme.js"))
    own = Markup(_text("explain.css"))
    policy = security_policy(styles=(style, own), scripts=(theme,))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["uri"] = _uri
    return environment.get_template("explain.html.j2").render(
        sheet=sheet,
        policy=policy,
        style=style,
        own=own,
        theme=theme,
        colours=len(COLOURS),
        charts=_charts(sheet.curves) if sheet.curves else (),
    )


def _text(name: str) -> str:
    folder = resources.files("fieldmark.explain").joinpath("page")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _uri(pixels: UInt8[np.ndarray, "S S 3"]) -> str:
    buffer = io.BytesIO()
    webp = features.check("webp")
    Image.fromarray(pixels).save(buffer, "WEBP" if webp else "JPEG", quality=86)
    kind = "webp" if webp else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


class _Chart(NamedTuple):
    """One curve beside chance, in the units of a 320 by 170 drawing."""

    title: str
    summary: str
    area: str
    map: str
    random: str
    ticks: tuple[tuple[float, str], ...]
    ends: tuple[float, float]
    """Heights of the two lines' labels."""


def _charts(curves: Curves) -> tuple[_Chart, ...]:
    values = [value for line in curves.values.values() for value in line]
    low, high = min(*values, 0.0), max(values)
    span = (high - low) or 1.0

    def points(name: str) -> list[tuple[float, float]]:
        line = curves.values[name]
        return [
            (44 + 262 * i / (len(line) - 1), 140 - 122 * (value - low) / span)
            for i, value in enumerate(line)
        ]

    def path(line: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in line)

    found = []
    for name, title, wanted in (
        ("deletion", "Hiding the map's best places first", "lower"),
        ("insertion", "Showing the map's best places first", "higher"),
    ):
        ours, random = points(name), points(f"random_{name}")
        half = len(ours) // 2
        told, luck = (curves.values[key][half] for key in (name, f"random_{name}"))
        summary = (
            f"{title}: with half of the photo changed, {curves.quantity} is {told:.2f} in the order "
            f"of the map and {luck:.2f} in random order; {wanted} is better."
        )
        ticks = (
            (140 - 122 * (0 - low) / span, "0"),
            (140 - 122 * (high - low) / span, f"{high:.2f}"),
        )
        found.append(
            _Chart(
                title,
                summary,
                path([*ours, *random[::-1]]),
                path(ours),
                path(random),
                ticks,
                (ours[half][1], random[half][1]),
            )
        )
    return tuple(found)


def picture_of(sheet: Sheet) -> UInt8[np.ndarray, "H W 3"]:
    """A sheet as one picture."""
    sizes = {"photos": 330, "crops": 190, "halves": 190}
    widest = max(
        (
            len(_rows(section, strip)[0]) * (sizes[section.size] + _GAP)
            + (_GAP if section.size == "halves" else 0)
            for section in sheet.sections
            for strip in section.strips
            if strip.tiles
        ),
        default=0,
    )
    width = max(2 * _MARGIN + widest - _GAP, 820)
    page = _Page(width)
    page.write(sheet.kind, 15, _FAINT)
    page.write(sheet.title, 30, _INK, after=6)
    page.write(sheet.lede, 17, _INK, after=6)
    page.write(sheet.belief, 15, _FAINT, after=14)
    for section in sheet.sections:
        page.rule()
        page.write(section.title, 22, _INK, after=2)
        page.write(section.text, 15, _FAINT, after=8)
        for strip in section.strips:
            if strip.title or strip.text:
                title = strip.title if strip.number is None else f"{strip.number}  {strip.title}"
                page.write(title, 16, _colour(strip.number), after=0)
                page.write(strip.text, 14, _FAINT, after=4)
            for row in _rows(section, strip):
                page.tiles(row, sizes[section.size], halves=section.size == "halves")
    page.rule()
    for line in sheet.reading:
        page.write(line, 14, _FAINT, after=2)
    page.write("   ".join(f"{name}: {value}" for name, value in sheet.facts), 13, _FAINT)
    return page.pixels()


def _rows(section: Section, strip: Strip) -> list[tuple[Tile, ...]]:
    """Tiles of a strip that stand side by side."""
    most = 4 if section.size == "halves" else max(len(strip.tiles), 1)
    return [strip.tiles[start : start + most] for start in range(0, len(strip.tiles), most)]


def _colour(label: int | None) -> str:
    return _INK if label is None else COLOURS[(label - 1) % len(COLOURS)]


class _Page:
    """Drawing from top to bottom on a picture that grows."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.y = _MARGIN
        self._steps: list[Any] = []

    def write(self, text: str, size: int, colour: str, after: int = 4) -> None:
        face = ImageFont.load_default(size)
        for line in _wrap(plain(text), face, self.width - 2 * _MARGIN):
            self._steps.append(("text", (_MARGIN, self.y), line, colour, face))
            self.y += round(size * 1.38)
        self.y += after if text else 0

    def rule(self) -> None:
        self.y += 10
        self._steps.append(("line", self.y))
        self.y += 16

    def tiles(self, tiles: Sequence[Tile], side: int, *, halves: bool) -> None:
        small, faint = ImageFont.load_default(14), ImageFont.load_default(13)
        lowest = self.y
        for index, tile in enumerate(tiles):
            gap = 2 * _GAP if halves and index >= len(tiles) // 2 else _GAP
            left = _MARGIN + index * (side + _GAP) + gap - _GAP
            self._steps.append(("tile", (left, self.y), tile.pixels, side))
            y = self.y + side + 5
            for text, face, colour in ((tile.caption, small, _INK), (tile.faint, faint, _FAINT)):
                for line in _wrap(plain(text), face, side)[:3]:
                    self._steps.append(("text", (left, y), line, colour, face))
                    y += 18
            lowest = max(lowest, y)
        self.y = lowest + 12

    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        page = Image.new("RGB", (self.width, self.y + _MARGIN), _PAPER)
        pen = ImageDraw.Draw(page)
        for what, *rest in self._steps:
            if what == "text":
                place, line, colour, face = rest
                pen.text(place, line, colour, face)
            elif what == "line":
                pen.line((_MARGIN, rest[0], self.width - _MARGIN, rest[0]), _LINE, 1)
            else:
                place, pixels, side = rest
                picture = Image.fromarray(pixels)
                page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), place)
        return np.asarray(page)


def plain(text: str) -> str:
    """Letters that Pillow's own typeface has: accents are dropped, other scripts become '?'."""
    swapped = text.translate(_SIGNS)
    decomposed = unicodedata.normalize("NFKD", swapped)
    kept = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in kept)


def _wrap(text: str, face: Any, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        while face.getlength(word) > width and len(word) > 4:
            keep = len(word)
            while keep > 2 and face.getlength(word[:keep]) > width:
                keep -= 1
            lines.append(word[:keep])
            word = word[keep:]
        if lines and face.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines
