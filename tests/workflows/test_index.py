"""``fieldmark index`` and ``fieldmark search`` on drawn birds."""

import json
import os
import shutil

import numpy as np
import pytest

from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, InputError, LabelError, PhotoError
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.workflows import index as module
from fieldmark.workflows.index import index_photos, search_photos
from fieldmark.workflows.spaces import photos_of
from tiny import save_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture
def birds(sample, tmp_path):
    return shutil.copytree(sample.photos, tmp_path / "birds")


@pytest.fixture
def made(encoder, birds, tmp_path):
    out = tmp_path / "index"
    return out, index_photos(encoder, birds, out, device="cpu")


def test_photos_are_found_by_their_like_with_the_folders_labels(made, encoder, birds):
    out, told = made
    assert (told["items"], told["added"], told["refused"], told["missing"]) == (64, 64, 0, 0)
    paths = sorted(p.relative_to(birds).as_posix() for p in birds.rglob("*.*") if p.is_file())
    direct = Encoder.load(encoder, device="cpu").embed([birds / p for p in paths])
    with SqliteIndex(out) as index:
        assert [item.key for item in index.items()] == paths
        np.testing.assert_allclose(index.vectors(paths), direct, atol=5e-3)
        assert {item.label for item in index.items()} == {p.split("/")[0] for p in paths}
    query = birds / paths[5]
    outside, inside = search_photos(out, [str(query), paths[5]], k=4, device="cpu")
    assert outside.hits[0].key == paths[5]
    assert outside.hits[0].score == pytest.approx(1, abs=1e-3)
    assert [hit.key for hit in inside.hits[:3]] == [hit.key for hit in outside.hits[1:]]
    order = np.argsort(-(direct @ direct[5]))
    assert [hit.key for hit in outside.hits] == [paths[i] for i in order[:4]]
    label = paths[5].split("/")[0]
    (other,) = search_photos(out, [paths[5]], where=f'label != "{label}"', device="cpu")
    assert all(hit.item.label != label for hit in other.hits)


def test_only_what_is_new_or_changed_is_embedded_and_nothing_is_lost(
    made, encoder, birds, monkeypatch
):
    out, _ = made
    embedded = []
    stream = Encoder.stream

    def watched(self, *arguments, rows, **more):
        embedded.append(len(rows))
        return stream(self, *arguments, rows=rows, **more)

    monkeypatch.setattr(Encoder, "stream", watched)
    files = sorted(p for p in birds.rglob("*.*") if p.is_file())
    keys = [p.relative_to(birds).as_posix() for p in files]
    with SqliteIndex(out) as index:
        index.set_labels({keys[0]: "mine"})
        before = index.vectors(keys)
    told = index_photos(encoder, birds, out, device="cpu")
    assert (told["unchanged"], told["added"], told["changed"], embedded) == (64, 0, 0, [0])
    # One is new, one shows something else, one was touched, one is gone.
    shutil.copy(files[1], birds / "new.jpg")
    shutil.copy(files[20], files[0])
    os.utime(files[2], ns=(1, 1))
    aside = birds.parent / "aside.jpg"
    shutil.move(files[3], aside)
    told = index_photos(encoder, birds, out, device="cpu")
    assert embedded[1:] == [3]
    assert {k: told[k] for k in ("items", "added", "changed", "unchanged", "missing")} == {
        "items": 65,
        "added": 1,
        "changed": 2,
        "unchanged": 61,
        "missing": 1,
    }
    with SqliteIndex(out) as index:
        first, third = index.get([keys[0], keys[3]])
        assert (first.label, first.missing, third.missing) == ("mine", False, True)
        after = index.vectors(keys)
        assert not np.allclose(after[0], before[0])
        np.testing.assert_allclose(after[0], before[20], atol=5e-3)
        np.testing.assert_allclose(after[1:], before[1:], atol=5e-3)
    # It comes back as it was: nothing to embed, nothing missing.
    shutil.move(aside, files[3])
    told = index_photos(encoder, birds, out, device="cpu")
    assert (told["back"], told["missing"], embedded[2:]) == (1, 0, [0])
    files[3].unlink()
    told = index_photos(encoder, birds, out, device="cpu", forget_missing=True)
    assert (told["forgotten"], told["missing"], told["items"]) == (1, 0, 64)


def test_a_disk_that_is_not_mounted_changes_nothing(made, encoder, birds, tmp_path):
    out, _ = made
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CatalogError, match="no photo in"):
        index_photos(encoder, empty, out, device="cpu", forget_missing=True)
    shutil.copy(next(birds.rglob("*.jpg")), empty / "other.jpg")
    with pytest.raises(CatalogError, match=r"none of the 64 photos of the index is in .* mounted"):
        index_photos(encoder, empty, out, device="cpu", forget_missing=True)
    with SqliteIndex(out) as index:
        assert (index.stats().items, index.stats().missing) == (64, 0)


def test_stopped_in_the_middle_it_goes_on(encoder, birds, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMMIT", 10)
    out = tmp_path / "index"
    real, kept = module._keep, []

    def stops(*arguments, **more):
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(1)
        real(*arguments, **more)

    monkeypatch.setattr(module, "_keep", stops)
    with pytest.raises(KeyboardInterrupt):
        index_photos(encoder, birds, out, device="cpu")
    monkeypatch.setattr(module, "_keep", real)
    told = index_photos(encoder, birds, out, device="cpu")
    assert (told["unchanged"], told["added"], told["items"]) == (30, 34, 64)
    with SqliteIndex(out) as index:
        assert index.stats().labelled == 64


def test_another_encoder_is_refused(made, birds, tmp_path):
    out, _ = made
    other = save_encoder(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"was made with encoder .* cannot be compared"):
        index_photos(other, birds, out, device="cpu")


def test_photos_that_cannot_be_read_are_listed_and_stop_nothing(encoder, birds, tmp_path):
    (birds / "broken.jpg").write_bytes(b"\xff\xd8\xff rubbish")
    told = index_photos(encoder, birds, tmp_path / "index", device="cpu")
    assert (told["added"], told["refused"]) == (64, 1)
    lines = (tmp_path / "index" / "problems.csv").read_text().splitlines()
    assert lines[0] == "path,code,detail"
    assert lines[1].startswith("broken.jpg,")
    with pytest.raises(PhotoError, match=r"broken\.jpg"):
        search_photos(tmp_path / "index", [str(birds / "broken.jpg")], device="cpu")
    with pytest.raises(PhotoError, match=r"nowhere\.jpg"):
        search_photos(tmp_path / "index", ["nowhere.jpg"], device="cpu")


def test_command_line(run, encoder, birds, tmp_path):
    out = tmp_path / "index"
    code, text, _ = run("index", encoder, birds, "--out", out, "--device", "cpu")
    assert code == 0
    assert "holds 64 photos: 64 added." in text
    key = sorted(p.relative_to(birds).as_posix() for p in birds.rglob("*.jpg"))[0]
    code, text, _ = run("search", out, key, "-k", "3", "--json")
    (answer,) = json.loads(text)["answers"]
    assert answer["query"] == key
    assert len(answer["hits"]) == 3
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    code, text, _ = run("search", out, key, "--where", 'label = "nobody"')
    assert (code, "nothing (the filter leaves no photo)" in text) == (0, True)
    code, _, error = run("search", out, key, "--where", "label ~ 3")
    assert code == 2
    assert "cannot be read" in error
    code, _, error = run("search", tmp_path / "none", key)
    assert code == 2
    assert "there is no index in" in error


def test_facts_of_a_table_can_be_filtered_by(run, made, encoder, birds, tmp_path):
    out, _ = made
    paths = sorted(p.relative_to(birds).as_posix() for p in birds.rglob("*.*") if p.is_file())
    table = tmp_path / "facts.csv"
    rows = [f"{path},{2000 + n % 4},{n:05d},TRUE," for n, path in enumerate(paths)]
    table.write_text(
        "\n".join(["path,year,sku,wild,note", *rows, "nowhere.jpg,1,2,false,x"]) + "\n"
    )
    told = index_photos(encoder, birds, out, facts=table, device="cpu")
    assert told["facts"] == {"told": 64, "unknown": 1}
    with SqliteIndex(out) as index:
        found = [item.key for item in index.items('year >= 2002 and sku < "00010" and wild = true')]
        assert found == [path for n, path in enumerate(paths) if n % 4 >= 2 and n < 10]
        assert index.get(paths[:1])[0].meta == {"year": 2000, "sku": "00000", "wild": True}
    table.write_text(f"path;year\n{paths[0]};1999.5\n")
    code, text, _ = run("index", encoder, birds, "--out", out, "--facts", table, "--device", "cpu")
    assert (code, "new of 1 photos." in text) == (0, True)
    with SqliteIndex(out) as index:
        assert index.get(paths[:1])[0].meta == {"year": 1999.5, "sku": "00000", "wild": True}
    for text, words in (
        ("path,label\na,b\n", "tells nothing of photos"),
        ("year,site\n1,b\n", "tells nothing of photos"),
        ("path,year\na,1\na,2\n", "two lines for a that differ"),
        ("path,year\n,1\n", "line 1: the column 'path' is empty"),
    ):
        table.write_text(text)
        with pytest.raises(LabelError, match=words):
            index_photos(encoder, birds, out, facts=table, device="cpu")


def test_the_index_remembers_where_its_photos_were_seen(made, encoder, birds, tmp_path):
    out, _ = made

    def noted():
        with SqliteIndex(out) as index:
            (space,) = index.stats().spaces
        return photos_of(space)

    assert noted() == birds
    moved = birds.rename(tmp_path / "moved")
    index_photos(encoder, moved, out, device="cpu")
    assert noted() == moved
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next(moved.rglob("*.jpg")), other / "foreign.jpg")
    with pytest.raises(CatalogError, match="none of the 64 photos"):
        index_photos(encoder, other, out, device="cpu")
    assert noted() == moved, "a place that was refused is not remembered"
