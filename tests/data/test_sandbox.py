"""Workers that crash, hang or eat memory: the photo is refused, the rest goes on."""

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.catalog import Location
from fieldmark.data.decode import Limits, Photo, decode
from fieldmark.data.sandbox import DecodePool, Job, Reply
from fieldmark.errors import FieldmarkError, StorageError

FAKE = """
import os, signal, time
import numpy as np
from fieldmark.data.decode import decode as real
from fieldmark.errors import PhotoError

def decode(data, **options):
    if data.startswith(b"SEGV"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.startswith(b"SLEEP"):
        time.sleep(60)
    if data.startswith(b"MALLOC"):
        np.ones(3_000_000_000, np.uint8).sum()
    if data.startswith(b"EXIT"):
        os._exit(3)
    if data.startswith(b"ODD"):
        raise KeyError("anything")
    print("noise on stdout must not break the messages")
    return real(data, **options)
"""


def photo(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (value, 9, 7)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "fake_decoder.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "fake_decoder:decode"


def jobs(folder: Path, contents: list[bytes]) -> list[Job]:
    found = []
    for i, content in enumerate(contents):
        path = folder / f"{i}.bin"
        path.write_bytes(content)
        found.append(Job(i, Location(str(path))))
    return found


def by_id(replies: list[Reply]) -> dict[int, Reply]:
    assert len({reply.id for reply in replies}) == len(replies)
    return {reply.id: reply for reply in replies}


def test_faults_of_a_decoder_cost_one_photo_each(tmp_path: Path, fake: str) -> None:
    contents = [photo(i) for i in range(40)]
    faults = {5: b"SEGV", 11: b"MALLOC", 17: b"EXIT", 20: b"SLEEP", 23: b"ODD", 31: b"SEGV"}
    for at, fault in faults.items():
        contents[at] = fault
    limits = Limits(max_seconds=2.0, max_memory_bytes=500_000_000)
    with DecodePool(2, limits=limits, decoder=fake) as pool:
        replies = by_id(list(pool.map(jobs(tmp_path, contents))))
    assert sorted(replies) == list(range(40))
    codes = {i: r.error.code for i, r in replies.items() if r.error is not None}
    assert codes == {
        5: "decoder_crashed",
        11: "too_much_memory",
        17: "decoder_crashed",
        20: "too_slow",
        23: "broken",
        31: "decoder_crashed",
    }
    assert "SIGSEGV" in replies[5].error.detail
    assert replies[39].photo.pixels[0, 0].tolist() == [39, 9, 7]


def test_workers_give_what_decode_gives(tmp_path: Path) -> None:
    contents = [photo(i) for i in range(3)] + [b"", b"text"]
    with DecodePool(1, short_side=10) as pool:
        first = by_id(list(pool.map(jobs(tmp_path, contents))))
        again = by_id(list(pool.map(jobs(tmp_path, contents[:1]))))
    for i in range(3):
        expected = decode(contents[i], short_side=10)
        assert isinstance(first[i].photo, Photo)
        assert np.array_equal(first[i].photo.pixels, expected.pixels)
        assert first[i].photo[1:] == expected[1:]
    assert first[3].error.code == "empty"
    assert first[4].error.code == "format_not_allowed"
    assert np.array_equal(again[0].photo.pixels, first[0].photo.pixels)


def test_boxes_are_cut_from_the_upright_photo(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20))
    image.paste((200, 0, 0), (0, 10, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "a.png", exif=exif)
    location = Location(str(tmp_path / "a.png"))
    boxes = [(20.0, 0.0, 40.0, 10.0), (-5.0, -5.0, 500.0, 500.0), (90.0, 0.0, 99.0, 5.0)]
    with DecodePool(1, short_side=5) as pool:
        found = by_id(list(pool.map(Job(i, location, box) for i, box in enumerate(boxes))))
    assert (found[0].photo.pixels == (200, 0, 0)).all()
    assert found[0].photo.pixels.shape == (5, 10, 3)
    assert found[1].photo.original == (20, 40)
    assert found[2].error.code == "broken"


def test_gone_files_are_replies(tmp_path: Path) -> None:
    with DecodePool(1) as pool:
        (reply,) = pool.map([Job(7, Location(str(tmp_path / "gone")))])
    assert (reply.id, reply.error.code) == (7, "missing")


def test_no_room_for_pixels_is_a_storage_error(tmp_path: Path) -> None:
    pixels = tmp_path / "full"
    pixels.symlink_to("/dev/full")
    with DecodePool(1, pixels=pixels) as pool, pytest.raises(StorageError, match="kept"):
        list(pool.map(jobs(tmp_path, [photo(1)])))


def test_workers_that_cannot_start_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with DecodePool(1) as pool, pytest.raises(FieldmarkError, match="die while starting"):
        list(pool.map(jobs(tmp_path, [photo(1)])))


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(1))
    program = f"""
import os, signal
from fieldmark.data.catalog import Location
from fieldmark.data.sandbox import DecodePool, Job
pool = DecodePool(1)
list(pool.map([Job(0, Location({str(tmp_path / "a.png")!r}))]))
print(pool._processes[0].process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    worker = int(ended.stdout)
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent")
