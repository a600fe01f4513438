"""``fieldmark index --parts`` and ``fieldmark search --region``."""

import html
import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.aviary import AviaryConfig, draw
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, InputError, OutputError
from fieldmark.index.parts import FILE, Parts
from fieldmark.workflows import parts as module
from fieldmark.workflows import region as searching
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.region import search_parts
from tiny import save_encoder

sys.path.insert(0, str(Path(__file__).parents[1] / "explain"))
from planted import CELL, noise, patches, put, stamp


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Sixteen birds, and an index of them with parts."""
    folder = tmp_path_factory.mktemp("drawn")
    aviary = draw(AviaryConfig(species=2, per_species=8, size=64))
    for row, (pixels, label) in enumerate(zip(aviary.images, aviary.labels)):
        place = folder / "birds" / f"s{label}" / f"{row:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return folder / "birds"


@pytest.fixture(scope="module")
def ready(drawn, encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("ready") / "index"
    return out, index_photos(encoder, drawn, out, device="cpu", parts=True)


@pytest.fixture
def made(ready, drawn, tmp_path):
    """A copy of both that may be spoilt."""
    birds = shutil.copytree(drawn, tmp_path / "birds")
    out = shutil.copytree(ready[0], tmp_path / "index")
    return out, birds


def keys_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def hits_of(answer):
    return [(hit.item.key, hit.score, hit.box) for hit in answer.hits]


def test_a_stamp_is_found_where_it_is_and_nowhere_else(tmp_path, monkeypatch):
    side, places = 8, {0: (2, 3), 3: (6, 1), 4: (0, 7), 8: (5, 5)}
    images = noise(12, side=side * CELL)
    for row, place in places.items():
        put(images[row], stamp(1), *place)
    (tmp_path / "photos").mkdir()
    for row, image in enumerate(images):
        pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{row}.png")
    encoder = Encoder(patches(), device="cpu")
    monkeypatch.setattr(Encoder, "load", lambda *_, **__: encoder)
    out = tmp_path / "index"
    index_photos(tmp_path, tmp_path / "photos", out, device="cpu", parts=True)

    def region(row):
        y, x = places[row]
        return tuple(edge / side for edge in (x, y, x + 1, y + 1))

    text = ",".join(map(str, region(0)))
    inside = search_parts(out, "0.png", text, k=4, device="cpu")
    found = {hit.item.key: hit for hit in inside.hits}
    assert found.keys() >= {"3.png", "4.png", "8.png"}
    assert (inside.searched, inside.without) == (11, 0)
    for row in (3, 4, 8):
        hit = found[f"{row}.png"]
        assert hit.score > 0.99
        np.testing.assert_allclose(hit.box, region(row), atol=0.02)
    assert inside.hits[3].score < 0.8
    # The same photo as a file gives the same, and itself.
    outside = search_parts(out, str(tmp_path / "photos" / "0.png"), text, k=4, device="cpu")
    assert {hit.item.key for hit in outside.hits} == {"0.png", "3.png", "4.png", "8.png"}


def test_photos_are_caught_up_renewed_and_dropped(encoder, drawn, tmp_path, monkeypatch):
    birds, out = shutil.copytree(drawn, tmp_path / "birds"), tmp_path / "index"
    told = index_photos(encoder, birds, out, device="cpu")
    assert told["parts"] is None
    assert not (out / FILE).exists()
    keys = keys_of(birds)
    with pytest.raises(ArtifactError, match=r"holds no parts of photos; .*--parts"):
        search_parts(out, keys[0], "0,0,0.5,0.5", device="cpu")
    read = []
    look = module.look_at_all

    def watched(catalog, rows, *more):
        read.append(len(rows))
        return look(catalog, rows, *more)

    monkeypatch.setattr(module, "look_at_all", watched)
    told = index_photos(encoder, birds, out, device="cpu", parts=True)["parts"]
    assert (told["photos"], told["made"], told["dropped"], told["refused"]) == (16, 16, 0, 0)
    # From now on without being asked: one is new, one changed, one is gone and marked.
    shutil.copy(birds / keys[1], birds / "new.png")
    before = search_parts(out, keys[2], "0,0,0.5,0.5", k=16, device="cpu")
    shutil.copy(birds / keys[9], birds / keys[0])
    (birds / keys[3]).unlink()
    read.clear()
    told = index_photos(encoder, birds, out, device="cpu")["parts"]
    assert (told["photos"], told["made"], told["dropped"], read) == (17, 2, 0, [2])
    after = search_parts(out, keys[2], "0,0,0.5,0.5", k=17, device="cpu")
    scores = {key: score for key, score, _ in hits_of(after)}
    assert scores[keys[0]] == pytest.approx(scores[keys[9]], abs=1e-5)
    assert scores["new.png"] == pytest.approx(scores[keys[1]], abs=1e-5)
    same = {key: score for key, score, _ in hits_of(before) if key != keys[0]}
    assert all(scores[key] == pytest.approx(score, abs=1e-5) for key, score in same.items())
    told = index_photos(encoder, birds, out, device="cpu", forget_missing=True)["parts"]
    assert (told["photos"], told["made"], told["dropped"]) == (16, 0, 1)


def test_a_basis_of_few_photos_is_fitted_anew_when_there_are_many(made, encoder, tmp_path):
    birds = tmp_path / "few"
    birds.mkdir()
    for key in keys_of(made[1])[:3]:
        shutil.copy(made[1] / key, birds / Path(key).name)
    out = tmp_path / "grown"
    identity = Encoder.load(encoder, device="cpu").identity

    def photos():
        with sqlite3.connect(out / FILE) as db:
            (kind,) = db.execute("SELECT kind FROM spaces").fetchone()
        with Parts(out / FILE) as parts:
            return parts.basis(identity, kind).photos

    index_photos(encoder, birds, out, device="cpu", parts=True)
    assert photos() == 3
    for key in keys_of(made[1])[3:]:
        shutil.copy(made[1] / key, birds / Path(key).name)
    told = index_photos(encoder, birds, out, device="cpu")["parts"]
    assert (photos(), told["made"]) == (16, 16)


def test_parts_that_cannot_be_believed_are_not_searched_and_made_anew(made, encoder):
    out, birds = made
    keys = keys_of(birds)
    sound = hits_of(search_parts(out, keys[5], "0.2,0.2,0.6,0.6", k=16, device="cpu"))
    db = sqlite3.connect(out / FILE)
    with db:
        db.execute("UPDATE cells SET crc = crc + 1 WHERE key = ?", (keys[0],))
        db.execute("UPDATE cells SET sha256 = ? WHERE key = ?", ("0" * 64, keys[1]))
    db.close()
    answer = search_parts(out, keys[5], "0.2,0.2,0.6,0.6", k=16, device="cpu")
    assert (answer.searched, answer.without) == (13, 2)
    assert hits_of(answer) == [hit for hit in sound if hit[0] not in keys[:2]]
    with pytest.raises(ArtifactError, match=f"{keys[0]} has no parts that can be believed"):
        search_parts(out, keys[0], "0.2,0.2,0.6,0.6", device="cpu")
    with pytest.raises(ArtifactError, match="none of the 1 photos that were asked for"):
        search_parts(out, keys[5], "0,0,1,1", where=f'key = "{keys[0]}"', device="cpu")
    told = index_photos(encoder, birds, out, device="cpu")["parts"]
    assert (told["made"], told["photos"]) == (2, 16)
    assert hits_of(search_parts(out, keys[5], "0.2,0.2,0.6,0.6", k=16, device="cpu")) == sound
    # A file that is cut short is made anew as a whole.
    data = (out / FILE).read_bytes()
    (out / FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match=r"is damaged .*--parts"):
        search_parts(out, keys[5], "0.2,0.2,0.6,0.6", device="cpu")
    assert index_photos(encoder, birds, out, device="cpu")["parts"]["made"] == 16
    assert hits_of(search_parts(out, keys[5], "0.2,0.2,0.6,0.6", k=16, device="cpu")) == sound


def test_cells_of_another_encoder_are_not_read(made, encoder, monkeypatch):
    out, birds = made
    db = sqlite3.connect(out / FILE)
    with db:
        db.execute("UPDATE spaces SET identity = ?", ("f" * 64,))
    db.close()
    with pytest.raises(ArtifactError, match=r"no parts of its encoder .*--parts"):
        search_parts(out, keys_of(birds)[0], "0,0,0.5,0.5", device="cpu")
    assert index_photos(encoder, birds, out, device="cpu")["parts"]["made"] == 16
    with sqlite3.connect(out / FILE) as db:
        assert db.execute("SELECT count(*) FROM spaces").fetchone() == (1,)
    real = searching.detail_of

    def otherwise(encoder):
        detail = real(encoder)
        detail.kind = "read otherwise"
        return detail

    monkeypatch.setattr(searching, "detail_of", otherwise)
    with pytest.raises(ArtifactError, match="no parts of its encoder"):
        search_parts(out, keys_of(birds)[0], "0,0,0.5,0.5", device="cpu")


def test_stopped_in_the_middle_it_goes_on(made, encoder, monkeypatch):
    out, birds = made
    (out / FILE).unlink()
    monkeypatch.setattr(module, "COMMIT", 5)
    real, kept = Parts.put, []

    def stops(self, *arguments):
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(1)
        real(self, *arguments)

    monkeypatch.setattr(Parts, "put", stops)
    with pytest.raises(KeyboardInterrupt):
        index_photos(encoder, birds, out, device="cpu", parts=True)
    monkeypatch.setattr(Parts, "put", real)
    told = index_photos(encoder, birds, out, device="cpu")["parts"]
    assert (told["photos"], told["made"]) == (16, 6)


def test_filters_and_errors(made, encoder):
    out, birds = made
    keys = keys_of(birds)
    answer = search_parts(out, keys[0], "0,0,0.5,0.5", where='label = "s1"', device="cpu")
    assert {hit.item.label for hit in answer.hits} == {"s1"}
    assert (answer.searched, answer.without) == (8, 0)
    nothing = search_parts(out, keys[0], "0,0,0.5,0.5", where='label = "nobody"', device="cpu")
    assert (nothing.hits, nothing.searched, nothing.without) == ([], 0, 0)
    with pytest.raises(InputError, match="from 0 to 1"):
        search_parts(out, keys[0], "0,0,30,30", device="cpu")
    with pytest.raises(OutputError, match=r"sheet\.html or sheet\.png"):
        search_parts(out, keys[0], "0,0,1,1", device="cpu", sheet=out / "sheet.gif")
    shutil.move(birds, birds.with_name("away"))
    with Parts(out / FILE) as parts:
        parts.source = str(birds)
    with pytest.raises(ArtifactError, match=r"cannot be opened in .*birds"):
        search_parts(out, keys[0], "0,0,1,1", device="cpu", sheet=out / "sheet.html")


def test_command_line_and_sheet(run, made, encoder, drawn, tmp_path):
    out, birds = made
    keys = keys_of(birds)
    code, text, _ = run("index", encoder, birds, "--out", out, "--device", "cpu", "--parts")
    assert code == 0
    assert "Parts of 16 photos are kept (0 new" in text
    (birds / keys[1]).unlink()
    sheet = tmp_path / "found.html"
    region = ("--region", "0.4,0.2,0.6,0.5", "--device", "cpu")
    code, text, _ = run("search", out, keys[0], *region, "-k", "15", "--sheet", sheet, "--json")
    assert code == 0
    told = json.loads(text)
    assert told["region"] == [0.4, 0.2, 0.6, 0.5]
    assert (told["searched"], told["without_parts"], len(told["hits"])) == (15, 0, 15)
    for hit in told["hits"]:
        x0, y0, x1, y1 = hit["box"]
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert x1 - x0 == pytest.approx(0.2, abs=1e-3)
    page = sheet.read_text()
    assert "default-src 'none'" in html.unescape(page)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    # Query and 14 hits with two pictures each; one photo is gone.
    assert page.count("<img ") == 30
    assert "cannot be read any more" in page
    code, text, _ = run("search", out, keys[0], *region, "-k", "2")
    lines = text.splitlines()
    assert lines[0] == f"{keys[0]}  0.4,0.2,0.6,0.5"
    assert re.fullmatch(r" +0\.\d{3}  s\d/\d\d\.png  s\d  ([01]\.\d{3},?){4}", lines[1].rstrip())
    code, _, error = run("search", out, keys[0], keys[1], *region)
    assert (code, "a region is a part of one photo, got 2" in " ".join(error.split())) == (2, True)
    code, _, error = run("search", out, keys[0], "--sheet", sheet)
    assert (code, "say which part with --region" in " ".join(error.split())) == (2, True)
    code, _, error = run("search", out, keys[0], "--region", "0.5,0.5,0.2,0.9")
    assert (code, "x0 must be less than x1" in " ".join(error.split())) == (2, True)


def test_content_that_the_index_has_not_seen_gets_no_parts(made, encoder):
    out, birds = made
    keys = keys_of(birds)
    (out / FILE).unlink()
    # Changed without a trace in size or time: the vector is of the photo as it was.
    with sqlite3.connect(out / "index.sqlite") as db:
        db.execute("UPDATE items SET sha256 = ? WHERE key = ?", ("0" * 64, keys[4]))
    told = index_photos(encoder, birds, out, device="cpu", parts=True)["parts"]
    assert (told["photos"], told["made"], told["refused"]) == (15, 15, 1)
    answer = search_parts(out, keys[0], "0,0,0.5,0.5", k=16, device="cpu")
    assert answer.without == 1
    assert keys[4] not in {hit.item.key for hit in answer.hits}
