"""Photos that come and go over HTTP.

INDEX/
└── uploads/
    └── 0123456789abcdef.jpg    the first digits of the content's SHA-256; the client's name is metadata only

A photo is on the disk before the index knows of it, and in the index before it is acknowledged.
"""

import contextlib
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from fieldmark import storage
from fieldmark.app.library import MEDIA, Library
from fieldmark.app.problems import HttpProblem, problem_of
from fieldmark.data.decode import sniff
from fieldmark.errors import FieldmarkError, InputError
from fieldmark.index.index import Stamp
from fieldmark.index.places import is_server
from fieldmark.workflows.index import UPLOADS, index_photos, upload_of
from fieldmark.workflows.spaces import current_space, find_encoder, photos_of

LONGEST_NAME = 200
_HEAD = 64
_SUFFIX = {"JPEG": "jpg", "TIFF": "tif", "HEIF": "heic"}

Embed = Callable[[Path], Float[np.ndarray, " D"]]


class Kept(NamedTuple):
    """A photo that the index has."""

    key: str
    media: str
    new: bool


class Scan(BaseModel):
    """What a look at the photos' place is at, or found."""

    state: Literal["idle", "working", "done", "failed"] = "idle"
    done: int = 0
    total: int = 0
    what: str = ""
    added: int | None = None
    changed: int | None = None
    missing: int | None = None
    refused: int | None = None
    detail: str | None = None
    """Why it failed."""


class Uploads:
    """Adds and removes photos of an index.

    Args:
        library: Of the index.
        embed: Embeds a photo's file with the index's encoder; raises PhotoError.
        photos: Where the index's photos are; None: where they were when they were indexed.
        device: Where scans embed.
        max_bytes: Of one photo.
    """

    def __init__(
        self,
        library: Library,
        embed: Embed,
        *,
        photos: Path | None = None,
        device: str = "auto",
        max_bytes: int = 50_000_000,
    ) -> None:
        self._library, self._embed, self._photos = library, embed, photos
        self._device, self._max_bytes = device, max_bytes
        self._index = library.open()
        self._lock = threading.Lock()
        self._scan = Scan()
        self._scanning: threading.Thread | None = None
        self._stopping = False

    def close(self) -> None:
        """Let go of the index; a scan ends at its next step."""
        self._stopping = True
        if self._scanning is not None:
            self._scanning.join(30)
        with self._lock:
            self._index.close()

    # -- one photo

    def folder(self) -> Path:
        """Where photos are kept.

        Raises:
            HttpProblem: 409 ``no_folder`` for an index on a server.
        """
        if is_server(self._library.place):
            raise HttpProblem(
                409,
                "no_folder",
                "this index is a database server's, which keeps no photos; add them where they lie, with "
                "fieldmark index run.",
            )
        return Path(self._library.place) / UPLOADS

    async def take(self, stream: AsyncIterator[bytes], name: str) -> Kept:
        """Receive a photo, keep it and add it.

        Raises:
            PhotoError: It is none.
            HttpProblem: 413, or 409 ``no_folder``.
        """
        folder = self.folder()
        await run_in_threadpool(storage.make_folder, folder)
        # No part of the client's name is in it.
        aside = folder / f".{secrets.token_hex(8)}.partial"
        digest, size, head = hashlib.sha256(), 0, b""
        file = await run_in_threadpool(aside.open, "xb")
        try:
            async for chunk in stream:
                size += len(chunk)
                if size > self._max_bytes:
                    raise HttpProblem(
                        413, "too_large", f"a photo may have {self._max_bytes:,} bytes at most."
                    )
                head = (head + chunk[:_HEAD])[:_HEAD]
                digest.update(chunk)
                await run_in_threadpool(file.write, chunk)
            await run_in_threadpool(file.close)
            return await run_in_threadpool(self._add, aside, digest.hexdigest(), head, name)
        finally:
            file.close()
            aside.unlink(missing_ok=True)

    def _add(self, aside: Path, sha256: str, head: bytes, name: str) -> Kept:
        known = self._known(sha256)
        if known is not None:
            return Kept(known, sha256[:MEDIA], new=False)
        identity = self._index.stats().current
        vector = self._embed(aside)
        kind = sniff(head) or "photo"
        key = f"{UPLOADS}/{sha256[:16]}.{_SUFFIX.get(kind, kind.lower())}"
        file = upload_of(self._library.place, key)
        assert file is not None
        storage.sync_file(aside)
        with storage.storage_errors(file):
            aside.replace(file)
            storage.sync_folder(file.parent)
        status = file.stat()
        stamp = Stamp(status.st_size, status.st_mtime_ns, sha256)
        meta = {"name": name[:LONGEST_NAME]} if name.strip() else {}
        with self._lock:
            try:
                self._index.add(
                    [key], vector[None], metas=[meta], stamps=[stamp], identity=identity
                )
                new = True
            except InputError:
                # Somebody else brought the same photo this moment, and nothing else can be wrong.
                self._index.get([key])
                new = False
        self._library.look()
        return Kept(key, sha256[:MEDIA], new=new)

    def _known(self, sha256: str) -> str | None:
        """Key of a photo with this content."""
        table = self._library.look().table
        with contextlib.suppress(ValueError):
            key = table.keys[table.media.index(sha256[:MEDIA])]
            (item,) = self._index.get([key])
            if item.stamp is not None and item.stamp.sha256 == sha256:
                return key
        return None

    def remove(self, keys: Sequence[str]) -> int:
        """Forget photos and their labels; those that were brought over HTTP leave the disk too.

        Raises:
            HttpProblem: 404 ``no_such_photo``; nothing was removed.
        """
        self._library.look().rows(keys)
        with self._lock:
            removed = self._index.remove(keys)
        for key in keys:
            file = upload_of(self._library.place, key)
            if file is not None:
                file.unlink(missing_ok=True)
        self._library.look()
        return removed

    # -- all photos

    def scan(self) -> Scan:
        """How far the last scan is."""
        return self._scan

    def begin_scan(self) -> Scan:
        """Look again at the place of the photos, in the background.

        Raises:
            HttpProblem: 409 ``no_photos`` where nobody noted where they are.
            ArtifactError: The encoder is gone.
        """
        with self._lock:
            if self._scan.state == "working":
                return self._scan
            space = current_space(self._index.stats(), self._library.place)
            photos = self._photos or photos_of(space)
            if photos is None:
                raise HttpProblem(
                    409,
                    "no_photos",
                    "nobody noted where the photos of this index are; start the service with --photos.",
                )
            encoder = find_encoder(self._library.place, space)
            self._scan = Scan(state="working", what="looking for photos")
            self._scanning = threading.Thread(
                target=self._run, args=(encoder, photos), name="fieldmark-scan", daemon=True
            )
            self._scanning.start()
            return self._scan

    def _run(self, encoder: Path, photos: Path) -> None:
        def progress(what: str, done: int, total: int, note: str = "") -> None:
            self._scan = Scan(state="working", done=done, total=total, what=what)
            if self._stopping:
                raise InputError("the service was stopped; scan again to go on.")

        try:
            told: dict[str, Any] = index_photos(
                encoder, photos, self._library.place, device=self._device, progress=progress
            )
            self._library.look()
            self._scan = Scan(
                state="done",
                **{name: told[name] for name in ("added", "changed", "missing", "refused")},
            )
        except FieldmarkError as error:
            self._scan = Scan(state="failed", detail=problem_of(error).problem.detail)
        except Exception:
            self._scan = Scan(state="failed", detail="something went wrong inside.")
            raise
