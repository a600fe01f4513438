"""Sheets that say why: of one photo, of a pair that match, of two classes that look alike."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fieldmark import rng
from fieldmark.config import suggest
from fieldmark.data.catalog import Catalog, Location, read_location
from fieldmark.data.decode import decode
from fieldmark.data.look import look_at, short_side
from fieldmark.data.looktensor import stack
from fieldmark.data.tables import SUFFIXES, read_table
from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, InputError, LabelError, PhotoError
from fieldmark.explain.classes import ClassPair, Mark, explain_classes
from fieldmark.explain.drawing import cut, half_share, middle, number, seen, shade
from fieldmark.explain.faithfulness import Faithfulness, measure_faithfulness
from fieldmark.explain.maps import attention_map
from fieldmark.explain.pair import LEAST_ALIKE, Pair, explain_pair
from fieldmark.explain.parts import PART, losses, strongest
from fieldmark.explain.sharpening import BROAD, GRID, sharpening_maps
from fieldmark.explain.sheet import Curves, Section, Sheet, Strip, Tile, check_out, write_sheet
from fieldmark.workflows.photos import ShowProgress, quiet

_LARGE, _SMALL = 440, 260
# Photos per class that maps are tested on: hiding and looking again is what takes time.
_TESTED, _SHOWN, _MATCHES, _MARKS, _EXAMPLES, _TOLD = 6, 3, 4, 2, 2, 3
Tone = Literal["up", "flat", "down"]

_DIMMED = (
    "Colour and light are kept where the map is high, the rest is dimmed; the line is where it has "
    "half of its largest value."
)
_MADE_SHARP = (
    "The maps follow the photo from a blurred form to itself: a place is bright when making it sharp "
    "brings what is explained. What is said of a numbered part was measured: its square was blurred "
    "and the encoder looked again."
)
_SQUARE = (
    "Photos are shown as the encoder sees them, cut to the middle square; you see them sharper than "
    "it does."
)


class Shot(NamedTuple):
    """A photo, made ready for the encoder and for the eye."""

    name: str
    image: UInt8[np.ndarray, "S S 3"]
    """What the encoder sees."""
    picture: UInt8[np.ndarray, "L L 3"]
    """The same part, sharper."""


def explain(
    encoder: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    classes: tuple[str, str] | None = None,
    labels: Path | None = None,
    count: int = 20,
    seed: int = 0,
    device: str = "auto",
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Explain one photo, two photos, or what separates two classes of a folder.

    Args:
        encoder: Encoder folder, or the run folder it lies in.
        photos: One photo, two photos, or with ``classes`` one folder, table or shard.
        out: .html for a page, .png, .jpg or .webp for a picture.
        classes: Names of two classes.
        labels: Table with ``path`` and ``class``, where folder or table do not tell the classes.
        count: Most photos per class, picked by ``seed``.
        seed: Of the choice of photos and of the random orders that maps are compared with.
        device: Where to compute.
        progress: Told what is done.

    Returns:
        What the sheet says, as plain data.

    Raises:
        ArtifactError: If there is no encoder.
        InputError: If the number of photos fits no job.
        LabelError: If a class is unknown, named twice, or has fewer than two photos.
        PhotoError: If a photo cannot be read.
        OutputError: If the sheet cannot be written there.
    """
    check_out(out)
    if classes is not None:
        if len(photos) != 1:
            raise InputError(
                f"two classes are looked for in one folder or table, got {len(photos)} places; give "
                "the one that holds the photos of both."
            )
        loaded = Encoder.load(encoder, device=device)
        return _of_classes(loaded, photos[0], out, classes, labels, count, seed, progress)
    if labels is not None:
        raise InputError(
            f"labels ({labels}) say which classes photos belong to, and no classes were asked for; "
            "name two with --classes A B, or leave the labels out."
        )
    if len(photos) not in {1, 2} or any(path.is_dir() for path in photos):
        what = ", ".join(str(path) for path in photos[:3]) or "none"
        raise InputError(
            f"one photo or two can be explained, got {len(photos)} ({what}); give one file, two files, "
            "or a folder together with two classes (--classes A B)."
        )
    loaded = Encoder.load(encoder, device=device)
    shots = [_open(loaded, path) for path in photos]
    if len(shots) == 1:
        return _of_photo(loaded, shots[0], out, seed)
    return _of_pair(loaded, shots, out, seed)


def _open(encoder: Encoder, path: Path) -> Shot:
    try:
        data, _ = read_location(Location(str(path)))
        return _prepare(encoder, path.name, data)
    except PhotoError as error:
        raise PhotoError(error.code, f"{path}: {error.detail}") from None


def _prepare(encoder: Encoder, name: str, data: bytes) -> Shot:
    size, crop = encoder.size, encoder.spec.crop
    # Twice what is needed, as when photos are embedded: the same pixels reach the network.
    pixels = decode(data, enough=2 * short_side(size, crop)).pixels
    large = decode(data, enough=pixels_for_the_eye(size, crop)).pixels
    return make_shot(name, look_at(pixels, size, crop), large, size, crop)


def pixels_for_the_eye(size: int, crop: float) -> int:
    """Short side that a photo should be decoded to for :func:`make_shot`, in pixels."""
    return 2 * short_side(max(size, _LARGE), crop)


def make_shot(
    name: str,
    look: UInt8[np.ndarray, "S S 3"],
    large: UInt8[np.ndarray, "H W 3"],
    size: int,
    crop: float,
) -> Shot:
    """A photo ready to be explained, from pixels that were decoded elsewhere.

    Args:
        name: For people.
        look: What the encoder sees.
        large: The whole upright photo, as large as :func:`pixels_for_the_eye` says or as it is.
        size: Side of the encoder's input in pixels.
        crop: Share of the short side that it keeps.
    """
    return Shot(name, look, seen(large, size, crop, _LARGE))


def _images(encoder: Encoder, shots: Sequence[Shot]) -> Float[Tensor, "B 3 H W"]:
    return stack([shot.image for shot in shots]).to(encoder.device)


def _fine(encoder: Encoder, shots: Sequence[Shot]) -> Float[Tensor, "B 3 S S"]:
    return stack([shot.picture for shot in shots]).to(encoder.device)


def _array(cells: Tensor) -> Float[np.ndarray, "h w"]:
    return cells.detach().float().cpu().numpy()


class PhotoReasons(NamedTuple):
    """What an encoder knows a photo by."""

    own: Float[np.ndarray, "g g"]
    """What each place brings to the embedding: signed."""
    attention: Float[np.ndarray, "h w"] | None
    """None for networks that have none."""
    places: list[tuple[float, float]]
    """Middles of the parts that it would miss most, as shares of the square: row, column."""
    falls: list[float]
    """By how much the photo is less like itself without each."""
    half: float
    """Share of the square that half of the map lies in."""
    told: Faithfulness
    tone: Tone
    belief: str
    """Whether the map is shown to be better than chance, in a sentence."""

    def parts(self) -> list[dict[str, float]]:
        """Places and what they do, as plain data."""
        return [
            {"x": round(place[1], 4), "y": round(place[0], 4), "falls": fall}
            for place, fall in zip(self.places, self.falls)
        ]


def reasons_of_photo(encoder: Encoder, shot: Shot, *, seed: int = 0) -> PhotoReasons:
    """What an encoder knows a photo by, measured."""
    images = _images(encoder, [shot])
    direction = encoder.encode(images).clone()
    maps = sharpening_maps(encoder.spec, images, direction, soft=BROAD).maps
    told = measure_faithfulness(encoder.encode, images, direction, maps, seed=seed)
    tone, belief = _belief(told, "what the encoder knows the photo by", 1)
    own = _array(maps[0])
    cells = strongest(maps.clamp_min(0), _SHOWN)[0]
    repeated = images.expand(len(cells), -1, -1, -1)
    falls = losses(encoder.spec, repeated, direction.expand(len(cells), -1), cells, GRID).tolist()
    places = [middle(divmod(int(cell), GRID), own.shape) for cell in cells]
    order = [index for index in np.argsort(falls)[::-1].tolist() if falls[index] > 0]
    attention = attention_map(encoder.spec, images)
    return PhotoReasons(
        own,
        None if attention is None else _array(attention[0]),
        [places[index] for index in order],
        [falls[index] for index in order],
        half_share(own),
        told,
        tone,
        belief,
    )


def _of_photo(encoder: Encoder, shot: Shot, out: Path, seed: int) -> dict[str, Any]:
    found = reasons_of_photo(encoder, shot, seed=seed)
    own, places, falls = found.own, found.places, found.falls
    alt = f"{shot.name} as the encoder sees it, with {len(places)} numbered parts"
    tiles = [
        Tile(number(shot.picture, places, share=PART), alt, shot.name, "as the encoder sees it"),
        Tile(
            shade(shot.picture, own),
            f"{shot.name}, dimmed where the encoder hardly looks",
            "What it is known by",
            f"half of it comes from {found.half:.0%} of the photo",
        ),
    ]
    if found.attention is not None:
        caption = "Where its attention lies"
        tiles.append(Tile(shade(shot.picture, found.attention), f"{shot.name}, {caption}", caption))
    parts = tuple(
        Strip(
            (Tile(cut(shot.picture, *place, PART, _SMALL), f"Part {index + 1} of {shot.name}"),),
            f"Blur this part, and the encoder finds the photo only {1 - fall:.0%} like itself.",
            "",
            index + 1,
        )
        for index, (place, fall) in enumerate(zip(places, falls))
    )
    sections = [Section("maps", "What the encoder knows it by", _DIMMED, (Strip(tuple(tiles)),))]
    if parts:
        text = "The places that it would miss most."
        sections.append(Section("parts", "Part by part", text, parts, "crops"))
    sheet = Sheet(
        kind="One photo",
        title=shot.name,
        lede=f"Half of what the encoder knows this photo by comes from {found.half:.0%} of it.",
        belief=found.belief,
        tone=found.tone,
        sections=tuple(sections),
        curves=Curves("likeness", found.told.curves),
        facts=_facts(encoder),
        reading=(_SQUARE, _MADE_SHARP),
    )
    write_sheet(sheet, out)
    return {
        "sheet": str(out),
        "kind": "photo",
        "photo": shot.name,
        "parts": found.parts(),
        "faithfulness": _plain_faithfulness(found.told, found.tone),
        "maps": {"own": rounded(own)},
        "belief": found.belief,
    }


class PairReasons(NamedTuple):
    """Why an encoder finds two photos alike."""

    pair: Pair
    maps: list[Float[np.ndarray, "g g"]]
    """What each place of the first photo, and of the second, brings to the similarity: signed."""
    told: Faithfulness
    tone: Tone
    belief: str
    """Whether the maps are shown to be better than chance, in a sentence."""

    def matches(self) -> list[dict[str, Any]]:
        """Parts that both photos have, as plain data."""
        return [
            {
                "first": _place(match.first, self.maps[0].shape),
                "second": _place(match.second, self.maps[1].shape),
                "alike": match.alike,
                "adds": match.adds,
            }
            for match in self.pair.matches
        ]


def reasons_of_pair(encoder: Encoder, shots: Sequence[Shot], *, seed: int = 0) -> PairReasons:
    """Why an encoder finds two photos alike, measured."""
    images = _images(encoder, shots)
    pair = explain_pair(encoder.spec, images, fine=_fine(encoder, shots), count=_MATCHES)
    target = encoder.encode(images).clone().flip(0)
    told = measure_faithfulness(encoder.encode, images, target, pair.places, seed=seed)
    tone, belief = _belief(told, "the similarity", 2)
    return PairReasons(pair, [_array(places) for places in pair.places], told, tone, belief)


def _of_pair(encoder: Encoder, shots: list[Shot], out: Path, seed: int) -> dict[str, Any]:
    found = reasons_of_pair(encoder, shots, seed=seed)
    pair, arrays = found.pair, found.maps
    shares = [half_share(cells) for cells in arrays]
    sections = (
        _match_section(shots, pair),
        _photos_with_matches(shots, pair, arrays, shares),
    )
    names = f"{shots[0].name} and {shots[1].name}"
    lede = (
        f"Similarity {pair.similarity:.2f}, where 1 is the same photo and 0 says that they have "
        f"nothing in common. Half of what speaks for it comes from {shares[0]:.0%} of the first photo "
        f"and {shares[1]:.0%} of the second."
    )
    sheet = Sheet(
        kind="Why these two photos match",
        title=names,
        lede=lede,
        belief=found.belief,
        tone=found.tone,
        sections=sections,
        curves=Curves("similarity", found.told.curves),
        facts=(("Similarity", f"{pair.similarity:.4f}"), *_facts(encoder)),
        reading=(
            _SQUARE,
            _MADE_SHARP,
            "A numbered part is found in both photos: of the places that speak for the similarity, "
            "each is the other's nearest when only the two squares are compared.",
            "Background counts where it is alike in both photos: then the match says less about "
            "the animals.",
        ),
    )
    write_sheet(sheet, out)
    return {
        "sheet": str(out),
        "kind": "pair",
        "photos": [shot.name for shot in shots],
        "similarity": pair.similarity,
        "exact": pair.exact,
        "not_placed": list(pair.rest),
        "pooling": pair.pooling,
        "matches": found.matches(),
        "faithfulness": _plain_faithfulness(found.told, found.tone),
        "maps": {"first": rounded(arrays[0]), "second": rounded(arrays[1])},
        "belief": found.belief,
    }


def _photos_with_matches(
    shots: list[Shot],
    pair: Pair,
    arrays: list[Float[np.ndarray, "h w"]],
    shares: list[float],
) -> Section:
    shape = arrays[0].shape
    numbered, shaded = [], []
    for index, shot in enumerate(shots):
        side = "first" if index == 0 else "second"
        places = [middle(getattr(match, side), shape) for match in pair.matches]
        parts = f" with {len(places)} numbered parts" if places else ""
        alt = f"{side.capitalize()} photo, {shot.name}{parts}"
        marked = number(shot.picture, places, share=PART)
        numbered.append(Tile(marked, alt, shot.name, f"the {side} photo"))
        alt = f"{side.capitalize()} photo dimmed where little of the similarity comes from"
        faint = f"half of it comes from {shares[index]:.0%} of this photo"
        shaded.append(Tile(shade(shot.picture, arrays[index]), alt, "What makes it alike", faint))
    text = f"The same number is the same part. Below, what the similarity is made of. {_DIMMED}"
    return Section("photos", "The two photos", text, (Strip(tuple(numbered)), Strip(tuple(shaded))))


def _match_section(shots: list[Shot], pair: Pair) -> Section:
    shape = (pair.places.shape[1], pair.places.shape[2])
    strips = []
    for index, match in enumerate(pair.matches):
        tiles = []
        for shot, place in zip(shots, (match.first, match.second)):
            picture = cut(shot.picture, *middle(place, shape), PART, _SMALL)
            tiles.append(Tile(picture, f"Part {index + 1} of {shot.name}", faint=shot.name))
        left = pair.similarity - match.adds
        text = (
            f"Blur it in one of the two, and the similarity falls from {pair.similarity:.2f} to "
            f"{left:.2f}."
        )
        strips.append(Strip(tuple(tiles), text, "", index + 1))
    text = "Parts that both photos have, and that the similarity would miss most."
    if not strips:
        text = (
            f"No part that speaks for the similarity is clearly found in both photos: none is alike "
            f"by {LEAST_ALIKE} or more both ways."
        )
    return Section("parts", "What they share", text, tuple(strips), "halves")


class ClassReasons(NamedTuple):
    """What an encoder tells two classes apart by."""

    found: ClassPair
    right: int
    """Photos on the right side of a line drawn without them."""
    told: Faithfulness
    tone: Tone
    belief: str
    """Whether there is something to believe in, in a sentence."""
    weak: bool
    """So few are right that a coin could well do as much: there are no marks to learn."""


def reasons_of_classes(
    encoder: Encoder, shots: Sequence[Shot], sides: Sequence[bool], *, seed: int = 0
) -> ClassReasons:
    """What separates two classes, measured.

    Args:
        encoder: The encoder.
        shots: Photos of both, two of each or more.
        sides: Whether each is of the first.
        seed: Of the random orders that maps are compared with.
    """
    first = torch.tensor(list(sides))
    images = _images(encoder, shots)
    found = explain_classes(encoder.spec, images, first, fine=_fine(encoder, shots), count=_MARKS)
    tested = torch.cat([torch.nonzero(first == side)[:, 0][:_TESTED] for side in (True, False)])
    told = measure_faithfulness(
        encoder.encode, images[tested], found.directions[tested], found.maps[tested],
        draws=3, seed=seed,
    )  # fmt: skip
    tone, belief = _belief(told, "the decision", len(tested))
    right = round(found.right * len(first))
    weak = _weak(right, len(first))
    if weak:
        tone, belief = "flat", f"There is little to believe in: {_coin(right, len(first))}"
    return ClassReasons(found, right, told, tone, belief, weak)


def _of_classes(
    encoder: Encoder,
    source: Path,
    out: Path,
    classes: tuple[str, str],
    labels: Path | None,
    count: int,
    seed: int,
    progress: ShowProgress,
) -> dict[str, Any]:
    catalog = Catalog.open(source)
    rows = _rows_of(catalog, labels, classes)
    shots: list[Shot] = []
    sides: list[bool] = []
    skipped: list[dict[str, str]] = []
    for side, name in zip((True, False), classes):
        read, bad = _read_some(encoder, catalog, rows[name], count, seed)
        skipped += bad
        if len(read) < 2:
            unreadable = f", {len(bad)} of them unreadable" if bad else ""
            raise LabelError(
                f"class '{name}' has {len(rows[name])} photo{'s' * (len(rows[name]) != 1)} in {source}"
                f"{unreadable}; at least 2 of each class must be readable, and 10 are a good start. "
                "Add photos, or choose another class."
            )
        shots += read
        sides += [side] * len(read)
        progress("reading photos", len(shots), min(count, len(rows[classes[0]])) * 2)
    reasons = reasons_of_classes(encoder, shots, sides, seed=seed)
    found, right, total = reasons.found, reasons.right, len(shots)
    names = _readable(classes)
    sheet = Sheet(
        kind="What separates two classes",
        title=f"{names[0]} or {names[1]}?",
        lede=class_lede(right, total),
        belief=reasons.belief,
        tone=reasons.tone,
        sections=tuple(_class_sections(shots, found, names)),
        curves=Curves("the decision", reasons.told.curves),
        facts=(
            ("Photos", f"{sum(sides)} and {total - sum(sides)}"),
            ("Right when left out", f"{right} of {total}"),
            *_facts(encoder),
        ),
        reading=(
            _SQUARE,
            "A numbered part was blurred in every photo, and the encoder looked again: what is said "
            "of it is what that did. Number 1 is each photo's own most telling place; the others are "
            "the same part in all photos.",
            "Each photo is judged by a line between the classes that was drawn without that photo.",
            _MADE_SHARP,
            "A mark says what the encoder goes by. That may be light, a perch or the season, when "
            "these differ between the two classes' photos: look at the crops.",
        ),
    )
    write_sheet(sheet, out)
    return {
        "sheet": str(out),
        "kind": "classes",
        "classes": list(classes),
        "photos": [sum(sides), total - sum(sides)],
        "right": right / total,
        "telling": _plain_mark(shots, found.telling),
        "marks": [_plain_mark(shots, mark) for mark in found.marks],
        "faithfulness": _plain_faithfulness(reasons.told, reasons.tone),
        "skipped": skipped,
        "belief": reasons.belief,
    }


def _plain_mark(shots: list[Shot], mark: Mark) -> dict[str, Any]:
    return {
        "strength": mark.strength,
        "consistent": mark.consistent,
        "places": {
            shot.name: _place((int(row), int(column)), (GRID, GRID))
            for shot, row, column in zip(shots, mark.rows, mark.columns)
        },
    }


def _readable(classes: tuple[str, str]) -> tuple[str, str]:
    """Names as a person writes them: ``017.Cardinal`` is Cardinal, and lines below are spaces."""
    first, second = (
        re.sub(r"^\d+[._ -]+(?=\D)", "", name).replace("_", " ").strip() or name for name in classes
    )
    return (first, second) if first != second else classes


def _weak(right: int, total: int) -> bool:
    return right < 0.6 * total + 0.5 * total**0.5


def _coin(right: int, total: int) -> str:
    return (
        f"shown photos that it was not fitted to, the encoder puts {right} of {total} on the right "
        "side, and a coin half of them. Do not learn marks from this sheet."
    )


def class_lede(right: int, total: int) -> str:
    """What is said first of two classes."""
    if _weak(right, total):
        return f"The encoder hardly tells them apart: {_coin(right, total)}"
    return (
        f"Shown photos that it was not fitted to, the encoder puts {right} of {total} on the right "
        "side. These are the places that it goes by."
    )


def _mark_strip(
    shots: list[Shot], mark: Mark, names: tuple[str, str], title: str, label: int, count: int
) -> Strip | None:
    """Photo, close-up, close-up, photo: the close-ups meet in the middle, where they are compared."""
    tiles = []
    for rank, pair in enumerate(mark.examples[:count]):
        halves = []
        for photo, name in zip(pair, names):
            shot = shots[photo]
            place = middle((int(mark.rows[photo]), int(mark.columns[photo])), (GRID, GRID))
            alt = f"Mark {label} in {shot.name} ({name})"
            caption = name if rank == 0 else ""
            # As small as it will be shown: a line drawn on a larger one would be too thin.
            small = cut(shot.picture, 0.5, 0.5, 1.0, _SMALL)
            whole = number(small, [place], share=PART, labels=[label])
            halves.append(
                [
                    Tile(whole, f"{alt}: where it is", "", shot.name),
                    Tile(cut(shot.picture, *place, PART, _SMALL), alt, caption),
                ]
            )
        tiles += [*halves[0], *halves[1][::-1]]
    return Strip(tuple(tiles), title, "", label) if tiles else None


def _class_sections(shots: list[Shot], found: ClassPair, names: tuple[str, str]) -> list[Section]:
    best = found.telling
    moved = int((best.adds > 0).sum())
    title = (
        f"Blur the place that speaks most for its class, and {moved} of {len(best.adds)} photos look "
        f"more like the other, by {best.strength / 2:.0%} of the way on average"
    )
    sections = []
    strip = _mark_strip(shots, best, names, title, 1, _TOLD)
    if strip:
        text = (
            f"Left {names[0]}, right {names[1]}. The close-ups in the middle are the places that tell "
            "most, laid beside what is most like them in the other."
        )
        sections.append(Section("telling", "Where to look", text, (strip,), "halves"))
    strips = []
    for index, mark in enumerate(found.marks):
        moved = int((mark.adds > 0).sum())
        title = (
            f"Blur it, and {moved} of {len(mark.adds)} photos look more like the other, by "
            f"{mark.strength / 2:.0%} of the way on average"
        )
        strip = _mark_strip(shots, mark, names, title, index + 2, _EXAMPLES)
        strips += [strip] if strip else []
    if strips:
        text = "The same part, looked for in every photo of both."
        sections.append(Section("marks", "Part by part", text, tuple(strips), "halves"))
    typical = []
    side = torch.where(found.first, 1.0, -1.0) * found.held_out.cpu()
    for name, members in zip(
        names, (torch.nonzero(found.first == one)[:, 0] for one in (True, False))
    ):
        middle_value = side[members].median()
        order = (side[members] - middle_value).abs().argsort(stable=True)[:_SHOWN]
        shaded = []
        for photo in members[order].tolist():
            shot = shots[photo]
            alt = f"{shot.name} dimmed where little speaks for {name}"
            picture = shade(shot.picture, _array(found.maps[photo]))
            shaded.append(Tile(picture, alt, "", shot.name))
        typical.append(Strip(tuple(shaded), f"What speaks for {name}"))
    text = f"From the middle of each class, neither the easiest nor the hardest. {_DIMMED}"
    sections.append(Section("typical", "Typical photos", text, tuple(typical)))
    wrong = side.argsort()[: _SHOWN * 2]
    wrong = wrong[side[wrong] < 0]
    if len(wrong):
        tiles = [
            Tile(
                shots[photo].picture,
                f"{shots[photo].name}, taken for the other class",
                shots[photo].name,
                f"is {names[0] if found.first[photo] else names[1]}",
            )
            for photo in wrong.tolist()
        ]
        text = "On the wrong side of a line drawn without them, the worst first."
        sections.append(Section("wrong", "Taken for the other", text, (Strip(tuple(tiles)),)))
    return sections


def _rows_of(
    catalog: Catalog, labels: Path | None, classes: tuple[str, str]
) -> dict[str, list[int]]:
    """Rows of each of the two classes."""
    if classes[0] == classes[1]:
        raise LabelError(f"the two classes are the same, '{classes[0]}'; name two different ones.")
    known = _labels(catalog, labels)
    if not known:
        raise LabelError(
            f"{catalog.source} does not tell classes: it has no folders of classes and no column class. "
            "Give a table with --labels (columns path and class)."
        )
    for name in classes:
        if name not in known:
            raise LabelError(suggest(name, known, "class"))
    return {name: known[name] for name in classes}


def _labels(catalog: Catalog, table: Path | None) -> dict[str, list[int]]:
    """Rows by class, from the table where there is one, else from the catalog itself."""
    found: dict[str, list[int]] = {}
    if table is None:
        for row in catalog.rows:
            if row.label is not None:
                found.setdefault(row.label, []).append(row.row)
        return found
    try:
        if table.suffix.lower() not in SUFFIXES:
            raise CatalogError(
                f"{table} is no table; labels are a {', '.join(sorted(SUFFIXES))} with the columns "
                "path and class."
            )
        lines = read_table(table, required=("path", "label"))
    except CatalogError as error:
        raise LabelError(str(error)) from None
    by_file = {}
    for row in catalog.rows:
        file = catalog.file(row.row)
        if file is not None:
            by_file[Path(file).resolve()] = row.row
    by_id = {row.path: row.row for row in catalog.rows}
    absent = []
    for line in lines:
        path, label = line["path"], line["label"]
        if path is None or label is None:
            continue
        number = by_file.get((table.parent / path).resolve(), by_id.get(path.removeprefix("./")))
        if number is None:
            absent.append(path)
        else:
            found.setdefault(label, []).append(number)
    if not found:
        shown = ", ".join(absent[:3])
        raise LabelError(
            f"none of the {len(lines)} photos that {table} names is in {catalog.source} (the first: "
            f"{shown}). Paths are relative to the table's folder or to the photos'."
        )
    return found


def _read_some(
    encoder: Encoder, catalog: Catalog, rows: list[int], count: int, seed: int
) -> tuple[list[Shot], list[dict[str, str]]]:
    """Up to ``count`` photos in an order drawn by seed, and those that could not be read."""
    numbers = np.asarray(rows)
    shots: list[Shot] = []
    skipped: list[dict[str, str]] = []
    for row in numbers[np.argsort(rng.mix("explain", seed, numbers), kind="stable")].tolist():
        if len(shots) == count:
            break
        name = catalog[row].path
        try:
            shots.append(_prepare(encoder, name.rpartition("/")[2], catalog.read(row)))
        except PhotoError as error:
            skipped.append({"path": name, "code": error.code, "detail": error.detail})
    return shots, skipped


def _belief(told: Faithfulness, what: str, photos: int) -> tuple[Tone, str]:
    """Whether a map is shown to be better than chance, in a sentence."""
    luck = 2 * told.chance / photos**0.5
    margin = f"{told.score:+.3f} on average, where luck reaches ±{luck:.3f}"
    if told.score > luck:
        return "up", (
            f"The map names places that matter: hiding them first takes {what} away faster than "
            f"hiding places at random, and showing them first brings it back faster ({margin})."
        )
    if told.score < -luck:
        return "down", (
            f"Do not believe this map: hiding places at random takes {what} away faster than hiding "
            f"those that it names ({margin})."
        )
    return "flat", (
        f"This map is not shown to be better than chance: hiding the places that it names does to "
        f"{what} about what hiding any places does ({margin})."
    )


def _facts(encoder: Encoder) -> tuple[tuple[str, str], ...]:
    return (
        ("Network", str(encoder.spec.backbone.config.name)),
        ("The encoder sees", f"{encoder.size} × {encoder.size} pixels"),
        ("Map", f"{GRID} × {GRID} places, summed over pixels"),
        ("Whitening", "yes" if encoder.spec.whitening is not None else "no"),
        ("Encoder", encoder.identity[:16]),
    )


def _plain_faithfulness(told: Faithfulness, tone: Tone) -> dict[str, Any]:
    return {
        "score": told.score,
        "deletion": told.deletion,
        "insertion": told.insertion,
        "chance": told.chance,
        "shown": {"up": "better than chance", "flat": "not shown", "down": "worse"}[tone],
        "curves": told.curves,
    }


def _place(place: tuple[int, int], shape: tuple[int, ...]) -> dict[str, float]:
    row, column = middle(place, (shape[0], shape[1]))
    return {"x": round(column, 4), "y": round(row, 4)}


def rounded(cells: Float[np.ndarray, "h w"]) -> list[list[float]]:
    """A map as plain data."""
    return [[round(float(value), 6) for value in row] for row in cells]
