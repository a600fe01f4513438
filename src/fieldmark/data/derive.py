"""What a service wants of a photo, made where the photo is decoded, so that little travels back.

Nothing of the file but its pixels is in what comes out: no place, no camera, no thumbnail of its own.
"""

import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from fieldmark.data.decode import Photo
from fieldmark.data.jpeg import read_header
from fieldmark.data.look import look_at, short_side

_OVERSAMPLING = 2
"""As when photos are embedded (``fieldmark.data.stream``): the same pixels reach the network."""
Pixels = UInt8[np.ndarray, "_H _W 3"]


class Want(TypedDict, total=False):
    """What is asked of a photo."""

    look: tuple[int, float]
    """Side of the encoder's square, and share of the short side that is kept."""
    pixels: int
    """Upright pixels whose short side is at least this, or the photo's own."""
    picture: tuple[int, int]
    """Most pixels of the long side, and quality, 1 to 100: a JPEG without metadata."""


class Derived(NamedTuple):
    """What was made of a photo."""

    look: UInt8[np.ndarray, "S S 3"] | None
    pixels: Pixels | None
    picture: bytes | None


def derive(
    data: bytes, want: Want, decode: Callable[..., Photo], **how: Any
) -> tuple[Photo, list[tuple[str, tuple[int, ...], bytes]]]:
    """Make what is wanted.

    Args:
        data: The file.
        want: What of it.
        decode: As :func:`fieldmark.data.decode.decode`.
        how: For the decoder.

    Returns:
        The photo without pixels, and name, shape and bytes of each thing.

    Raises:
        PhotoError: As the decoder.
    """
    decoded: dict[int, Photo] = {}

    def at(enough: int) -> Photo:
        if enough not in decoded:
            decoded[enough] = decode(data, enough=enough, **how)
        return decoded[enough]

    made: list[tuple[str, tuple[int, ...], bytes]] = []
    if "look" in want:
        size, crop = want["look"]
        look = look_at(at(_OVERSAMPLING * short_side(size, crop)).pixels, size, crop)
        made.append(("look", look.shape, look.tobytes()))
    if "pixels" in want:
        pixels = at(want["pixels"]).pixels
        made.append(("pixels", pixels.shape, np.ascontiguousarray(pixels).tobytes()))
    if "picture" in want:
        long, quality = want["picture"]
        photo = at(_short(data, long))
        made.append(("picture", (), picture(photo.pixels, photo.original, long, quality)))
    photo = next(iter(decoded.values())) if decoded else decode(data, enough=1, **how)
    return photo._replace(pixels=np.zeros((0, 0, 3), np.uint8)), made


def _short(data: bytes, long: int) -> int:
    """Short side of a JPEG whose long side is brought to this length; larger for other formats."""
    header = read_header(data) if data[:2] == b"\xff\xd8" else None
    if header is None or min(header.height, header.width) < 1:
        return long
    sides = sorted((header.height, header.width))
    return max(1, math.ceil(long * sides[0] / sides[1]))


def picture(pixels: Pixels, original: tuple[int, int], long: int, quality: int) -> bytes:
    """A JPEG of upright pixels, no longer than asked for and never enlarged.

    Args:
        pixels: As they were decoded, perhaps scaled down meanwhile.
        original: Height and width before that.
        long: Most pixels of the long side.
        quality: 1 to 100.
    """
    scale = min(1.0, long / max(original))
    height, width = (max(1, round(side * scale)) for side in original)
    size = (width, height)
    if pixels.shape[:2] != (height, width):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))
    pixels = np.ascontiguousarray(pixels)
    try:
        return bytes(simplejpeg.encode_jpeg(pixels, quality, colorspace="RGB"))
    except ValueError:
        # libjpeg-turbo's interface refuses some sizes that the format allows.
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "JPEG", quality=quality)
        return sink.getvalue()


def unpack(parts: list[list[Any]], payload: bytes) -> Derived:
    """What :func:`derive` made, after it has travelled.

    Args:
        parts: Name, shape and number of bytes of each thing.
        payload: Their bytes, one after another.
    """
    found: dict[str, Any] = {}
    begin = 0
    for name, shape, length in parts:
        data = payload[begin : begin + int(length)]
        begin += int(length)
        found[name] = np.frombuffer(data, np.uint8).reshape(shape) if shape else data
    return Derived(found.get("look"), found.get("pixels"), found.get("picture"))
