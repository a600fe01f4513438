"""JPEG structure: header facts, and whether pixels are missing.

libjpeg fills what it cannot read with grey and says so only in warnings. The warnings alone are no
judge: stray bytes between segments, odd scan parameters and a missing end marker lose nothing, and
only the first warning can be read. So a photo that draws one is first rewritten in the plainest form
(:func:`plain`); what still warns is warned of in its picture data. Data that is missing at the end is
measured by decoding twice with other bytes in its place: pixels that differ hang on it.

Source: ITU-T T.81 (JPEG), annexes B and G; libjpeg-turbo's jdhuff.c for what is filled in.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])
_EXIF = b"Exif\0\0"


class JpegHeader(NamedTuple):
    """What the segments before the first scan say."""

    height: int
    width: int
    components: int
    precision: int
    progressive: bool
    exif: bytes | None
    adobe: bool = False
    """Adobe's segment is there: four components are stored inverted."""


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, place of the marker, and length of each segment; stray bytes are passed over."""
    at, end = 2, len(data)
    while at + 4 <= end:
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker in _NO_LENGTH or marker == 0:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, at, length
        at += 2 + length


def read_header(data: bytes) -> JpegHeader | None:
    """Walk the segments up to the first scan; None if there is no frame header."""
    exif: bytes | None = None
    frame: tuple[int, int, int, int, int] | None = None
    adobe = False
    for marker, at, length in _segments(data):
        if marker in (_SOS, _EOI):
            break
        if marker == _APP1 and exif is None and data[at + 4 : at + 10] == _EXIF:
            exif = data[at + 10 : at + 2 + length]
        elif marker == 0xEE and data[at + 4 : at + 9] == b"Adobe":
            adobe = True
        elif marker in _FRAMES and frame is None and at + 10 <= len(data):
            frame = (*struct.unpack_from(">BHHB", data, at + 4), marker)
    if frame is None:
        return None
    precision, height, width, components, marker = frame
    return JpegHeader(height, width, components, precision, marker in _PROGRESSIVE, exif, adobe)


class Scans(NamedTuple):
    """What lies between the frame header and the end."""

    end_of_data: int
    """Index after the last entropy-coded byte: where the end marker stands or should."""
    ended: bool
    """An end-of-image marker follows the last scan."""
    missing: str | None
    """A component or frequency that no scan brings to full precision, in words."""


def read_scans(data: bytes) -> Scans:
    """Walk all segments and scans of a JPEG whose header could be read."""
    at, end = 2, len(data)
    components: list[int] = []
    progressive = False
    # Lowest bit seen so far of each component's DC [0] and AC [1..63] coefficients.
    bits: dict[int, list[int]] = {}
    end_of_data, ended, in_scan = end, False, False
    while at + 1 < end:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= end:
            break
        marker = data[at + 1]
        if marker == 0 or marker == 0xFF or marker in _NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if in_scan:
            end_of_data, in_scan = at, False
        if marker == _EOI:
            ended = bool(bits)
            if ended:
                break
            at += 2
            continue
        if at + 4 > end:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAMES and not components:
            progressive = marker in _PROGRESSIVE
            count = data[at + 9] if at + 9 < end else 0
            components = list(data[at + 10 : at + 10 + 3 * count : 3])
        elif marker == _SOS:
            _note_scan(data[at + 4 : at + 2 + length], progressive, bits)
            in_scan, end_of_data = True, end
        at += 2 + length
    return Scans(min(end_of_data, end), ended, _incomplete(components, bits))


def _note_scan(body: bytes, progressive: bool, bits: dict[int, list[int]]) -> None:
    if not body or len(body) < 4 + 2 * body[0]:
        return
    count = body[0]
    start, stop, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
    if not progressive:
        start, stop, low = 0, 63, 0
    for component in body[1 : 1 + 2 * count : 2]:
        planes = bits.setdefault(component, [99] * 64)
        for k in range(start, min(stop, 63) + 1):
            planes[k] = low


def _incomplete(components: list[int], bits: dict[int, list[int]]) -> str | None:
    absent = [c for c in components if c not in bits]
    if absent:
        return f"{len(absent)} of {len(components)} colour components are missing"
    coarse = sum(low > 0 for component in components for low in bits[component])
    if coarse:
        share = coarse / (64 * len(components))
        return f"{share:.0%} of the detail was never sent (later scans are missing)"
    return None


def plain(data: bytes) -> bytes:
    """The same picture without anything a decoder need not read.

    Comments, application data and stray bytes before the first scan are dropped, scan parameters of
    sequential files are set to the only valid ones, and the file ends in an end marker.
    """
    out = bytearray(b"\xff\xd8")
    progressive = False
    at = 2
    for marker, at, length in _segments(data):
        segment = bytearray(data[at : at + 2 + length])
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
        if marker == _SOS:
            break
        if marker in (0xC4, 0xCC, 0xDB, 0xDD) or marker in _FRAMES:
            out += segment
        elif marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 16:
            segment[9] = 1  # The major version; others only draw a warning.
            out += segment
        elif (
            marker == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16 and segment[15] <= 2
        ):
            out += segment
    rest = bytearray(data[at : read_scans(data).end_of_data])
    if not progressive:
        _set_scan_parameters(rest)
    return bytes(out + rest + b"\xff\xd9")


def _set_scan_parameters(rest: bytearray) -> None:
    at = rest.find(b"\xff\xda")
    while at >= 0 and at + 5 <= len(rest):
        tail = at + 5 + 2 * rest[at + 4]
        if tail + 3 <= len(rest):
            rest[tail : tail + 3] = b"\x00\x3f\x00"
        at = rest.find(b"\xff\xda", tail)


_STRAY = re.compile(r"(\d+) extraneous bytes before marker")


def judge(warning: str, data: bytes) -> str | None:
    """What a decoder's warning about a file in plain form means for the picture.

    Args:
        warning: libjpeg's first warning.
        data: The file in plain form.

    Returns:
        The damage in words, or None when the warning is of no harm.
    """
    found = _STRAY.search(warning)
    if found is not None:
        # A decoder that lost its place ends with data left over; cameras pad with one value.
        count = int(found[1])
        end = read_scans(data).end_of_data
        left = data[max(0, end - count) : end]
        if len(set(left)) <= 1:
            return None
        return f"{count} bytes of picture data are left over after the last block"
    if any(word in warning for word in _PICTURE_WARNINGS):
        return warning.removeprefix("Corrupt JPEG data: ")
    return None


_PICTURE_WARNINGS = ("Huffman", "premature end", "Premature end", "found marker", "progression")
