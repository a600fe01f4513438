"""Folders and servers' URLs: opened alike, indexed and searched alike, passwords never said."""

import json

import numpy as np
import pytest
from PIL import Image
from vectors import DIM, ENCODER, unit

from fieldmark.errors import ArtifactError, BusyError, InputError
from fieldmark.index.places import open_index, read_url, shown
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.workflows import migrate
from fieldmark.workflows.index import index_photos, search_photos
from fieldmark.workflows.migrate import migrate_index
from fieldmark.workflows.upkeep import back_up_index, compact_index, index_stats, verify_index
from tiny import save_encoder

SECRET = "s3cr.t"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 40)).save(folder / f"{i}.png")
    return folder


def test_a_folder_and_a_server_are_opened_alike(server, tmp_path):
    with open_index(tmp_path / "index", create=True) as folder:
        assert isinstance(folder, SqliteIndex)
    with open_index(f"{server}#opened", create=True) as index:
        assert index.engine == "postgres"
        index.add_space(ENCODER, DIM)
        index.add(["a"], unit(1))
    with open_index(f"{server}#opened") as index:
        assert index.stats().items == 1
    with pytest.raises(ArtifactError, match="has no index 'another'"):
        open_index(f"{server}#another")
    with pytest.raises(ArtifactError, match="there is no index in"):
        open_index(tmp_path / "none")


@pytest.mark.parametrize("place", ["mysql://host/db", "postgresql:/host/db", "http://host"])
def test_other_urls_are_no_folders(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is no place for an index"):
        open_index(place, create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"postgresql://ida:{SECRET}@host:5433/db#birds", "postgresql://ida@host:5433/db#birds"),
        (f"postgres://host/db?user=ida&password={SECRET}", "postgres://host/db?user=ida"),
        (f"postgresql://ida:{SECRET}@/db?host=/tmp/x", "postgresql://ida@/db?host=/tmp/x"),
        (f"postgresql://ida:{SECRET}@a:1,b:2/db", "postgresql://ida@a:1,b:2/db"),
        (f"postgresql://ida:{SECRET}@host@host/db", "postgresql://…"),
        ("relative/folder", "relative/folder"),
    ],
)
def test_places_are_shown_without_passwords(url, told):
    assert shown(url) == told


@pytest.mark.parametrize(
    "authority",
    [
        f"ida:x@{SECRET}@127.0.0.1:1",
        f"ida:x/{SECRET}@127.0.0.1:1",
        f"ida:12/{SECRET}@127.0.0.1:1",
        f"ida:x?{SECRET}@127.0.0.1:1",
        f"ida:x#{SECRET}@127.0.0.1:1",
        f"ida:{SECRET}%zz@127.0.0.1:1",
        f"ida:{SECRET}",
        f"ida:{SECRET}@127.0.0.1:1",
    ],
)
def test_no_error_says_a_password(authority):
    with pytest.raises(InputError) as caught:
        open_index(f"postgresql://{authority}/db")
    assert SECRET not in str(caught.value)
    assert "s3cr" not in shown(f"postgresql://{authority}/db")


def test_what_the_library_refuses_is_told_without_its_words():
    with pytest.raises(InputError, match="URL cannot be read") as caught:
        open_index(f"postgresql://ida@127.0.0.1:1/db?{SECRET}=1")
    assert SECRET not in str(caught.value)


def test_the_name_follows_the_number_sign():
    assert read_url("postgresql://host/db") == ("postgresql://host/db", "fieldmark")
    assert read_url("postgresql://host/db#b2") == ("postgresql://host/db", "b2")
    with pytest.raises(InputError, match="no name of an index"):
        read_url("postgresql://host/db#drop table")


def test_photos_are_indexed_searched_and_migrated_on_a_server(server, photos, tmp_path):
    place, encoder = f"{server}#photos", save_encoder(tmp_path / "encoder")
    told = index_photos(encoder, photos, place, device="cpu")
    assert (told["items"], told["index"], told["problems"]) == (6, shown(place), None)
    assert index_photos(encoder, photos, place, device="cpu")["unchanged"] == 6
    query = str(photos / "3.png")
    outside, inside = search_photos(place, [query, "3.png"], k=3, device="cpu")
    assert outside.hits[0].key == "3.png"
    assert [hit.key for hit in inside.hits][:2] == [hit.key for hit in outside.hits][1:]
    # The encoder is moved away: said where it was, found where it is now, and no other is taken.
    moved = encoder.rename(tmp_path / "moved")
    with pytest.raises(ArtifactError, match=r"is not on this machine .*it was in .*encoder"):
        search_photos(place, [query], device="cpu")
    found = search_photos(place, [query], encoder=str(moved), device="cpu")
    assert found[0].hits[0].key == "3.png"
    other = save_encoder(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="has no vectors of one encoder"):
        search_photos(place, [query], encoder=str(other), device="cpu")
    save_encoder(encoder, seed=1)
    with pytest.raises(ArtifactError, match=r"holds encoder .* wants"):
        search_photos(place, [query], device="cpu")
    # Adding photos with the encoder where it is now is enough to be told.
    index_photos(moved, photos, place, device="cpu")
    assert search_photos(place, [query], device="cpu") == found
    told = migrate_index(place, other, photos, drop_old=True, device="cpu")
    assert (told["embedded"], told["switched"], told["problems"]) == (6, True, None)
    stats = index_stats(place)
    assert [space["about"]["folder"] for space in stats["spaces"]] == [str(other)]
    assert verify_index(place)["sound"]
    assert compact_index(place)["search"] == {"kind": "exact"}
    with pytest.raises(InputError, match="pg_dump --schema=photos"):
        back_up_index(place, tmp_path / "backup")


def test_a_server_lets_one_process_add_photos_at_a_time(server, photos, tmp_path, monkeypatch):
    place, encoder = f"{server}#busy", save_encoder(tmp_path / "encoder")
    index_photos(encoder, photos, place, device="cpu")
    with open_index(place) as other, other.hold():
        with pytest.raises(BusyError, match="another process is adding photos to the index 'busy'"):
            index_photos(encoder, photos, place, device="cpu")
        assert search_photos(place, ["3.png"], device="cpu")[0].hits
    index_photos(encoder, photos, place, device="cpu")
    monkeypatch.setattr(migrate, "_embed", lambda *a, **k: pytest.fail("not held"))
    with open_index(place) as other, other.hold(), pytest.raises(BusyError):
        migrate_index(place, save_encoder(tmp_path / "other", 1), photos, device="cpu")


def test_the_command_line_takes_urls_and_says_no_password(server, run, photos, tmp_path):
    place = server.replace("postgres:@", f"postgres:{SECRET}@") + "#line"
    assert SECRET in place
    encoder = save_encoder(tmp_path / "encoder")
    code, text, _ = run("index", encoder, photos, "--out", place, "--device", "cpu")
    assert code == 0
    assert "holds 6 photos" in text
    outputs = [text]
    for arguments in (["stats"], ["verify"], ["compact"]):
        code, text, error = run("index", *arguments, place, "--json")
        assert (code, json.loads(text)["index"]) == (0, shown(place)), error
        outputs += [text, error]
    code, text, error = run("search", place, "3.png", "--json")
    assert json.loads(text)["answers"][0]["hits"]
    outputs += [text, error, *run("search", place, "nowhere.png")[1:]]
    outputs += run("index", save_encoder(tmp_path / "b", 1), photos, "--out", place)[1:]
    assert not any(SECRET in output for output in outputs)
