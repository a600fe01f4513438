"""Catalogs of folders, tables and shards, with everything odd that lies in folders."""

import gc
import io
import json
import os
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.catalog import Catalog, Location, Signature, read_location
from fieldmark.errors import CatalogError, PhotoError


def photo(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (value % 256, 50, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def put(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))


def test_a_flat_folder_has_no_labels_and_a_fixed_order(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "a.png", "c.JPG")
    catalog = Catalog.open(tmp_path)
    assert [row.path for row in catalog.rows] == ["a.png", "b.png", "c.JPG"]
    assert [row.row for row in catalog.rows] == [0, 1, 2]
    assert catalog.labels == [None] * 3
    assert catalog.splits == [None] * 3


def test_class_folders_are_labels(tmp_path: Path) -> None:
    put(tmp_path, "crow/1.png", "crow/deep/2.png", "jay/1.png", "loose.png")
    found = {row.path: row.label for row in Catalog.open(tmp_path).rows}
    assert found == {
        "crow/1.png": "crow", "crow/deep/2.png": "crow", "jay/1.png": "jay", "loose.png": None,
    }  # fmt: skip


def test_one_folder_around_all_photos_is_no_label(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png")
    assert Catalog.open(tmp_path).labels == [None, None]


def test_split_folders_are_splits_and_a_wrapper_says_nothing(tmp_path: Path) -> None:
    put(tmp_path, "images/train/crow/1.png", "images/test/crow/2.png", "images/valid/jay/3.png")
    rows = Catalog.open(tmp_path).rows
    assert {(row.split, row.label) for row in rows} == {
        ("train", "crow"), ("test", "crow"), ("val", "jay"),
    }  # fmt: skip
    put(tmp_path / "other", "test/1.png", "owl/2.png")
    assert {row.label for row in Catalog.open(tmp_path / "other").rows} == {"test", "owl"}
    assert Catalog.open(tmp_path / "other").splits == [None, None]
    put(tmp_path / "bare", "train/1.png", "test/2.png")
    assert Catalog.open(tmp_path / "bare").splits == ["test", "train"]
    assert Catalog.open(tmp_path / "bare").labels == [None, None]


def test_content_decides_when_the_name_does_not(tmp_path: Path) -> None:
    put(tmp_path, "no_extension", "a.png")
    (tmp_path / "notes.txt").write_text("not a photo")
    (tmp_path / "old.psd").write_bytes(b"8BPS")
    (tmp_path / ".hidden.png").write_bytes(photo())
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").write_bytes(photo())
    catalog = Catalog.open(tmp_path)
    assert [row.path for row in catalog.rows] == ["a.png", "no_extension", "old.psd"]
    assert {(s.path, s.code) for s in catalog.skipped} == {
        ("notes.txt", "not_a_photo"), (".hidden.png", "hidden"), (".git", "hidden"),
    }  # fmt: skip


@pytest.mark.timeout(20)
def test_nothing_in_a_folder_blocks_or_goes_round_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "dir.jpg/b.png", "dir.jpg/sub/c.png")
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    (tmp_path / "dir.jpg" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked.png").symlink_to(tmp_path / "a.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.jpg"))
        catalog = Catalog.open(tmp_path)
    codes = {s.path: s.code for s in catalog.skipped}
    assert codes == {
        "fifo.jpg": "not_regular",
        "device.jpg": "not_regular",
        "socket.jpg": "not_regular",
        "gone.jpg": "missing",
        "self.jpg": "link_loop",
        "dir.jpg/up": "link_loop",
    }
    assert [row.path for row in catalog.rows] == [
        "a.png", "linked.png", "dir.jpg/b.png", "dir.jpg/sub/c.png",
    ]  # fmt: skip
    for name in ("fifo.jpg", "device.jpg", "dir.jpg"):
        with pytest.raises(PhotoError, match="not_regular"):
            read_location(Location(str(tmp_path / name)))


def test_odd_names_become_valid_text(tmp_path: Path) -> None:
    names = [b"caf\xe9.png", b"new\nline.png", b"n" * 251 + b".png", "鳥.png".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(photo())
    catalog = Catalog.open(tmp_path)
    assert len(catalog) == 4
    for row in catalog.rows:
        row.path.encode()
        assert len(catalog.read(row.row)) > 0
    assert len({row.path for row in catalog.rows}) == 4


def test_unusable_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="Give a folder"):
        Catalog.open(tmp_path / "absent")
    with pytest.raises(CatalogError, match="no photo in"):
        Catalog.open(tmp_path)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(CatalogError, match=r"no photo in .*x\.txt"):
        Catalog.open(tmp_path)
    put(tmp_path, "a.png")
    with pytest.raises(CatalogError, match="Give the folder"):
        Catalog.open(tmp_path / "a.png")
    with pytest.raises(CatalogError):
        Catalog.open(Path("/dev/zero"))


def test_reading_notices_what_happened_since(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c.png")
    catalog = Catalog.open(tmp_path)
    assert catalog.content_hash(0) == catalog.content_hash(0)
    before = catalog.fingerprint()
    assert before == Catalog.open(tmp_path).fingerprint()
    (tmp_path / "a.png").write_bytes(photo(99))
    with pytest.raises(PhotoError, match="changed"):
        catalog.read(0)
    (tmp_path / "b.png").unlink()
    with pytest.raises(PhotoError, match="missing"):
        catalog.read(1)
    with pytest.raises(PhotoError, match="too_many_bytes"):
        read_location(catalog.location(2), max_bytes=10)
    assert Catalog.open(tmp_path).fingerprint() != before


def test_a_file_that_is_written_to_while_it_is_read_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.png")
    seen = iter([Signature(1, 2, 3), Signature(1, 2, 4)])
    monkeypatch.setattr("fieldmark.data.catalog._signature", lambda _: next(seen))
    with pytest.raises(PhotoError, match="changed"):
        read_location(Location(str(tmp_path / "a.png")))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_every_kind(tmp_path: Path, kind: str) -> None:
    put(tmp_path, "p/a.png", "p/b.png")
    columns = {
        "image_path": ["p/a.png", "p/b.png"],
        "Class": ["crow", None],
        "split": ["Training", "test"],
        "group": [3, 4],
        "x_1": [1, None], "y_1": [0, None], "x_2": [5, None], "y_2": [4, None],
    }  # fmt: skip
    path = tmp_path / f"photos.{kind}"
    lines = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    else:
        mark = "," if kind == "csv" else "\t"
        rows = [mark.join(columns)] + [
            mark.join("" if v is None else str(v) for v in line.values()) for line in lines
        ]
        path.write_text("\ufeff" + "\n".join(rows))
    first, second = Catalog.open(path).rows
    assert first == (0, "p/a.png", "crow", "train", "3", (1.0, 0.0, 5.0, 4.0))
    assert second == (1, "p/b.png", None, "test", "4", None)
    assert Catalog.open(path).file(0) == tmp_path / "p/a.png"
    moved = tmp_path / "moved" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    assert len(Catalog.open(moved, table_root=tmp_path).read(1)) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no photos"),
        ("path,label\n", "lists no photos"),
        ("name,label\na.png,x\n", "lacks a column: path or image_path"),
        ("path,x_1,y_1,x_2,y_2\na.png,5,5,1,9\n", "x_2 > x_1"),
        ("path,x_1,y_1,x_2,y_2\na.png,5,,1,nine\n", "x_2 > x_1"),
    ],
)
def test_broken_tables_are_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(CatalogError, match=message):
        Catalog.open(path)


def test_unreadable_tables_are_explained(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", b"path\n\xff\xfe\x00"),
        ("b.jsonl", b"{not json}\n"),
        ("c.jsonl", b"[1]\n"),
        ("d.parquet", b"PAR1 no"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CatalogError, match=name):
            Catalog.open(tmp_path / name)


def test_a_table_may_name_absent_and_impossible_files(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    long = "x" * 300 + ".png"
    (tmp_path / "t.csv").write_text(f"path\na.png\na.png\ngone.png\n{long}\n\n")
    catalog = Catalog.open(tmp_path / "t.csv")
    assert [row.path for row in catalog.rows] == ["a.png", "gone.png", long]
    assert [s.code for s in catalog.skipped] == ["repeated"]
    for row, code in ((1, "missing"), (2, "unreadable")):
        with pytest.raises(PhotoError) as caught:
            catalog.read(row)
        assert caught.value.code == code


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_shards_are_read_by_seeking(tmp_path: Path) -> None:
    contents = {f"{i:03}.png": photo(i) for i in range(5)}
    labelled = {k: v for i, (n, d) in enumerate(contents.items())
                for k, v in ((n, d), (n.replace("png", "cls"), str(i).encode()))}  # fmt: skip
    shard(tmp_path / "train-000.tar", labelled)
    shard(tmp_path / "val-000.tar", {"x/y.png": photo(7), "x/y.json": b"{}"})
    catalog = Catalog.open(tmp_path)
    assert [row.path for row in catalog.rows][:2] == [
        "train-000.tar/000.png",
        "train-000.tar/001.png",
    ]
    assert catalog.labels == ["0", "1", "2", "3", "4", None]
    assert catalog.splits == ["train"] * 5 + ["val"]
    assert [catalog.read(i) for i in range(5)] == list(contents.values())
    assert catalog.file(0) is None
    single = Catalog.open(tmp_path / "train-000.tar")
    assert single[0].path == "000.png"
    assert single.read(3) == contents["003.png"]


def test_a_folder_asks_for_each_file_once_and_a_shard_knows_its_photos_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    put(folder, "a/1.png", "b/2.png")
    (folder / "c.png").symlink_to(folder / "a" / "1.png")
    catalog = Catalog.open(folder)
    before = [(folder / row.path).stat() for row in catalog.rows]
    content = photo(9)
    shard(tmp_path / "s.tar", {"x.png": content})
    (tmp_path / "t.csv").write_text("path\nfolder/b/2.png\ngone.png\n")
    inside = Catalog.open(tmp_path / "s.tar").signature(0)
    assert inside is not None
    assert inside.size == len(content)
    assert inside.modified_ns == (tmp_path / "s.tar").stat().st_mtime_ns
    there, gone = map(Catalog.open(tmp_path / "t.csv").signature, range(2))
    assert there is not None
    assert there.size == before[1].st_size
    assert gone is None
    monkeypatch.setattr("fieldmark.data.catalog.signature_of", lambda _: pytest.fail("asked again"))
    assert [catalog.signature(row) for row in range(3)] == [
        (each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in before
    ]


def test_opening_leaves_the_collector_as_it_was(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    for set_it, running in ((gc.disable, False), (gc.enable, True)):
        set_it()
        Catalog.open(tmp_path)
        assert gc.isenabled() == running
    with pytest.raises(CatalogError):
        Catalog.open(tmp_path / "gone")
    assert gc.isenabled()


def test_a_shard_that_is_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    random = np.random.default_rng(0)
    shard(path, {f"{i}.png": random.bytes(3000) for i in range(6)})
    path.write_bytes(path.read_bytes()[: 4 * 3584 + 1000])
    catalog = Catalog.open(path)
    assert len(catalog) == 4
    assert catalog.skipped[-1].code == "ends_early"
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(CatalogError, match="tar shard"):
        Catalog.open(tmp_path / "bad.tar")


def test_links_in_shards_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("evil.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        info = tarfile.TarInfo("good.png")
        info.size = len(photo())
        tar.addfile(info, io.BytesIO(photo()))
    catalog = Catalog.open(path)
    assert [row.path for row in catalog.rows] == ["good.png"]
    assert catalog.skipped[0].code == "not_regular"
