"""Randomness that is addressed, not consumed (docs/design.md, rule 4).

A number depends only on its address, such as (seed, epoch, row, view), never on what was drawn
before, how many workers there are or in which order they ran. The mixing function is SplitMix64's
finaliser (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), applied
once per word of the address.
"""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Word = int | str | npt.NDArray[Any]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def _finalise(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _word(value: Word) -> npt.NDArray[np.uint64]:
    if isinstance(value, str):
        value = zlib.crc32(value.encode())
    if isinstance(value, (int, np.integer)):
        return np.asarray(int(value) & _MASK, dtype=np.uint64)
    return np.asarray(value).astype(np.int64).view(np.uint64)


def mix(*address: Word) -> npt.NDArray[np.uint64]:
    """Hash an address to 64 bits.

    Args:
        address: Integers, short names or integer arrays; arrays broadcast against each other.

    Returns:
        uint64 array of the broadcast shape (0-d when all words are scalars).
    """
    with np.errstate(over="ignore"):
        state = np.asarray(_GOLDEN)
        for word in address:
            state = _finalise((state ^ _word(word)) * np.uint64(0xD1342543DE82EF95) + _GOLDEN)
        return np.asarray(state)


def uniform(count: int, *address: Word) -> npt.NDArray[np.float64]:
    """Draw ``count`` numbers in [0, 1) for every address.

    Returns:
        float64 array of the address's broadcast shape with one more axis of length ``count``.

    Example:
        >>> uniform(2, 7, 0, np.arange(3)).shape
        (3, 2)
    """
    bits = mix(*(np.asarray(_word(w))[..., None] for w in address), np.arange(count))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seed_of(*address: Word) -> int:
    """One 63-bit seed for a library generator (``torch.Generator``, ``numpy.random``)."""
    return int(mix(*address)) >> 1
