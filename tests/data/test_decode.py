"""Decoding: every kind of photo to upright RGB, every bad one to a reason."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fieldmark.data.decode import (
    CODES,
    MAX_ASPECT,
    Limits,
    decode,
    resize_short,
    sniff,
    target_shape,
)
from fieldmark.data.exif import Exif, parse_exif
from fieldmark.data.jpeg import judge, plain, read_header, read_scans
from fieldmark.errors import PhotoError


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Image.Image:
    """A smooth picture with a bright corner, so that no turn or mirror looks like another."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7 + seed), np.cos(y / 5), np.sin((x + y) / 9)], -1)
    pixels = (127 + 100 * waves).astype(np.uint8)
    pixels[: height // 3, : width // 4] = (250, 10, 30)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return encoded(image or picture(), "JPEG", **{"quality": 92, **options})


def code_of(data: bytes, **options: object) -> str:
    with pytest.raises(PhotoError) as caught:
        decode(data, **options)
    assert caught.value.code in CODES
    return caught.value.code


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_orientations_come_out_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(picture(), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    photo = decode(data)
    assert photo.pixels.shape == expected.shape
    assert photo.original == expected.shape[:2]
    # libjpeg versions differ in the last bit of colour conversion.
    assert np.abs(photo.pixels.astype(int) - expected).max() <= 3
    if orientation != 1:
        assert not np.array_equal(photo.pixels, np.asarray(picture()))


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_impossible_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(jpeg(exif=exif))
    assert photo.pixels.shape == (48, 64, 3)
    assert bool(photo.notes) == (orientation != 0)


def test_exif_time_prefers_the_original_over_the_last_change() -> None:
    exif = Image.Exif()
    exif[0x0132] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x9003] = "2019:05:06 07:08:09"
    assert decode(jpeg(exif=exif)).taken == "2019:05:06 07:08:09"


@pytest.mark.parametrize("seed", range(30))
def test_broken_exif_never_raises(seed: int) -> None:
    random = np.random.default_rng(seed)
    block = bytearray(Image.Exif().tobytes()[6:] + random.bytes(60))
    for at in random.integers(0, len(block), 8):
        block[at] = random.integers(256)
    assert isinstance(parse_exif(bytes(block)), Exif)
    assert isinstance(parse_exif(bytes(block[: int(random.integers(len(block)))])), Exif)


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(encoded(Image.fromarray(ramp), "PNG")).pixels
    expected = np.rint(ramp / 257).astype(np.uint8)
    assert np.array_equal(pixels[..., 0], expected)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_float_gray_with_nan_is_scaled() -> None:
    values = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)
    values[0, 0] = np.nan
    pixels = decode(encoded(Image.fromarray(values), "TIFF")).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 0] == 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_put_on_white(kind: str) -> None:
    image = picture().convert("RGBA")
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = decode(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))).pixels
    assert (pixels[:, :32] == 255).all()
    assert np.array_equal(pixels[:, 32:], np.asarray(picture())[:, 32:])


def test_transparent_palette_and_gray_alpha_are_put_on_white() -> None:
    palette = picture().quantize(16)
    corner = palette.getpixel((0, 0))
    pixels = decode(encoded(palette, "PNG", transparency=corner)).pixels
    assert (pixels[0, 0] == 255).all()
    assert not (pixels == 255).all()
    gray = Image.new("LA", (8, 8), (0, 128))
    assert abs(int(decode(encoded(gray, "PNG")).pixels[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "I", "F", "RGB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF"
    image = picture().convert("L").convert(mode) if mode in ("I", "F") else None
    if mode == "LAB":
        from PIL import ImageCms

        image = ImageCms.profileToProfile(
            picture(),
            ImageCms.createProfile("sRGB"),
            ImageCms.createProfile("LAB"),
            outputMode="LAB",
        )
    image = image or picture().convert(mode)
    photo = decode(encoded(image, kind))
    assert photo.pixels.shape == (48, 64, 3)
    assert photo.pixels.dtype == np.uint8
    brightness = photo.pixels.astype(float).mean()
    assert abs(brightness - np.asarray(picture()).astype(float).mean()) < 30


def test_cmyk_jpeg_equals_pillow_and_is_told_damaged() -> None:
    data = jpeg(picture(96, 128).convert("CMYK"))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    photo = decode(data)
    assert photo.damage is None
    assert np.abs(photo.pixels - expected).max() <= 3
    assert decode(data[: len(data) * 2 // 3]).damage is not None


def test_an_animation_gives_its_first_frame_and_is_not_scanned() -> None:
    frames = [Image.new("P", (4, 4), i % 7) for i in range(2000)]
    for frame in frames:
        frame.putpalette([v for i in range(256) for v in (i * 30 % 256, 0, 0)])
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], optimize=False)
    begin = time.perf_counter()
    photo = decode(data)
    assert time.perf_counter() - begin < 0.2
    assert (photo.pixels == 0).all()
    assert any("first frame" in note for note in photo.notes)


def test_heic_is_read_or_the_extra_is_named() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(picture()).save(buffer, quality=90)
    photo = decode(buffer.getvalue())
    assert photo.format == "HEIF"
    assert np.abs(photo.pixels.astype(int) - np.asarray(picture())).mean() < 8


def test_avif_is_read() -> None:
    photo = decode(encoded(picture(), "AVIF"))
    assert photo.format == "AVIF"
    assert np.abs(photo.pixels.astype(int) - np.asarray(picture())).mean() < 8


def test_formats_that_are_not_listed_are_refused() -> None:
    assert code_of(encoded(picture(), "TGA")) == "format_not_allowed"
    assert code_of(encoded(picture(), "PPM")) == "format_not_allowed"
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n") == "format_not_allowed"
    assert code_of(b"BM is how this text begins") == "format_not_allowed"
    assert code_of(b"") == "empty"
    assert sniff(b"\x89PNG\r\n\x1a\n") == "PNG"


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


def test_limits_are_read_from_the_header() -> None:
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0"
    assert code_of(gif) == "too_many_pixels"
    assert code_of(png_header(100_000, 100_000)) == "too_many_pixels"
    assert code_of(jpeg(), limits=Limits(max_pixels=1000)) == "too_many_pixels"
    assert code_of(encoded(picture(), "BMP"), limits=Limits(max_pixels=1000)) == "too_many_pixels"
    assert code_of(jpeg(), limits=Limits(max_bytes=100)) == "too_many_bytes"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_ends_early_is_damaged(options: dict[str, object]) -> None:
    data = jpeg(picture(200, 160), **options)
    whole = decode(data)
    assert whole.damage is None
    assert whole.notes == ()
    start = data.index(b"\xff\xda") + 20
    for cut in np.linspace(start, len(data) - 12, 12).astype(int):
        photo = decode(data[:cut])
        assert photo.damage is not None, cut
        assert photo.damage.startswith("ends_early")
        assert photo.pixels.shape == whole.pixels.shape


def test_a_jpeg_with_broken_data_is_damaged() -> None:
    data = bytearray(jpeg(picture(200, 160)))
    random = np.random.default_rng(0)
    start = data.index(b"\xff\xda") + 20
    flagged = 0
    for _ in range(20):
        broken = bytearray(data)
        at = int(random.integers(start, len(data) - 100))
        broken[at : at + 64] = random.integers(1, 255, 64, dtype=np.uint8).tobytes()
        flagged += decode(bytes(broken)).damage is not None
    # Some garbage happens to be valid code throughout; nothing but a checksum could tell.
    assert flagged >= 15


@pytest.mark.parametrize(
    "odd",
    [
        lambda d: d + b"trailing bytes",
        lambda d: d[:-2],
        lambda d: d[:-2] + bytes(40) + d[-2:],
        lambda d: d[:2] + b"stray" + d[2:],
        lambda d: d[:-2] + b"\xff" * 3 + d[-2:],
        lambda d: d + d,
    ],
)
def test_oddities_that_lose_no_pixel_are_not_damage(odd: object) -> None:
    data = jpeg(picture(120, 90))
    photo = decode(odd(data))  # type: ignore[operator]
    assert photo.damage is None
    assert np.array_equal(photo.pixels, decode(data).pixels)


def test_missing_scans_of_a_progressive_jpeg_are_damage() -> None:
    data = jpeg(picture(120, 90), progressive=True)
    last = data.rindex(b"\xff\xda")
    cut = data[:last] + b"\xff\xd9"
    assert read_scans(data).missing is None
    photo = decode(data[:last])
    assert photo.damage is not None
    assert "scans" in photo.damage
    assert read_scans(cut).missing is not None


def test_plain_form_keeps_the_picture() -> None:
    data = jpeg(picture(60, 80), progressive=True, comment=b"hello", exif=Image.Exif())
    assert b"hello" not in plain(data)
    assert np.array_equal(decode(plain(data)).pixels, decode(data).pixels)
    header = read_header(data)
    assert header is not None
    assert header[:3] == (60, 80, 3)
    assert judge("Corrupt JPEG data: bad Huffman code", data) == "bad Huffman code"
    assert judge("Unknown something", data) is None


def test_png_checksums_are_verified() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    at = data.index(b"IDAT")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length] ^= 1
    photo = decode(bytes(data))
    assert photo.damage is not None
    assert photo.damage.startswith("bad_checksum")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_other_formats_cut_short_are_refused_with_a_code(kind: str) -> None:
    data = encoded(picture(), kind)
    for share in (0.1, 0.5, 0.8):
        assert code_of(data[: int(len(data) * share)]) in ("broken", "format_not_allowed")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_random_damage_gives_a_photo_or_a_code(kind: str) -> None:
    data = encoded(picture(), kind)
    random = np.random.default_rng(1)
    for _ in range(25):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 5):
            broken[at] = int(random.integers(256))
        found: str | None = None
        try:
            assert decode(bytes(broken), short_side=32).pixels.dtype == np.uint8
        except PhotoError as error:
            found = error.code
        assert found is None or found in CODES


def test_whatever_a_decoder_raises_becomes_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((ZeroDivisionError("x"), "broken"), (MemoryError(), "too_much_memory")):

        def explode(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(Image, "open", explode)
        assert code_of(b"GIF89a") == code


def test_scaling_is_antialiased_and_never_enlarges() -> None:
    fine = np.indices((256, 256)).sum(0) % 2 * 255
    checks = np.repeat(fine.astype(np.uint8)[:, :, None], 3, 2)
    small = resize_short(checks, 64)
    assert small.shape == (64, 64, 3)
    assert np.abs(small.astype(int) - 127).max() <= 3  # Aliasing would give black and white.
    assert resize_short(checks, 300) is checks


def test_every_way_of_decoding_ends_at_the_same_size() -> None:
    for height, width in ((333, 500), (500, 333), (161, 160), (40, 30), (100, 2000)):
        image = picture(height, width)
        shapes = {
            decode(encoded(image, kind), short_side=160).pixels.shape[:2]
            for kind in ("JPEG", "PNG")
        }
        assert shapes == {target_shape(height, width, 160)}


def test_a_panorama_is_kept_small() -> None:
    height, width = target_shape(1000, 20_000, 100)
    assert (height, width) == (20, 100 * MAX_ASPECT)
    assert target_shape(1, 50_000, 100) == (1, 400)
    assert target_shape(5, 7, 100) == (5, 7)


def test_a_scaled_jpeg_looks_like_the_antialiased_one() -> None:
    image = picture(600, 800)
    full = decode(jpeg(image)).pixels
    scaled = decode(jpeg(image), short_side=150).pixels
    assert np.abs(scaled.astype(int) - resize_short(full, 150)).mean() < 3
