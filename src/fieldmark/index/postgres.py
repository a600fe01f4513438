"""The server engine: PostgreSQL with pgvector, for several machines at once.

The same tables as the embedded engine's, in a schema of their own; vectors of each encoder in a table of
their own, because pgvector's columns have a length. Exact search compares all; HNSW, made by ``compact`` for
large indexes, looks as far as the index's own vectors need for the recall that is promised.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Float

from fieldmark.errors import ArtifactError, BusyError, InputError, MissingExtraError, StorageError
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
from fieldmark.index.nearest import EXACT_UP_TO, RECALL
from fieldmark.index.sql import POSTGRES, condition
from fieldmark.index.where import Where

_VERSION = 1
_TUNED_AT, _TUNED_ON = 10, 200
_WIDEST = 2000
"""Numbers of a vector, at most, that pgvector's HNSW takes."""
_SCHEMA = """
CREATE TABLE format (version integer NOT NULL);
INSERT INTO format VALUES (1);
CREATE TABLE items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    meta jsonb NOT NULL,
    label text COLLATE "C",
    version integer NOT NULL DEFAULT 1,
    size bigint, modified_ns bigint, sha256 text,
    missing boolean NOT NULL DEFAULT false
);
CREATE INDEX items_label ON items (label);
CREATE TABLE spaces (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity text NOT NULL UNIQUE, dim integer NOT NULL, about jsonb NOT NULL,
    current boolean NOT NULL, search jsonb NOT NULL DEFAULT '{"kind": "exact"}'
);
CREATE TABLE label_changes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL, before text, after text, by text NOT NULL, at text NOT NULL
);
CREATE INDEX label_changes_key ON label_changes (key);
"""
_CHANGES = """
CREATE TABLE IF NOT EXISTS {schema}.changes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
)
"""
"""Younger than the rest of the schema: made also where an index is there already."""
_ITEM = (
    "items.key, items.meta, items.label, items.version, items.size, items.modified_ns, "
    "items.sha256, items.missing"
)


class PostgresIndex(Index):
    """An index in a PostgreSQL database with the extension ``vector``.

    Args:
        url: As libpq takes it, ``postgresql://user@host/database``.
        name: Schema that holds it; several indexes may share a database.
        create: Make it where there is none.
        exact_up_to: Items up to which :meth:`compact` makes no HNSW.

    Raises:
        ArtifactError: No server, no index there, or one of a newer fieldmark.
        InputError: The server lacks pgvector.
        MissingExtraError: ``fieldmark[postgres]`` is not installed.
    """

    engine = "postgres"

    def __init__(
        self,
        url: str,
        *,
        name: str = "fieldmark",
        create: bool = False,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        try:
            import psycopg
            from pgvector.psycopg import register_vector
        except ImportError:
            raise MissingExtraError("psycopg", "postgres", "for an index in PostgreSQL") from None
        if not name.isidentifier() or not name.isascii():
            raise InputError(f"{name!r} is no name of an index; use letters, digits and _.")
        self._psycopg, self._name, self._exact_up_to = psycopg, name, exact_up_to
        self._lock = threading.RLock()
        try:
            with self._errors():
                self._db = psycopg.connect(url, autocommit=True, connect_timeout=10)
        except StorageError:
            # The library's words about a URL that it cannot read hold pieces of it: the password, maybe.
            raise InputError(
                "the server's URL cannot be read; it looks like postgresql://user@host:5432/database."
            ) from None
        try:
            self._prepare(create)
            register_vector(self._db)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, create: bool) -> None:
        with self._errors(), self._db.transaction(), self._db.cursor() as db:
            # Two that begin at once must not both make the tables.
            db.execute("SELECT pg_advisory_xact_lock(%s)", (0x464D4958,))
            if create:
                try:
                    with self._db.transaction():
                        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
                except self._psycopg.Error as error:
                    raise InputError(
                        f"the server has no extension 'vector' ({str(error).splitlines()[0]}); install "
                        "pgvector there, then CREATE EXTENSION vector."
                    ) from None
            db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self._name,))
            there = db.fetchone() is not None
            if not there and not create:
                raise ArtifactError(f"the database has no index '{self._name}'.")
            if not there:
                db.execute(f"CREATE SCHEMA {self._name}")
            db.execute("SELECT set_config('search_path', %s, false)", (f"{self._name}, public",))
            if not there:
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        db.execute(statement)
            db.execute("SELECT to_regclass(%s)", (f"{self._name}.changes",))
            if self._one(db)[0] is None:
                db.execute(_CHANGES.format(schema=self._name))
            db.execute("SELECT version FROM format")
            version = self._one(db)[0]
            if version > _VERSION:
                raise ArtifactError(
                    f"the index '{self._name}' was written by a newer fieldmark (format {version}, this one "
                    f"reads up to {_VERSION}); update fieldmark."
                )

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep others off adding photos for a block; the server lets go when the connection ends.

        Raises:
            BusyError: Another process adds photos to this index.
        """
        key = f"fieldmark {self._name} adding"
        with self._lock, self._errors():
            row = self._db.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)
            ).fetchone()
        if not (row and row[0]):
            raise BusyError(
                f"another process is adding photos to the index '{self._name}'; wait for it, or stop it."
            )
        try:
            yield
        finally:
            # A connection that went away holds nothing any more.
            with contextlib.suppress(self._psycopg.Error):
                self._db.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (key,))

    # -- spaces

    def add_space(self, identity: str, dim: int, about: Meta | None = None) -> None:
        """See :meth:`Index.add_space`."""
        with self._write() as db:
            db.execute("LOCK TABLE spaces IN EXCLUSIVE MODE")
            db.execute("SELECT dim FROM spaces WHERE identity = %s", (identity,))
            known = db.fetchone()
            if known is None:
                db.execute(
                    "INSERT INTO spaces (identity, dim, about, current) VALUES (%s, %s, %s, "
                    "NOT EXISTS (SELECT 1 FROM spaces)) RETURNING id",
                    (identity, dim, meta_text(about or {})),
                )
                number = self._one(db)[0]
                db.execute(
                    f"CREATE TABLE vectors_{number} (item bigint PRIMARY KEY REFERENCES items (id) "
                    f"ON DELETE CASCADE, vector vector({int(dim)}) NOT NULL, crc bigint NOT NULL)"
                )
            elif known[0] != dim:
                raise InputError(
                    f"the index has vectors of {known[0]} numbers for encoder {identity[:12]}…, not {dim}."
                )
            elif about is not None:
                db.execute(
                    "UPDATE spaces SET about = %s WHERE identity = %s", (meta_text(about), identity)
                )

    def use_space(self, identity: str, *, incomplete: bool = False) -> None:
        """See :meth:`Index.use_space`."""
        with self._write() as db:
            self._space(db, identity)
            lacking = 0 if incomplete else len(self.pending(identity))
            if lacking:
                raise InputError(
                    f"{lacking:,} items have no vector of encoder {identity[:12]}… yet; searches would not "
                    "find them. Finish the migration first."
                )
            db.execute("UPDATE spaces SET current = (identity = %s)", (identity,))

    def drop_space(self, identity: str) -> None:
        """See :meth:`Index.drop_space`."""
        with self._write() as db:
            number, _ = self._space(db, identity)
            db.execute("SELECT current FROM spaces WHERE id = %s", (number,))
            if self._one(db)[0]:
                raise InputError(
                    f"encoder {identity[:12]}… is the one that searches use; choose another first."
                )
            db.execute("DELETE FROM spaces WHERE id = %s", (number,))
            db.execute(f"DROP TABLE vectors_{number}")

    def _space(self, db: Any, identity: str | None) -> tuple[int, int]:
        """Number and dim of a space; of the current one for None."""
        db.execute(
            "SELECT id, dim FROM spaces WHERE coalesce(identity = %s::text, current)", (identity,)
        )
        row = db.fetchone()
        if row is not None:
            return int(row[0]), int(row[1])
        if identity is None:
            raise InputError("the index has no encoder yet; add one before items.")
        db.execute("SELECT identity FROM spaces")
        known = ", ".join(name[:12] + "…" for (name,) in db.fetchall())
        raise InputError(
            f"the index holds no vectors of encoder {identity[:12]}…, but of {known or 'none'}; vectors of "
            "different encoders must not be mixed. Use that encoder, or migrate the index: fieldmark index "
            "migrate."
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
            space, dim = self._space(db, identity)
            ready = check_vectors(vectors, len(keys), dim)
            texts = [meta_text(meta) for meta in metas] if metas else ["{}"] * len(keys)
            files: list[Any] = list(stamps) if stamps else [None] * len(keys)
            columns = list(zip(*(file or (None, None, None) for file in files), strict=True))
            db.execute(
                "INSERT INTO items (key, meta, size, modified_ns, sha256) SELECT * FROM unnest("
                "%s::text[], %s::jsonb[], %s::bigint[], %s::bigint[], %s::text[]) "
                "ON CONFLICT (key) DO NOTHING RETURNING key, id",
                (keys, texts, *([list(column) for column in columns] or [[], [], []])),
            )
            numbers = dict(db.fetchall())
            there = [key for key in keys if key not in numbers]
            if there:
                more = f" and {len(there) - 1:,} more of these" if len(there) > 1 else ""
                raise InputError(
                    f"the index has {there[0]!r} already{more}; update it, or remove it first."
                )
            self._put_vectors(db, space, [numbers[key] for key in keys], ready)
            self._note_change(db)

    @staticmethod
    def _note_change(db: Any) -> None:
        db.execute("INSERT INTO changes DEFAULT VALUES")

    @staticmethod
    def _put_vectors(
        db: Any, space: int, numbers: Sequence[int], vectors: Float[np.ndarray, "N D"]
    ) -> None:
        db.execute(f"DELETE FROM vectors_{space} WHERE item = ANY(%s)", (list(numbers),))
        with db.copy(
            f"COPY vectors_{space} (item, vector, crc) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.set_types(["int8", "vector", "int8"])
            for number, vector in zip(numbers, vectors, strict=True):
                copy.write_row((number, vector, checksum(vector.tobytes())))

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
            numbers = self._known(db, keys)
            self._note_change(db)
            if stamps is not None:
                self._forget_old_content(db, keys, numbers, stamps, identity)
                columns = list(zip(*(file or (None,) * 3 for file in stamps), strict=True))
                db.execute(
                    "UPDATE items SET size = new.size, modified_ns = new.modified_ns, sha256 = new.sha256 "
                    "FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[]) "
                    "AS new (id, size, modified_ns, sha256) WHERE items.id = new.id",
                    (numbers, *([list(column) for column in columns] or [[], [], []])),
                )
            if metas is not None:
                db.execute(
                    "UPDATE items SET meta = new.meta FROM unnest(%s::bigint[], %s::jsonb[]) "
                    "AS new (id, meta) WHERE items.id = new.id",
                    (numbers, [meta_text(meta) for meta in metas]),
                )
            if missing is not None:
                db.execute("UPDATE items SET missing = %s WHERE id = ANY(%s)", (missing, numbers))
            if stamps is not None or metas is not None or missing is not None:
                db.execute("UPDATE items SET version = version + 1 WHERE id = ANY(%s)", (numbers,))
            if vectors is not None:
                space, dim = self._space(db, identity)
                self._put_vectors(db, space, numbers, check_vectors(vectors, len(keys), dim))

    def _forget_old_content(
        self,
        db: Any,
        keys: Sequence[str],
        numbers: Sequence[int],
        stamps: Sequence[Stamp | None],
        identity: str | None,
    ) -> None:
        """Vectors of what a photo showed before it was changed."""
        kept, _ = self._space(db, identity)
        known = dict(zip(keys, numbers, strict=True))
        changed = [known[key] for key in changed_content(self.get(keys), stamps)]
        if changed:
            db.execute("SELECT id FROM spaces WHERE id != %s", (kept,))
            for (space,) in db.fetchall():
                db.execute(f"DELETE FROM vectors_{space} WHERE item = ANY(%s)", (changed,))

    def remove(self, keys: Sequence[str]) -> int:
        """See :meth:`Index.remove`."""
        with self._write() as db:
            db.execute("DELETE FROM items WHERE key = ANY(%s)", (_texts(keys),))
            removed = int(db.rowcount)
            self._note_change(db)
            return removed

    def get(self, keys: Sequence[str]) -> list[Item]:
        """See :meth:`Index.get`."""
        with self._read() as db:
            db.execute(f"SELECT {_ITEM} FROM items WHERE key = ANY(%s)", (_texts(keys),))
            found = {row[0]: _item(row) for row in db.fetchall()}
        absent = [key for key in keys if key not in found]
        if absent:
            raise absent_items(absent)
        return [found[key] for key in keys]

    def items(self, where: str | Where | None = None) -> Iterator[Item]:
        """See :meth:`Index.items`."""
        chosen = as_filter(where)
        holds, values = ("true", []) if chosen is None else condition(chosen, POSTGRES)
        last = ""
        while True:
            with self._read() as db:
                db.execute(
                    f"SELECT {_ITEM} FROM items WHERE key > %s AND {holds} ORDER BY key LIMIT 1000",
                    (last, *values),
                )
                rows = db.fetchall()
            if not rows:
                return
            yield from map(_item, rows)
            last = rows[-1][0]

    def vectors(
        self, keys: Sequence[str], *, identity: str | None = None
    ) -> Float[np.ndarray, "N D"]:
        """See :meth:`Index.vectors`."""
        with self._read() as db:
            space, dim = self._space(db, identity)
            db.execute(
                f"SELECT items.key, vector, crc FROM items JOIN vectors_{space} ON item = items.id "
                "WHERE items.key = ANY(%s)",
                (_texts(keys),),
            )
            found = {key: _sound(key, vector, crc) for key, vector, crc in db.fetchall()}
        absent = [key for key in keys if key not in found]
        if absent:
            self.get(absent)
            raise InputError(
                f"{absent[0]!r} has no vector of this encoder yet; finish the migration first."
            )
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, dim), np.float32)

    def stamps(self) -> dict[str, tuple[int, int, bool]]:
        """See :meth:`Index.stamps`."""
        with self._read() as db:
            db.execute("SELECT key, size, modified_ns, missing FROM items WHERE size IS NOT NULL")
            return {key: (size, changed, missing) for key, size, changed, missing in db.fetchall()}

    def pending(self, identity: str) -> list[str]:
        """See :meth:`Index.pending`."""
        with self._read() as db:
            space, _ = self._space(db, identity)
            db.execute(
                f"SELECT key FROM items WHERE NOT EXISTS (SELECT 1 FROM vectors_{space} WHERE item = "
                "items.id) ORDER BY key"
            )
            return [key for (key,) in db.fetchall()]

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
            db.execute(
                "SELECT key, label, version FROM items WHERE key = ANY(%s) ORDER BY key FOR UPDATE",
                (_texts(keys),),
            )
            before = {key: (label, version) for key, label, version in db.fetchall()}
            absent = [key for key in keys if key not in before]
            if absent:
                raise absent_items(absent)
            late = [
                key for key in keys if (expected or {}).get(key, before[key][1]) != before[key][1]
            ]
            if late:
                raise conflict(late)
            changing = [key for key in keys if labels[key] != before[key][0]]
            # Numbers of the history become visible in their order: who reads on from one misses none.
            db.execute("LOCK TABLE label_changes IN SHARE ROW EXCLUSIVE MODE")
            db.execute(
                "UPDATE items SET label = new.label, version = version + 1 FROM unnest(%s::text[], "
                "%s::text[]) AS new (key, label) WHERE items.key = new.key",
                (changing, [labels[key] for key in changing]),
            )
            db.execute(
                "INSERT INTO label_changes (key, before, after, by, at) SELECT key, before, after, %s, %s "
                "FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY "
                "AS new (key, before, after, place) ORDER BY place",
                (
                    by,
                    now,
                    changing,
                    [before[key][0] for key in changing],
                    [labels[key] for key in changing],
                ),
            )
            grown = set(changing)
            return {key: before[key][1] + (key in grown) for key in keys}

    def history(
        self, key: str | None = None, *, since: int = 0, limit: int | None = None
    ) -> list[LabelChange]:
        """See :meth:`Index.history`."""
        with self._read() as db:
            db.execute(
                "SELECT number, key, before, after, by, at FROM label_changes WHERE number > %s "
                "AND coalesce(key = %s::text, true) ORDER BY number LIMIT %s",
                (since, key, limit),
            )
            return [LabelChange(*row) for row in db.fetchall()]

    def marks(self) -> Marks:
        """See :meth:`Index.marks`."""
        with self._read() as db:
            db.execute("SELECT coalesce(max(id), 0) FROM spaces WHERE current")
            used = self._one(db)[0]
            # Numbers may become visible out of order, so that the largest alone would not tell.
            db.execute("SELECT count(*), coalesce(max(number), 0) FROM changes")
            count, number = self._one(db)
            db.execute("SELECT coalesce(max(number), 0) FROM label_changes")
            return Marks(f"{used}.{count}.{number}", int(self._one(db)[0]))

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
        with self._write() as db:  # settings below are of this transaction
            space, dim = self._space(db, identity)
            queries = check_vectors(vectors, None, dim)
            db.execute("SELECT search FROM spaces WHERE id = %s", (space,))
            settings = self._one(db)[0]
            return [self._nearest(db, space, query, k, chosen, settings) for query in queries]

    def _nearest(
        self,
        db: Any,
        space: int,
        query: Float[np.ndarray, " D"],
        k: int,
        where: Where | None,
        settings: dict[str, Any],
    ) -> list[Hit]:
        holds, values = ("true", []) if where is None else condition(where, POSTGRES)
        looks = settings.get("looks", 0)
        # HNSW gives at most as many as it looks at, and filters only afterwards.
        exact = where is not None or k > looks
        db.execute(f"SET LOCAL enable_indexscan = {'off' if exact else 'on'}")
        if not exact:
            db.execute(f"SET LOCAL hnsw.ef_search = {int(looks)}")
        # All items are joined only where a filter asks for them.
        join = "" if where is None else f"JOIN items ON items.id = item WHERE {holds}"
        db.execute(
            f"SELECT {_ITEM}, -near.far FROM (SELECT item, vector <#> %s AS far FROM vectors_{space} {join} "
            "ORDER BY vector <#> %s LIMIT %s) AS near JOIN items ON items.id = near.item",
            (query, *values, query, k),
        )
        hits = [Hit(row[0], finite(float(row[8])), _item(row[:8])) for row in db.fetchall()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.key))

    # -- upkeep

    def stats(self) -> Stats:
        """See :meth:`Index.stats`."""
        with self._read() as db:
            db.execute("SELECT count(*), count(*) FILTER (WHERE missing), count(label) FROM items")
            items, missing, labelled = self._one(db)
            db.execute("SELECT identity, dim, about, id, current, search FROM spaces ORDER BY id")
            rows = db.fetchall()
            spaces = []
            for identity, dim, about, number, *_ in rows:
                db.execute(f"SELECT count(*) FROM vectors_{number}")
                spaces.append(Space(identity, dim, about, self._one(db)[0]))
        current = next((row for row in rows if row[4]), None)
        return Stats(
            self.engine,
            items,
            missing,
            labelled,
            tuple(spaces),
            None if current is None else current[0],
            {} if current is None else dict(current[5]),
        )

    def verify(self) -> list[str]:
        """See :meth:`Index.verify`."""
        wrong: list[str] = []
        with self._read() as db:
            db.execute("SELECT id, dim, identity FROM spaces")
            for number, dim, identity in db.fetchall():
                with self._db.transaction(), self._db.cursor(name="verify") as rows:
                    rows.execute(
                        f"SELECT key, vector, crc FROM vectors_{number} JOIN items ON items.id = item"
                    )
                    for key, vector, crc in rows:
                        try:
                            check_vectors(_sound(key, vector, crc)[None], 1, dim)
                        except (ArtifactError, InputError):
                            wrong.append(
                                f"{key}: its vector of encoder {identity[:12]}… is damaged; embed the "
                                "photo again"
                            )
        return wrong

    def compact(self) -> None:
        """See :meth:`Index.compact`."""
        with self._lock, self._errors():
            rows = self._db.execute("SELECT id, dim FROM spaces").fetchall()
            for number, dim in rows:
                self._db.execute(f"VACUUM ANALYZE vectors_{number}")
                with self._db.transaction(), self._db.cursor() as db:
                    db.execute(f"DROP INDEX IF EXISTS near_{number}")
                    db.execute(f"SELECT count(*) FROM vectors_{number}")
                    settings: dict[str, Any] = {"kind": "exact"}
                    if self._one(db)[0] > self._exact_up_to and dim <= _WIDEST:
                        settings = self._make_hnsw(db, number)
                    db.execute(
                        "UPDATE spaces SET search = %s WHERE id = %s",
                        (meta_text(settings), number),
                    )
            self._db.execute("DELETE FROM changes WHERE number < (SELECT max(number) FROM changes)")
            self._db.execute("VACUUM ANALYZE items")

    def _make_hnsw(self, db: Any, space: int) -> dict[str, Any]:
        """HNSW that looks as far as these vectors need."""
        db.execute(
            f"CREATE INDEX near_{space} ON vectors_{space} USING hnsw (vector vector_ip_ops) "
            "WITH (m = 16, ef_construction = 128)"
        )
        db.execute(
            f"SELECT key, vector FROM vectors_{space} JOIN items ON items.id = item "
            "ORDER BY hashint8(item) LIMIT %s",
            (_TUNED_ON,),
        )
        queries = [(key, vector.to_numpy()) for key, vector in db.fetchall()]

        def others(settings: dict[str, Any]) -> list[set[str]]:
            """Ten neighbours of each but itself, which any search finds."""
            return [
                {
                    hit.key
                    for hit in self._nearest(db, space, query, _TUNED_AT + 1, None, settings)
                    if hit.key != own
                }
                for own, query in queries
            ]

        truth = others({})
        looks = 2 * _TUNED_AT
        while True:
            settings = {"kind": "approximate", "looks": looks}
            found = others(settings)
            hits = [len(a & b) for a, b in zip(found, truth, strict=True)]
            recall = float(np.mean(hits)) / _TUNED_AT
            if recall >= RECALL or looks >= 1000:
                return {**settings, "recall": recall}
            looks = min(1000, 2 * looks)

    # -- the database

    @contextlib.contextmanager
    def _read(self) -> Iterator[Any]:
        """One state of the index for the whole block."""
        with self._lock, self._errors():
            nested = self._db.info.transaction_status.name != "IDLE"
            with self._db.transaction(), self._db.cursor() as db:
                if not nested:
                    db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield db

    @contextlib.contextmanager
    def _write(self) -> Iterator[Any]:
        with self._lock, self._errors(), self._db.transaction(), self._db.cursor() as db:
            yield db

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The server's errors as ours."""
        known = self._psycopg.errors
        try:
            yield
        except (known.DeadlockDetected, known.LockNotAvailable, known.SerializationFailure):
            raise BusyError("another process is changing the same items; try again.") from None
        except known.DiskFull as error:
            raise StorageError(f"the server's disk is full: {_first(error)}.") from None
        except known.UndefinedTable as error:
            raise ArtifactError(f"'{self._name}' is no index ({_first(error)}).") from None
        except self._psycopg.OperationalError as error:
            raise ArtifactError(
                f"the index's server cannot be reached or went away ({_first(error)}); what was "
                "acknowledged is kept. Start it, or mend the URL."
            ) from None
        except self._psycopg.DatabaseError as error:
            raise StorageError(f"the server refused: {_first(error)}.") from None

    @staticmethod
    def _one(db: Any) -> Any:
        return db.fetchone()

    @staticmethod
    def _known(db: Any, keys: Sequence[str]) -> list[int]:
        db.execute("SELECT key, id FROM items WHERE key = ANY(%s)", (_texts(keys),))
        numbers = dict(db.fetchall())
        absent = [key for key in keys if key not in numbers]
        if absent:
            raise absent_items(absent)
        return [numbers[key] for key in keys]


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _texts(keys: Sequence[str]) -> list[str]:
    """Keys that a server can be asked for; no item has any other."""
    return [key for key in keys if "\0" not in key]


def _item(row: Sequence[Any]) -> Item:
    key, meta, label, version, size, modified, digest, missing = row
    stamp = None if size is None else Stamp(size, modified, digest)
    return Item(key, meta, label, version, stamp, missing)


def _sound(key: str, vector: Any, crc: int) -> Float[np.ndarray, " D"]:
    found = np.ascontiguousarray(vector.to_numpy(), np.float32)
    if checksum(found.tobytes()) != crc:
        raise ArtifactError(
            f"the vector of {key!r} is damaged in the database; remove the item and add it again."
        )
    return found
