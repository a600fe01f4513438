"""Photos decoded in processes of their own, for many callers at once.

A thread for each worker process takes jobs from queues, so that nothing waits on the event loop. What
people wait for goes first: photos that are asked about, then pictures to show, then pictures that
nobody has asked for yet.
"""

import itertools
import logging
import math
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import Future
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from fieldmark.app.problems import HttpProblem
from fieldmark.data.catalog import Location
from fieldmark.data.decode import Limits
from fieldmark.data.derive import Want
from fieldmark.data.sandbox import DecodePool, Job, Reply
from fieldmark.errors import FieldmarkError, PhotoError

_AT_ONCE = 4
"""Jobs that a worker is given at a time: the next is there when one is done."""
_NICE = 5
_log = logging.getLogger("fieldmark.app")


class Lane(IntEnum):
    """How urgent a job is."""

    question = 0
    picture = 1
    ahead = 2


class Wish(NamedTuple):
    """A photo and what is wanted of it."""

    photo: bytes | Location
    want: Want


_Waiting = tuple[Wish, "Future[Reply]"]


class Decoders:
    """Worker processes behind bounded queues.

    Args:
        workers: Processes.
        most: Jobs that may wait in each lane.
        limits: What a photo may cost.
        folder: Private folder for photos that came as bytes.
        decoder: As of :class:`fieldmark.data.sandbox.DecodePool`, for tests.
    """

    def __init__(
        self,
        workers: int,
        *,
        most: tuple[int, int, int] = (64, 512, 64),
        limits: Limits | None = None,
        folder: Path,
        decoder: str | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._most = most
        self._folder = folder
        self._decoder = decoder
        self._lanes: tuple[deque[_Waiting], ...] = tuple(deque() for _ in Lane)
        self._wake = threading.Condition()
        self._closed = False
        self._turn = 0
        self._numbers = itertools.count()
        self.rate = Rate()
        self.broken: str | None = None
        """Why workers cannot be started, where they cannot."""
        self._threads = [
            threading.Thread(target=self._work, name=f"fieldmark-decoders-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, wish: Wish, lane: Lane = Lane.question) -> "Future[Reply]":
        """Decode a photo as soon as its turn comes.

        The future's result is a reply without an error; it fails with the PhotoError. Cancelled before
        its turn, the photo is not decoded.

        Raises:
            HttpProblem: 503 ``busy``.
        """
        future: Future[Reply] = Future()
        with self._wake:
            if self._closed:
                raise busy(1)
            if len(self._lanes[lane]) >= self._most[lane]:
                raise busy(self.rate.seconds(len(self._lanes[lane])))
            self._lanes[lane].append((wish, future))
            self._wake.notify()
        return future

    @property
    def waiting(self) -> int:
        """Photos in all queues."""
        return sum(len(lane) for lane in self._lanes)

    def close(self) -> None:
        """End the workers; what waits is cancelled."""
        with self._wake:
            self._closed = True
            for lane in self._lanes:
                for _, future in lane:
                    future.cancel()
                lane.clear()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=self._limits.max_seconds + 5)

    def _work(self) -> None:
        with DecodePool(1, limits=self._limits, decoder=self._decoder, nice=_NICE) as pool:
            while taken := self._take():
                self._decode(pool, taken)

    def _take(self) -> list[_Waiting]:
        """Some of those that wait; empty when it is time to end."""
        with self._wake:
            while not self._closed:
                found: list[_Waiting] = []
                asked = [lane for lane in self._lanes[: Lane.ahead] if lane]
                share = math.ceil(sum(map(len, asked)) / len(self._threads))
                while asked and len(found) < min(_AT_ONCE, share):
                    # In turns: a page that scrolls and a program that embeds both get on.
                    self._turn += 1
                    lane = asked[self._turn % len(asked)]
                    _claim(lane.popleft(), found)
                    asked = [each for each in asked if each]
                ahead = self._lanes[Lane.ahead]
                if not found and ahead:
                    _claim(ahead.popleft(), found)
                if found:
                    return found
                if not any(self._lanes):
                    self._wake.wait()
        return []

    def _decode(self, pool: DecodePool, taken: list[_Waiting]) -> None:
        futures: dict[int, tuple[Wish, Future[Reply]]] = {}
        files: list[Path] = []
        try:
            jobs = []
            for wish, future in taken:
                number = next(self._numbers)
                futures[number] = (wish, future)
                location = wish.photo
                if isinstance(location, bytes):
                    files.append(self._spool(location))
                    location = Location(str(files[-1]))
                jobs.append(Job(number, location, want=wish.want))
            for reply in pool.map(jobs):
                self.rate.count()
                wish, future = futures.pop(reply.id)
                self.broken = None
                error = reply.error or _wrong(reply, wish.want)
                if error is None:
                    future.set_result(reply)
                else:
                    future.set_exception(error)
        except (FieldmarkError, OSError) as error:
            self.broken = "workers cannot be started"
            for _, future in futures.values():
                future.set_exception(FieldmarkError(f"photos cannot be decoded: {error}"))
            futures.clear()
            time.sleep(0.5)
        except Exception as error:
            # A worker that a photo has taken over may say anything; it is not asked again.
            _log.warning("a decoder's answer made no sense: %s", type(error).__name__)
            pool.close()
        finally:
            for _, future in futures.values():
                future.set_exception(FieldmarkError("the decoder did not answer."))
            for file in files:
                file.unlink(missing_ok=True)

    def _spool(self, data: bytes) -> Path:
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="photo-", delete=False) as file:
            file.write(data)
            return Path(file.name)


def _claim(waiting: _Waiting, found: list[_Waiting]) -> None:
    if waiting[1].set_running_or_notify_cancel():
        found.append(waiting)


def _wrong(reply: Reply, want: Want) -> PhotoError | None:
    """What a worker that a photo has taken over might send."""
    derived = reply.derived
    if derived is not None and reply.photo is not None and reply.content_hash is not None:
        look, size = derived.look, want.get("look", (0, 0))[0]
        sound = ("look" in want) == (look is not None)
        sound &= look is None or look.shape == (size, size, 3)
        sound &= ("picture" in want) == (derived.picture is not None)
        sound &= derived.picture is None or derived.picture[:3] == b"\xff\xd8\xff"
        sound &= ("pixels" in want) == (derived.pixels is not None)
        if sound:
            return None
    return PhotoError("broken", "the decoder gave something else than was asked for")


class Rate:
    """Things done per second, lately."""

    _MEMORY = 3.0

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._rate = 0.0

    def count(self, things: int = 1) -> None:
        """So many more are done."""
        now = time.monotonic()
        # A pause says nothing of how fast it goes when there is work.
        passed = min(max(now - self._at, 1e-6), 1.0)
        weight = math.exp(-passed / self._MEMORY)
        self._rate = weight * self._rate + (1 - weight) * things / passed
        self._at = now

    def seconds(self, things: int) -> int:
        """How long so many will take, from 1 to 60; a guess where nothing was done yet."""
        return max(1, min(60, math.ceil(things / self._rate if self._rate > 0.1 else 5)))


def busy(seconds: int) -> HttpProblem:
    """Too much is waiting already."""
    return HttpProblem(
        503,
        "busy",
        f"the service has as much to do as it takes; try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )
