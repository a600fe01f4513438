"""Photos of many callers, embedded together.

Whatever waits when the network is free goes through it at once, up to a limit. Only while another batch
runs do a few photos of a small network wait for company, because a batch of one costs twice as much a
photo. Who gives up before his turn is passed over.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from fieldmark.app.decoders import Rate, busy
from fieldmark.errors import FieldmarkError

Look = UInt8[np.ndarray, "S S 3"]
Vector = Float[np.ndarray, " D"]
Encode = Callable[[list[Any]], Float[np.ndarray, "B D"]]

_LEAST = 4
"""Photos of a batch that may always go together."""
_log = logging.getLogger("fieldmark")


class _Asked(NamedTuple):
    look: Any
    answer: "Future[Any]"
    work: Callable[[], Any] | None = None


class Batcher:
    """One or more threads that run an encoder.

    Args:
        encode: Unit vectors of looks; called by one thread at a time for each of ``threads``.
        largest: Photos of a batch, at most.
        seconds: And as many as take a thread so long, where that is less, but ``_LEAST`` at least.
        threads: Batches at a time.
        most: Photos that may wait.
        told: How many photos a batch has.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        largest: int = 16,
        seconds: float = math.inf,
        threads: int = 1,
        most: int = 64,
        told: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._encode = encode
        self._largest = self._limit = largest
        self._seconds = seconds
        self._most = most
        self._queue: deque[_Asked] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._free = self._lanes = threads
        self.rate = Rate()
        self._told = told
        self._threads = [
            threading.Thread(target=self._run, name=f"fieldmark-encoder-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, look: Look) -> "Future[Vector]":
        """Embed a look.

        Raises:
            HttpProblem: 503 ``busy``.
        """
        return self._put(_Asked(look, Future()))

    def call(self, work: Callable[[], Any]) -> "Future[Any]":
        """Run something else that needs the network's processors, between batches.

        Raises:
            HttpProblem: 503 ``busy``.
        """
        return self._put(_Asked(None, Future(), work))

    def _put(self, asked: _Asked) -> "Future[Any]":
        with self._wake:
            if self._closed or len(self._queue) >= self._most:
                raise busy(self.rate.seconds(len(self._queue)))
            self._queue.append(asked)
            self._wake.notify()
        return asked.answer

    @property
    def waiting(self) -> int:
        """Photos in the queue."""
        return len(self._queue)

    def close(self) -> None:
        """Stop after the batch that runs; what waits is cancelled."""
        with self._wake:
            self._closed = True
            for asked in self._queue:
                asked.answer.cancel()
            self._queue.clear()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self) -> None:
        while taken := self._take():
            try:
                self._do(taken)
            except Exception:
                # The thread lives on: others wait.
                _log.exception("a batch was lost")
                for asked in taken:
                    if not asked.answer.done():
                        asked.answer.set_exception(FieldmarkError("the encoder failed."))
            finally:
                with self._wake:
                    self._free += 1

    def _take(self) -> list[_Asked]:
        """What waits, shared among the threads that are free; empty when it is time to end."""
        with self._wake:
            while not self._closed:
                company = (self._limit - _LEAST) // 2
                if self._free < self._lanes and len(self._queue) < company:
                    # Who ends the batch that runs looks again.
                    self._wake.wait()
                    continue
                share = min(self._limit, -(-len(self._queue) // max(self._free, 1)))
                found: list[_Asked] = []
                while self._queue and len(found) < share:
                    if found and self._queue[0].work is not None:
                        break
                    asked = self._queue.popleft()
                    if asked.answer.set_running_or_notify_cancel():
                        found.append(asked)
                    if found and found[0].work is not None:
                        break
                if found:
                    self._free -= 1
                    return found
                if not self._queue:
                    self._wake.wait()
        return []

    def _learn(self, seconds: float) -> None:
        """How large batches may be, from the processor time of a photo of the last one."""
        wanted = self._seconds / max(seconds, 1e-6)
        self._limit = int(min(self._largest, max(_LEAST, wanted)))

    def _do(self, taken: list[_Asked]) -> None:
        work = taken[0].work
        if work is not None:
            try:
                taken[0].answer.set_result(work())
            except BaseException as error:
                taken[0].answer.set_exception(error)
            return
        self._told(len(taken))
        began = time.thread_time()
        try:
            vectors = self._encode([asked.look for asked in taken])
        except Exception as error:
            if len(taken) > 1:
                # One of them is to blame, and only that one shall pay.
                for asked in taken:
                    self._do([asked])
                return
            _log.warning("a photo could not be embedded: %s: %s", type(error).__name__, error)
            taken[0].answer.set_exception(FieldmarkError("the encoder cannot embed this photo."))
            return
        self.rate.count(len(taken))
        self._learn((time.thread_time() - began) / len(taken))
        for asked, vector in zip(taken, vectors, strict=True):
            if np.isfinite(vector).all():
                asked.answer.set_result(vector)
            else:
                asked.answer.set_exception(
                    FieldmarkError("the encoder gave no finite numbers for this photo.")
                )
