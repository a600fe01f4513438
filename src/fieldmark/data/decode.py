"""One photo from bytes to upright 8-bit RGB, whatever it is and wherever it comes from.

Only listed formats are opened, limits are read from the header before anything is allocated, and
every failure is a :class:`PhotoError` with a code. Silent damage is told by the pixels that are
missing, not by a decoder's taste.
"""

import io
import math
import struct
import warnings
import zlib
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageFile
from pydantic import Field

from fieldmark.config import Config
from fieldmark.data.exif import Exif, parse_exif
from fieldmark.data.jpeg import JpegHeader, judge, plain, read_header, read_scans
from fieldmark.errors import PhotoError

Pixels = UInt8[np.ndarray, "_ _ 3"]
"""Height, width and RGB of a photo; both sides vary from photo to photo."""

CODES: dict[str, str] = {
    "missing": "the file is gone, or the table names a file that is not there",
    "not_regular": "a folder, FIFO, socket or device where a file is needed",
    "unreadable": "the operating system does not let it be read",
    "changed": "the file changed while it was being used",
    "link_loop": "a link that leads back to itself or above itself",
    "hidden": "the name begins with a dot",
    "not_a_photo": "neither name nor content is that of a photo",
    "repeated": "listed twice",
    "empty": "zero bytes",
    "too_many_bytes": "larger than allowed",
    "too_many_pixels": "more pixels than allowed, read from the header",
    "too_slow": "decoding took longer than allowed",
    "too_much_memory": "decoding needed more memory than allowed",
    "decoder_crashed": "the decoder's process died on it",
    "format_not_allowed": "not JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF or HEIC",
    "unsupported": "a variant that cannot be decoded here",
    "broken": "cannot be decoded",
    "ends_early": "decodes, but data at the end is missing",
    "bad_data": "decodes, but part of the picture is wrong",
    "bad_checksum": "decodes, but its checksum says that data was altered",
}
"""Every reason for not using a photo. The last three are damage: there are pixels all the same."""

MAX_ASPECT = 4
"""The long side of a stored photo is at most this many times the short side asked for."""


class Limits(Config):
    """What one photo may cost; beyond it the photo is refused."""

    max_pixels: int = Field(default=50_000_000, gt=0)
    """Width times height, from the header."""
    max_bytes: int = Field(default=300_000_000, gt=0)
    """Size of the file."""
    max_seconds: float = Field(default=20.0, gt=0)
    """Wall-clock time for reading and decoding; kept by the worker processes."""
    max_memory_bytes: int = Field(default=1_500_000_000, gt=0)
    """Memory beyond what an idle worker needs; kept by the worker processes."""


class Photo(NamedTuple):
    """A decoded photo."""

    pixels: Pixels
    """Upright, RGB."""
    damage: str | None
    """``code: reason`` when pixels are missing or wrong."""
    notes: tuple[str, ...]
    """Oddities that lose nothing."""
    original: tuple[int, int]
    """Height and width of the upright photo before scaling."""
    format: str = ""
    taken: str | None = None
    """``YYYY:MM:DD HH:MM:SS`` from EXIF."""


_LIMITS = Limits()
_BRANDS_AVIF = (b"avif", b"avis")
_BRANDS_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def sniff(head: bytes) -> str | None:
    """Name the format from the first 32 bytes, by content and never by name; None if not allowed."""
    if head[:2] == b"\xff\xd8":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    # A BMP's reserved words are zero: "BM" alone begins many texts.
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = [head[i : i + 4] for i in (8, 16, 20, 24, 28)]
        if any(brand in _BRANDS_AVIF for brand in brands):
            return "AVIF"
        if any(brand in _BRANDS_HEIF for brand in brands):
            return "HEIF"
    return None


def decode(
    data: bytes,
    *,
    limits: Limits = _LIMITS,
    short_side: int | None = None,
    enough: int | None = None,
) -> Photo:
    """Decode a photo.

    Args:
        data: The file's bytes.
        limits: What it may cost. Time and memory are kept only inside a worker process.
        short_side: Scale down, with antialiasing, until the short side has this many pixels (and
            the long side at most ``MAX_ASPECT`` times as many); never up. None keeps the size.
        enough: Instead of ``short_side``: whoever scales the photo further needs a short side of
            no more pixels. JPEGs then come out smaller, at no cost; other formats as they are.

    Returns:
        Upright RGB pixels, with damage and oddities.

    Raises:
        PhotoError: With a code from ``CODES``.
    """
    if not data:
        raise PhotoError("empty", "the file has zero bytes")
    if len(data) > limits.max_bytes:
        raise PhotoError(
            "too_many_bytes", f"{len(data)} bytes; at most {limits.max_bytes} are allowed"
        )
    kind = sniff(data[:32])
    if kind is None:
        raise PhotoError(
            "format_not_allowed",
            "the content is not JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF or HEIC"
            f" (it begins with {data[:8]!r})",
        )
    try:
        if kind == "JPEG":
            return _decode_jpeg(data, limits, short_side, enough)
        return _decode_other(data, kind, limits, short_side)
    except PhotoError:
        raise
    except MemoryError:
        raise PhotoError("too_much_memory", "decoding needs more memory than allowed") from None
    except Exception as error:
        # Decoders raise nearly anything on hostile files: ValueError, SyntaxError, struct.error, …
        text = " ".join(str(error).partition(" <_io.")[0].split())[:200]
        raise PhotoError(
            "broken", f"{kind} cannot be decoded: {text or type(error).__name__}"
        ) from None


def resize_short(pixels: Pixels, short_side: int) -> Pixels:
    """Scale down with antialiasing to a short side; never enlarge.

    A panorama is scaled until its long side is ``MAX_ASPECT * short_side``, so that one of them
    cannot take the room of hundreds of photos.
    """
    height, width = pixels.shape[:2]
    return _resize(pixels, target_shape(height, width, short_side))


def _resize(pixels: Pixels, target: tuple[int, int]) -> Pixels:
    if pixels.shape[:2] == target:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    # Bilinear with a support that grows with the scale is the antialiased triangle filter.
    return np.asarray(image.resize((target[1], target[0]), Image.Resampling.BILINEAR))


def target_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width that :func:`resize_short` gives."""
    short, long = min(height, width), max(height, width)
    scale = min(1.0, short_side / short, MAX_ASPECT * short_side / long)
    if scale == 1.0:
        return height, width
    return max(1, round(height * scale)), max(1, round(width * scale))


def _check_pixels(height: int, width: int, limits: Limits) -> None:
    if height < 1 or width < 1:
        raise PhotoError("broken", f"the header says {width} × {height} pixels")
    if height * width > limits.max_pixels:
        raise PhotoError(
            "too_many_pixels",
            f"{width} × {height} = {height * width / 1e6:.1f} million pixels; "
            f"at most {limits.max_pixels / 1e6:g} million are allowed",
        )


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror pixels as EXIF orientation 1 to 8 says."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _finish(
    pixels: Pixels,
    original: tuple[int, int],
    short_side: int | None,
    exif: Exif,
    *,
    kind: str,
    damage: str | None = None,
    notes: tuple[str, ...] = (),
) -> Photo:
    height, width = original
    if short_side is not None:
        # From the original's shape, so that a decoder that scaled first ends at the same size.
        pixels = _resize(pixels, target_shape(height, width, short_side))
    pixels = np.ascontiguousarray(upright(pixels, exif.orientation))
    if exif.broken:
        notes = (*notes, "broken EXIF was ignored")
    if exif.orientation >= 5:
        height, width = width, height
    return Photo(pixels, damage, notes, (height, width), kind, exif.taken)


def _decode_jpeg(data: bytes, limits: Limits, short_side: int | None, enough: int | None) -> Photo:
    header = read_header(data)
    if header is None:
        raise PhotoError("broken", "JPEG without a frame header: nothing of the picture is there")
    _check_pixels(header.height, header.width, limits)
    exif = parse_exif(header.exif) if header.exif is not None else Exif()
    least = (0, 0)
    if short_side is not None:
        least = target_shape(header.height, header.width, short_side)
    elif enough is not None:
        share = min(1.0, enough / min(header.height, header.width))
        least = (math.ceil(header.height * share), math.ceil(header.width * share))
    damage: str | None = None
    notes: tuple[str, ...] = ()
    try:
        pixels = _turbo(data, header, least)
    except ValueError as error:
        pixels, damage, notes = _decode_odd_jpeg(data, header, least, str(error))
    original = (header.height, header.width)
    return _finish(pixels, original, short_side, exif, kind="JPEG", damage=damage, notes=notes)


def _turbo(
    data: bytes, header: JpegHeader, least: tuple[int, int] = (0, 0), *, strict: bool = True
) -> Pixels:
    """Decode with libjpeg-turbo, which may scale down to ``least`` meanwhile.

    Raises:
        ValueError: On any warning, or when not strict on what cannot be decoded.
    """
    height, width = least
    colours = "CMYK" if header.components == 4 else "RGB"
    pixels: Any = simplejpeg.decode_jpeg(
        data, colours, min_height=height, min_width=width, strict=strict
    )
    if colours == "CMYK":
        if header.adobe:
            pixels = 255 - pixels  # Adobe writes CMYK inverted.
        shape = (pixels.shape[1], pixels.shape[0])
        return np.asarray(Image.frombytes("CMYK", shape, pixels.tobytes()).convert("RGB"))
    return pixels


def _jpeg_pixels(data: bytes, header: JpegHeader) -> Pixels:
    """Decode leniently: what is missing becomes grey."""
    try:
        return _turbo(data, header, strict=False)
    except ValueError:
        # Pillow reads sampling factors that simplejpeg does not.
        return _pillow_pixels(data, "JPEG", _LIMITS)[0]


def _decode_odd_jpeg(
    data: bytes, header: JpegHeader, least: tuple[int, int], warning: str
) -> tuple[Pixels, str | None, tuple[str, ...]]:
    clean = plain(data)
    scans = read_scans(clean)
    notes: tuple[str, ...] = (f"odd JPEG, nothing missing: {warning}",)
    try:
        pixels = _turbo(clean, header, least)
        warning = ""
    except ValueError as error:
        warning = str(error)
        pixels = _jpeg_pixels(clean, header)
    if scans.missing:
        return pixels, f"ends_early: {scans.missing}", ()
    if not warning:
        return pixels, None, notes
    # Bytes that read as other Huffman codes; none is 0xFF, so both tails stay inside the scan.
    one, other = (
        _jpeg_pixels(clean[: scans.end_of_data] + tail * 64 + b"\xff\xd9", header)
        for tail in (b"\x00\x5a", b"\xa5\x33")
    )
    differs = np.flatnonzero((one != other).any(axis=(1, 2)))
    if len(differs):
        # Nothing after the first missing byte can be read: it is lost down to the last row.
        lost = 1 - int(differs[0]) / header.height
        return pixels, f"ends_early: the lowest {lost:.1%} of the picture are missing", ()
    verdict = judge(warning, clean)
    if verdict is not None:
        return pixels, f"bad_data: {verdict}", ()
    return pixels, None, notes


def _decode_other(data: bytes, kind: str, limits: Limits, short_side: int | None) -> Photo:
    if kind == "GIF" and len(data) >= 10:
        # Pillow looks for the first frame before it looks at the size.
        width, height = struct.unpack_from("<HH", data, 6)
        _check_pixels(height, width, limits)
    damage, notes = _check_png(data) if kind == "PNG" else (None, ())
    pixels, exif, more = _pillow_pixels(data, kind, limits)
    return _finish(
        pixels, pixels.shape[:2], short_side, exif, kind=kind, damage=damage, notes=notes + more
    )


def _check_png(data: bytes) -> tuple[str | None, tuple[str, ...]]:
    """Verify checksums: Pillow does not look at those of the pixel data."""
    view = memoryview(data)
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        name = bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        if end > len(data):
            break
        stored = int.from_bytes(view[end - 4 : end], "big")
        if zlib.crc32(view[at + 4 : end - 4]) != stored:
            if name[:1].isupper() or name == b"tRNS":
                return f"bad_checksum: PNG chunk {name.decode('latin-1')} was altered", ()
            return None, ("an optional PNG chunk has a wrong checksum",)
        if name == b"IEND":
            break
        at = end
    return None, ()


def _open_heif(data: bytes) -> Any:
    try:
        import pillow_heif
    except ImportError:
        raise PhotoError(
            "unsupported",
            "HEIC needs the package 'pillow-heif'; install it with: pip install 'fieldmark[heic]'",
        ) from None
    pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(data), formats=["HEIF"])


def _pillow_pixels(data: bytes, kind: str, limits: Limits) -> tuple[Pixels, Exif, tuple[str, ...]]:
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is judged here.
        try:
            image = (
                _open_heif(data) if kind == "HEIF" else Image.open(io.BytesIO(data), formats=[kind])
            )
        except Image.DecompressionBombError as error:
            raise PhotoError("too_many_pixels", str(error).split(",")[0]) from None
        with image:
            _check_pixels(image.height, image.width, limits)
            if kind in ("GIF", "WEBP", "PNG", "AVIF") and getattr(image, "is_animated", False):
                notes.append("animated: the first frame is used")
            # A file that stops early must fail here, whatever the caller's program set.
            before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            try:
                image.load()
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
            exif = _pillow_exif(image, kind)
            # TIFF may decode to another size than its header's first guess.
            _check_pixels(image.height, image.width, limits)
            return _to_rgb(image, notes), exif, tuple(notes)


def _pillow_exif(image: Any, kind: str) -> Exif:
    try:
        if kind == "TIFF":
            # Pillow turns TIFFs itself while loading and resets the tag.
            return Exif(int(image.getexif().get(0x0112, 1) or 1) if image.tag_v2 else 1)
        block = image.info.get("exif")
        if isinstance(block, bytes) and block:
            return parse_exif(block.removeprefix(b"Exif\0\0"))
        return Exif()
    except Exception:
        return Exif(broken=True)


def _to_rgb(image: Any, notes: list[str]) -> Pixels:
    """Convert any Pillow mode to 8-bit RGB; alpha is composited on white."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _gray(_scale(np.asarray(image), 65535.0))
    if mode in ("I", "F"):
        return _gray(_scale_wide(np.asarray(image), notes))
    if mode == "LAB":
        return _lab(image, notes)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if mode in ("RGBa", "La"):
            image = image.convert({"RGBa": "RGBA", "La": "LA"}[mode])
        image = image.convert("RGBA")
        low, _ = image.getchannel("A").getextrema()
        if low < 255:
            notes.append("transparency was put on white")
            ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
            ground.alpha_composite(image)
            image = ground
    return np.asarray(image.convert("RGB"))


def _gray(values: UInt8[np.ndarray, "H W"]) -> Pixels:
    return np.repeat(values[:, :, None], 3, axis=2)


def _scale(values: Any, top: float) -> UInt8[np.ndarray, "H W"]:
    # 65535 / 255 = 257: black stays black, white stays white, nothing is clipped.
    return np.rint(values.astype(np.float32) * (255.0 / top)).clip(0, 255).astype(np.uint8)


def _scale_wide(values: Any, notes: list[str]) -> UInt8[np.ndarray, "H W"]:
    """32-bit grey has no agreed white: use the smallest usual range that holds the values."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    tops = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    if low >= 0:
        for top in tops:
            if high <= top:
                return _scale(values, top)
    notes.append(f"32-bit values from {low:g} to {high:g} were stretched to the full range")
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return np.zeros(values.shape, np.uint8)
    return _scale((values - low) / span, 1.0)


def _lab(image: Any, notes: list[str]) -> Pixels:
    from PIL import ImageCms

    # Pillow's own profiles: one from an unknown file is never run.
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise PhotoError("unsupported", "LAB colours cannot be converted")
    notes.append("LAB colours were converted to sRGB")
    return np.asarray(converted)
