"""How fast the steps go, without the pauses between them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Speed:
    """Photos per second of steps alone; health and saving are pauses.

    Args:
        batch_size: Photos per step.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.seconds = 0.0
        self.steps = 0
        self._last: float | None = None
        self._smooth = 0.0

    def step(self) -> None:
        """A step ended. The first one only starts the clock: it pays for preparations."""
        now = time.perf_counter()
        if self._last is not None:
            took = now - self._last
            self.seconds += took
            self.steps += 1
            self._smooth = took if self.steps == 1 else 0.9 * self._smooth + 0.1 * took
        self._last = now

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in this block belongs to no step."""
        began = time.perf_counter()
        yield
        if self._last is not None:
            self._last += time.perf_counter() - began

    @property
    def recent(self) -> float:
        """Photos per second of about the last ten steps; 0 while unknown."""
        return self.batch_size / self._smooth if self._smooth else 0.0

    @property
    def overall(self) -> float:
        """Photos per second of all steps; 0 while unknown."""
        return self.batch_size * self.steps / self.seconds if self.seconds else 0.0
