"""Decoding in worker processes that may crash, hang or eat memory without taking the run along.

A worker that dies or overstays is killed and replaced; the photo it was at is refused with the
reason and the others are given to the next worker.
"""

import contextlib
import json
import mmap
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from fieldmark.data.catalog import Box, Location, Signature
from fieldmark.data.decode import Limits, Photo, Pixels
from fieldmark.data.derive import Derived, Want, unpack
from fieldmark.data.worker import Worker, pack_message
from fieldmark.errors import FieldmarkError, PhotoError, StorageError

_BATCH = 16
_IN_FLIGHT_BYTES = 32_000  # Below a pipe's 64 KiB, so that writing to a worker never blocks.
_START_SECONDS = 60.0
_TRIES_TO_START = 3


class Job(NamedTuple):
    """A photo to decode."""

    id: int
    location: Location
    box: Box | None = None
    want: Want | None = None
    """What to make of the photo, instead of sending its pixels."""

    @property
    def room(self) -> int:
        """Bytes that it takes on its way, at most."""
        return 240 + 6 * len(self.location.file)


class Reply(NamedTuple):
    """What came of a job."""

    id: int
    error: PhotoError | None = None
    """Why the photo is refused."""
    content_hash: str | None = None
    signature: Signature | None = None
    bytes: int = 0
    reuse: bool = False
    """The content was known already and was not decoded."""
    photo: Photo | None = None
    """With pixels when they were not written to a file; else ``pixels`` has shape (H, W, 3) only."""
    shape: tuple[int, int] = (0, 0)
    offset: int = -1
    """Where in the pixel file the photo begins."""
    derived: Derived | None = None
    """What was made of it, where that was asked for."""


_NO_PIXELS: Pixels = np.zeros((0, 0, 3), np.uint8)


class _Process:
    """One worker process, its pipes, and what it still owes."""

    def __init__(self, setup: dict[str, Any]) -> None:
        with tempfile.TemporaryFile() as shared:
            shared.write(struct.pack("<q", -1))
            shared.flush()
            # The number of the photo in work, readable after the process has died.
            self._current = mmap.mmap(shared.fileno(), 8)
            threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
            paths = os.pathsep.join(path for path in sys.path if path)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fieldmark.data.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, **threads, "PYTHONPATH": paths},
                pass_fds=(shared.fileno(),),
            )
            self._send({**setup, "current": shared.fileno()})
        self.pending: dict[int, Job] = {}
        self._sizes: dict[int, int] = {}
        self.ready = False
        self.last = time.monotonic()
        self._buffer = bytearray()

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    @property
    def in_flight(self) -> int:
        return sum(self._sizes.values())

    def _send(self, message: Any) -> None:
        data = memoryview(pack_message(message))
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # Its death is noticed when reading.
            while data:
                data = data[self.process.stdin.write(data) :]

    def give(self, jobs: list[Job]) -> None:
        if not self.pending:
            self.last = time.monotonic()
        for job in jobs:
            self.pending[job.id] = job
            self._sizes[job.id] = job.room
        self._send([[j.id, *j.location, j.box, j.want] for j in jobs])

    def receive(self) -> list[tuple[dict[str, Any], bytes]] | None:
        """Complete replies that have arrived; None when the process has ended."""
        data = os.read(self.output, 2**20)
        if not data:
            return None
        self._buffer += data
        self.last = time.monotonic()
        found = []
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from("<I", self._buffer)
            if len(self._buffer) < 4 + length:
                break
            reply = _parse(bytes(self._buffer[4 : 4 + length]))
            end = 4 + length + int(reply.get("inline", 0))
            if len(self._buffer) < end:
                break
            found.append((reply, bytes(self._buffer[4 + length : end])))
            del self._buffer[:end]
        for reply, _ in found:
            if "ready" in reply:
                self.ready = True
            self.pending.pop(reply.get("id", -1), None)
            self._sizes.pop(reply.get("id", -1), None)
        return [item for item in found if "ready" not in item[0]]

    def overdue(self, seconds: float) -> bool:
        limit = seconds if self.ready else _START_SECONDS + seconds
        return bool(self.pending) and time.monotonic() - self.last > limit

    def culprit(self) -> int | None:
        (number,) = struct.unpack("<q", self._current[:8])
        return number if number in self.pending else None

    def kill(self) -> int:
        self.process.kill()
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._current.close()
        return code


def _parse(body: bytes) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(body)
    return reply


class DecodePool:
    """Worker processes that decode photos.

    Args:
        workers: Processes; by default one per processor. 0 decodes in the calling process: quicker to
            start, for a few trusted photos, but nothing guards against crashes and hangs.
        limits: What a photo may cost; time and memory are kept by killing the worker.
        short_side: As in :func:`fieldmark.data.decode.decode`.
        pixels: File that workers append pixels to, instead of sending them.
        known: Content keys that need no decoding.
        decoder: ``module:function`` to use in place of ``decode``, for tests.
        nice: By how much the workers step back behind other processes, 0 to 19.

    Example:
        >>> from fieldmark.data.catalog import Catalog
        >>> catalog = Catalog.open(Path("photos"))  # doctest: +SKIP
        >>> with DecodePool(short_side=64) as pool:  # doctest: +SKIP
        ...     for reply in pool.map(Job(r.row, catalog.location(r.row)) for r in catalog.rows):
        ...         ...
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        limits: Limits | None = None,
        short_side: int | None = None,
        pixels: Path | None = None,
        known: Iterable[str] = (),
        decoder: str | None = None,
        nice: int = 0,
    ) -> None:
        self._count = processor_count() if workers is None else max(0, workers)
        self._limits = limits or Limits()
        self._setup = {
            "limits": self._limits.dump(),
            "short_side": short_side,
            "pixels": os.fspath(pixels) if pixels else None,
            "known": list(known),
            "decoder": decoder,
            "nice": nice,
        }
        self._processes: list[_Process] = []

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once."""
        for process in self._processes:
            process.kill()
        self._processes = []

    def map(self, jobs: Iterable[Job]) -> Iterator[Reply]:
        """Decode photos; replies come in the order in which they are done, one for every job.

        Raises:
            StorageError: If pixels cannot be written.
            FieldmarkError: If workers cannot be started at all.
        """
        if self._count == 0:
            yield from self._map_here(jobs)
            return
        source = iter(jobs)
        again: deque[Job] = deque()
        failed_starts = 0
        selector = selectors.DefaultSelector()
        try:
            for process in self._processes:
                selector.register(process.output, selectors.EVENT_READ, process)
            while True:
                exhausted = self._fill(source, again, selector)
                busy = [p for p in self._processes if p.pending]
                if not busy and exhausted and not again:
                    return
                for key, _ in selector.select(timeout=0.1):
                    process = key.data
                    received = process.receive()
                    if received is not None:
                        for reply, payload in received:
                            yield self._reply(reply, payload)
                        continue
                    if process.ready:
                        failed_starts = 0
                    else:
                        failed_starts += 1
                        if failed_starts >= _TRIES_TO_START:
                            raise FieldmarkError(
                                f"decoding processes die while starting ({sys.executable}); check with "
                                "'fieldmark doctor' that fieldmark is installed for this Python."
                            )
                    yield from self._bury(process, selector, again, None)
                for process in [p for p in self._processes if p.overdue(self._limits.max_seconds)]:
                    yield from self._bury(process, selector, again, "too_slow")
        finally:
            selector.close()

    def _map_here(self, jobs: Iterable[Job]) -> Iterator[Reply]:
        worker = Worker(self._setup)
        try:
            for job in jobs:
                reply, pixels = worker.run([job.id, *job.location, job.box, job.want])
                # Through the message form, so that both ways give the same.
                plain = json.loads(json.dumps(reply))
                yield self._reply(plain, b"" if pixels is None else bytes(pixels))
        finally:
            worker.close()

    def _fill(
        self, source: Iterator[Job], again: deque[Job], selector: selectors.BaseSelector
    ) -> bool:
        """Give every worker enough to do; True when there is no more to give."""
        while True:
            idle = [
                p
                for p in self._processes
                if len(p.pending) <= _BATCH and p.in_flight < _IN_FLIGHT_BYTES // 2
            ]
            if not idle and len(self._processes) >= self._count:
                return False
            jobs: list[Job] = []
            size = 0
            while len(jobs) < _BATCH and size < _IN_FLIGHT_BYTES // 2:
                job = again.popleft() if again else next(source, None)
                if job is None:
                    break
                jobs.append(job)
                size += job.room
            if not jobs:
                return True
            # A new process only when there is work for it: few photos need few processes.
            process = min(idle, key=lambda p: len(p.pending), default=None)
            if len(self._processes) < self._count and (process is None or process.pending):
                process = _Process(self._setup)
                self._processes.append(process)
                selector.register(process.output, selectors.EVENT_READ, process)
            if process is not None:
                process.give(jobs)

    def _bury(
        self,
        process: _Process,
        selector: selectors.BaseSelector,
        again: deque[Job],
        code: str | None,
    ) -> Iterator[Reply]:
        selector.unregister(process.output)
        self._processes.remove(process)
        blamed = process.culprit() if process.ready else None
        exit_code = process.kill()
        for number, job in process.pending.items():
            if number != blamed:
                again.append(job)
        if blamed is None:
            return
        if code == "too_slow":
            seconds = self._limits.max_seconds
            yield Reply(blamed, PhotoError(code, f"not decoded within {seconds:g} seconds"))
        else:
            how = f"exit code {exit_code}"
            if exit_code < 0:
                with contextlib.suppress(ValueError):
                    how = signal.Signals(-exit_code).name
            yield Reply(
                blamed, PhotoError("decoder_crashed", f"the decoder's process died ({how})")
            )

    def _reply(self, reply: dict[str, Any], payload: bytes) -> Reply:
        if "errno" in reply:
            reason = os.strerror(int(reply["errno"]))
            raise StorageError(
                f"writing pixels to {self._setup['pixels']} failed: {reason}. What was stored before "
                "is kept; free some space (or choose another place) and run the same command again."
            )
        signature = Signature(*reply["signature"]) if "signature" in reply else None
        answer = Reply(
            int(reply["id"]),
            content_hash=reply.get("hash"),
            signature=signature,
            bytes=int(reply.get("bytes", 0)),
        )
        if "code" in reply:
            return answer._replace(error=PhotoError(reply["code"], reply["detail"]))
        if reply.get("reuse"):
            return answer._replace(reuse=True)
        height, width = (int(v) for v in reply["shape"])
        pixels = _NO_PIXELS
        derived = unpack(reply["made"], payload) if "made" in reply else None
        if payload and derived is None:
            pixels = np.frombuffer(payload, np.uint8).reshape(height, width, 3)
        photo = Photo(
            pixels,
            reply["damage"],
            tuple(reply["notes"]),
            (int(reply["original"][0]), int(reply["original"][1])),
            reply["format"],
            reply["taken"],
        )
        offset = int(reply.get("offset", -1))
        return answer._replace(photo=photo, shape=(height, width), offset=offset, derived=derived)


def processor_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
