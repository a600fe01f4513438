"""The index in memory: what the page shows of all photos at once, and what every guess is made from.

The index is the truth, and others write to it too: commands, other replicas. A thread asks it for its marks
(:meth:`fieldmark.index.index.Index.marks`) and brings this up to date, so that a change anywhere is seen
here within about a second. What is handed out is never changed: a :class:`View` stays as it was.

Memory for N photos of D numbers: 4 N D bytes of vectors and about 500 bytes a photo beside them, twice that
while photos are read anew. 100,000 photos of 512 numbers are 205 MB + 50 MB.
"""

import asyncio
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fieldmark.app.problems import HttpProblem
from fieldmark.errors import FieldmarkError, InputError
from fieldmark.index.alike import Held, read_items
from fieldmark.index.index import Index, Item, LabelChange
from fieldmark.index.places import Place, open_index
from fieldmark.workflows.label import Labelled, photo_groups

MEDIA = 32
"""Hex digits of a photo's SHA-256 that name its pictures."""
WATCH_SECONDS = 1.0
"""How often others' changes are looked for."""
_REST = 3.0
"""Photos are read anew at most for a quarter of the time: after each reading there is a rest this many
times as long, for an index that is being filled changes with every step."""
_TRIES = 5
_VALUES = 50


class Fact(NamedTuple):
    """Something that is known of photos besides labels."""

    name: str
    """As filters have it: dots reach into objects."""
    kind: str
    """``text``, ``number`` or ``bool``."""
    values: list[Any]
    """The 50 most frequent."""


class Table(NamedTuple):
    """The photos of one snapshot, row by row, by key."""

    snapshot: str
    identity: str | None
    """Encoder of the vectors; None for an empty index."""
    keys: tuple[str, ...]
    media: tuple[str, ...]
    """Names of their pictures; empty where the content's hash is not known."""
    missing: Bool[np.ndarray, " N"]
    groups: Int[np.ndarray, " N"]
    """Bursts and individuals; a photo without is its own."""
    vectors: Float[np.ndarray, "N D"]
    row_of: dict[str, int]
    without: int
    """Items that have no vector, and are not among these."""
    facts: tuple[Fact, ...]


class Labels(NamedTuple):
    """The labels of a table's rows as they were after one change."""

    change: int
    """Number of the last line of the history that is in here."""
    names: tuple[str, ...]
    """Labels that a photo has, sorted."""
    of: Int[np.ndarray, " N"]
    """Place in ``names``; -1 for none."""
    version: Int[np.ndarray, " N"]


class View(NamedTuple):
    """One state of the index."""

    table: Table
    labels: Labels

    @property
    def labelled(self) -> Bool[np.ndarray, " N"]:
        """Which rows have a label."""
        return self.labels.of >= 0

    def label(self, row: int) -> str | None:
        """Of one row."""
        place = int(self.labels.of[row])
        return None if place < 0 else self.labels.names[place]

    def rows(self, keys: Iterable[str]) -> list[int]:
        """Rows of keys.

        Raises:
            HttpProblem: 404 ``no_such_photo`` with the keys that are not there.
        """
        asked = list(keys)
        absent = [key for key in asked if key not in self.table.row_of]
        if absent:
            more = f" and {len(absent) - 1:,} more of these" if len(absent) > 1 else ""
            raise HttpProblem(
                404, "no_such_photo", f"there is no photo {absent[0]!r}{more}.", keys=absent[:1000]
            )
        return [self.table.row_of[key] for key in asked]


class Change(NamedTuple):
    """A line of the history, and the photo's version after it."""

    line: LabelChange
    version: int


class Library:
    """Keeps a view up to date.

    Args:
        place: Of the index.
        watch_seconds: How often to look for what others changed; None: only when told.
        stopping: Set when the service is about to stop: nobody waits for changes any more.

    Raises:
        FieldmarkError: The index cannot be opened or read.
    """

    def __init__(
        self,
        place: Place,
        *,
        watch_seconds: float | None = WATCH_SECONDS,
        stopping: threading.Event | None = None,
    ) -> None:
        self.place = place
        self.problem: str | None = None
        """Why the index could not be read the last time, for readiness."""
        self.on_photos: list[Callable[[], None]] = []
        """Called when the snapshot has changed."""
        self._index = open_index(place)
        self._lock = threading.Lock()
        """Of whoever brings the view up to date."""
        self._waiting = threading.Lock()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._closed = stopping or threading.Event()
        self._seen = ""
        """Mark of items that the view was read at."""
        self._rested = 0.0
        """Clock from which on photos may be read anew unasked."""
        try:
            self._view = self._read()
        except BaseException:
            self._index.close()
            raise
        self._watcher: threading.Thread | None = None
        if watch_seconds is not None:
            self._watcher = threading.Thread(
                target=self._watch, args=(watch_seconds,), name="fieldmark-watch", daemon=True
            )
            self._watcher.start()

    def close(self) -> None:
        """Stop looking, and let go of the index."""
        self._closed.set()
        self._wake()
        if self._watcher is not None:
            self._watcher.join(5)
        with self._lock:
            self._index.close()

    # -- asking

    def view(self, snapshot: str | None = None) -> View:
        """The state as it is now.

        Args:
            snapshot: That the caller has a table of.

        Raises:
            HttpProblem: 409 ``snapshot_gone`` where photos were added, removed or changed since.
        """
        now = self._view
        if snapshot is not None and snapshot != now.table.snapshot:
            raise HttpProblem(
                409,
                "snapshot_gone",
                "photos were added, removed or changed since; load the table again.",
            )
        return now

    def labelled(self) -> tuple[int, Labelled]:
        """Labelled photos for a classifier, and the number of the last change that they show."""
        return self.labelled_of(self._view)

    @staticmethod
    def labelled_of(view: View) -> tuple[int, Labelled]:
        """The same of one state."""
        rows = np.flatnonzero(view.labelled)
        labels = [view.labels.names[place] for place in view.labels.of[rows].tolist()]
        photos = Labelled(view.table.vectors[rows], labels, view.table.groups[rows])
        return view.labels.change, photos

    def changes(self, since: int, limit: int) -> tuple[View, list[Change]]:
        """What happened to labels after a change, and the view that shows all of it.

        Args:
            since: Number of a change.
            limit: How many at most, the oldest.

        Raises:
            HttpProblem: 409 ``snapshot_gone`` for a number that no change has had yet: of another
                index, or of one that was restored from a backup.
        """
        with self._lock:
            view = self._view
            if since > view.labels.change:
                raise HttpProblem(
                    409, "snapshot_gone", f"there is no change {since} yet; load the table again."
                )
            if since == view.labels.change:
                return view, []
            lines = [
                line
                for line in self._index.history(since=since)
                if line.number <= view.labels.change
            ]
        # The last line of a photo made the version that it has; those before it are that much older.
        later: Counter[str] = Counter()
        found: list[Change] = []
        for line in reversed(lines):
            row = view.table.row_of.get(line.key)
            version = 0 if row is None else int(view.labels.version[row]) - later[line.key]
            found.append(Change(line, version))
            later[line.key] += 1
        return view, found[::-1][:limit]

    async def wait(self, since: int, snapshot: str | None, seconds: float) -> None:
        """Return when there is a later change, or another snapshot, or after some seconds.

        No thread waits meanwhile.
        """
        loop = asyncio.get_running_loop()
        waiter = loop, loop.create_future()
        with self._waiting:
            now = self._view
            if now.labels.change > since or (snapshot and now.table.snapshot != snapshot):
                return
            if self._closed.is_set():
                return
            self._waiters.add(waiter)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(waiter[1], seconds)
        finally:
            with self._waiting:
                self._waiters.discard(waiter)

    # -- keeping up

    def look(self) -> View:
        """Bring the view up to date now; what this process changed is seen at once."""
        with self._lock:
            return self._look()

    def _look(self, *, hurry: bool = True) -> View:
        marks, before = self._index.marks(), self._view
        if marks.items != self._seen and (hurry or time.monotonic() >= self._rested):
            began = time.monotonic()
            self._view = self._read()
            self._rested = time.monotonic() + _REST * (time.monotonic() - began)
        elif marks.labels != before.labels.change:
            self._view = self._read_labels(before)
        if self._view is not before:
            if self._view.table.snapshot != before.table.snapshot:
                for call in self.on_photos:
                    call()
            self._wake()
        return self._view

    def _watch(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                with self._lock:
                    self._look(hurry=False)
                self.problem = None
            except FieldmarkError as error:
                # The disk or the server may come back; until then the last state is shown.
                self.problem = str(error)
        self._wake()

    def _wake(self) -> None:
        with self._waiting:
            waiters, self._waiters = self._waiters, set()
        for loop, future in waiters:
            with suppress(RuntimeError):  # Its loop has ended.
                loop.call_soon_threadsafe(_finish, future)

    # -- reading

    def _read(self) -> View:
        """Everything anew; the same photos make the same snapshot, wherever they are read."""
        for last in (False,) * (_TRIES - 1) + (True,):
            marks = self._index.marks()
            try:
                held, identity, total = self._held()
            except InputError:
                # An item was removed between its name and its vector.
                if last:
                    raise
                continue
            # Where photos come in without a pause, the state is told at the next look.
            if last or self._index.marks().items == marks.items:
                break
        self._seen = marks.items
        table = _table(held, identity, total - len(held.items))
        known = [item.label for item in held.items]
        version = np.array([item.version for item in held.items], np.int64)
        labels = _labels(marks.labels, known, version)
        return self._read_labels(View(table, labels))

    def _held(self) -> tuple[Held, str | None, int]:
        told = self._index.stats()
        if told.current is None:
            return Held([], np.zeros((0, 0), np.float32)), None, told.items
        return read_items(self._index, identity=told.current), told.current, told.items

    def _read_labels(self, view: View) -> View:
        """Take over what the history says since the view; cheap."""
        table, labels = view
        lines = self._index.history(since=labels.change)
        if not lines:
            return view
        names = list(labels.names)
        place = {name: number for number, name in enumerate(names)}
        of, version = labels.of.copy(), labels.version.copy()
        change = labels.change
        wanted: dict[str, str | None] = {}
        while lines:
            change = lines[-1].number
            wanted |= {line.key: line.after for line in lines}
            pairs = self._there([key for key in wanted if key in table.row_of])
            for item in pairs:
                # A version is believed together with the label that its own line says: who saw the
                # label may then change it, and nobody overwrites what he has not seen.
                if item.label == wanted[item.key]:
                    row = table.row_of[item.key]
                    number = -1
                    if item.label is not None:
                        number = place.setdefault(item.label, len(place))
                    of[row], version[row] = number, item.version
                    del wanted[item.key]
            if not any(item.key in wanted for item in pairs):
                break
            lines = self._index.history(since=change)
        return View(table, _tidy(change, tuple(place), of, version))

    def _there(self, keys: Sequence[str]) -> list[Item]:
        try:
            return self._index.get(keys)
        except InputError:
            # Some were removed; the next look reads everything.
            found: list[Item] = []
            for key in keys:
                with suppress(InputError):
                    found += self._index.get([key])
            return found

    def chosen(self, where: str, view: View) -> Int[np.ndarray, " M"]:
        """Rows for which a filter holds, ascending.

        Raises:
            InputError: A filter that cannot be read; says where.
        """
        # A connection of its own: this takes long, and labels must not wait for it.
        with open_index(self.place) as index:
            rows = [view.table.row_of.get(item.key, -1) for item in index.items(where)]
        found = np.array(rows, np.int64)
        return found[found >= 0]

    def open(self) -> Index:
        """The index, for a job that takes long; the caller closes it."""
        return open_index(self.place)


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _table(held: Held, identity: str | None, without: int) -> Table:
    items, vectors = held
    digest = hashlib.sha256(str(identity).encode())
    media = []
    for item in items:
        content = item.stamp.sha256 if item.stamp else ""
        media.append(content[:MEDIA])
        told = [item.key, content, item.missing, item.meta.get("group")]
        digest.update(repr(told).encode())
    digest.update(np.ascontiguousarray(vectors).view(np.uint8).data if vectors.size else b"")
    keys = tuple(item.key for item in items)
    return Table(
        digest.hexdigest()[:16],
        identity,
        keys,
        tuple(media),
        np.array([item.missing for item in items], bool),
        photo_groups(items),
        vectors,
        {key: row for row, key in enumerate(keys)},
        without,
        _facts(items),
    )


def _facts(items: Sequence[Item]) -> tuple[Fact, ...]:
    counts: dict[str, Counter[tuple[str, Any]]] = {}
    for item in items:
        for name, value in _leaves(item.meta, ""):
            counts.setdefault(name, Counter())[(type(value).__name__, value)] += 1
    found = []
    for name in sorted(counts):
        kinds = {kind for kind, _ in counts[name]}
        kind = "bool" if kinds == {"bool"} else "number" if kinds <= {"int", "float"} else "text"
        values = [value for (_, value), _ in counts[name].most_common(_VALUES)]
        found.append(Fact(name, kind, values))
    return tuple(found)


def _leaves(meta: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in meta.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        elif isinstance(value, (str, int, float)):
            yield f"{above}{name}", value


def _labels(change: int, known: Sequence[str | None], version: Int[np.ndarray, " N"]) -> Labels:
    names = sorted({label for label in known if label is not None})
    place: dict[str | None, int] = {None: -1, **{name: at for at, name in enumerate(names)}}
    of = np.array([place[label] for label in known], np.int32)
    return Labels(change, tuple(names), of, version)


def _tidy(
    change: int, names: tuple[str, ...], of: Int[np.ndarray, " N"], version: Int[np.ndarray, " N"]
) -> Labels:
    """Names sorted, and those left out that no photo has any more."""
    used = np.bincount(of[of >= 0], minlength=len(names)) > 0
    order = sorted(np.flatnonzero(used).tolist(), key=lambda at: names[at])
    place = np.full(len(names) + 1, -1, np.int32)
    place[order] = np.arange(len(order))
    return Labels(change, tuple(names[at] for at in order), place[of], version)
