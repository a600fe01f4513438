"""Cells of photos, kept small: what region search reads.

INDEX/
└── parts.sqlite   per encoder a basis, and per photo its cells, its photo's hash and a checksum

Derived from the photos and never the truth: it may be deleted at any time, and nothing in it is
believed that is damaged, of another encoder, or of a photo as it was.
"""

import contextlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int8
from safetensors import SafetensorError
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors
from scipy.linalg import eigh

from fieldmark.errors import ArtifactError, InputError
from fieldmark.index.database import WAIT_SECONDS, check_format, sqlite_faults
from fieldmark.index.match import STEPS, Grids

FILE = "parts.sqlite"
MOST_BYTES = 8192
"""Per photo."""
MOST_DIM = 64
_APPLICATION = 0x464D5043
"""FMPC: tells it from any other SQLite file."""
_VERSION = 1
_CHUNK = 1024
"""Photos per chunk while reading: 8 MiB of cells, 32 MiB as floats."""
_SCHEMA = (
    """CREATE TABLE spaces (
        id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL, basis BLOB NOT NULL, crc INTEGER NOT NULL
    )""",
    "CREATE TABLE source (path TEXT NOT NULL)",
    """CREATE TABLE cells (
        space INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
        key TEXT NOT NULL, sha256 TEXT NOT NULL,
        height INTEGER NOT NULL, width INTEGER NOT NULL, cells BLOB NOT NULL, crc INTEGER NOT NULL,
        UNIQUE (space, key)
    )""",
)
Hashes = Mapping[str, str]
"""SHA-256 of each photo's content, by key."""


class Basis(NamedTuple):
    """The directions in which cells differ most; everything else about them is forgotten."""

    mean: Float[np.ndarray, " D"]
    """Of all cells: what no place is told apart by."""
    projection: Float[np.ndarray, "D K"]
    """Orthonormal columns, largest variance first."""
    photos: int
    """How many it was fitted on."""

    def express(self, cells: Float[np.ndarray, "*N D"]) -> Float[np.ndarray, "*N K"]:
        """Unit vectors; zero where nothing is left of a cell."""
        found = (cells - self.mean) @ self.projection
        length = np.linalg.norm(found, axis=-1, keepdims=True)
        return found / np.where(length > 1e-6, length, np.inf)

    def shorten(self, cells: Float[np.ndarray, "*N D"]) -> Int8[np.ndarray, "*N K"]:
        """The same in whole numbers; cosines move by some thousandths."""
        return np.rint(self.express(cells) * STEPS).astype(np.int8)


def fit_basis(grids: Iterable[Float[np.ndarray, "B h w D"]], cells: int) -> Basis:
    """Principal directions of the cells of some photos.

    As many as fit into ``MOST_BYTES`` with one byte each, ``MOST_DIM`` at most. They are not evened
    out: dividing by the variance to a quarter found the place of fewer marks of drawn birds (87 %
    instead of 89 %) and of fewer birds of cub50 (86 % instead of 91 %; benchmarks/parts.py).

    Args:
        grids: Batches of photos, read once; shapes may differ between batches.
        cells: Cells that a photo has at most.

    Raises:
        InputError: If there are no cells, or all are the same.
    """
    count = photos = 0
    total: Any = 0.0
    square: Any = 0.0
    for batch in grids:
        flat = batch.reshape(-1, batch.shape[-1])
        photos += len(batch)
        count += len(flat)
        total = total + flat.sum(axis=0, dtype=np.float64)
        square = square + (flat.T @ flat).astype(np.float64)
    if count:
        mean = total / count
        covariance = square / count - np.outer(mean, mean)
        dim = len(mean)
        kept = max(1, min(MOST_DIM, MOST_BYTES // max(cells, 1), dim, count - 1))
        values, vectors = eigh(covariance, subset_by_index=[dim - kept, dim - 1])
        vectors = vectors[:, ::-1][:, values[::-1] > 1e-6 * max(float(values[-1]), 1e-12)]
        if vectors.shape[1] and values[-1] > 1e-9:
            # LAPACK chooses signs; the largest entry decides.
            largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
            vectors = vectors * np.where(largest < 0, -1.0, 1.0)
            return Basis(mean.astype(np.float32), vectors.astype(np.float32), photos)
    raise InputError(
        f"the {photos} photos have no parts that could be told apart: all places look the same to the "
        "encoder; give more photos, or photos that show something."
    )


class Reading(NamedTuple):
    """Photos of one shape."""

    keys: list[str]
    grids: Grids


class Parts:
    """Cells of photos in a file, for one machine; several processes may use it at once.

    Args:
        file: Where it is, or shall be.
        create: Make it where there is none.

    Raises:
        ArtifactError: None there, damaged, something else, or of a newer fieldmark.
        BusyError: Another process has been writing for longer than half a minute.
    """

    def __init__(self, file: Path, *, create: bool = False) -> None:
        self.file = Path(file)
        if not create and not self.file.is_file():
            raise ArtifactError(
                f"{self.file.parent} holds no parts of photos; {_remedy(self.file)}"
            )
        with sqlite_faults(self.file, _damaged):
            self._db = sqlite3.connect(self.file, timeout=WAIT_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        db = self._db
        # A damaged page may call anything a text; checksums decide, not the decoder.
        db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        db.execute("PRAGMA trusted_schema = OFF")
        empty = check_format(
            db, self.file, application=_APPLICATION, newest=_VERSION, what="parts of photos"
        )
        if empty:
            # Blobs of 8 KiB: small pages would chain several for each photo.
            db.execute("PRAGMA page_size = 16384")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        if empty:
            with self._writing():
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in _SCHEMA:
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {_APPLICATION}")
                    db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        with sqlite_faults(self.file, _damaged):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # -- the basis of an encoder

    def basis(self, identity: str, kind: str) -> Basis | None:
        """An encoder's basis; None where there is none, it is damaged, or cells were read otherwise.

        Args:
            identity: Of the encoder.
            kind: How its cells are read (``Detail.kind``).
        """
        with sqlite_faults(self.file, _damaged):
            row = self._db.execute(
                "SELECT kind, basis, crc FROM spaces WHERE identity = ?", (identity,)
            ).fetchone()
        try:
            if row is None or row[0] != kind or _crc(identity, row[0], row[1]) != row[2]:
                return None
            tensors = from_safetensors(row[1])
            return Basis(tensors["mean"], tensors["projection"], int(tensors["photos"][0]))
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError):
            return None

    def begin(self, identity: str, kind: str, basis: Basis) -> None:
        """Start an encoder's cells anew, in a basis."""
        tensors = {
            "mean": np.ascontiguousarray(basis.mean),
            "projection": np.ascontiguousarray(basis.projection),
            "photos": np.array([basis.photos], np.int64),
        }
        data = to_safetensors(tensors)
        with self._writing() as db:
            db.execute("DELETE FROM spaces WHERE identity = ?", (identity,))
            db.execute(
                "INSERT INTO spaces (identity, kind, basis, crc) VALUES (?, ?, ?, ?)",
                (identity, kind, data, _crc(identity, kind, data)),
            )

    @property
    def source(self) -> str | None:
        """Where the photos were when their cells were last brought up to date."""
        with sqlite_faults(self.file, _damaged):
            row = self._db.execute("SELECT path FROM source").fetchone()
        return None if row is None else str(row[0])

    @source.setter
    def source(self, path: str) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM source")
            db.execute("INSERT INTO source VALUES (?)", (path,))

    # -- cells of photos

    def put(
        self,
        identity: str,
        keys: Sequence[str],
        hashes: Sequence[str],
        grids: Sequence[Int8[np.ndarray, "_h _w D"]],
    ) -> None:
        """Keep photos' cells, in place of earlier ones; all or none.

        Args:
            identity: Of an encoder that has a basis here.
            keys: Of the photos.
            hashes: SHA-256 of their content.
            grids: Their cells.
        """
        with self._writing() as db:
            space = self._space(identity)
            db.executemany(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (space, key, digest, *grid.shape[:2], data, _sum(key, digest, grid.shape, data))
                    for key, digest, grid in zip(keys, hashes, grids, strict=True)
                    for data in (np.ascontiguousarray(grid).tobytes(),)
                ),
            )

    def _space(self, identity: str) -> int:
        row = self._db.execute("SELECT id FROM spaces WHERE identity = ?", (identity,)).fetchone()
        return -1 if row is None else int(row[0])

    def sound(self, identity: str, dim: int) -> dict[str, str]:
        """Hash of the photo of each entry that is whole, by key; reads everything."""
        return {key: digest for key, digest, _ in self._rows(identity, dim)}

    def keep_only(self, identity: str, keys: Iterable[str]) -> int:
        """Drop cells of all other photos; returns how many there were."""
        wanted = set(keys)
        with self._writing() as db:
            space = self._space(identity)
            there = [
                key for (key,) in db.execute("SELECT key FROM cells WHERE space = ?", (space,))
            ]
            gone = [key for key in there if key not in wanted]
            db.executemany(
                "DELETE FROM cells WHERE space = ? AND key = ?", ((space, key) for key in gone)
            )
        return len(gone)

    def keep_spaces(self, identities: Iterable[str]) -> None:
        """Drop parts of encoders that an index has no vectors of any more."""
        wanted = list(identities)
        marks = ", ".join("?" * len(wanted))
        with self._writing() as db:
            db.execute(f"DELETE FROM spaces WHERE identity NOT IN ({marks})", wanted)

    def read(self, identity: str, dim: int, photos: Hashes) -> Iterator[Reading]:
        """Cells of photos that are whole and of the photos as they are; others are passed over.

        Args:
            identity: Encoder.
            dim: Of its basis.
            photos: What is asked for.
        """
        waiting: dict[tuple[int, ...], list[tuple[str, Int8[np.ndarray, "h w D"]]]] = {}
        for key, digest, grid in self._rows(identity, dim):
            if not digest or photos.get(key) != digest:
                continue
            entries = waiting.setdefault(grid.shape, [])
            entries.append((key, grid))
            if len(entries) == _CHUNK:
                yield _joined(entries)
                entries.clear()
        for entries in waiting.values():
            if entries:
                yield _joined(entries)

    def _rows(
        self, identity: str, dim: int
    ) -> Iterator[tuple[str, str, Int8[np.ndarray, "_h _w D"]]]:
        with sqlite_faults(self.file, _damaged):
            rows = self._db.execute(
                "SELECT key, sha256, height, width, cells, crc FROM cells WHERE space = ?",
                (self._space(identity),),
            )
            while chunk := list(islice(rows, _CHUNK)):
                for key, digest, height, width, data, crc in chunk:
                    shape = (height, width, dim)
                    try:
                        if len(data) == height * width * dim and crc == _sum(
                            key, digest, shape, data
                        ):
                            yield key, digest, np.frombuffer(data, np.int8).reshape(shape)
                    except (TypeError, AttributeError, ValueError, OverflowError):
                        # SQLite gives back whatever type a damaged page says.
                        continue


def _joined(entries: Sequence[tuple[str, Int8[np.ndarray, "h w D"]]]) -> Reading:
    return Reading([key for key, _ in entries], np.stack([grid for _, grid in entries]))


def _sum(key: str, digest: str, shape: Sequence[int], data: bytes) -> int:
    return _crc(key, digest, f"{shape[0]}x{shape[1]}", data)


def _crc(*values: str | bytes) -> int:
    """CRC-32: a bit that flipped on the disk is found."""
    total = 0
    for value in values:
        data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        total = zlib.crc32(data, zlib.crc32(b"\0", total))
    return total


def _remedy(file: Path) -> str:
    return (
        f"make them with fieldmark index ENCODER PHOTOS --out {file.parent} --parts, with the index's own "
        "encoder and photos."
    )


class DamagedParts(ArtifactError):
    """A file of parts that cannot be read; it may be thrown away and made anew."""


def _damaged(file: Path, why: str) -> DamagedParts:
    return DamagedParts(f"{file} is damaged ({why}); {_remedy(file)}")
