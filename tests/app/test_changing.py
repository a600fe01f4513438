"""Photos that come and go over HTTP."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from shelf import serving, until

from fieldmark.data.catalog import Catalog
from fieldmark.encoder import Encoder
from fieldmark.index.places import open_index
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.workflows.index import index_photos, upload_of
from fieldmark.workflows.migrate import migrate_index
from fieldmark.workflows.upkeep import back_up_index
from tiny import save_encoder

PHOTOS = "/api/v1/index/photos"
SCAN = "/api/v1/index/scan"


def draw(file, seed, side=40):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file.read_bytes()


@pytest.fixture
def place(tmp_path):
    """An index of four drawn photos."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        draw(photos / f"{seed}.png", seed)
    save_encoder(tmp_path / "encoder")
    index_photos(tmp_path / "encoder", photos, tmp_path / "index", device="cpu", workers=1)
    return tmp_path / "index"


@pytest.fixture
def client(place):
    with serving(place, device="cpu") as client:
        yield client


def test_a_photo_is_kept_embedded_and_added(tmp_path, place, client):
    data = draw(tmp_path / "new.png", 9)
    digest = hashlib.sha256(data).hexdigest()
    done = client.post(PHOTOS, params={"name": "../../my wren.png"}, content=data)
    assert done.json() == {"key": f"uploads/{digest[:16]}.png", "media": digest[:32], "new": True}
    key = done.json()["key"]
    assert (place / key).read_bytes() == data
    assert sorted(p.name for p in (place / "uploads").iterdir()) == [Path(key).name]
    with SqliteIndex(place) as index:
        (item,) = index.get([key])
        assert item.stamp.sha256 == digest
        assert item.meta == {"name": "../../my wren.png"}
        loaded = Encoder.load(tmp_path / "encoder", device="cpu")
        expected = loaded.embed([tmp_path / "new.png"])
        # Alone and in a batch a processor may compute in other precisions.
        assert (index.vectors([key]) * expected).sum() > 0.9999
    assert key in client.get("/api/v1/table").json()["keys"]
    again = client.post(PHOTOS, content=data)
    assert again.json() == {"key": key, "media": digest[:32], "new": False}
    known = client.post(PHOTOS, content=(tmp_path / "photos/2.png").read_bytes())
    assert (known.json()["key"], known.json()["new"]) == ("2.png", False)


@pytest.mark.parametrize("data", [b"", b"no photo", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_photo_leaves_nothing(place, client, data):
    refused = client.post(PHOTOS, content=data, params={"name": "x.png"})
    assert refused.status_code == 422
    assert list((place / "uploads").iterdir()) == []
    with SqliteIndex(place) as index:
        assert index.stats().items == 4


def test_a_photo_that_is_too_large_leaves_nothing(place):
    with serving(place, device="cpu", max_upload_bytes=1000) as client:
        refused = client.post(PHOTOS, content=b"\xff\xd8" + b"x" * 2000)
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        folder = place / "uploads"
        assert not folder.exists() or list(folder.iterdir()) == []


def test_photos_are_removed_all_or_none(tmp_path, place, client):
    key = client.post(PHOTOS, content=draw(tmp_path / "new.png", 9)).json()["key"]
    refused = client.request("DELETE", PHOTOS, json={"keys": [key, "no.png"]})
    assert (refused.status_code, refused.json()["code"]) == (404, "no_such_photo")
    assert (place / key).exists()
    done = client.request("DELETE", PHOTOS, json={"keys": [key, "1.png"]})
    assert done.json() == {"removed": 2}
    assert not (place / key).exists()
    assert (tmp_path / "photos/1.png").exists()
    assert client.get("/api/v1/table").json()["keys"] == ["0.png", "2.png", "3.png"]


def test_a_scan_finds_what_is_new_and_leaves_uploads_alone(tmp_path, place, client):
    key = client.post(PHOTOS, content=draw(tmp_path / "new.png", 9)).json()["key"]
    assert client.get(SCAN).json()["state"] == "idle"
    draw(tmp_path / "photos/later.png", 11)
    (tmp_path / "photos/0.png").unlink()
    assert client.post(SCAN).status_code == 202
    told = until(lambda: (s := client.get(SCAN).json())["state"] != "working" and s)
    assert (told["state"], told["added"], told["missing"]) == ("done", 1, 1), told
    table = client.get("/api/v1/table").json()
    missing = dict(zip(table["keys"], table["missing"], strict=True))
    assert missing == {
        "0.png": 1, "1.png": 0, "2.png": 0, "3.png": 0, "later.png": 0, key: 0,
    }  # fmt: skip


def test_a_scan_that_fails_says_why(tmp_path, place, client):
    for file in (tmp_path / "photos").iterdir():
        file.unlink()
    client.post(SCAN)
    told = until(lambda: (s := client.get(SCAN).json())["state"] != "working" and s)
    assert told["state"] == "failed"
    assert told["detail"]


def test_photos_that_the_index_keeps_move_and_are_copied_with_it(tmp_path, place, client):
    data = draw(tmp_path / "new.png", 9)
    key = client.post(PHOTOS, content=data).json()["key"]
    (place / "uploads/.left.partial").write_bytes(b"half")
    save_encoder(tmp_path / "other", seed=3)
    told = migrate_index(place, tmp_path / "other", tmp_path / "photos", device="cpu", workers=1)
    assert (told["embedded"], told["lacking"], told["switched"]) == (5, 0, True)
    with SqliteIndex(place) as index:
        expected = Encoder.load(tmp_path / "other", device="cpu").embed([place / key])
        assert (index.vectors([key]) * expected).sum() > 0.9999
    back_up_index(place, tmp_path / "copy")
    assert (tmp_path / "copy" / key).read_bytes() == data
    assert len(list((tmp_path / "copy/uploads").iterdir())) == 1


@pytest.mark.parametrize(
    "key",
    ["uploads/../x.png", "uploads/0123456789abcdef.png/..", "/uploads/0123456789abcdef.png",
     "uploads/0123456789ABCDEF.png", "uploads/0123456789abcdef.png\n", "a/uploads/0123456789abcdef.png"],
)  # fmt: skip
def test_only_keys_of_uploads_lead_to_files(key, tmp_path):
    assert upload_of(tmp_path, key) is None
    assert upload_of("postgresql://x/y", "uploads/0123456789abcdef.png") is None
    assert upload_of(tmp_path, "uploads/0123456789abcdef.png") is not None


def test_pixels_of_the_photos_decide_about_copies(tmp_path, place, client):
    with Image.open(tmp_path / "photos/0.png") as image:
        image.save(tmp_path / "photos/near.png", compress_level=1)
    assert Catalog.open(tmp_path / "photos").rows
    client.post(SCAN)
    until(lambda: client.get(SCAN).json()["state"] == "done")
    keys = client.get("/api/v1/table").json()["keys"]
    told = until(lambda: (f := client.get("/api/v1/duplicates")).status_code == 200 and f.json())
    assert told["checked"] is True
    groups = [sorted(keys[row] for row in g["rows"]) for g in told["groups"] if g["kind"] == "same"]
    assert groups == [["0.png", "near.png"]]
    with open_index(place) as index:
        assert index.stats().items == 5
