"""Decoding aside: what comes back is what the encoder would have seen, and faults cost one photo."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from fieldmark.app.decoders import Decoders, Lane, Rate, Wish
from fieldmark.app.problems import HttpProblem
from fieldmark.data import sandbox
from fieldmark.data.catalog import Location
from fieldmark.data.decode import Limits
from fieldmark.data.stream import prepare
from fieldmark.errors import FieldmarkError, PhotoError

FAKE = """
import os, signal, time
from fieldmark.data.decode import decode as real

def decode(data, **options):
    if data.startswith(b"SEGV"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.startswith(b"SLEEP"):
        time.sleep(60)
    if data.startswith(b"WAIT"):
        time.sleep(0.3)
    return real(data.removeprefix(b"WAIT"), **options)
"""
GPS = 0x8825


def photo(mode="RGB", size=(90, 60), kind="JPEG", orientation=None, gps=False):
    rng = np.random.default_rng(size[0])
    coarse = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    if gps:
        exif.get_ifd(GPS)[1] = "N"
        exif.get_ifd(GPS)[2] = (52.0, 31.0, 12.0)
    sink = io.BytesIO()
    image.save(sink, kind, **({"exif": exif} if len(exif) or gps else {}))
    return sink.getvalue()


PHOTOS = {
    "jpeg": photo(),
    "large": photo(size=(900, 700)),
    "png": photo(kind="PNG"),
    "webp": photo(kind="WEBP"),
    "turned": photo(orientation=6, size=(300, 200)),
    "mirrored": photo(orientation=5, size=(120, 90)),
    "grey": photo("L"),
    "cmyk": photo("CMYK"),
    "narrow": photo(size=(400, 20)),
}
LOOK = {"look": (24, 0.875)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def decoders(folder):
    made = Decoders(1, folder=folder)
    yield made
    made.close()


@pytest.mark.parametrize("name", PHOTOS)
def test_what_the_encoder_sees_is_what_it_sees_of_a_file(decoders, folder, name):
    data = PHOTOS[name]
    expected, _ = prepare(data, 24, 0.875)
    file = folder.parent / f"{name}.photo"
    file.write_bytes(data)
    for given in (data, Location(str(file))):
        reply = decoders.submit(Wish(given, LOOK)).result(30)
        np.testing.assert_array_equal(reply.derived.look, expected)
    assert reply.derived.picture is None
    assert not list(folder.iterdir()), "nothing of what came is left"


def test_pictures_are_upright_small_and_tell_nothing_of_where(decoders):
    data = photo(orientation=6, size=(300, 200), gps=True)
    assert GPS in Image.open(io.BytesIO(data)).getexif()
    reply = decoders.submit(Wish(data, {"picture": (100, 85)})).result(30)
    made = Image.open(io.BytesIO(reply.derived.picture))
    assert made.size == (67, 100)
    assert not made.getexif()
    assert not set(made.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    upright = Image.open(io.BytesIO(data)).rotate(270, expand=True).resize(made.size)
    difference = np.asarray(made, float) - np.asarray(upright, float)
    assert np.abs(difference).mean() < 6
    small = decoders.submit(Wish(photo(size=(40, 30)), {"picture": (100, 85)})).result(30)
    assert Image.open(io.BytesIO(small.derived.picture)).size == (40, 30), "never enlarged"


def test_bad_photos_are_refused_by_the_closed_list(decoders):
    for data, code in (
        (b"", "empty"),
        (b"<svg/>", "format_not_allowed"),
        (b"\xff\xd8\xff", "broken"),
    ):
        with pytest.raises(PhotoError) as error:
            decoders.submit(Wish(data, LOOK)).result(30)
        assert error.value.code == code


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_slow_decoder.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(**settings):
        folder = tmp_path / "private"
        folder.mkdir()
        decoders = Decoders(
            1,
            folder=folder,
            limits=Limits(max_seconds=1.0),
            decoder="fake_slow_decoder:decode",
            **settings,
        )
        made.append(decoders)
        return decoders

    yield make
    for decoders in made:
        decoders.close()


def test_a_crash_or_a_hang_costs_one_photo(fake):
    decoders = fake()
    contents = [PHOTOS["png"], b"SEGV", PHOTOS["jpeg"], b"SLEEP", PHOTOS["grey"]]
    futures = [decoders.submit(Wish(data, LOOK)) for data in contents]
    errors = [future.exception(30) for future in futures]
    assert [getattr(error, "code", None) for error in errors] == [
        None, "decoder_crashed", None, "too_slow", None,
    ]  # fmt: skip


def test_queues_are_bounded_urgent_jobs_first_and_who_gives_up_is_passed_over(fake):
    decoders = fake(most=(9, 9, 2))
    slow = b"WAIT" + PHOTOS["png"]
    first = decoders.submit(Wish(slow, LOOK))
    while not first.running():
        time.sleep(0.01)
    ahead = [decoders.submit(Wish(PHOTOS["png"], LOOK), Lane.ahead) for _ in range(2)]
    with pytest.raises(HttpProblem) as error:
        decoders.submit(Wish(PHOTOS["png"], LOOK), Lane.ahead)
    assert (error.value.problem.status, error.value.problem.code) == (503, "busy")
    assert int(error.value.headers["Retry-After"]) >= 1
    given_up = decoders.submit(Wish(b"SEGV", LOOK))
    assert given_up.cancel()
    order = []
    asked = decoders.submit(Wish(PHOTOS["jpeg"], LOOK))
    for name, future in (("ahead", ahead[0]), ("asked", asked)):
        future.add_done_callback(lambda _, name=name: order.append(name))
    assert ahead[1].result(30).derived.look is not None
    assert order == ["asked", "ahead"]


def test_a_pause_does_not_make_it_look_slow():
    rate = Rate()
    assert rate.seconds(10) == 5
    rate._at -= 1000
    for _ in range(50):
        rate._at -= 0.1
        rate.count()
    assert rate.seconds(20) in (2, 3)


def test_a_worker_that_talks_nonsense_is_replaced(fake, monkeypatch):
    decoders = fake()
    real = sandbox.unpack

    def nonsense(parts, payload):
        monkeypatch.setattr(sandbox, "unpack", real)
        raise ValueError("cannot reshape")

    monkeypatch.setattr(sandbox, "unpack", nonsense)
    with pytest.raises(FieldmarkError, match="did not answer"):
        decoders.submit(Wish(PHOTOS["png"], LOOK)).result(30)
    assert decoders.submit(Wish(PHOTOS["png"], LOOK)).result(30).derived.look is not None
