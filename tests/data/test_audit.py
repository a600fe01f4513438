"""Duplicates, bursts and leakage, found without comparing everything with everything."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.audit import (
    AuditConfig,
    _popcount,
    audit,
    burst_groups,
    describe,
    difference,
    exact_groups,
    near_groups,
    perceptual_hash,
)
from fieldmark.data.catalog import Catalog
from scenes import scene


def jpeg(image: Image.Image, quality: int = 90, taken: str | None = None) -> bytes:
    exif = Image.Exif()
    if taken:
        exif[0x0132] = taken
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def described(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [describe(np.asarray(image.convert("RGB"))) for image in images]
    return perceptual_hash(np.stack([gray for _, gray in pairs])), np.stack([t for t, _ in pairs])


def test_the_same_picture_is_found_in_other_forms_and_others_are_not() -> None:
    picture = scene(0)
    small = picture.resize((80, 60), Image.Resampling.LANCZOS)
    saved = Image.open(io.BytesIO(jpeg(picture, quality=30)))
    brighter = picture.point(lambda v: min(255, v + 12))
    others = [scene(seed) for seed in range(1, 60)]
    hashes, thumbs = described([*others[:30], picture, small, saved, brighter, *others[30:]])
    assert near_groups(hashes, thumbs, AuditConfig()) == [[30, 31, 32, 33]]


def test_groups_equal_those_of_comparing_every_pair() -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 2**63, 12, np.uint64)
    hashes = np.repeat(base, 12)
    for i in range(len(hashes)):
        for bit in random.choice(64, int(random.integers(0, 9)), replace=False):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    thumbs = np.repeat(random.integers(0, 255, (12, 768), np.uint8), 12, axis=0)
    config = AuditConfig()
    parent = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            bits = bin(int(hashes[i] ^ hashes[j])).count("1")
            gap = difference(thumbs[i : i + 1], thumbs[j : j + 1])[0]
            if bits <= config.hash_bits and gap <= config.near_difference:
                old, new = parent[i], parent[j]
                parent = [new if p == old else p for p in parent]
    expected = {
        tuple(i for i, p in enumerate(parent) if p == root)
        for root in set(parent)
        if parent.count(root) > 1
    }
    assert {tuple(group) for group in near_groups(hashes, thumbs, config)} == expected
    assert expected


def test_ten_thousand_blank_photos_take_neither_time_nor_memory() -> None:
    count = 10_000
    groups = near_groups(
        np.zeros(count, np.uint64), np.full((count, 768), 255, np.uint8), AuditConfig()
    )
    assert [len(group) for group in groups] == [count]


def test_counting_bits_without_new_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 500, np.uint64, endpoint=False)
    expected = [bin(int(v)).count("1") for v in values]
    assert _popcount(values).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert _popcount(values).tolist() == expected


def test_exact_groups() -> None:
    assert exact_groups(["a", "b", None, "a", None, "c", "b", "a"]) == [[0, 3, 7], [1, 6]]


def test_bursts_need_both_time_and_likeness() -> None:
    one = scene(1)
    moved = one.crop((4, 3, 160, 120)).resize((160, 120))
    _, thumbs = described([one, moved, scene(2), moved, one])
    seconds = np.array([100.0, 103.0, 104.0, 500.0, np.nan])
    assert burst_groups(seconds, thumbs, AuditConfig()) == [[0, 1]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    files = {
        "train/crow/a.jpg": jpeg(scene(1)),
        "train/crow/copy.jpg": jpeg(scene(1)),
        "test/crow/again.jpg": jpeg(scene(1).resize((120, 90)), quality=70),
        "test/crow/b.jpg": jpeg(scene(2)),
        "test/jay/same.jpg": jpeg(scene(2)),
        "train/jay/c.jpg": jpeg(scene(3), taken="2024:05:01 10:00:00"),
        "train/jay/d.jpg": jpeg(scene(3).crop((6, 6, 160, 120)), taken="2024:05:01 10:00:02"),
        "train/jay/cut.jpg": jpeg(scene(4))[:-800],
        "train/jay/empty.jpg": b"",
        "train/jay/notes.txt": b"hello",
    }
    for name, content in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "photos"


def test_an_audit_counts_or_lists_every_file(photos: Path) -> None:
    catalog = Catalog.open(photos)
    found = audit(catalog, workers=0)

    def names(groups: list[list[int]]) -> set[frozenset[str]]:
        return {frozenset(catalog[row].path.split("/")[-1] for row in group) for group in groups}

    assert found.good == 7
    assert {(p.path.split("/")[-1], p.status, p.code) for p in found.problems} == {
        ("cut.jpg", "damaged", "ends_early"),
        ("empty.jpg", "refused", "empty"),
        ("notes.txt", "skipped", "not_a_photo"),
    }
    assert names(found.exact) == {
        frozenset({"a.jpg", "copy.jpg"}),
        frozenset({"b.jpg", "same.jpg"}),
    }
    assert len(found.near) == 1
    assert names(found.bursts) == {frozenset({"c.jpg", "d.jpg"})}
    # b and same are copies too, but both in test.
    assert names(found.leaks) == {frozenset({"a.jpg", "copy.jpg", "again.jpg"})}
    assert found.formats == {"JPEG": 8}
    assert len(found.originals) == 8
