"""The photo store: reuse, kills, changes, odd shapes, full disks."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data import store as store_module
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import MAX_ASPECT, decode
from fieldmark.data.sandbox import DecodePool
from fieldmark.data.store import PhotoStore, choose_short_side
from fieldmark.errors import ArtifactError, CatalogError, OutputError, StorageError


def jpeg(seed: int, height: int = 40, width: int = 60) -> bytes:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (5, 6, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def fill(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        (folder / f"{i:04}.jpg").write_bytes(jpeg(i))
    return folder


def build(photos: Path, place: Path, **options: object) -> PhotoStore:
    options = {"short_side": 32, "workers": 0, **options}
    return PhotoStore.build(Catalog.open(photos), place, **options)


def check(store: PhotoStore, photos: Path, short_side: int = 32) -> None:
    """Every stored photo is what decoding its file gives."""
    for row in Catalog.open(photos).rows:
        expected = decode((photos / row.path).read_bytes(), short_side=short_side).pixels
        assert np.array_equal(store.photo(row.row), expected), row.path


def decoded_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count jobs that reach the workers."""
    seen: list[int] = []
    original = DecodePool.map

    def counting(self: DecodePool, jobs: object) -> object:
        jobs = list(jobs)  # type: ignore[call-overload]
        for reply in original(self, jobs):
            if not reply.reuse and reply.error is None:
                seen.append(reply.id)
            yield reply

    monkeypatch.setattr(DecodePool, "map", counting)
    return seen


def test_photos_come_back_as_decoded(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 12)
    (photos / "tall.jpg").write_bytes(jpeg(100, 90, 40))
    (photos / "tiny.jpg").write_bytes(jpeg(101, 3, 2))
    (photos / "panorama.jpg").write_bytes(jpeg(102, 40, 2000))
    (photos / "strip.jpg").write_bytes(jpeg(103, 1, 900))
    seen: list[tuple[int, int]] = []
    store = build(photos, tmp_path / "s", workers=2, progress=lambda *x: seen.append(x))
    check(store, photos)
    assert len(store) == 16
    assert store.usable.tolist() == list(range(16))
    assert store.records == []
    assert seen[0] == (0, 16)
    assert seen[-1] == (16, 16)
    shapes = dict(zip(store.paths, store.shapes.tolist(), strict=True))
    assert shapes["tiny.jpg"] == [3, 2]
    assert shapes["panorama.jpg"] == [3, 32 * MAX_ASPECT]
    assert shapes["strip.jpg"] == [1, 32 * MAX_ASPECT]
    assert isinstance(store.data, np.memmap)
    for row in store.usable:
        height, width = store.shapes[row]
        begin = store.offsets[row]
        flat = store.data[begin : begin + 3 * height * width]
        assert np.array_equal(
            flat.reshape(height, 3, width).transpose(0, 2, 1), store.photo(int(row))
        )
    again = PhotoStore.open(tmp_path / "s")
    check(again, photos)
    assert again.nbytes == sum(3 * h * w for h, w in shapes.values())


def test_tensors_on_the_cpu_are_the_map_itself(tmp_path: Path) -> None:
    store = build(fill(tmp_path / "photos", 3), tmp_path / "s")
    tensors = store.to("cpu")
    begin = int(tensors.offsets[2])
    height, width = tensors.shapes[2].tolist()
    part = tensors.data[begin : begin + 3 * height * width].numpy().reshape(height, 3, width)
    assert np.array_equal(part.transpose(0, 2, 1), store.photo(2))


def test_a_second_build_decodes_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = fill(tmp_path / "photos", 6)
    build(photos, tmp_path / "s")
    seen = decoded_by(monkeypatch)
    build(photos, tmp_path / "s")
    assert seen == []
    (photos / "0000.jpg").rename(photos / "renamed.jpg")
    (photos / "0001.jpg").unlink()
    (photos / "0002.jpg").write_bytes(jpeg(77))
    (photos / "new.jpg").write_bytes(jpeg(78))
    os.utime(photos / "0003.jpg")
    store = build(photos, tmp_path / "s")
    catalog = Catalog.open(photos)
    assert {catalog[row].path for row in seen} == {"0002.jpg", "new.jpg"}
    check(store, photos)
    assert len(store) == 6


def test_settings_have_stores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = fill(tmp_path / "photos", 3)
    build(photos, tmp_path / "s")
    check(build(photos, tmp_path / "s", short_side=16), photos, 16)
    assert PhotoStore.open(tmp_path / "s").short_side == 16
    seen = decoded_by(monkeypatch)
    check(build(photos, tmp_path / "s"), photos, 32)
    assert seen == []


def test_bad_photos_are_listed_and_not_used(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 3)
    (photos / "0001.jpg").write_bytes(jpeg(1)[:-300])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.jpg").write_bytes(b"hello")
    store = build(photos, tmp_path / "s")
    assert {(r.path, r.code, r.status) for r in store.records} == {
        ("0001.jpg", "ends_early", "damaged"),
        ("empty.jpg", "empty", "refused"),
        ("text.jpg", "format_not_allowed", "refused"),
    }
    assert all(r.sha256 and len(r.sha256) == 64 for r in store.records)
    assert store.usable.tolist() == [0, 2]
    assert store.shapes[3].tolist() == [0, 0]
    with pytest.raises(CatalogError, match="no pixels"):
        store.photo(3)
    damaged = build(photos, tmp_path / "s", include_damaged=True)
    assert damaged.usable.tolist() == [0, 1, 2]
    assert PhotoStore.open(tmp_path / "s", include_damaged=False).usable.tolist() == [0, 2]


def test_only_the_rows_asked_for_are_decoded(tmp_path: Path) -> None:
    store = build(fill(tmp_path / "photos", 5), tmp_path / "s", rows=[3, 1])
    assert store.usable.tolist() == [1, 3]
    assert len(store) == 5


def test_a_photo_that_goes_away_meanwhile_is_recorded(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 3)
    catalog = Catalog.open(photos)
    (photos / "0001.jpg").unlink()
    store = PhotoStore.build(catalog, tmp_path / "s", short_side=32, workers=0)
    assert [(r.path, r.code) for r in store.records] == [("0001.jpg", "missing")]
    assert store.usable.tolist() == [0, 2]


def test_no_readable_photo_is_explained(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"x")
    with pytest.raises(CatalogError, match=r"none of the 1 photos.*a\.jpg: format_not_allowed"):
        build(photos, tmp_path / "s")


def test_a_missing_or_broken_store_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no photo store"):
        PhotoStore.open(tmp_path)
    photos = fill(tmp_path / "photos", 2)
    store = build(photos, tmp_path / "s")
    (store.folder / "index.npz").write_bytes(b"PK broken")
    with pytest.raises(ArtifactError, match="Build it again"):
        PhotoStore.open(tmp_path / "s")
    check(build(photos, tmp_path / "s"), photos)


@pytest.mark.parametrize("tail", [b'{"p": "half a li', b"garbage\n", bytes(9)])
def test_a_torn_journal_loses_only_its_end(
    tmp_path: Path, tail: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = fill(tmp_path / "photos", 4)
    journal = build(photos, tmp_path / "s").folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + tail)
    seen = decoded_by(monkeypatch)
    check(build(photos, tmp_path / "s"), photos)
    assert len(seen) == 1
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_shortened_pixel_file_is_noticed(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 4)
    store = build(photos, tmp_path / "s")
    os.truncate(store.folder / "pixels.bin", 5000)
    with pytest.raises(ArtifactError, match="shorter"):
        PhotoStore.open(tmp_path / "s")
    check(build(photos, tmp_path / "s"), photos)


def test_two_builders_do_not_meet(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 2)
    folder = build(photos, tmp_path / "s").folder
    with store_module._lock(folder), pytest.raises(OutputError, match="another fieldmark"):
        build(photos, tmp_path / "s")


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = fill(tmp_path / "photos", 40)
    original = DecodePool.map

    def failing(self: DecodePool, jobs: object) -> object:
        for number, reply in enumerate(original(self, jobs)):
            if number == 20:
                raise StorageError("no space")
            yield reply

    with monkeypatch.context() as patch:
        patch.setattr(DecodePool, "map", failing)
        with pytest.raises(StorageError):
            build(photos, tmp_path / "s")
    seen = decoded_by(monkeypatch)
    check(build(photos, tmp_path / "s"), photos)
    assert len(seen) == 20


def test_a_disk_that_fails_in_the_background_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = fill(tmp_path / "photos", 12)

    def failing(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "sync_file", failing)
        patch.setattr(store_module, "_COMMIT_BYTES", 1)
        with pytest.raises(StorageError, match="journal"):
            build(photos, tmp_path / "s")
    # What was not made durable was not said to be.
    assert not list(tmp_path.glob("s/*/journal.jsonl"))
    check(build(photos, tmp_path / "s"), photos)


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 1)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="in the way"):
        build(photos, tmp_path / "file")


PROGRAM = """
import sys
from pathlib import Path
from fieldmark.data import store
from fieldmark.data.catalog import Catalog
store._COMMIT_SECONDS = 0.0
catalog = Catalog.open(Path(sys.argv[1]))
store.PhotoStore.build(catalog, Path(sys.argv[2]), short_side=32, workers=2)
"""


def lines_of(journal: Path) -> int:
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0


def killed_build(photos: Path, place: Path, journal: Path, lines: int, pause: float) -> bool:
    """Build in another process and kill it soon after the journal has so many lines."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(photos), str(place)])
    while lines_of(journal) < lines and process.poll() is None:
        time.sleep(0.001)
    time.sleep(pause)
    process.kill()
    return process.wait() == -signal.SIGKILL


def killed_often(tmp_path: Path, photos: int, kills: int) -> None:
    folder = fill(tmp_path / "photos", photos)
    place = tmp_path / "s"
    journal = place / "32px-v2" / "journal.jsonl"
    random = np.random.default_rng(0)
    killed = 0
    for number in range(kills):
        before = lines_of(journal)
        target = int(photos * (number + 0.5) / (kills + 1))
        killed += killed_build(folder, place, journal, target, float(random.uniform(0, 0.02)))
        assert lines_of(journal) >= before - 1  # Nothing but a torn line is ever lost.
    assert killed > 0
    store = build(folder, place)
    check(store, folder)
    assert len(store.usable) == photos


def test_a_killed_build_goes_on(tmp_path: Path) -> None:
    killed_often(tmp_path, photos=200, kills=1)


@pytest.mark.slow
def test_a_build_killed_often_goes_on(tmp_path: Path) -> None:
    killed_often(tmp_path, photos=3000, kills=25)


def test_the_short_side_follows_the_smallest_crop() -> None:
    assert choose_short_side(128, 0.2, 1000) == 288
    assert choose_short_side(224, 1.0, 1000) == 224
    # 3 bytes a pixel, 100,000 photos, 1.4 wide: 10 GB allow about 154 pixels.
    assert 150 <= choose_short_side(128, 0.2, 100_000, budget_bytes=10**10) <= 156
    assert choose_short_side(128, 0.2, 10**9, budget_bytes=10**9) == 128
    with pytest.raises(ValueError, match="smallest_scale"):
        choose_short_side(128, 0.0, 10)
