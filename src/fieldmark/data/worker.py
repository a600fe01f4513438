"""The other end of a :class:`fieldmark.data.sandbox.DecodePool`: one process that decodes photos.

Started as ``python -m fieldmark.data.worker`` and not by multiprocessing, so that a caller's script
needs no ``__main__`` guard, nothing is forked from a process with threads, and no pickle travels
between a decoder that may have been taken over and its parent.

Messages both ways are a 4-byte length and JSON; pixels follow a reply as raw bytes.
"""

import contextlib
import fcntl
import hashlib
import importlib
import json
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fieldmark.data.catalog import Location, read_location
from fieldmark.data.decode import Limits, Photo, decode, resize_short
from fieldmark.data.derive import Want, derive
from fieldmark.data.layout import pack
from fieldmark.errors import PhotoError

_EXTENT = 16 * 2**20
_FLUSH_SECONDS = 0.03

Decoder = Callable[..., Photo]


def read_message(stream: BinaryIO) -> Any:
    """Next JSON message, or None at the end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(struct.unpack("<I", head)[0])
    return json.loads(body)


def pack_message(message: Any) -> bytes:
    """A message as it travels."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return struct.pack("<I", len(body)) + body


class _PixelFile:
    """Appends pixels to a file that other workers append to at the same time.

    Room is taken in extents at the file's end, under a lock, so nothing that any process ever wrote
    is written over, not even by a worker whose parent was killed and that is still finishing.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._at = self._end = 0

    def close(self) -> None:
        os.close(self._descriptor)

    def append(self, data: memoryview) -> int:
        if self._at + len(data) > self._end:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                self._at = os.fstat(self._descriptor).st_size
                self._end = self._at + max(_EXTENT, len(data))
                os.ftruncate(self._descriptor, self._end)
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        start = self._at
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], start + written)
        self._at = start + len(data)
        return start


def _limit_process(limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * mmap.PAGESIZE + limits.max_memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(ImportError, AttributeError):
        from PIL import AvifImagePlugin

        # One worker per processor: a decoder that starts threads of its own only slows them down.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _load_decoder(name: str) -> Decoder:
    module, _, function = name.partition(":")
    loaded: Decoder = getattr(importlib.import_module(module), function)
    return loaded


def crop(photo: Photo, box: list[float], short_side: int | None) -> Photo:
    """Cut a box, in pixels of the upright photo, and scale it down."""
    height, width = photo.pixels.shape[:2]
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if x1 <= x0 or y1 <= y0:
        raise PhotoError(
            "broken", f"the box {box} lies outside the photo of {width} × {height} pixels"
        )
    pixels = photo.pixels[y0:y1, x0:x1]
    if short_side is not None:
        pixels = resize_short(pixels, short_side)
    return photo._replace(pixels=np.ascontiguousarray(pixels), original=(y1 - y0, x1 - x0))


class Worker:
    """Decodes what it is asked to, one photo at a time."""

    def __init__(self, setup: dict[str, Any], current: mmap.mmap | None = None) -> None:
        self._limits = Limits.parse(setup["limits"], "worker setup")
        self._short_side: int | None = setup["short_side"]
        self._decode = _load_decoder(setup["decoder"]) if setup["decoder"] else decode
        self._pixels = _PixelFile(setup["pixels"]) if setup["pixels"] else None
        self._known: set[str] = set(setup["known"])
        self._current = current

    def close(self) -> None:
        """Give back what is open."""
        if self._pixels is not None:
            self._pixels.close()

    def run(self, job: list[Any]) -> tuple[dict[str, Any], memoryview | None]:
        """Decode one job ``[id, file, offset, size, box, want]``; never raises for a bad photo."""
        number, file, offset, size, box, want = job
        if self._current is not None:
            struct.pack_into("<q", self._current, 0, number)
        reply: dict[str, Any] = {"id": number}
        try:
            data, signature = read_location(Location(file, offset, size), self._limits.max_bytes)
            reply["bytes"], reply["signature"] = len(data), signature
            reply["hash"] = hashlib.sha256(data).hexdigest()
            if content_key(reply["hash"], box) in self._known:
                return reply | {"reuse": True}, None
            if want is not None:
                return self._derive(reply, data, want)
            scale = None if box else self._short_side
            photo = self._decode(data, limits=self._limits, short_side=scale)
            if box:
                photo = crop(photo, box, self._short_side)
        except PhotoError as error:
            return reply | {"code": error.code, "detail": error.detail}, None
        except MemoryError:
            detail = "decoding needs more memory than allowed"
            return reply | {"code": "too_much_memory", "detail": detail}, None
        except Exception as error:
            return reply | {
                "code": "broken",
                "detail": f"{type(error).__name__}: {error}"[:200],
            }, None
        reply |= _about(photo)
        if self._pixels is None:
            pixels = np.ascontiguousarray(photo.pixels).data.cast("B")
            return reply | {"inline": len(pixels)}, pixels
        pixels = pack(photo.pixels).data.cast("B")
        try:
            return reply | {"offset": self._pixels.append(pixels)}, None
        except OSError as error:
            return {"id": number, "errno": error.errno}, None

    def _derive(
        self, reply: dict[str, Any], data: bytes, want: Want
    ) -> tuple[dict[str, Any], memoryview]:
        photo, made = derive(data, want, self._decode, limits=self._limits)
        payload = b"".join(part for _, _, part in made)
        parts = [[name, shape, len(part)] for name, shape, part in made]
        return reply | _about(photo) | {"made": parts, "inline": len(payload)}, memoryview(payload)


def _about(photo: Photo) -> dict[str, Any]:
    return {
        "shape": photo.pixels.shape[:2],
        "damage": photo.damage,
        "notes": photo.notes,
        "original": photo.original,
        "format": photo.format,
        "taken": photo.taken,
    }


def content_key(content_hash: str, box: list[float] | tuple[float, ...] | None) -> str:
    """What decides the stored pixels besides the store's settings."""
    return content_hash if box is None else f"{content_hash}|{','.join(f'{v:g}' for v in box)}"


def main() -> None:
    """Serve until the parent closes the pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=2**20)
    # Libraries write warnings to 1 and 2; here they would break messages or flood the terminal.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    setup = read_message(requests)
    if setup is None:
        return
    if setup["nice"]:
        os.nice(setup["nice"])
    current = mmap.mmap(setup["current"], 8)
    worker = Worker(setup, current)
    _limit_process(Limits.parse(setup["limits"], "worker setup"))
    replies.write(pack_message({"ready": True}))
    replies.flush()
    flushed = time.monotonic()
    while (jobs := read_message(requests)) is not None:
        for job in jobs:
            reply, pixels = worker.run(job)
            replies.write(pack_message(reply))
            if pixels is not None:
                replies.write(pixels)
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                replies.flush()
                flushed = time.monotonic()
        struct.pack_into("<q", current, 0, -1)
        replies.flush()
        flushed = time.monotonic()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
    sys.stdout = None  # nothing left to flush on exit
