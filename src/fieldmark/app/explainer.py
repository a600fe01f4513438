"""Why two photos match, what a photo is known by, what separates two labels: numbers for the page.

These take seconds on a CPU, so they have a thread and a queue of their own, and a copy of the encoder, for
finding reasons changes what is inside a network while it runs.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from fieldmark import rng
from fieldmark.app.derived import Derived, Made, Report, Working
from fieldmark.app.media import check_content
from fieldmark.app.photos import Eye, Photos
from fieldmark.app.problems import HttpProblem
from fieldmark.data.derive import Want
from fieldmark.data.look import window
from fieldmark.encoder import Encoder
from fieldmark.errors import PhotoError
from fieldmark.explain.classes import Mark
from fieldmark.explain.drawing import box_around, middle
from fieldmark.explain.parts import PART
from fieldmark.explain.sharpening import GRID
from fieldmark.workflows.explain import (
    Shot,
    class_lede,
    make_shot,
    pixels_for_the_eye,
    reasons_of_classes,
    reasons_of_pair,
    reasons_of_photo,
    rounded,
)

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 as fractions of the upright photo."""
_WAIT_SECONDS = 2.0
"""How long a request waits; the answer goes on being made, and is there for the next."""
_PATIENCE_SECONDS = 5.0
"""A page asks every second; what nobody has asked for so long is not made to its end, others wait."""
_ALWAYS = "explain"


class Point(BaseModel):
    """A place, as fractions of the square that the encoder sees."""

    x: float
    y: float


class Squares(BaseModel):
    """How the encoder's square lies in each photo: x0 y0 x1 y1 as fractions of it."""

    first: Box
    second: Box


class Match(BaseModel):
    """One part that both photos have."""

    first: Point
    second: Point
    alike: float
    """Cosine of the embeddings of the two parts alone."""
    adds: float
    """By how much the similarity falls when it is blurred in one of them."""


class Maps(BaseModel):
    """What each place of the squares brings to the similarity: signed, row by row."""

    first: list[list[float]]
    second: list[list[float]]


class PairReasons(BaseModel):
    """Why two photos are found alike."""

    similarity: float
    exact: bool
    pooling: str
    matches: list[Match]
    maps: Maps
    square: Squares
    part: float
    """Side of a part's square, as a share of the encoder's."""
    believable: bool
    """Whether hiding what the maps name does more than hiding any places."""
    belief: str


class PhotoPart(BaseModel):
    """A place that the encoder would miss."""

    x: float
    y: float
    falls: float
    """By how much the photo is less like itself without it."""


class PhotoReasons(BaseModel):
    """What a photo is known by."""

    map: list[list[float]]
    attention: list[list[float]] | None
    parts: list[PhotoPart]
    square: Box
    part: float
    half: float
    """Share of the square that half of the map lies in."""
    believable: bool
    belief: str


class Example(BaseModel):
    """A part of one photo."""

    key: str
    media: str
    label: str
    square: Box
    x: float
    y: float
    box: Box
    """The part, as fractions of the whole photo."""


class ClassMark(BaseModel):
    """A part that looks different in photos of two labels."""

    kind: str
    """``telling``: each photo's own most telling place; ``part``: the same part in all."""
    strength: float
    """1 brings a typical photo to the line between the labels."""
    consistent: float
    """Share of photos that blurring it moves towards the other label."""
    sentence: str
    examples: list[Example]
    """Of the first label and the second in turn; two that follow each other are best compared."""


class ClassReasons(BaseModel):
    """What separates two labels."""

    first: str
    second: str
    photos: tuple[int, int]
    right: int
    """Photos on the right side of a line drawn without them."""
    total: int
    weak: bool
    """So few are right that a coin could well do as much: there are no marks to learn."""
    lede: str
    marks: list[ClassMark]
    believable: bool
    belief: str
    skipped: list[str]
    """Keys of photos that could not be read."""


class Asked(NamedTuple):
    """A photo to explain: one of the two."""

    key: str | None = None
    query: str | None = None


class _Encoder(Encoder):
    """Looks up between two batches whether anybody still waits for the reasons."""

    look_up: Callable[[], None] = staticmethod(lambda: None)

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """As every encoder's."""
        self.look_up()
        return super().encode(images)


class _Ready(NamedTuple):
    shot: Shot
    square: Box


class Explainer:
    """Finds reasons, one question after the other.

    Args:
        photos: Decodes them and knows the encoder.
    """

    def __init__(self, photos: Photos) -> None:
        self._photos = photos
        self._derived = Derived(None, lambda: _ALWAYS)
        self._copy: tuple[Eye, _Encoder] | None = None

    def close(self) -> None:
        """Give up what is being explained."""
        self._derived.close()

    def pair(self, first: Asked, second: Asked) -> PairReasons | Working:
        """Why two photos are found alike."""
        eye = self._photos.eye
        names = [self._name(first), self._name(second)]

        def make(report: Report) -> PairReasons:
            look_up = partial(report, "comparing two photos", 0, 1)
            encoder = self._encoder(eye, look_up)
            ready = [self._open(eye, each) for each in (first, second)]
            look_up()
            found = reasons_of_pair(encoder, [one.shot for one in ready])
            return PairReasons(
                similarity=found.pair.similarity,
                exact=found.pair.exact,
                pooling=found.pair.pooling,
                matches=[Match(**match) for match in found.matches()],
                maps=Maps(first=rounded(found.maps[0]), second=rounded(found.maps[1])),
                square=Squares(first=ready[0].square, second=ready[1].square),
                part=PART,
                believable=found.tone == "up",
                belief=found.belief,
            )

        return self._ask(Made("pair", 1, patience_seconds=_PATIENCE_SECONDS), eye, make, names)

    def photo(self, asked: Asked) -> PhotoReasons | Working:
        """What a photo is known by."""
        eye = self._photos.eye
        name = self._name(asked)

        def make(report: Report) -> PhotoReasons:
            look_up = partial(report, "looking at the photo", 0, 1)
            encoder = self._encoder(eye, look_up)
            ready = self._open(eye, asked)
            look_up()
            found = reasons_of_photo(encoder, ready.shot)
            return PhotoReasons(
                map=rounded(found.own),
                attention=None if found.attention is None else rounded(found.attention),
                parts=[PhotoPart(**part) for part in found.parts()],
                square=ready.square,
                part=PART,
                half=found.half,
                believable=found.tone == "up",
                belief=found.belief,
            )

        return self._ask(Made("photo", 1, patience_seconds=_PATIENCE_SECONDS), eye, make, [name])

    def classes(self, first: str, second: str, count: int) -> ClassReasons | Working:
        """What separates two labels, by up to ``count`` photos of each.

        Raises:
            HttpProblem: 404 ``no_such_label``, 422 ``bad_input`` for the same label twice, 409
                ``too_few_photos``.
        """
        if first == second:
            raise HttpProblem(422, "bad_input", "these are the same label; give two.")
        eye = self._photos.eye
        chosen = [self._members(label, count) for label in (first, second)]

        def make(report: Report) -> ClassReasons:
            ready: list[_Ready] = []
            keys: list[str] = []
            sides: list[bool] = []
            skipped: list[str] = []
            for members, side, label in zip(chosen, (True, False), (first, second), strict=True):
                for key in members:
                    report("reading photos", len(ready), 2 * count)
                    if sides.count(side) == count:
                        break
                    try:
                        ready.append(self._open(eye, Asked(key)))
                    except (PhotoError, HttpProblem):
                        skipped.append(key)
                        continue
                    keys.append(key)
                    sides.append(side)
                if sides.count(side) < 2:
                    raise _too_few(label)
            look_up = partial(report, "finding what separates them", len(ready), 2 * count)
            encoder = self._encoder(eye, look_up)
            look_up()
            shots = [one.shot for one in ready]
            reasons = reasons_of_classes(encoder, shots, sides)
            names = [first if side else second for side in sides]
            marks = [(reasons.found.telling, "telling")]
            marks += [(mark, "part") for mark in reasons.found.marks]
            return ClassReasons(
                first=first,
                second=second,
                photos=(sum(sides), len(sides) - sum(sides)),
                right=reasons.right,
                total=len(shots),
                weak=reasons.weak,
                lede=class_lede(reasons.right, len(shots)),
                marks=[self._mark(mark, kind, keys, names, ready) for mark, kind in marks],
                believable=reasons.tone == "up",
                belief=reasons.belief,
                skipped=skipped,
            )

        of = [first, second, str(count), *(f"{len(m)}:{hash_of(m)}" for m in chosen)]
        return self._ask(
            Made("classes", 1, urgency=2, patience_seconds=_PATIENCE_SECONDS),
            eye,
            make,
            of,
            wait_seconds=0.0,
        )

    def _ask(
        self, kind: Any, eye: Eye, make: Any, of: Sequence[str], wait_seconds: float = _WAIT_SECONDS
    ) -> Any:
        told = {"encoder": eye.space.identity, "of": list(of)}
        return self._derived.ask(kind, _ALWAYS, make, of=told, wait_seconds=wait_seconds)

    def _encoder(self, eye: Eye, look_up: Callable[[], None]) -> Encoder:
        if self._copy is None or self._copy[0] is not eye:
            encoder = eye.encoder
            self._copy = eye, _Encoder(encoder.spec, encoder.card, device=encoder.device)
        self._copy[1].look_up = look_up
        return self._copy[1]

    def _name(self, asked: Asked) -> str:
        if asked.key is not None:
            return self._photos.media_name(asked.key)
        return self._photos.query(asked.query or "").media

    def _open(self, eye: Eye, asked: Asked) -> _Ready:
        """A photo, ready to be explained."""
        size, crop = eye.encoder.size, eye.encoder.spec.crop
        enough = Want(pixels=pixels_for_the_eye(size, crop))
        if asked.key is None:
            query = self._photos.query(asked.query or "")
            reply = self._photos.decode_bytes(query.picture, enough).result()
            look, original = query.look, (query.height, query.width)
        else:
            want: Want = {**enough, **eye.look}
            reply = self._photos.decode(asked.key, want).result()
            check_content(reply, self._photos.media_name(asked.key), asked.key)
            assert reply.derived is not None
            assert reply.photo is not None
            look, original = np.asarray(reply.derived.look), reply.photo.original
        assert reply.derived is not None
        pixels = np.asarray(reply.derived.pixels)
        name = (asked.key or "the photo").rpartition("/")[2]
        return _Ready(make_shot(name, look, pixels, size, crop), square_of(*original, size, crop))

    def _members(self, label: str, count: int) -> list[str]:
        """Photos of a label in an order drawn by chance, some more than needed."""
        view = self._photos.library.view()
        if label not in view.labels.names:
            raise HttpProblem(404, "no_such_label", f"no photo has the label {label!r}.")
        table = view.table
        rows = np.flatnonzero((view.labels.of == view.labels.names.index(label)) & ~table.missing)
        if len(rows) < 2:
            raise _too_few(label)
        order = np.argsort(rng.mix("explain", 0, rows), kind="stable")[: count + 10]
        return [table.keys[row] for row in rows[order].tolist()]

    def _mark(
        self, mark: Mark, kind: str, keys: list[str], labels: list[str], ready: list[_Ready]
    ) -> ClassMark:
        moved = int((mark.adds > 0).sum())
        examples = []
        for photo in (photo for pair in mark.examples for photo in pair):
            row, column = middle((int(mark.rows[photo]), int(mark.columns[photo])), (GRID, GRID))
            square = ready[photo].square
            examples.append(
                Example(
                    key=keys[photo],
                    media=self._photos.media_name(keys[photo]),
                    label=labels[photo],
                    square=square,
                    x=round(column, 4),
                    y=round(row, 4),
                    box=_inside(box_around(row, column, PART), square),
                )
            )
        return ClassMark(
            kind=kind,
            strength=mark.strength,
            consistent=mark.consistent,
            sentence=(
                f"Blur it, and {moved} of {len(mark.adds)} photos look more like the other, by "
                f"{mark.strength / 2:.0%} of the way on average."
            ),
            examples=examples,
        )


def square_of(height: int, width: int, size: int, crop: float) -> Box:
    """The encoder's square as fractions of a photo; it may reach beyond a photo by rounding."""
    x0, y0, x1, y1 = window(height, width, size, crop)
    return x0 / width, y0 / height, x1 / width, y1 / height


def _inside(box: Box, square: Box) -> Box:
    """A box of the square as one of the photo."""
    wide, high = square[2] - square[0], square[3] - square[1]
    return (
        square[0] + box[0] * wide,
        square[1] + box[1] * high,
        square[0] + box[2] * wide,
        square[1] + box[3] * high,
    )


def _too_few(label: str) -> HttpProblem:
    return HttpProblem(
        409,
        "too_few_photos",
        f"fewer than two photos of {label!r} can be read; at least 2 of each label are needed, and 10 are a "
        "good start.",
    )


def hash_of(keys: Sequence[str]) -> int:
    """Tells one choice of photos from another."""
    return int(rng.seed_of("explain", *keys))
