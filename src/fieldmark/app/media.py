"""Pictures of the index's photos, by the hash of their content: made when asked for, then kept.

CACHE/
└── 3f/3f9a….small.jpg     may be deleted at any time

A name that a client gives is looked up among hashes that the index knows; it never becomes a path.
"""

import contextlib
import itertools
import logging
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from fieldmark.app.decoders import Decoders, Lane, Wish
from fieldmark.app.library import MEDIA
from fieldmark.app.problems import HttpProblem
from fieldmark.data.catalog import Catalog, Location
from fieldmark.data.derive import Want
from fieldmark.data.sandbox import Reply
from fieldmark.errors import FieldmarkError, PhotoError

_log = logging.getLogger("fieldmark.app")
_SECONDS = 2.0
"""Between two looks for what is new."""


class Size(StrEnum):
    """How large a picture is."""

    small = "small"
    medium = "medium"
    large = "large"


PICTURES: dict[Size, tuple[int, int]] = {
    Size.small: (224, 80),
    Size.medium: (720, 84),
    Size.large: (1440, 88),
}
"""Long side in pixels, and JPEG quality."""


class Names(NamedTuple):
    """Photos of the index, in the same order."""

    media: tuple[str, ...]
    keys: tuple[str, ...]


class Shelf:
    """Which photos there are, and where they lie.

    Args:
        names: Tells what is in the index now.
        photos: Tells where they are: folder, table or shard; None where nobody knows.
        kept: File of a photo that the index itself keeps; None for other keys.
    """

    def __init__(
        self,
        names: Callable[[], Names],
        photos: Callable[[], Path | None],
        kept: Callable[[str], Path | None] = lambda key: None,
    ) -> None:
        self._names = names
        self._photos, self._kept = photos, kept
        self._lock = threading.Lock()
        self._known: tuple[tuple[str, ...], dict[str, str]] = ((), {})
        self._places: dict[str, Location] = {}
        self._opened_at = -float("inf")
        self.problem: str | None = None
        """Why the photos cannot be opened, where they cannot."""

    def key(self, media: str) -> str | None:
        """The photo whose content has this name."""
        names, known = self._names(), self._known
        if known[0] is not names.media:
            with self._lock:
                known = self._known
                if known[0] is not names.media:
                    # Of copies the first is as good as any.
                    pairs = zip(reversed(names.media), reversed(names.keys), strict=True)
                    known = names.media, {name: key for name, key in pairs if name}
                    self._known = known
        return known[1].get(media)

    def quickly(self, media: str) -> str | None:
        """The same as it was last asked for: does not block."""
        return self._known[1].get(media)

    def all(self) -> tuple[str, ...]:
        """Names of all photos; empty texts where nobody knows the content."""
        return self._names().media

    def place(self, key: str) -> Location:
        """Where a photo's bytes lie.

        Raises:
            HttpProblem: 404 ``missing``.
        """
        kept = self._kept(key)
        if kept is not None:
            return Location(str(kept))
        found = self._places.get(key)
        if found is None:
            self._open()
            found = self._places.get(key)
        if found is None:
            raise HttpProblem(404, "missing", "the photo is not where the photos were.", keys=[key])
        return found

    def _open(self) -> None:
        with self._lock:
            if time.monotonic() - self._opened_at < _SECONDS:
                return
            try:
                place = self._photos()
                if place is None:
                    self.problem = "nobody knows where the photos are; say it with --photos"
                    return
                catalog = Catalog.open(place)
                self._places = {row.path: catalog.location(row.row) for row in catalog.rows}
                self.problem = None
            except FieldmarkError as error:
                self.problem = "they cannot be opened where they were"
                _log.warning("photos cannot be shown: %s", error)
            self._opened_at = time.monotonic()

    def check(self) -> str:
        """Whether photos can be shown: ``ok``, or why not."""
        if not self._places:
            self._open()
        return self.problem or "ok"


class Store:
    """Pictures in a folder of bounded size, shared by processes, and the latest small ones in memory.

    Args:
        folder: Made where it is not there; where it cannot be written, nothing is kept on the disk.
        most_bytes: Of all files together; the oldest go first.
        memory_bytes: Of pictures in memory.
    """

    def __init__(
        self, folder: Path, *, most_bytes: int = 4 * 10**9, memory_bytes: int = 64 * 2**20
    ) -> None:
        self._folder = folder
        self._most, self._memory_most = most_bytes, memory_bytes
        self._lock = threading.Lock()
        self._memory: OrderedDict[tuple[str, Size], bytes] = OrderedDict()
        self._memory_bytes = 0
        self._bytes: int | None = None
        self._cleaning = threading.Lock()

    def recall(self, media: str, size: Size) -> bytes | None:
        """From memory."""
        with self._lock:
            found = self._memory.get((media, size))
            if found is not None:
                self._memory.move_to_end((media, size))
            return found

    def read(self, media: str, size: Size) -> bytes | None:
        """From the disk; a file that was cut off is none."""
        try:
            data = self._file(media, size).read_bytes()
        except OSError:
            return None
        if data[:3] != b"\xff\xd8\xff" or data[-2:] != b"\xff\xd9":
            return None
        self._remember(media, size, data)
        return data

    def has(self, media: str, size: Size) -> bool:
        """Whether it is on the disk."""
        return self._file(media, size).is_file()

    def write(self, media: str, size: Size, data: bytes) -> None:
        """Keep a picture; another process may write the same at the same time."""
        self._remember(media, size, data)
        file = self._file(media, size)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".partial")
            try:
                with os.fdopen(descriptor, "wb") as aside:
                    aside.write(data)
                Path(name).replace(file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError:
            return  # A full or read-only disk costs time, no more.
        self._make_room(len(data))

    def _remember(self, media: str, size: Size, data: bytes) -> None:
        if size == Size.large:
            return
        with self._lock:
            before = self._memory.pop((media, size), None)
            self._memory_bytes += len(data) - (0 if before is None else len(before))
            self._memory[media, size] = data
            while self._memory_bytes > self._memory_most and self._memory:
                _, dropped = self._memory.popitem(last=False)
                self._memory_bytes -= len(dropped)

    def _file(self, media: str, size: Size) -> Path:
        return self._folder / media[:2] / f"{media}.{size.value}.jpg"

    def _make_room(self, added: int) -> None:
        with self._lock:
            if self._bytes is not None:
                self._bytes += added
            enough = self._bytes is not None and self._bytes <= self._most
        if enough or not self._cleaning.acquire(blocking=False):
            return
        try:
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            if total > self._most:
                for _, size, file in files:
                    if total <= 0.9 * self._most:
                        break
                    with contextlib.suppress(OSError):
                        file.unlink()
                    total -= size
            with self._lock:
                self._bytes = total
        finally:
            self._cleaning.release()

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        for file in self._folder.glob("*/*"):
            with contextlib.suppress(OSError):
                status = file.stat()
                yield status.st_mtime_ns, status.st_size, file


class Media:
    """Makes pictures, each once however many ask for it.

    Args:
        shelf: Where photos are.
        store: Where pictures are kept.
        decoders: Who makes them.
        uploaded: Picture of an upload that is remembered, by media id.
    """

    def __init__(
        self,
        shelf: Shelf,
        store: Store,
        decoders: Decoders,
        uploaded: Callable[[str], bytes | None] = lambda media: None,
    ) -> None:
        self._shelf, self._store, self._decoders = shelf, store, decoders
        self._uploaded = uploaded
        self._lock = threading.Lock()
        self._made: dict[tuple[str, Size], Future[bytes]] = {}
        self._closed = threading.Event()
        self._ahead: threading.Thread | None = None

    def at_hand(self, media: str, size: Size) -> bytes | None:
        """A picture that is in memory; does not block."""
        return self._store.recall(media, size)

    def knows(self, media: str) -> bool:
        """Whether a photo is known, as far as can be told without waiting."""
        return self._shelf.quickly(media) is not None

    def picture(self, media: str, size: Size, lane: Lane = Lane.picture) -> "Future[bytes]":
        """A picture from the disk, or made; reads files, so not for the event loop.

        The future fails with an HttpProblem.

        Raises:
            HttpProblem: 404 ``unknown_photo`` or ``missing``, 503 ``busy``.
        """
        done: Future[bytes] = Future()
        # As if it ran: one who gives up must not take it from the others.
        done.set_running_or_notify_cancel()
        data = self._store.read(media, size)
        key = None if data is not None else self._shelf.key(media)
        if data is None and key is None and size == Size.large:
            data = self._uploaded(media)
        if data is not None:
            done.set_result(data)
            return done
        wish = self._wish(media, key, size)
        with self._lock:
            running = self._made.get((media, size))
            if running is not None:
                return running
            self._made[media, size] = done
        try:
            made = self._decoders.submit(wish, lane)
        except BaseException as error:
            with self._lock:
                del self._made[media, size]
            done.set_exception(error)
            raise
        made.add_done_callback(lambda reply: self._finish(media, key, size, reply, done))
        return done

    def _wish(self, media: str, key: str | None, size: Size) -> Wish:
        want = Want(picture=PICTURES[size])
        if key is not None:
            return Wish(self._shelf.place(key), want)
        picture = self._uploaded(media)
        if picture is None:
            raise HttpProblem(404, "unknown_photo", "there is no photo of that name.")
        return Wish(picture, want)

    def _finish(
        self,
        media: str,
        key: str | None,
        size: Size,
        made: "Future[Reply]",
        done: "Future[bytes]",
    ) -> None:
        with self._lock:
            self._made.pop((media, size), None)
        keys = [] if key is None else [key]
        try:
            reply = made.result()
            if key is not None:
                check_content(reply, media, key)
            assert reply.derived is not None
            assert reply.derived.picture is not None
            if key is not None:
                self._store.write(media, size, reply.derived.picture)
            done.set_result(reply.derived.picture)
        except PhotoError as error:
            done.set_exception(HttpProblem(404, error.code, error.detail, keys=keys))
        except BaseException as error:
            done.set_exception(error)

    def make_ahead(self, most: int = 10_000) -> None:
        """Make small pictures while nobody asks for anything, so that the first scroll is fast.

        Args:
            most: Photos that are looked at.
        """
        self._ahead = threading.Thread(
            target=self._make_ahead, args=(most,), name="fieldmark-ahead", daemon=True
        )
        self._ahead.start()

    def _make_ahead(self, most: int) -> None:
        # Cancelled: whoever is closed makes no more of them.
        with contextlib.suppress(FieldmarkError, HttpProblem, CancelledError):
            for media in itertools.islice(self._shelf.all(), most):
                if self._closed.is_set():
                    return
                if not media or self._store.has(media, Size.small):
                    continue
                with contextlib.suppress(FieldmarkError, HttpProblem, TimeoutError):
                    self.picture(media, Size.small, Lane.ahead).result(timeout=60)

    def close(self) -> None:
        """Stop making pictures ahead."""
        self._closed.set()


def check_content(reply: Reply, media: str, key: str) -> None:
    """Whether a photo's file still is the one that was indexed.

    Raises:
        HttpProblem: 409 ``changed``.
    """
    if (reply.content_hash or "")[:MEDIA] != media:
        raise HttpProblem(
            409,
            "changed",
            "the photo's file is not the one that was indexed; look for changes with fieldmark index.",
            keys=[key],
        )


def cache_folder(place: Path | None, private: Path) -> Path:
    """Where pictures are kept: in the index's folder, or in a private one where that cannot be written."""
    if place is not None:
        folder = place / "cache" / "media"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            pass
    return private / "media"
