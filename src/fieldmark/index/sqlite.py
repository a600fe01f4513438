"""The embedded engine: SQLite is the truth, FAISS is derived from it.

INDEX/
├── index.sqlite           items, vectors, labels and their history (WAL, synchronous=FULL)
└── nearest-1.faiss .json  neighbours in space 1; may be thrown away at any time
"""

import contextlib
import json
import secrets
import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fieldmark import storage
from fieldmark.errors import ArtifactError, InputError, StorageError
from fieldmark.index.database import WAIT_SECONDS, check_format, sqlite_faults
from fieldmark.index.index import (
    Hit,
    Index,
    Item,
    LabelChange,
    Marks,
    Meta,
    Space,
    Stamp,
    Stats,
    Vectors,
    absent_items,
    as_filter,
    changed_content,
    check_keys,
    check_label,
    check_vectors,
    checksum,
    conflict,
    finite,
    meta_text,
    same_length,
)
from fieldmark.index.nearest import EXACT_UP_TO, Nearest, outgrown
from fieldmark.index.sql import SQLITE, condition
from fieldmark.index.where import Where

FILE = "index.sqlite"
_APPLICATION = 0x464D4958
"""FMIX: tells an index from any other SQLite file."""
_VERSION = 1
_CHUNK = 500
"""Keys in one question to the database."""
_SAVED_FROM = 2000
"""Vectors from which on it is worth keeping the search index in a file."""

_SCHEMA = """
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    meta TEXT NOT NULL,
    label TEXT,
    version INTEGER NOT NULL,
    size INTEGER, modified_ns INTEGER, sha256 TEXT,
    missing INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX items_label ON items (label);
CREATE TABLE spaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL UNIQUE, dim INTEGER NOT NULL, about TEXT NOT NULL,
    current INTEGER NOT NULL
);
CREATE TABLE vectors (
    item INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    space INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
    vector BLOB NOT NULL, crc INTEGER NOT NULL, change INTEGER NOT NULL,
    PRIMARY KEY (space, item)
) WITHOUT ROWID;
CREATE INDEX vectors_change ON vectors (space, change);
CREATE INDEX vectors_item ON vectors (item);
CREATE TABLE removed (space INTEGER NOT NULL, item INTEGER NOT NULL, change INTEGER NOT NULL);
CREATE INDEX removed_change ON removed (space, change);
CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL);
CREATE TABLE label_changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, before TEXT, after TEXT, by TEXT NOT NULL, at TEXT NOT NULL
);
CREATE INDEX label_changes_key ON label_changes (key);
"""
_ITEM = "items.key, items.meta, items.label, items.version, items.size, items.modified_ns, items.sha256, items.missing"


class SqliteIndex(Index):
    """An index in a folder, for one machine; several processes may use it at once.

    Args:
        folder: Where it is, or shall be.
        create: Make it where there is none.
        exact_up_to: Vectors up to which search compares all.

    Raises:
        ArtifactError: No index there, not an index, damaged, or of a newer fieldmark.
        BusyError: Another process has been writing for longer than half a minute.
    """

    engine = "sqlite"

    def __init__(
        self, folder: Path, *, create: bool = False, exact_up_to: int = EXACT_UP_TO
    ) -> None:
        self.folder = Path(folder)
        self._file = self.folder / FILE
        self._exact_up_to = exact_up_to
        self._lock = threading.RLock()
        self._nearest: dict[int, tuple[Nearest, int, str]] = {}
        """By space: neighbours, and number and token of the last change that they know of."""
        if create:
            storage.make_folder(self.folder)
        else:
            self._must_be_there()
        self._db = self._open()

    def _must_be_there(self) -> None:
        try:
            status = self._file.stat()
        except (FileNotFoundError, NotADirectoryError):
            status = None
        except OSError as error:
            raise ArtifactError(f"{self._file} cannot be opened: {error.strerror}.") from None
        if status is None or not stat.S_ISREG(status.st_mode):
            raise ArtifactError(
                f"there is no index in {self.folder}; make one with fieldmark index ENCODER PHOTOS --out "
                f"{self.folder}."
            )
        if not status.st_size:
            # SQLite would make a new index of it, and nobody would know what was lost.
            raise _damaged(self._file, "it is empty")

    def _open(self) -> sqlite3.Connection:
        with sqlite_faults(self._file, _damaged):
            db = sqlite3.connect(
                self._file,
                timeout=WAIT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA trusted_schema = OFF")
        empty = check_format(
            db, self._file, application=_APPLICATION, newest=_VERSION, what="an index"
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA cache_size = -65536")
        if empty:
            with _transaction(db):
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in _SCHEMA.split(";\n"):
                        if statement.strip():
                            db.execute(statement)
                    db.execute(f"PRAGMA application_id = {_APPLICATION}")
                    db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Let go of files and connections."""
        with self._lock:
            self._db.close()
            self._nearest.clear()

    # -- spaces

    def add_space(self, identity: str, dim: int, about: Meta | None = None) -> None:
        """See :meth:`Index.add_space`."""
        with self._write() as db:
            known = db.execute("SELECT dim FROM spaces WHERE identity = ?", (identity,)).fetchone()
            if known is None:
                current = not db.execute("SELECT count(*) FROM spaces").fetchone()[0]
                db.execute(
                    "INSERT INTO spaces (identity, dim, about, current) VALUES (?, ?, ?, ?)",
                    (identity, dim, meta_text(about or {}), int(current)),
                )
            elif known[0] != dim:
                raise InputError(
                    f"the index has vectors of {known[0]} numbers for encoder {identity[:12]}…, not {dim}."
                )
            elif about is not None:
                db.execute(
                    "UPDATE spaces SET about = ? WHERE identity = ?", (meta_text(about), identity)
                )

    def use_space(self, identity: str, *, incomplete: bool = False) -> None:
        """See :meth:`Index.use_space`."""
        with self._write() as db:
            self._space(identity)
            lacking = 0 if incomplete else len(self.pending(identity))
            if lacking:
                raise InputError(
                    f"{lacking:,} items have no vector of encoder {identity[:12]}… yet; searches would not "
                    "find them. Finish the migration first."
                )
            db.execute("UPDATE spaces SET current = (identity = ?)", (identity,))

    def drop_space(self, identity: str) -> None:
        """See :meth:`Index.drop_space`."""
        with self._write() as db:
            number, _ = self._space(identity)
            if db.execute("SELECT current FROM spaces WHERE id = ?", (number,)).fetchone()[0]:
                raise InputError(
                    f"encoder {identity[:12]}… is the one that searches use; choose another first."
                )
            db.execute("DELETE FROM spaces WHERE id = ?", (number,))
            db.execute("DELETE FROM removed WHERE space = ?", (number,))
        self._forget_nearest(number)

    def _space(self, identity: str | None) -> tuple[int, int]:
        """Number and dim of a space; of the current one for None."""
        query = "SELECT id, dim FROM spaces WHERE coalesce(identity = ?, current)"
        row = self._db.execute(query, (identity,)).fetchone()
        if row is not None:
            return int(row[0]), int(row[1])
        known = [name[:12] + "…" for (name,) in self._db.execute("SELECT identity FROM spaces")]
        if identity is None:
            raise InputError("the index has no encoder yet; add one before items.")
        raise InputError(
            f"the index holds no vectors of encoder {identity[:12]}…, but of {', '.join(known) or 'none'}; "
            "vectors of different encoders must not be mixed. Use that encoder, or migrate the index: "
            "fieldmark index migrate."
        )

    # -- items

    def add(
        self,
        keys: Sequence[str],
        vectors: Vectors,
        *,
        metas: Sequence[Meta] | None = None,
        stamps: Sequence[Stamp | None] | None = None,
        identity: str | None = None,
    ) -> None:
        """See :meth:`Index.add`."""
        keys = check_keys(keys)
        same_length(keys, metas=metas, stamps=stamps)
        with self._write() as db:
            space, dim = self._space(identity)
            ready = check_vectors(vectors, len(keys), dim)
            there = self._ids(keys)
            if there:
                raise InputError(
                    f"the index has {next(iter(there))!r} already"
                    f"{f' and {len(there) - 1:,} more of these' if len(there) > 1 else ''}; update it, or "
                    "remove it first."
                )
            texts = [meta_text(meta) for meta in metas] if metas else ["{}"] * len(keys)
            files = list(stamps) if stamps else [None] * len(keys)
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
            first = int(row[0]) + 1 if row else 1
            numbers = range(first, first + len(keys))
            db.executemany(
                "INSERT INTO items (id, key, meta, version, size, modified_ns, sha256) "
                "VALUES (?, ?, ?, 1, ?, ?, ?)",
                (
                    (number, key, text, *(file or (None, None, None)))
                    for number, key, text, file in zip(numbers, keys, texts, files, strict=True)
                ),
            )
            self._put_vectors(db, space, numbers, ready)

    def _put_vectors(
        self,
        db: sqlite3.Connection,
        space: int,
        numbers: Iterable[int],
        vectors: Float[np.ndarray, "N D"],
    ) -> None:
        change = self._next_change(db)

        def rows() -> Iterator[tuple[int, int, bytes, int, int]]:
            for number, vector in zip(numbers, vectors, strict=True):
                data = vector.tobytes()
                yield number, space, data, checksum(data), change

        db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows())

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
        """See :meth:`Index.update`."""
        keys = check_keys(keys)
        same_length(keys, metas=metas, stamps=stamps)
        with self._write() as db:
            numbers = self._known(keys)
            sets = ["version = version + 1"]
            columns: list[list[tuple[Any, ...]]] = []
            if metas is not None:
                sets.append("meta = ?")
                columns.append([(meta_text(meta),) for meta in metas])
            if stamps is not None:
                self._forget_old_content(db, keys, numbers, stamps, identity)
                sets.append("size = ?, modified_ns = ?, sha256 = ?")
                columns.append([file or (None, None, None) for file in stamps])
            if missing is not None:
                sets.append("missing = ?")
                columns.append([(int(missing),)] * len(keys))
            rows = (
                (*(value for column in columns for value in column[place]), number)
                for place, number in enumerate(numbers)
            )
            if columns:
                # Vectors note their own change; whoever asks for marks must see these too.
                self._next_change(db)
                db.executemany(f"UPDATE items SET {', '.join(sets)} WHERE id = ?", rows)
            if vectors is not None:
                space, dim = self._space(identity)
                self._put_vectors(db, space, numbers, check_vectors(vectors, len(keys), dim))

    def _forget_old_content(
        self,
        db: sqlite3.Connection,
        keys: Sequence[str],
        numbers: Sequence[int],
        stamps: Sequence[Stamp | None],
        identity: str | None,
    ) -> None:
        """Vectors of what a photo showed before it was changed."""
        kept, _ = self._space(identity)
        known = dict(zip(keys, numbers, strict=True))
        changed = [known[key] for key in changed_content(self.get(keys), stamps)]
        if changed:
            self._note_removed(db, changed, except_space=kept)
            db.executemany(
                "DELETE FROM vectors WHERE item = ? AND space != ?",
                ((number, kept) for number in changed),
            )

    def remove(self, keys: Sequence[str]) -> int:
        """See :meth:`Index.remove`."""
        with self._write() as db:
            numbers = list(self._ids(dict.fromkeys(keys)).values())
            if numbers:
                self._note_removed(db, numbers)
                db.executemany("DELETE FROM items WHERE id = ?", ((n,) for n in numbers))
            return len(numbers)

    def _note_removed(
        self, db: sqlite3.Connection, numbers: Sequence[int], except_space: int = -1
    ) -> None:
        change = self._next_change(db)
        spaces = [n for (n,) in db.execute("SELECT id FROM spaces") if n != except_space]
        db.executemany(
            "INSERT INTO removed VALUES (?, ?, ?)",
            ((space, number, change) for space in spaces for number in numbers),
        )

    def get(self, keys: Sequence[str]) -> list[Item]:
        """See :meth:`Index.get`."""
        found: dict[str, Item] = {}
        with self._read() as db:
            for part in _parts(list(keys)):
                marks = ", ".join("?" * len(part))
                for row in db.execute(f"SELECT {_ITEM} FROM items WHERE key IN ({marks})", part):
                    found[row[0]] = _item(row)
        absent = [key for key in keys if key not in found]
        if absent:
            raise absent_items(absent)
        return [found[key] for key in keys]

    def items(self, where: str | Where | None = None) -> Iterator[Item]:
        """See :meth:`Index.items`."""
        chosen = as_filter(where)
        holds, values = ("1", []) if chosen is None else condition(chosen, SQLITE)
        last = ""
        while True:
            with self._read() as db:
                rows = db.execute(
                    f"SELECT {_ITEM} FROM items WHERE key > ? AND {holds} ORDER BY key LIMIT 1000",
                    (last, *values),
                ).fetchall()
            if not rows:
                return
            if not all(a[0] < b[0] for a, b in pairwise([(last,), *rows])):
                raise _damaged(self._file, "its items are out of order")
            yield from map(_item, rows)
            last = rows[-1][0]

    def vectors(
        self, keys: Sequence[str], *, identity: str | None = None
    ) -> Float[np.ndarray, "N D"]:
        """See :meth:`Index.vectors`."""
        found: dict[str, bytes] = {}
        with self._read() as db:
            space, dim = self._space(identity)
            for part in _parts(list(keys)):
                marks = ", ".join("?" * len(part))
                rows = db.execute(
                    "SELECT items.key, vectors.vector, vectors.crc FROM items JOIN vectors "
                    f"ON vectors.item = items.id AND vectors.space = ? WHERE items.key IN ({marks})",
                    (space, *part),
                )
                for key, data, crc in rows:
                    found[key] = _sound(key, data, crc, dim)
        absent = [key for key in keys if key not in found]
        if absent:
            self.get(absent)
            raise InputError(
                f"{absent[0]!r} has no vector of this encoder yet; finish the migration first."
            )
        data = b"".join(found[key] for key in keys)
        return np.frombuffer(data, np.float32).reshape(len(keys), dim).copy()

    def stamps(self) -> dict[str, tuple[int, int, bool]]:
        """See :meth:`Index.stamps`."""
        with self._read() as db:
            rows = db.execute(
                "SELECT key, size, modified_ns, missing FROM items WHERE size IS NOT NULL"
            )
            return {key: (size, changed, bool(missing)) for key, size, changed, missing in rows}

    def pending(self, identity: str) -> list[str]:
        """See :meth:`Index.pending`."""
        with self._read() as db:
            space, _ = self._space(identity)
            # Counted along an index: looking for each vector reads the pages that vectors lie in.
            (lacking,) = db.execute(
                "SELECT (SELECT count(*) FROM items) - (SELECT count(*) FROM vectors "
                "INDEXED BY vectors_change WHERE space = ?)",
                (space,),
            ).fetchone()
            if not lacking:
                return []
            rows = db.execute(
                "SELECT key FROM items WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE "
                "vectors.item = items.id AND vectors.space = ?) ORDER BY key",
                (space,),
            )
            return [key for (key,) in rows]

    # -- labels

    def set_labels(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str = "",
        expected: Mapping[str, int] | None = None,
    ) -> dict[str, int]:
        """See :meth:`Index.set_labels`."""
        for label in labels.values():
            check_label(label)
        keys = list(labels)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._write() as db:
            numbers = self._known(keys)
            before = {item.key: item for item in self.get(keys)}
            changed = [key for key in keys if (expected or {}).get(key, 0) != before[key].version]
            if expected is not None and (late := [key for key in changed if key in expected]):
                raise conflict(late)
            changing = [
                (key, number)
                for key, number in zip(keys, numbers, strict=True)
                if labels[key] != before[key].label
            ]
            db.executemany(
                "UPDATE items SET label = ?, version = version + 1 WHERE id = ?",
                ((labels[key], number) for key, number in changing),
            )
            db.executemany(
                "INSERT INTO label_changes (key, before, after, by, at) VALUES (?, ?, ?, ?, ?)",
                ((key, before[key].label, labels[key], by, now) for key, _ in changing),
            )
            grown = {key for key, _ in changing}
            return {key: before[key].version + (key in grown) for key in keys}

    def history(
        self, key: str | None = None, *, since: int = 0, limit: int | None = None
    ) -> list[LabelChange]:
        """See :meth:`Index.history`."""
        where, told = ("", ()) if key is None else ("AND key = ?", (key,))
        with self._read() as db:
            rows = db.execute(
                "SELECT number, key, before, after, by, at FROM label_changes WHERE number > ? "
                f"{where} ORDER BY number LIMIT ?",
                (since, *told, -1 if limit is None else limit),
            )
            return [LabelChange(*row) for row in rows]

    def marks(self) -> Marks:
        """See :meth:`Index.marks`."""
        with self._read() as db:
            number, token = self._last_change(db)
            used = db.execute("SELECT id FROM spaces WHERE current").fetchone()
            (last,) = db.execute("SELECT coalesce(max(number), 0) FROM label_changes").fetchone()
        return Marks(f"{used[0] if used else 0}.{number}.{token}", int(last))

    # -- neighbours

    def search(
        self,
        vectors: Vectors,
        k: int = 10,
        *,
        where: str | Where | None = None,
        identity: str | None = None,
    ) -> list[list[Hit]]:
        """See :meth:`Index.search`."""
        if k < 1:
            raise InputError(f"k must be 1 or more, got {k}.")
        chosen = as_filter(where)
        with self._read() as db:
            space, dim = self._space(identity)
            queries = check_vectors(vectors, None, dim)
            nearest = self._fresh(db, space, dim)
            among = None if chosen is None else self._chosen(db, chosen)
            found = nearest.search(queries, max(1, min(k, len(nearest))), among=among)
            rows = [ids[ids >= 0].tolist() for ids in found.ids]
            items: dict[int, Item] = {}
            for part in _parts(list({number for ids in rows for number in ids})):
                marks = ", ".join("?" * len(part))
                told = db.execute(
                    f"SELECT items.id, {_ITEM} FROM items WHERE id IN ({marks})", part
                )
                items.update((row[0], _item(row[1:])) for row in told)
        return [
            sorted(
                (
                    Hit(items[number].key, finite(score), items[number])
                    for number, score in zip(ids, scores.tolist(), strict=False)
                    if number in items
                ),
                key=lambda hit: (-hit.score, hit.key),
            )
            for ids, scores in zip(rows, found.scores, strict=True)
        ]

    def _chosen(self, db: sqlite3.Connection, where: Where) -> Int[np.ndarray, " N"]:
        holds, values = condition(where, SQLITE)
        rows = db.execute(f"SELECT id FROM items WHERE {holds}", values)
        return np.fromiter((number for (number,) in rows), np.int64)

    def _fresh(self, db: sqlite3.Connection, space: int, dim: int) -> Nearest:
        """Neighbours that know of every change, from memory, else from the file, else made anew."""
        last, token = self._last_change(db)
        known = self._nearest.get(space)
        if known is None and (kept := Nearest.load(self._place(space))) is not None:
            mark = self._past(db, space, kept[1])
            known = None if mark is None else (kept[0], *mark)
        if known is not None and known[1:] == (last, token):
            self._nearest[space] = known
            return known[0]
        if known is not None and self._happened(db, *known[1:]) and not known[0].outgrown:
            self._catch_up(db, known[0], space, dim, known[1])
            if not known[0].outgrown:
                self._nearest[space] = known[0], last, token
                return known[0]
        nearest = self._build(db, space, dim)
        self._nearest[space] = nearest, last, token
        if len(nearest) >= _SAVED_FROM:
            # A full or read-only disk costs the next process some seconds, no more.
            with contextlib.suppress(InputError, StorageError):
                nearest.save(self._place(space), {"space": space, "change": last, "token": token})
        return nearest

    @staticmethod
    def _last_change(db: sqlite3.Connection) -> tuple[int, str]:
        row = db.execute(
            "SELECT number, token FROM changes ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def _past(
        self, db: sqlite3.Connection, space: int, mark: Mapping[str, Any]
    ) -> tuple[int, str] | None:
        """The change up to which a file of neighbours knows this space, if it is this database's."""
        number, token = mark.get("change"), mark.get("token")
        if mark.get("space") != space or not isinstance(number, int) or not isinstance(token, str):
            return None
        return (number, token) if self._happened(db, number, token) else None

    @staticmethod
    def _happened(db: sqlite3.Connection, number: int, token: str) -> bool:
        """Whether a change is of this database's own past: a restored backup has another one."""
        query = "SELECT 1 FROM changes WHERE number = ? AND token = ?"
        return db.execute(query, (number, token)).fetchone() is not None

    def _build(self, db: sqlite3.Connection, space: int, dim: int) -> Nearest:
        count = db.execute("SELECT count(*) FROM vectors WHERE space = ?", (space,)).fetchone()[0]
        ids = np.empty(count, np.int64)
        matrix = np.empty((count, dim), np.float32)
        rows = db.execute("SELECT item, vector, crc FROM vectors WHERE space = ?", (space,))
        read = -1
        for read, (number, data, crc) in enumerate(islice(rows, count + 1)):
            if read < count:
                ids[read] = number
                matrix[read] = np.frombuffer(_sound(number, data, crc, dim), np.float32)
        if read != count - 1:
            raise _damaged(self._file, "its vectors are not as many as it says")
        return Nearest.build(ids, matrix, exact_up_to=self._exact_up_to)

    def _catch_up(
        self, db: sqlite3.Connection, nearest: Nearest, space: int, dim: int, change: int
    ) -> None:
        rows = db.execute(
            "SELECT item, vector, crc FROM vectors WHERE space = ? AND change > ?", (space, change)
        ).fetchall()
        gone = db.execute(
            "SELECT item FROM removed WHERE space = ? AND change > ?", (space, change)
        ).fetchall()
        ids = np.array([row[0] for row in rows], np.int64)
        nearest.remove(np.concatenate([ids, np.array([n for (n,) in gone], np.int64)]))
        if rows:
            data = b"".join(_sound(number, vector, crc, dim) for number, vector, crc in rows)
            nearest.add(ids, np.frombuffer(data, np.float32).reshape(len(rows), dim))

    def _place(self, space: int) -> Path:
        return self.folder / f"nearest-{space}"

    # -- upkeep

    def stats(self) -> Stats:
        """See :meth:`Index.stats`."""
        with self._read() as db:
            items, missing, labelled = db.execute(
                "SELECT count(*), coalesce(sum(missing), 0), count(label) FROM items"
            ).fetchone()
            rows = db.execute(
                "SELECT identity, dim, about, current, (SELECT count(*) FROM vectors WHERE "
                "vectors.space = spaces.id), id FROM spaces ORDER BY id"
            ).fetchall()
            search: dict[str, Any] = {}
            for row in rows:
                if row[3]:
                    search = self._search_settings(db, row[5], row[1], row[4])
        return Stats(
            self.engine,
            items,
            missing,
            labelled,
            tuple(Space(row[0], row[1], json.loads(row[2]), row[4]) for row in rows),
            next((row[0] for row in rows if row[3]), None),
            search,
        )

    def _search_settings(
        self, db: sqlite3.Connection, space: int, dim: int, count: int
    ) -> dict[str, Any]:
        """How neighbours are found, without the vectors where that is known anyway."""
        if space not in self._nearest:
            told = Nearest.settings_of(self._place(space))
            ours = told is not None and self._past(db, space, told[1]) is not None
            if told is not None and ours and not outgrown(told[0], count):
                return told[0]
            if not ours and count <= self._exact_up_to:
                return {"kind": "exact"}
        return dict(self._fresh(db, space, dim).settings)

    def verify(self) -> list[str]:
        """See :meth:`Index.verify`."""
        wrong: list[str] = []
        try:
            with self._read() as db:
                told = [row[0] for row in db.execute("PRAGMA integrity_check(20)")]
                wrong += [f"SQLite: {text}" for text in told if text != "ok"]
                for row in db.execute("PRAGMA foreign_key_check"):
                    wrong.append(f"SQLite: a row of {row[0]} belongs to nothing")
                rows = db.execute(
                    "SELECT items.key, vectors.vector, vectors.crc, spaces.dim, spaces.identity FROM vectors "
                    "JOIN items ON items.id = vectors.item JOIN spaces ON spaces.id = vectors.space"
                )
                for key, data, crc, dim, identity in rows:
                    try:
                        vector = np.frombuffer(_sound(key, data, crc, dim), np.float32)
                        check_vectors(vector[None], 1, dim)
                    except (ArtifactError, InputError):
                        wrong.append(
                            f"{key}: its vector of encoder {identity[:12]}… is damaged; embed the photo again"
                        )
                for row in db.execute(f"SELECT {_ITEM} FROM items"):
                    try:
                        _item(row)
                    except (ArtifactError, ValueError):
                        wrong.append(f"{row[0]}: its metadata, label or version is damaged")
        except (ArtifactError, StorageError) as error:
            wrong.append(str(error))
        return wrong

    def compact(self) -> None:
        """See :meth:`Index.compact`."""
        with self._write() as db:
            db.execute("DELETE FROM removed")
            # Whoever knows only of earlier changes must read everything anew.
            db.execute("DELETE FROM changes WHERE number < (SELECT max(number) FROM changes)")
        with self._lock, sqlite_faults(self._file, _damaged):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._nearest.clear()
        with self._read() as db:
            for number, dim in db.execute("SELECT id, dim FROM spaces").fetchall():
                self._forget_nearest(number)
                self._fresh(db, number, dim)

    def _forget_nearest(self, space: int) -> None:
        self._nearest.pop(space, None)
        for suffix in (".faiss", ".json"):
            self._place(space).with_suffix(suffix).unlink(missing_ok=True)

    def back_up(self, folder: Path) -> None:
        """Copy the index as it is now, while others go on using it.

        Args:
            folder: A new one.
        """
        storage.make_folder(folder)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; give a new folder.")
        aside = folder / f".{FILE}.partial"
        with self._read() as db, sqlite_faults(aside, _damaged):
            copy = sqlite3.connect(aside)
            with contextlib.closing(copy):
                db.backup(copy)
            storage.sync_file(aside)
            shutil.move(aside, folder / FILE)
            storage.sync_folder(folder)

    # -- the database

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """One state of the index for the whole block, whatever others write meanwhile."""
        with self._lock, sqlite_faults(self._file, _damaged):
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_faults(self._file, _damaged), _transaction(self._db):
            yield self._db

    @staticmethod
    def _next_change(db: sqlite3.Connection) -> int:
        token = secrets.token_hex(8)
        return int(db.execute("INSERT INTO changes (token) VALUES (?)", (token,)).lastrowid or 0)

    def _ids(self, keys: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in _parts(list(keys)):
            marks = ", ".join("?" * len(part))
            found.update(
                self._db.execute(f"SELECT key, id FROM items WHERE key IN ({marks})", part)
            )
        return found

    def _known(self, keys: Sequence[str]) -> list[int]:
        numbers = self._ids(keys)
        absent = [key for key in keys if key not in numbers]
        if absent:
            raise absent_items(absent)
        return [numbers[key] for key in keys]


def _item(row: Sequence[Any]) -> Item:
    key, meta, label, version, size, modified, digest, missing = row
    stamp = None if size is None else Stamp(size, modified, digest)
    told = json.loads(meta) if isinstance(meta, str) else None
    # SQLite gives whatever kind of value a damaged row says it has.
    named = label is None or isinstance(label, str)
    if isinstance(told, dict) and isinstance(version, int) and named:
        return Item(key, told, label, version, stamp, bool(missing))
    raise ArtifactError(
        f"the item {key!r} is damaged on the disk; remove it and add it again, or take a backup."
    )


def _sound(key: object, data: object, crc: object, dim: int) -> bytes:
    if not isinstance(data, bytes) or len(data) != 4 * dim or checksum(data) != crc:
        raise ArtifactError(
            f"the vector of {key!r} is damaged on the disk; remove the item and add it again, or take a "
            "backup. fieldmark index verify lists all that are."
        )
    return data


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(values), _CHUNK):
        yield values[begin : begin + _CHUNK]


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, durable when it ends; the outer one's where it is nested."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has already taken it back where the disk is full or fails.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _damaged(file: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{file} is damaged or no index: {why}; take a backup, or make the index anew."
    )
