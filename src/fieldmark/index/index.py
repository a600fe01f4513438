"""What an index is, whichever engine keeps it.

An *item* is a photo (or one box of it): a key, metadata, a label, the stamp of its file. Its vectors live in
*spaces*, one for each encoder, named by the encoder's identity, so vectors of two encoders are never mixed
and an index may hold both while it moves from one to the other. What a call has returned from is durable.
"""

import json
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from fieldmark.errors import ConflictError, InputError
from fieldmark.index.where import RESERVED, Where, parse

Vectors = Float[np.ndarray, "N D"]
Meta = Mapping[str, Any]
Opened = TypeVar("Opened", bound="Index")
LONGEST_KEY = 4096
LONGEST_LABEL = 500
_UNIT = 1e-3
"""How far from 1 a vector's length may be."""


class Stamp(NamedTuple):
    """What the file system said of a photo's file when it was embedded."""

    size: int
    modified_ns: int
    sha256: str
    """Of its content, hex."""


class Item(NamedTuple):
    """One photo of an index."""

    key: str
    meta: dict[str, Any]
    label: str | None
    version: int
    """Grows with every change of label, metadata or file."""
    stamp: Stamp | None
    missing: bool
    """Its file was not there when it was last looked for; nothing is forgotten."""

    def facts(self) -> dict[str, Any]:
        """What filters see."""
        return {**self.meta, "key": self.key, "label": self.label, "missing": self.missing}


class Hit(NamedTuple):
    """One neighbour."""

    key: str
    score: float
    """Cosine, in [-1, 1]."""
    item: Item


class Space(NamedTuple):
    """Vectors of one encoder."""

    identity: str
    dim: int
    about: dict[str, Any]
    """What the encoder is, for people."""
    vectors: int


class Stats(NamedTuple):
    """What an index holds."""

    engine: str
    items: int
    missing: int
    labelled: int
    spaces: tuple[Space, ...]
    current: str | None
    """Identity of the encoder that searches use."""
    search: dict[str, Any]
    """How neighbours are found: ``kind`` (exact or approximate), and where approximate ``recall``."""


class LabelChange(NamedTuple):
    """One line of the history."""

    number: int
    key: str
    before: str | None
    after: str | None
    by: str
    at: str
    """UTC, ISO 8601."""


class Marks(NamedTuple):
    """What has changed since somebody looked, told without looking at everything."""

    items: str
    """Another text after items or vectors were added, changed or removed, or another encoder is used;
    labels alone do not change it."""
    labels: int
    """Number of the last change of a label; 0 before the first."""


class Index(ABC):
    """A durable store of items with nearest-neighbour search.

    Every engine gives the same answers (tests/index): neighbours by cosine, ties by key.
    """

    engine: str

    # -- spaces

    @abstractmethod
    def add_space(self, identity: str, dim: int, about: Meta | None = None) -> None:
        """Make room for vectors of an encoder; the first becomes the current one.

        Args:
            identity: Of the encoder.
            dim: Numbers of a vector.
            about: What the encoder is, for people; replaces what was told before.

        Raises:
            InputError: The same identity with another dim.
        """

    @abstractmethod
    def use_space(self, identity: str, *, incomplete: bool = False) -> None:
        """Search with this encoder from now on.

        Args:
            identity: Of a space.
            incomplete: Also where items have no vector in it: searches do not find those.

        Raises:
            InputError: No such space, or items without a vector in it; says how many.
        """

    @abstractmethod
    def drop_space(self, identity: str) -> None:
        """Forget an encoder's vectors; never the current one's."""

    # -- items

    @abstractmethod
    def add(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metas: Sequence[Meta] | None = None,
        stamps: Sequence[Stamp | None] | None = None,
        identity: str | None = None,
    ) -> None:
        """Add items, all or none.

        Args:
            keys: New ones.
            vectors: Unit vectors, a row a key.
            metas: Metadata, values as JSON has them.
            stamps: Of their files.
            identity: Encoder; the current one by default.

        Raises:
            InputError: A key that is there already or twice, a vector that is no unit vector, or of
                another encoder; nothing was added.
        """

    @abstractmethod
    def update(
        self,
        keys: Sequence[str],
        *,
        vectors: Vectors | None = None,
        metas: Sequence[Meta] | None = None,
        stamps: Sequence[Stamp | None] | None = None,
        missing: bool | None = None,
        identity: str | None = None,
    ) -> None:
        """Change items that are there, all or none; what is None stays.

        Vectors in one space leave those in others alone: they are of the photo as it was. Where the
        content changed (``stamps`` with another SHA-256), vectors in other spaces are forgotten.

        Raises:
            InputError: A key that is not there, or as for :meth:`add`.
        """

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> int:
        """Forget items and their vectors and labels for good; returns how many there were."""

    @abstractmethod
    def get(self, keys: Sequence[str]) -> list[Item]:
        """Items in the order of the keys.

        Raises:
            InputError: Naming a key that is not there.
        """

    @abstractmethod
    def items(self, where: str | Where | None = None) -> Iterator[Item]:
        """All items, or those that a filter chooses, by key."""

    @abstractmethod
    def vectors(self, keys: Sequence[str], *, identity: str | None = None) -> Vectors:
        """Their vectors, a row a key.

        Raises:
            InputError: Naming a key without one.
        """

    @abstractmethod
    def stamps(self) -> dict[str, tuple[int, int, bool]]:
        """Size, time of change and whether it was missing, of each file, by key."""

    @abstractmethod
    def pending(self, identity: str) -> list[str]:
        """Keys without a vector in a space."""

    # -- labels

    @abstractmethod
    def set_labels(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str = "",
        expected: Mapping[str, int] | None = None,
    ) -> dict[str, int]:
        """Label items, all or none; None takes a label away.

        Args:
            labels: By key.
            by: Who says so, for the history.
            expected: Versions that the caller has seen; items that were changed since are refused.

        Returns:
            The new versions.

        Raises:
            InputError: A key that is not there, or a label that is no text.
            ConflictError: An item was changed by someone else; nothing was labelled.
        """

    @abstractmethod
    def history(
        self, key: str | None = None, *, since: int = 0, limit: int | None = None
    ) -> list[LabelChange]:
        """Changes of labels, oldest first.

        Args:
            key: Only of this item.
            since: Only those with a larger number.
            limit: How many at most, the oldest; all by default.
        """

    @abstractmethod
    def marks(self) -> Marks:
        """What tells that something changed, in well under a millisecond, whoever changed it."""

    # -- neighbours

    @abstractmethod
    def search(
        self,
        vectors: Vectors,
        k: int = 10,
        *,
        where: str | Where | None = None,
        identity: str | None = None,
    ) -> list[list[Hit]]:
        """Nearest items of each vector, nearest first.

        Args:
            vectors: Unit vectors of the space's encoder.
            k: How many at most.
            where: Only items for which this filter holds.
            identity: Encoder; the current one by default.
        """

    def like(
        self,
        keys: Sequence[str],
        k: int = 10,
        *,
        where: str | Where | None = None,
        identity: str | None = None,
    ) -> list[list[Hit]]:
        """Nearest items of items of the index, themselves left out."""
        found = self.search(
            self.vectors(keys, identity=identity), k + 1, where=where, identity=identity
        )
        return [
            [hit for hit in hits if hit.key != key][:k]
            for key, hits in zip(keys, found, strict=True)
        ]

    # -- upkeep

    @abstractmethod
    def stats(self) -> Stats:
        """What is in it."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Read everything and check it; one sentence for each thing that is wrong."""

    @abstractmethod
    def compact(self) -> None:
        """Give back the room of what was removed, and make the search index anew."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checksum(vector: bytes) -> int:
    """CRC-32 of a stored vector: a bit that flipped on the disk is found."""
    return zlib.crc32(vector)


def check_vectors(vectors: Any, count: int | None, dim: int) -> Float[np.ndarray, "N D"]:
    """Unit vectors as float32, or why not.

    Raises:
        InputError: Naming the row.
    """
    found = np.ascontiguousarray(vectors, np.float32)
    if found.ndim != 2 or found.shape[1] != dim or (count is not None and len(found) != count):
        wanted = f"{'any number of' if count is None else count} rows of {dim}"
        raise InputError(
            f"vectors have the shape {list(found.shape)}; the index wants {wanted} numbers."
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", found, found))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"vector {row} has length {lengths[row]:.4g} ({len(wrong)} such rows); embeddings are unit "
            "vectors without NaN: divide each by its length, and leave out photos that have none."
        )
    return found


def check_keys(keys: Sequence[str]) -> list[str]:
    """Keys that can be kept, none twice.

    Raises:
        InputError: Naming the first that cannot.
    """
    seen: set[str] = set()
    for key in keys:
        if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not _is_text(key):
            raise InputError(
                f"{str(key)[:80]!r} is no key; keys are texts of 1 to {LONGEST_KEY} characters."
            )
        if key in seen:
            raise InputError(f"the key {key!r} is given twice.")
        seen.add(key)
    return list(keys)


def check_label(label: str | None) -> str | None:
    """A label that can be kept.

    Raises:
        InputError: If it is empty, too long or no text.
    """
    if label is not None and (
        not isinstance(label, str)
        or not label.strip()
        or len(label) > LONGEST_LABEL
        or not _is_text(label)
    ):
        raise InputError(
            f"{str(label)[:80]!r} is no label; labels are texts of 1 to {LONGEST_LABEL} characters."
        )
    return label


def _is_text(text: str) -> bool:
    """Valid Unicode that every engine keeps."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def meta_text(meta: Meta) -> str:
    """Metadata as JSON, or why not.

    Raises:
        InputError: Naming what JSON has no word for.
    """
    for name in meta:
        if name in RESERVED:
            raise InputError(f"metadata must not be called '{name}'; that is the item's own.")
    try:
        text = json.dumps(dict(meta), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metadata {str(dict(meta))[:80]} cannot be kept ({error}); give texts, finite numbers, true, "
            "false, null, lists and objects of them."
        ) from None
    if not _is_text(text) or "\\u0000" in text:
        raise InputError(f"metadata {text[:80]!r} holds a text that is no valid Unicode.")
    return text


def as_filter(where: str | Where | None) -> Where | None:
    """Parse a filter that is still a text."""
    return parse(where) if isinstance(where, str) else where


def same_length(keys: Sequence[str], **columns: Sequence[Any] | None) -> None:
    """Whether columns that are given have an entry for each key.

    Raises:
        InputError: Naming one that has not.
    """
    for name, column in columns.items():
        if column is not None and len(column) != len(keys):
            raise InputError(f"{len(keys)} keys and {len(column)} {name} were given.")


def absent_items(keys: Sequence[str]) -> InputError:
    """Items that are asked for and not there."""
    more = f" (and {len(keys) - 1:,} more of these)" if len(keys) > 1 else ""
    return InputError(
        f"the index has no item {keys[0]!r}{more}; keys are as fieldmark search prints them."
    )


def changed_content(items: Iterable[Item], stamps: Sequence[Stamp | None]) -> list[str]:
    """Keys of items whose photo shows something else than before.

    Args:
        items: As they are.
        stamps: New ones, in the same order.
    """
    return [
        item.key
        for item, new in zip(items, stamps, strict=True)
        if new is not None and item.stamp is not None and item.stamp.sha256 != new.sha256
    ]


def conflict(keys: Iterable[str]) -> ConflictError:
    """Someone else was faster."""
    named = sorted(keys)
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return ConflictError(
        f"{', '.join(named[:3])}{more} changed since you looked; nothing was labelled. Look again, then "
        "decide.",
        named,
    )


def finite(score: float) -> float:
    """A cosine, as it is reported."""
    return max(-1.0, min(1.0, score)) if math.isfinite(score) else 0.0
