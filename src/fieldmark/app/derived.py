"""Answers that take long: computed once in the background, asked for until they are there, and kept.

CACHE/
└── map-0123456789abcdef.json    what was computed, with what it was computed from and a hash of itself

A file that is damaged, or of other photos, another encoder or another version of the computation, is not
used; files may be deleted at any time.
"""

import hashlib
import itertools
import json
import logging
import math
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel

from fieldmark import storage
from fieldmark.app.problems import HttpProblem, problem_of
from fieldmark.errors import FieldmarkError

_log = logging.getLogger(__name__)
MOST_WAITING = 16
"""Computations that may wait; who asks for one more is told to come again."""
KEPT = 64
"""Answers in memory, the last that were asked for."""
ON_DISK = 200
"""Files in the cache, the youngest."""
_SLOW_SECONDS = 5.0
"""Computations that took longer are kept on disk."""
_AGAIN_SECONDS = 60.0
"""After which a computation that failed is tried anew."""
Value = TypeVar("Value")


class Working(BaseModel):
    """202: it is being computed; ask again."""

    state: str = "working"
    done: int
    total: int
    """Of ``done``; 0 where it is not known."""
    what: str
    """What is being done, for people."""


class Stopped(Exception):
    """Raised in a computation that nobody needs any more."""


Report = Callable[[str, int, int], None]
"""Told what is done, how far it is and of how many; raises :class:`Stopped`."""


@dataclass(frozen=True)
class Made(Generic[Value]):
    """A kind of answer."""

    name: str
    """Letters and dashes."""
    version: int
    """Grows when the same photos would give another answer."""
    urgency: int = 1
    """Of several that wait the one with the lowest is computed first: maps take minutes."""
    patience_seconds: float = math.inf
    """Given up when nobody has asked for so long; by default it is made to its end, for who comes later."""
    dump: Callable[[Value], bytes] | None = None
    load: Callable[[bytes], Value] | None = None
    """How it is kept on disk; None: only in memory."""


class _Job:
    def __init__(self, kind: Made[Any], key: str, make: Callable[[Report], Any]) -> None:
        self.kind, self.key, self.make = kind, key, make
        self.told = Working(done=0, total=0, what="waiting")
        self.done = threading.Event()
        self.problem: HttpProblem | None = None
        self.failed_at = 0.0
        self.waiters = 0
        self.asked_at = time.monotonic()

    @property
    def abandoned(self) -> bool:
        """Whether nobody wants it any more."""
        passed = time.monotonic() - self.asked_at
        return self.waiters == 0 and passed > self.kind.patience_seconds


class Derived:
    """Computes answers one after the other in a thread.

    Args:
        folder: Where to keep them; None: only in memory.
        current: Name of the snapshot as it is now; computations of another one are given up.
    """

    def __init__(self, folder: Path | None, current: Callable[[], str]) -> None:
        self._folder, self._current = folder, current
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._jobs: dict[str, _Job] = {}
        self._waiting: queue.PriorityQueue[tuple[int, int, _Job | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="fieldmark-derived", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give up what is being computed."""
        self._closed = True
        self._waiting.put((-1, 0, None))
        self._thread.join(5)

    def forget_others(self) -> None:
        """Let go of answers about photos as they were before."""
        current = self._current()
        with self._lock:
            for key in [key for key in self._kept if key.split("|", 2)[1] != current]:
                del self._kept[key]

    @property
    def waiting(self) -> int:
        """Computations that are not done."""
        with self._lock:
            return sum(not job.done.is_set() for job in self._jobs.values())

    def ask(
        self,
        kind: Made[Value],
        snapshot: str,
        make: Callable[[Report], Value],
        *,
        of: Mapping[str, Any] | None = None,
        wait_seconds: float = 0.0,
    ) -> Value | Working:
        """An answer, or how far it is.

        Args:
            kind: What.
            snapshot: Photos that it is of.
            make: Computes it; only where it is not there.
            of: What else it depends on.
            wait_seconds: How long to wait for it.

        Raises:
            HttpProblem: 503 ``busy`` where too many wait; what the computation raised.
        """
        key = _key(kind, snapshot, of)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast(Value, self._kept[key])
            job = self._jobs.get(key)
            if job is not None and job.problem is not None:
                if time.monotonic() - job.failed_at < _AGAIN_SECONDS:
                    raise job.problem
                job = None
            if job is None:
                if sum(not each.done.is_set() for each in self._jobs.values()) >= MOST_WAITING:
                    raise HttpProblem(
                        503,
                        "busy",
                        "too much is being computed already; try again soon.",
                        headers={"Retry-After": "5"},
                    )
                job = self._jobs[key] = _Job(kind, key, self._guarded(kind, snapshot, make, of))
                self._waiting.put((kind.urgency, next(self._numbers), job))
            job.waiters += 1
        try:
            done = bool(wait_seconds) and job.done.wait(wait_seconds)
        finally:
            with self._lock:
                job.waiters -= 1
                job.asked_at = time.monotonic()
        if done:
            with self._lock:
                if key in self._kept:
                    return cast(Value, self._kept[key])
            if job.problem is not None:
                raise job.problem
        return job.told

    def peek(
        self, kind: Made[Value], snapshot: str, *, of: Mapping[str, Any] | None = None
    ) -> Value | None:
        """An answer that is there already."""
        with self._lock:
            return cast(Value | None, self._kept.get(_key(kind, snapshot, of)))

    def keep(
        self,
        kind: Made[Value],
        snapshot: str,
        value: Value,
        *,
        of: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep an answer that was quick to compute."""
        with self._lock:
            self._kept[_key(kind, snapshot, of)] = value

    def progress(
        self, kind: Made[Any], snapshot: str, *, of: Mapping[str, Any] | None = None
    ) -> Working | None:
        """How far a computation is; None where none is under way."""
        with self._lock:
            job = self._jobs.get(_key(kind, snapshot, of))
        return None if job is None or job.done.is_set() else job.told

    # -- the thread

    def _guarded(
        self,
        kind: Made[Value],
        snapshot: str,
        make: Callable[[Report], Value],
        of: Mapping[str, Any] | None,
    ) -> Callable[[Report], Value]:
        def run(report: Report) -> Value:
            found = self._read(kind, snapshot, of)
            if found is not None:
                return found
            began = time.monotonic()
            made = make(report)
            if time.monotonic() - began > _SLOW_SECONDS:
                self._write(kind, snapshot, of, made)
            return made

        return run

    def _work(self) -> None:
        while True:
            _, _, job = self._waiting.get()
            if job is None or self._closed:
                return
            snapshot = job.key.split("|", 2)[1]

            def report(
                what: str, done: int, total: int, job: _Job = job, snapshot: str = snapshot
            ) -> None:
                job.told = Working(done=done, total=total, what=what)
                if self._closed or self._current() != snapshot or job.abandoned:
                    raise Stopped

            made: Any = None
            given_up = False
            try:
                report("beginning", 0, 0)
                made = job.make(report)
            except Stopped:
                given_up = not self._closed and self._current() == snapshot
                job.problem = HttpProblem(
                    409,
                    "snapshot_gone",
                    "photos were added, removed or changed since; load the table again.",
                )
            except HttpProblem as problem:
                job.problem = problem
            except FieldmarkError as error:
                job.problem = problem_of(error)
            except Exception:
                # The thread lives on: others wait for other answers.
                job.problem = HttpProblem(500, "failed", f"{job.kind.name} could not be computed.")
                _log.exception("%s could not be computed", job.kind.name)
            with self._lock:
                if given_up and job.waiters:
                    # Somebody came back in the last moment.
                    job.problem, job.asked_at = None, time.monotonic()
                    self._waiting.put((job.kind.urgency, next(self._numbers), job))
                    continue
                if given_up:
                    self._jobs.pop(job.key, None)
                elif job.problem is None:
                    self._kept[job.key] = made
                    del self._jobs[job.key]
                    while len(self._kept) > KEPT:
                        self._kept.popitem(last=False)
                else:
                    job.failed_at = time.monotonic()
                    self._forget_failures()
            job.done.set()

    def _forget_failures(self) -> None:
        old = time.monotonic() - _AGAIN_SECONDS
        for key, job in list(self._jobs.items()):
            if job.problem is not None and job.failed_at < old:
                del self._jobs[key]

    # -- the disk

    def _file(self, kind: Made[Any], snapshot: str, of: Mapping[str, Any] | None) -> Path | None:
        if self._folder is None or kind.dump is None:
            return None
        name = hashlib.sha256(_key(kind, snapshot, of).encode()).hexdigest()[:16]
        return self._folder / f"{kind.name}-{name}.json"

    def _read(self, kind: Made[Value], snapshot: str, of: Mapping[str, Any] | None) -> Value | None:
        file = self._file(kind, snapshot, of)
        if file is None or kind.load is None:
            return None
        # Whatever is wrong with the file, the answer can be computed.
        with suppress(Exception):
            head, _, body = file.read_bytes().partition(b"\n")
            told = json.loads(head)
            if told == {"of": _key(kind, snapshot, of), "sha256": storage.sha256_bytes(body)}:
                return kind.load(body)
        return None

    def _write(
        self, kind: Made[Value], snapshot: str, of: Mapping[str, Any] | None, value: Value
    ) -> None:
        file = self._file(kind, snapshot, of)
        if file is None or kind.dump is None:
            return
        body = kind.dump(value)
        told = {"of": _key(kind, snapshot, of), "sha256": storage.sha256_bytes(body)}
        # A disk that is full, or that may not be written, costs the computation again, no more.
        with suppress(FieldmarkError, OSError):
            storage.make_folder(file.parent)
            storage.write_bytes(file, json.dumps(told).encode() + b"\n" + body)
            files = [(each.stat().st_mtime_ns, each) for each in file.parent.glob("*-*.json")]
            for _, each in sorted(files)[:-ON_DISK]:
                each.unlink(missing_ok=True)


def _key(kind: Made[Any], snapshot: str, of: Mapping[str, Any] | None) -> str:
    told = json.dumps(dict(of or {}), sort_keys=True)
    return f"{kind.name}.{kind.version}|{snapshot}|{told}"
