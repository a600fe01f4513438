"""A sheet of views: what a recipe shows the network of your photos."""

import unicodedata
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from fieldmark import rng
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import decode
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.presets import PRESETS
from fieldmark.data.sampling import Draws, MultiView, draw_views
from fieldmark.data.views import center_views, render
from fieldmark.errors import CatalogError, OutputError, PhotoError
from fieldmark.storage import make_folder, write_bytes
from fieldmark.workflows.photos import short_side
from fieldmark.workflows.recipe import Recipe

# Okabe and Ito's palette: told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00", "#555555")
_INK, _FAINT, _PAPER = "#1d1d1f", "#6b6b70", "#ffffff"
_TILE, _GAP, _MARGIN = 200, 16, 32
_CAPTION_LINES, _LINE = 3, 17
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Tile(NamedTuple):
    """One view of one photo."""

    pixels: UInt8[np.ndarray, "S S 3"]
    caption: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None
    """x0 y0 x1 y1 as fractions of the photo, outlined on the original; None draws nothing."""


class SheetRow(NamedTuple):
    """One photo with its views."""

    photo: UInt8[np.ndarray, "H W 3"]
    name: str
    tiles: tuple[Tile, ...]


def preview(
    source: Path,
    recipe: Recipe,
    out: Path,
    *,
    photos: int = 6,
    views: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a sheet with some photos and the views that training would see of them.

    Args:
        source: Photos: folder, table or shards.
        recipe: Whose views to show; one that trains nothing shows the evaluation's look only.
        out: Image to write: .png, .jpg or .webp.
        photos: How many photos, picked by ``seed``.
        views: How many random views of each.
        seed: Which photos and which views; training draws others.

    Returns:
        What was written, as plain data.

    Raises:
        CatalogError: If no photo can be read.
        OutputError: If the sheet cannot be written there.
    """
    if out.suffix.lower() not in _FORMATS:
        raise OutputError(
            f"a preview sheet is an image, and '{out.name}' does not end in one of "
            f"{', '.join(_FORMATS)}; name it for example preview.png."
        )
    multi_view = recipe.multi_view() if recipe.trains else None
    catalog = Catalog.open(source)
    side = short_side(recipe, len(catalog))
    names, pixels, skipped = _some_photos(catalog, photos, seed, side)
    rows = make_rows(
        names, pixels, multi_view, recipe.size, recipe.post.crop, views=views, seed=seed
    )
    preset = PRESETS[recipe.views.preset]
    notes = [f"{recipe.views.preset}: {preset.summary}"]
    notes += [f"    {line}" for line in preset.describe().splitlines()[1:]]
    if multi_view is None:
        notes = ["This recipe trains nothing, so there are no random views."]
    title = f"{recipe.name}: what training sees of your photos"
    facts = f"{recipe.size} px views from photos kept at a short side of {side} px or more"
    sheet = preview_sheet(rows, title=title, facts=facts, notes=notes)
    make_folder(out.parent)
    buffer = BytesIO()
    Image.fromarray(sheet).save(buffer, _FORMATS[out.suffix.lower()])
    write_bytes(out, buffer.getvalue())
    return {
        "sheet": str(out),
        "recipe": recipe.name,
        "preset": recipe.views.preset,
        "changes": [change._asdict() for change in preset.changes],
        "short_side": side,
        "photos": names,
        "views": {row.name: [" · ".join(tile.caption) for tile in row.tiles] for row in rows},
        "skipped": skipped,
    }


def _some_photos(
    catalog: Catalog, count: int, seed: int, side: int
) -> tuple[list[str], list[UInt8[np.ndarray, "_ _ 3"]], list[dict[str, str]]]:
    """Photos in an order drawn by seed, until there are enough that can be read."""
    names: list[str] = []
    pixels: list[UInt8[np.ndarray, "_ _ 3"]] = []
    skipped: list[dict[str, str]] = []
    for row in np.argsort(rng.mix("preview", seed, np.arange(len(catalog))), kind="stable"):
        if len(names) == count:
            break
        name = catalog[int(row)].path
        try:
            pixels.append(decode(catalog.read(int(row)), short_side=side).pixels)
            names.append(name)
        except PhotoError as error:
            skipped.append({"path": name, "code": error.code, "detail": error.detail})
            if len(skipped) >= 20 and not names:
                break
    if not names:
        raise CatalogError(
            f"none of the first {len(skipped)} photos tried in {catalog.source} can be read; the first "
            f"is {skipped[0]['path']} ({skipped[0]['code']}: {skipped[0]['detail']}). "
            "Run 'fieldmark check' on the folder for the whole list."
            if skipped
            else f"there are no photos in {catalog.source}; give a folder that holds some."
        )
    return names, pixels, skipped


def make_rows(
    names: list[str],
    photos: list[UInt8[np.ndarray, "_ _ 3"]],
    multi_view: MultiView | None,
    size: int,
    crop: float,
    *,
    views: int,
    seed: int,
) -> list[SheetRow]:
    """Make the tiles of each photo: random views, then the look that evaluation takes.

    Args:
        names: Path of each photo.
        photos: Pixels of each photo.
        multi_view: Random views, of several epochs when there are fewer than ``views``; or None.
        size: Side of the evaluation's view in pixels.
        crop: Share of the photo's short side that evaluation sees.
        views: How many random views.
        seed: Which views.
    """
    store = MemoryPhotos(photos)
    numbers, rows = list(range(len(photos))), np.arange(len(photos))
    tiles: list[list[Tile]] = [[] for _ in photos]
    specs = () if multi_view is None else multi_view.each()
    for number in range(views if specs else 0):
        epoch, view = divmod(number, len(specs))
        spec = specs[view]
        draws = draw_views(spec, store.shapes, rows, seed=seed, epoch=epoch, view=view)
        images = render(store, rows, draws, spec, device=torch.device("cpu"), dtype=torch.float32)
        for row in numbers:
            box = _box(draws, store.shapes, row)
            caption = (f"view {view + 1}: {_share(box)} of the photo", *_caption(draws, row))
            tiles[row].append(Tile(_as_pixels(images[row]), caption, box))
    center = center_views(store, rows, size, crop)
    for row in numbers:
        caption = ("evaluation", "resized, centre cut out")
        tiles[row].append(Tile(_as_pixels(center.images[row]), caption))
    return [SheetRow(*parts) for parts in zip(photos, names, (tuple(row) for row in tiles))]


def _box(
    draws: Draws, shapes: Int[np.ndarray, "N 2"], row: int
) -> tuple[float, float, float, float]:
    top, left, h, w = (float(part[row]) for part in draws.crops)
    height, width = (float(side) for side in shapes[row])
    return left / width, top / height, (left + w) / width, (top + h) / height


def _share(box: tuple[float, float, float, float]) -> str:
    return f"{100 * (box[2] - box[0]) * (box[3] - box[1]):.0f} %"


def _caption(draws: Draws, row: int) -> list[str]:
    """What else was done to a view, in a few words each."""
    brightness, contrast, saturation, hue = draws.colour.factors[row]
    words = []
    if draws.flipped[row]:
        words.append("mirrored")
    if draws.sigma[row] > 0:
        words.append(f"blur {draws.sigma[row]:.1f} px")
    for name, factor in (("light", brightness), ("contrast", contrast), ("colour", saturation)):
        if abs(factor - 1) > 0.005 and not (name == "colour" and draws.colour.gray[row]):
            words.append(f"{name} {100 * (factor - 1):+.0f}%")
    if draws.colour.gray[row]:
        words.append("gray")
    elif abs(hue) > 0.001:
        words.append(f"hue {360 * hue:+.0f}°")
    if draws.solarized[row]:
        words.append("solarized")
    return words


def _as_pixels(image: torch.Tensor) -> UInt8[np.ndarray, "S S 3"]:
    scaled = image.float().mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())


def preview_sheet(
    rows: list[SheetRow], *, title: str, facts: str, notes: list[str]
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay photos and their views out on one page.

    Args:
        rows: Photos with their views; all have as many.
        title: Heading.
        facts: Second line, fainter.
        notes: What the domain preset does, a line each.
    """
    columns = 1 + max(len(row.tiles) for row in rows)
    width = max(2 * _MARGIN + columns * (_TILE + _GAP) - _GAP, 720)
    large, normal, small = _font(28), _font(16), _font(13)
    wrapped = [line for note in notes for line in _wrap(note, normal, width - 2 * _MARGIN)]
    head = _MARGIN + 42 + 26 + 22 * len(wrapped) + 18
    row_height = _TILE + 10 + _CAPTION_LINES * _LINE + _GAP
    page = Image.new("RGB", (width, head + row_height * len(rows) + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN - 6), title, _INK, large)
    pen.text((_MARGIN, _MARGIN + 36), facts, _FAINT, normal)
    for index, line in enumerate(wrapped):
        pen.text((_MARGIN, _MARGIN + 62 + 22 * index), line, _INK, normal)
    for index, row in enumerate(rows):
        top = head + index * row_height
        _paste_original(page, row, (_MARGIN, top))
        _write(pen, (_MARGIN, top + _TILE + 6), _short_name(row.name, small), small)
        for column, tile in enumerate(row.tiles):
            left = _MARGIN + (column + 1) * (_TILE + _GAP)
            colour = _INK if tile.box is None else _COLOURS[column % len(_COLOURS)]
            sampling = Image.Resampling.LANCZOS
            page.paste(Image.fromarray(tile.pixels).resize((_TILE, _TILE), sampling), (left, top))
            pen.rectangle(
                (left - 3, top - 3, left + _TILE + 2, top + _TILE + 2), outline=colour, width=3
            )
            first, *rest = tile.caption
            lines = [first, *_wrap(", ".join(rest), small, _TILE)]
            _write(pen, (left, top + _TILE + 6), lines, small)
    return np.asarray(page)


def _paste_original(page: Image.Image, row: SheetRow, place: tuple[int, int]) -> None:
    photo = Image.fromarray(row.photo)
    scale = _TILE / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    left, top = place[0] + (_TILE - size[0]) // 2, place[1] + (_TILE - size[1]) // 2
    page.paste(photo.resize(size, Image.Resampling.LANCZOS), (left, top))
    pen = ImageDraw.Draw(page)
    for column, tile in enumerate(row.tiles):
        if tile.box is not None:
            x0, y0, x1, y1 = tile.box
            corners = (
                left + x0 * (size[0] - 1),
                top + y0 * (size[1] - 1),
                left + x1 * (size[0] - 1),
                top + y1 * (size[1] - 1),
            )
            pen.rectangle(corners, outline=_COLOURS[column % len(_COLOURS)], width=2)


def _font(size: int) -> Any:
    # Pillow's own typeface: the same on every system, and nothing to install.
    return ImageFont.load_default(size)


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], lines: list[str], font: Any) -> None:
    for index, line in enumerate(lines[:_CAPTION_LINES]):
        left, top = place
        pen.text((left, top + index * _LINE), line, _INK if index == 0 else _FAINT, font)


def _short_name(name: str, font: Any) -> list[str]:
    """A photo's path on at most two lines: its folder, then its file name, cut in the middle."""
    folder, _, file = name.rpartition("/")
    return [_cut(_plain(part), font) for part in (file, folder) if part]


def _plain(text: str) -> str:
    """Letters that the typeface has: accents are dropped, other scripts become '?'."""
    decomposed = unicodedata.normalize("NFKD", text)
    kept = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in kept)


def _cut(text: str, font: Any) -> str:
    if font.getlength(text) <= _TILE:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}") > _TILE:
        keep -= 1
    return f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}"


def _wrap(text: str, font: Any, width: int) -> list[str]:
    lines: list[str] = []
    indent = text[: len(text) - len(text.lstrip())]
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(indent + word)
    return lines
