"""What a report says, as plain data that is kept beside the run and rendered again at any time."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from fieldmark.errors import ArtifactError

VERSION = 1
_FORMAT = "fieldmark-report"
_STRICT_KEYS = ConfigDict(extra="forbid")

Number = Annotated[float | int, AfterValidator(float)]
VerdictWord = Literal["helped", "hurt", "no difference shown", "not measured"]


@dataclass(frozen=True)
class Outcome:
    """The verdict, as ``evaluation.compare`` words it."""

    __pydantic_config__ = _STRICT_KEYS
    word: VerdictWord
    sentence: str
    """One plain sentence with the numbers behind the word."""
    shipped: str
    """Which encoder is in ``run/encoder``: ``start``, ``trained``, ``student`` or ``teacher``."""


@dataclass(frozen=True)
class Facts:
    """What was trained and tested on."""

    __pydantic_config__ = _STRICT_KEYS
    photos: int
    """Photos found."""
    used: int | None = None
    """Photos that could be used (neither refused nor damaged)."""
    train: int | None = None
    """Photos that training read."""
    test: int | None = None
    """Labelled photos that the numbers are measured on."""
    classes: int | None = None
    """Classes among the test photos."""
    size: int | None = None
    """Input size of the network, in pixels."""
    split: str = ""
    """Where the split comes from, in words."""
    transductive: bool = False
    """Whether training also saw the test photos (without their labels)."""


@dataclass(frozen=True)
class Measure:
    """One measure of the start and of the trained encoder."""

    __pydantic_config__ = _STRICT_KEYS
    name: str
    """``rank1``, ``rank5``, ``map``, ``map_at_r``, ``knn``, ``linear``, ``linear@20`` ..., or any
    other name, which then should come with a label and an explanation."""
    start: Number | None
    trained: Number | None
    gain: Number | None = None
    """Trained minus start; worked out when left out."""
    low: Number | None = None
    """Lower end of the 95 % interval of the gain."""
    high: Number | None = None
    """Upper end of the 95 % interval of the gain."""
    label: str = ""
    unit: str = "%"
    fraction: Number | None = None
    """Share of the train labels a linear probe was given, in (0, 1]."""
    explanation: str = ""


@dataclass(frozen=True)
class Grid:
    """One measure for {start, trained} x {plain, post-processed}."""

    __pydantic_config__ = _STRICT_KEYS
    label: str
    start_plain: Number | None
    start_post: Number | None
    trained_plain: Number | None = None
    trained_post: Number | None = None
    unit: str = "%"


@dataclass(frozen=True)
class Neighbour:
    """One photo found for a query."""

    __pydantic_config__ = _STRICT_KEYS
    photo: str
    label: str | None = None
    hit: bool | None = None
    """Same class as the query; None where labels are not known."""


@dataclass(frozen=True)
class NeighbourSheet:
    """A query photo and its nearest photos under both encoders."""

    __pydantic_config__ = _STRICT_KEYS
    photo: str
    label: str | None
    start: tuple[Neighbour, ...]
    trained: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class EmbeddingMap:
    """The same photos placed in the plane by both encoders; row i of each field is one photo."""

    __pydantic_config__ = _STRICT_KEYS
    photos: tuple[str, ...]
    labels: tuple[str | None, ...]
    start: tuple[tuple[Number, Number], ...]
    trained: tuple[tuple[Number, Number], ...] = ()
    how: str = ""
    """How the plane was made, such as "t-SNE of the cosine distances"."""


@dataclass(frozen=True)
class ConfusablePair:
    """Two classes that are taken for each other, and photos of both."""

    __pydantic_config__ = _STRICT_KEYS
    first: str
    second: str
    start: Number | None
    """Percent of the two classes' photos whose nearest photo is of the other class."""
    trained: Number | None = None
    photos_first: tuple[str, ...] = ()
    photos_second: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadPhoto:
    """A file that was refused, or is damaged."""

    __pydantic_config__ = _STRICT_KEYS
    path: str
    status: str
    """``refused`` or ``damaged``."""
    code: str
    detail: str = ""


@dataclass(frozen=True)
class WeightsFacts:
    """How the starting weights were made.

    Field for field the backbone's provenance, plus the network's name:
    ``WeightsFacts(network=name, **provenance.model_dump())``.
    """

    __pydantic_config__ = _STRICT_KEYS
    network: str = ""
    how: str = "unknown"
    data: str = ""
    labels_seen: str = ""
    licence: str = ""
    source: str = ""
    sha256: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything on the page. Empty parts are left out of it.

    Photo ids are any text (usually the path in the catalog); a photo that is named but not in
    ``photos`` shows as an empty frame.
    """

    __pydantic_config__ = _STRICT_KEYS
    title: str
    """Name of the run."""
    outcome: Outcome
    facts: Facts
    kind: Literal["train", "start"] = "train"
    """``start``: nothing was trained; the "trained" column is the post-processed start."""
    measures: tuple[Measure, ...] = ()
    grids: tuple[Grid, ...] = ()
    post_processing: str = ""
    """What the post-processing that ships consists of, in words."""
    health: tuple[dict[str, Number | None], ...] = ()
    """One row per epoch; epoch 0 is the start. Keys as the health probe names its measures, and
    ``epoch`` and ``loss``; other keys are shown too."""
    health_ranges: dict[str, tuple[Number | None, Number | None]] = field(default_factory=dict)
    """Healthy range per key; rules of thumb relative to epoch 0 where left out."""
    sheets: tuple[NeighbourSheet, ...] = ()
    map: EmbeddingMap | None = None
    confusable: tuple[ConfusablePair, ...] = ()
    bad_photos: tuple[BadPhoto, ...] = ()
    weights: WeightsFacts | None = None
    recipe_name: str = ""
    recipe: str = ""
    """Resolved recipe as TOML."""
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    started: str = ""
    """Date and time in ISO 8601."""
    run_seconds: Number | None = None
    advice: tuple[str, ...] = ()
    """What to try; general advice for the verdict when empty. Text in backticks is set as code."""
    notes: tuple[str, ...] = ()
    """Anything the reader should know, one sentence each."""
    photos: dict[str, str] = field(default_factory=dict)
    """Photo id to ``data:`` URI, from ``sheets.encode_photos``."""

    def to_json(self) -> str:
        """JSON text; NaN and infinity become null, bytes of odd file names become escapes."""
        body = {"format": _FORMAT, "version": VERSION, **_plain(asdict(self))}
        return json.dumps(body, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "report.json") -> "ReportData":
        """Read what :meth:`to_json` wrote.

        Args:
            text: JSON text.
            source: File name for error texts.

        Raises:
            ArtifactError: Not a report, made by a newer version, or damaged.
        """
        try:
            body = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArtifactError(
                f"{source} is not valid JSON ({error}); it may be cut short. Run the training "
                "command again: it continues from what is saved and writes a new one."
            ) from None
        if not isinstance(body, dict) or body.pop("format", None) != _FORMAT:
            raise ArtifactError(
                f"{source} does not hold the data of a fieldmark report (no format "
                f"'{_FORMAT}'); give a run folder made by fieldmark train."
            )
        version = body.pop("version", None)
        if version != VERSION:
            raise ArtifactError(
                f"{source} has report version {version!r}; this fieldmark reads version {VERSION}. "
                "Use the fieldmark version named in the run's environment, or train again."
            )
        try:
            return TypeAdapter(cls).validate_python(body)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ArtifactError(
                f"{source} is damaged or was edited: {key}: {first['msg']}. "
                "Run the training command again to write a new one."
            ) from None


def _plain(value: Any) -> Any:
    """Only what JSON knows: numpy scalars unwrapped, non-finite numbers None, clean text."""
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # File names that are not UTF-8 arrive with lone surrogates, which no encoder accepts.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
