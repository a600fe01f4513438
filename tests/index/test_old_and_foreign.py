"""Indexes of every format so far, and what else may lie in an index's place (S2 to S5)."""

import contextlib
import errno
import json
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import golden
import numpy as np
import pytest
from vectors import DIM, ENCODER, OTHER, unit

from fieldmark import storage
from fieldmark.errors import ArtifactError, FieldmarkError, StorageError
from fieldmark.index import sqlite as module
from fieldmark.index.sqlite import FILE, SqliteIndex

EDITOR = Path(__file__).with_name("editor.py")
FORMATS = sorted(golden.FOLDER.glob("format-*.sql"))


@pytest.fixture
def made(tmp_path):
    with SqliteIndex(tmp_path / "index", create=True) as index:
        golden.fill(index)
    return tmp_path / "index"


def schema(folder):
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        rows = db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        return db.execute("PRAGMA user_version").fetchone()[0], rows


@pytest.mark.parametrize("file", FORMATS, ids=lambda file: file.stem)
def test_an_index_of_every_format_answers_as_it_did(file, tmp_path):
    place = golden.restore(file.read_text(), tmp_path / "index")
    wanted = json.loads(file.with_suffix(".json").read_text())
    with SqliteIndex(place) as index:
        found = golden.answers(index)
        for name in ("search", "filtered", "other", "like"):
            # The last digit of a score is the processor's.
            for hits, told in zip(found.pop(name), wanted.pop(name), strict=True):
                assert [key for key, _ in hits] == [key for key, _ in told]
                np.testing.assert_allclose([s for _, s in hits], [s for _, s in told], atol=2e-5)
        assert found == wanted
        # It goes on as any other.
        index.add(["new"], unit(1, seed=3), identity=ENCODER)
        index.set_labels({"new": "wren"})
        assert index.search(unit(1, seed=3), 1)[0][0].key == "new"
        index.compact()
        assert index.verify() == []


def test_tables_never_change_without_a_new_format(made, tmp_path):
    """Who changes the tables must raise the version, read the old ones and keep a golden index."""
    version, tables = schema(made)
    file = golden.FOLDER / f"format-{version}.sql"
    assert file == max(FORMATS, key=lambda one: int(one.stem.split("-")[1]))
    assert schema(golden.restore(file.read_text(), tmp_path / "golden")) == (version, tables)


def test_other_things_in_the_place_of_an_index_are_refused_and_kept(tmp_path):
    for name in ("empty", "folder", "photo"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty" / FILE).touch()
    (tmp_path / "folder" / FILE).mkdir()
    (tmp_path / "photo" / FILE).write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArtifactError, match=r"empty.*damaged or no index: it is empty"):
        SqliteIndex(tmp_path / "empty")
    assert (tmp_path / "empty" / FILE).stat().st_size == 0
    with pytest.raises(ArtifactError, match="there is no index in"):
        SqliteIndex(tmp_path / "folder")
    with pytest.raises(ArtifactError, match="cannot be opened"):
        SqliteIndex(tmp_path / "folder", create=True)
    for create in (False, True):
        with pytest.raises(ArtifactError, match="damaged or no index"):
            SqliteIndex(tmp_path / "photo", create=create)
    assert len((tmp_path / "photo" / FILE).read_bytes()) == 5004
    with pytest.raises(FieldmarkError, match="a file is in the way"):
        SqliteIndex(tmp_path / "file", create=True)
    assert (tmp_path / "file").read_text() == "no folder"


def test_an_index_of_a_newer_format_is_left_as_it_is(made):
    with contextlib.closing(sqlite3.connect(made / FILE)) as db:
        db.execute("PRAGMA user_version = 2")
        db.execute("CREATE TABLE future (x)")
        db.commit()
    before = (made / FILE).read_bytes()
    for create in (False, True):
        with pytest.raises(ArtifactError, match=r"newer fieldmark \(format 2, .* up to 1\)"):
            SqliteIndex(made, create=create)
    assert (made / FILE).read_bytes() == before


def test_a_search_index_of_another_encoder_or_index_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVED_FROM", 10)
    keys = [f"{n:02d}" for n in range(40)]
    for name, seed in (("mine", 1), ("other", 2)):
        with SqliteIndex(tmp_path / name, create=True) as index:
            index.add_space(ENCODER, DIM)
            index.add(keys, unit(40, seed=seed))
            index.add_space(OTHER, DIM)
            index.update(keys, vectors=unit(40, seed=seed + 10), identity=OTHER)
            index.search(unit(1))
            index.search(unit(1), identity=OTHER)
    mine = unit(40, seed=1)
    wanted = [keys[i] for i in np.argsort(-(mine @ unit(1)[0]))[:5]]
    for source in (tmp_path / "other" / "nearest-1", tmp_path / "mine" / "nearest-2"):
        for suffix in (".faiss", ".json"):
            shutil.copy(source.with_suffix(suffix), tmp_path / "mine" / f"nearest-1{suffix}")
        with SqliteIndex(tmp_path / "mine") as index:
            assert [hit.key for hit in index.search(unit(1), 5)[0]] == wanted


# -- disks that are full, fail, or may not be written


@contextlib.contextmanager
def room(bytes_more, folder):
    """The next writes beyond this fail as on a broken disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + bytes_more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_costs_nothing_that_was_there(made):
    with SqliteIndex(made) as index:
        before = golden.answers(index)
        pages = index._db.execute("PRAGMA page_count").fetchone()[0]
        index._db.execute(f"PRAGMA max_page_count = {pages + 3}")
        keys = [f"n{i}" for i in range(2000)]
        with pytest.raises(StorageError, match="no space left while writing"):
            index.add(keys, unit(2000))
        assert golden.answers(index) == before
        index._db.execute("PRAGMA max_page_count = 100000")
        index.add(keys, unit(2000))
        assert index.stats().items == 2005
    with SqliteIndex(made) as again:
        assert again.stats().items == 2005
        assert again.verify() == []


@pytest.mark.parametrize("more", [0, 5000, 200_000])
def test_a_failing_disk_is_told_and_costs_nothing_that_was_there(made, more):
    """At the commit, or where a change is larger than memory."""
    with SqliteIndex(made) as index:
        before = golden.answers(index)
        index._db.execute(f"PRAGMA cache_size = {1 if more > 100_000 else 1000}")
        with room(more, made), pytest.raises(StorageError, match="disk I/O error"):
            index.add([f"n{i}" for i in range(2000)], unit(2000))
        assert golden.answers(index) == before
        index.set_labels({"a.jpg": "robin"})
    with SqliteIndex(made) as again:
        assert again.get(["a.jpg"])[0].label == "robin"
        assert again.stats().items == 5
        assert again.verify() == []


def test_search_does_not_need_room_for_its_own_file(made, monkeypatch):
    def full(path, data):
        with storage.storage_errors(path):
            raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(module, "_SAVED_FROM", 1)
    monkeypatch.setattr(storage, "write_bytes", full)
    with SqliteIndex(made) as index:
        assert len(index.search(unit(1), 3)[0]) == 3
    assert not list(made.glob("nearest*"))


def test_a_folder_that_may_not_be_written_is_told(made):
    """Root may write everywhere, so it becomes somebody else here."""
    root = os.geteuid() == 0
    modes = {path: path.stat().st_mode for path in (made, *made.iterdir())}
    for folder in made.parents:
        mode = folder.stat().st_mode
        if root and ~mode & (stat.S_IXGRP | stat.S_IXOTH):
            modes[folder] = mode
            folder.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
    closed = made.parent / "closed"
    closed.mkdir(0o700)
    made.chmod(0o555)
    (made / FILE).chmod(0o444)
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(ArtifactError, match="cannot be opened or written"):
            SqliteIndex(made)
        with pytest.raises(FieldmarkError, match="cannot write"):
            SqliteIndex(made / "new", create=True)
        if root:
            with pytest.raises(ArtifactError, match="cannot be opened: Permission denied"):
                SqliteIndex(closed)
    finally:
        if root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(stat.S_IMODE(mode))
    with SqliteIndex(made) as index:
        assert index.stats().items == 5


# -- many writers


@pytest.mark.parametrize(
    ("writers", "edits"), [(2, 30), pytest.param(8, 500, marks=pytest.mark.slow)]
)
def test_processes_that_label_the_same_photos_lose_nothing(tmp_path, writers, edits):
    """Each label is given to who saw the state before it, so the history is one chain (S3)."""
    place = tmp_path / "index"
    with SqliteIndex(place, create=True) as index:
        index.add_space(ENCODER, DIM)
        index.add([f"p{n}" for n in range(6)], unit(6))
    children = [
        subprocess.Popen(
            [sys.executable, str(EDITOR), str(place), str(number), str(edits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(writers)
    ]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * writers
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [json.loads(child.communicate()[0]) for child in children]
    assert all(child.returncode == 0 for child in children)
    with SqliteIndex(place) as index:
        history = index.history()
        items = {item.key: item for item in index.items()}
        assert index.verify() == []
    assert len(history) == writers * edits
    told = sorted((key, label, by) for one in said for key, label, by in one["labels"])
    assert sorted((change.key, change.after, change.by) for change in history) == told
    assert sum(one["conflicts"] for one in said) > 0
    for key, item in items.items():
        chain = [change for change in history if change.key == key]
        befores = [None, *(change.after for change in chain)]
        assert [change.before for change in chain] == befores[:-1]
        assert (item.label, item.version) == (befores[-1], 1 + len(chain))
