"""Orientation and time from EXIF, in a few struct reads, for photos from anywhere.

Source: CIPA DC-008 (Exif 2.32), section 4.6; TIFF 6.0, section 2.
"""

import struct
from typing import NamedTuple

_ORIENTATION, _TIME, _EXIF_IFD, _TIME_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x9003
_ASCII, _SHORT, _LONG = 2, 3, 4


class Exif(NamedTuple):
    """What fieldmark uses of a photo's EXIF."""

    orientation: int = 1
    """1 to 8; 1 when absent or invalid."""
    taken: str | None = None
    """``YYYY:MM:DD HH:MM:SS`` as the camera wrote it."""
    broken: bool = False
    """The block or the orientation in it is invalid and was ignored."""


def _entries(block: bytes, order: str, offset: int) -> dict[int, tuple[int, int, bytes]]:
    (count,) = struct.unpack_from(order + "H", block, offset)
    found = {}
    for i in range(count):
        at = offset + 2 + 12 * i
        if at + 12 > len(block):
            break  # Keep what could be read: orientation comes early.
        tag, kind, length = struct.unpack_from(order + "HHI", block, at)
        found[tag] = (kind, length, block[at + 8 : at + 12])
    return found


def _text(block: bytes, order: str, entry: tuple[int, int, bytes] | None) -> str | None:
    if entry is None or entry[0] != _ASCII or not 19 <= entry[1] <= 64:
        return None
    (at,) = struct.unpack(order + "I", entry[2])
    text = block[at : at + 19].decode("ascii", "replace")
    digits = text.replace(":", "").replace(" ", "")
    return text if len(digits) == 14 and digits.isdigit() and digits.strip("0") else None


def parse_exif(block: bytes) -> Exif:
    """Read a TIFF-structured EXIF block; never raises.

    Args:
        block: Bytes from the byte-order mark on (in a JPEG: after ``Exif`` and two zeros).
    """
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        magic, first = struct.unpack_from(order + "HI", block, 2)
        if magic != 42:
            return Exif(broken=True)
        entries = _entries(block, order, first)
        taken = _text(block, order, entries.get(_TIME))
        sub = entries.get(_EXIF_IFD)
        if sub is not None and sub[0] in (_LONG, 13):
            try:
                inner = _entries(block, order, struct.unpack(order + "I", sub[2])[0])
                taken = _text(block, order, inner.get(_TIME_ORIGINAL)) or taken
            except struct.error:
                pass
        entry = entries.get(_ORIENTATION)
        if entry is None:
            return Exif(taken=taken)
        kind, length, value = entry
        if kind not in (_SHORT, _LONG) or length != 1:
            return Exif(taken=taken, broken=True)
        (orientation,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)
    except (KeyError, struct.error):
        return Exif(broken=True)
    if not 1 <= orientation <= 8:
        # 0 is what some cameras write for "not known".
        return Exif(taken=taken, broken=orientation != 0)
    return Exif(orientation, taken)
