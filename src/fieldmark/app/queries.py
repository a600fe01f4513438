"""Photos that were uploaded to ask about, remembered for some time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "_ _ 3"]


class Query(NamedTuple):
    """An uploaded photo, as far as it is remembered; of its file nothing is left but pixels."""

    media: str
    """First 32 hex digits of the SHA-256 of its content."""
    vector: Float[np.ndarray, " D"]
    look: UInt8[np.ndarray, "S S 3"]
    """What the encoder sees."""
    whole: UInt8[np.ndarray, "y x 3"] | None
    """What region search sees; None where the index has no parts."""
    picture: bytes
    """JPEG for the eye."""
    width: int
    height: int
    notes: tuple[str, ...]
    damage: str | None


class Queries:
    """The latest uploads, by media id.

    Args:
        most: How many are remembered.
        most_bytes: And how large they may be together.
        seconds: For how long after they were last asked for.
        clock: For tests.
    """

    def __init__(
        self,
        most: int = 256,
        *,
        most_bytes: int = 300_000_000,
        seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._most_bytes, self._seconds = most, most_bytes, seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[Query, float]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, query: Query) -> None:
        """Remember one; the one that was not asked for longest goes."""
        with self._lock:
            self._drop(query.media)
            self._kept[query.media] = query, self._clock()
            self._bytes += _size(query)
            self._forget_old()
            while len(self._kept) > self._most or (
                self._bytes > self._most_bytes and len(self._kept) > 1
            ):
                self._drop(next(iter(self._kept)))

    def get(self, media: str) -> Query | None:
        """One that is still remembered."""
        with self._lock:
            self._forget_old()
            found = self._kept.get(media)
            if found is None:
                return None
            self._kept[media] = found[0], self._clock()
            self._kept.move_to_end(media)
            return found[0]

    def clear(self) -> None:
        """Forget all: they are of another encoder."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _forget_old(self) -> None:
        now = self._clock()
        while self._kept and now - next(iter(self._kept.values()))[1] > self._seconds:
            self._drop(next(iter(self._kept)))

    def _drop(self, media: str) -> None:
        found = self._kept.pop(media, None)
        if found is not None:
            self._bytes -= _size(found[0])


def _size(query: Query) -> int:
    whole = 0 if query.whole is None else query.whole.nbytes
    return query.vector.nbytes + query.look.nbytes + whole + len(query.picture)
