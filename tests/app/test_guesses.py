"""What labels make of the rest, against plain computations."""

import csv
import io
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shelf import KINDS, kind_of, make_index, near_kinds, serving, settled, until

from fieldmark.app import heads
from fieldmark.app.guesses import medoids
from fieldmark.evaluation.significance import wilson
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.label.classifier import FieldClassifier

COUNT, LABELLED = 90, 45


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("guesses") / "index"
    make_index(place, COUNT, labelled=LABELLED)
    with SqliteIndex(place) as index:
        index.set_labels({"p006.jpg": "robin"})
    return place


@pytest.fixture(scope="module")
def client(place):
    with serving(place) as client:
        yield client


def test_guesses_are_those_of_a_classifier_of_the_labels(client):
    told = settled(client, "/api/v1/guesses")
    assert told["final"]
    x = near_kinds(COUNT)
    labels = [kind_of(row) if row != 6 else "robin" for row in range(LABELLED)]
    made = FieldClassifier().fit(x[:LABELLED], labels)
    assert told["classes"] == made.classes_.tolist() == sorted(KINDS)
    p = made.predict_proba(x)
    assert told["guess"] == p.argmax(axis=1).tolist()
    np.testing.assert_allclose(told["probability"], p.max(axis=1), atol=0.0051)
    order = np.argsort(-p, axis=1, kind="stable")
    assert told["second"] == order[:, 1].tolist()
    np.testing.assert_allclose(told["second_probability"], np.sort(p, axis=1)[:, 1], atol=0.0051)
    assert told["unknown"] == made.is_unknown(x).astype(int).tolist()
    assert told["set_size"] == [len(each) for each in made.predict_set(x)]
    settled(client, "/api/v1/next?count=1")
    assert 0 < settled(client, "/api/v1/guesses")["coverage"] <= 1


def test_the_estimate_is_that_of_held_out_photos(client):
    told = settled(client, "/api/v1/guesses")["accuracy"]
    labels = [kind_of(row) if row != 6 else "robin" for row in range(LABELLED)]
    made = FieldClassifier().fit(near_kinds(COUNT)[:LABELLED], labels)
    assert told["photos"] == LABELLED
    assert told["estimate"] == round(made.validation_.accuracy, 4)
    right = round(made.validation_.accuracy * LABELLED)
    assert [told["low"], told["high"]] == [round(end, 4) for end in wilson(right, LABELLED)]
    assert "odder" in told["how"]
    assert "flatters it a little" in told["how"]
    assert sum(each["photos"] for each in told["labels"]) == LABELLED
    shares = [each["estimate"] * each["photos"] for each in told["labels"]]
    assert sum(shares) / LABELLED == pytest.approx(told["estimate"], abs=1e-3)


def test_a_label_changes_the_guesses_that_are_asked_for_it(tmp_path):
    make_index(tmp_path / "index", 30)
    with serving(tmp_path / "index") as client:
        told = settled(client, "/api/v1/guesses")
        assert told["classes"] == []
        assert set(told["guess"]) == {-1}
        assert told["why"].startswith("no photo has a label yet")
        client.put("/api/v1/labels", json={"labels": {"p000.jpg": "wren"}})
        assert "all labelled photos are 'wren'" in settled(client, "/api/v1/guesses")["why"]
        done = client.put("/api/v1/labels", json={"labels": {"p001.jpg": "robin"}}).json()
        told = settled(client, f"/api/v1/guesses?change={done['change']}")
        assert told["change"] == done["change"]
        assert told["classes"] == ["robin", "wren"]
        assert [told["classes"][at] for at in told["guess"][:2]] == ["wren", "robin"]
        assert told["accuracy"] is None
        done = client.put("/api/v1/labels", json={"labels": {"p002.jpg": "tit"}}).json()
        told = settled(client, f"/api/v1/guesses?change={done['change']}")
        right = [told["classes"][at] == kind_of(row) for row, at in enumerate(told["guess"])]
        assert np.mean(right) > 0.9
        # Photos that come are guessed too.
        with SqliteIndex(tmp_path / "index") as index:
            index.add(["z.jpg"], near_kinds(1, seed=3))
        client.app.state.service.indexed.library.look()
        told = settled(client, "/api/v1/guesses")
        assert len(told["guess"]) == 31
        assert told["classes"][told["guess"][-1]] == "wren"


def test_where_choosing_takes_long_the_first_guesses_say_that_better_ones_come(place, monkeypatch):
    go, choose = threading.Event(), heads._choose
    monkeypatch.setattr(heads, "_QUICK", 0)
    monkeypatch.setattr(heads, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(heads, "_choose", lambda *asked: go.wait(30) and choose(*asked))
    with serving(place) as client:
        first = settled(client, "/api/v1/guesses")
        assert first["final"] is False
        assert "a better one is being chosen" in first["accuracy"]["how"]
        right = [first["classes"][at] == kind_of(row) for row, at in enumerate(first["guess"])]
        assert np.mean(right) > 0.9
        go.set()
        best = until(lambda: (told := settled(client, "/api/v1/guesses"))["final"] and told)
        assert best["change"] == first["change"]
        assert "a better one" not in best["accuracy"]["how"]
    with serving(place) as client:
        again = settled(client, "/api/v1/guesses")
        assert again["final"]
        assert again["accuracy"] == best["accuracy"]
        assert again["guess"] == best["guess"]


def test_what_to_label_next_has_no_label_and_is_not_skipped(client):
    told = settled(client, "/api/v1/next?count=5")
    keys = [photo["key"] for photo in told["photos"]]
    assert len(set(keys)) == 5
    assert all(int(key[1:4]) >= LABELLED for key in keys)
    gains = [photo["gain"] for photo in told["photos"]]
    assert gains == sorted(gains, reverse=True)
    assert all(photo["guess"] in KINDS for photo in told["photos"])
    skipped = settled(client, f"/api/v1/next?count=5&skip={keys[0]}&skip={keys[1]}")
    assert not {photo["key"] for photo in skipped["photos"]} & set(keys[:2])
    chosen = settled(client, '/api/v1/next?count=50&where=key > "p080.jpg"')
    assert {photo["key"] for photo in chosen["photos"]} == {f"p0{row}.jpg" for row in range(81, 90)}


def test_pairs_are_those_between_which_a_photo_is_torn(tmp_path):
    make_index(tmp_path / "index", 60, labelled=30, spread=0.35)
    torn = np.zeros((1, 8), np.float32)
    torn[0, :2] = 0.5**0.5
    with SqliteIndex(tmp_path / "index") as index:
        index.add(["torn.jpg"], torn)
    with serving(tmp_path / "index") as client:
        told = settled(client, "/api/v1/pairs?count=3&photos=5")
        pair = {(each["first"], each["second"]): each for each in told["pairs"]}["robin", "wren"]
        (photo,) = (photo for photo in pair["photos"] if photo["key"] == "torn.jpg")
        assert min(photo["first"], photo["second"]) > 0.1
        assert photo["first"] + photo["second"] + photo["other"] == pytest.approx(1, abs=1e-3)
        gaps = [abs(photo["first"] - photo["second"]) for photo in pair["photos"]]
        assert gaps == sorted(gaps)
        assert len(pair["typical"]["first"]) == 3
        assert all(kind_of(int(key[1:4])) == "robin" for key in pair["typical"]["first"])


def test_a_wrong_label_is_the_first_suspect(client):
    told = settled(client, "/api/v1/suspects")
    first = told["photos"][0]
    assert (first["key"], first["label"], first["suggested"]) == ("p006.jpg", "robin", "wren")
    assert told["judged"] == LABELLED


def test_a_label_has_typical_odd_and_near_ones(client):
    told = client.get("/api/v1/species", params={"label": "robin"}).json()
    assert told["photos"] == 16
    assert told["odd"][0]["key"] == "p006.jpg"
    assert "p006.jpg" not in {photo["key"] for photo in told["typical"][:1]}
    assert {near["label"] for near in told["nearest"]} == {"wren", "tit"}
    assert told["nearest"][0]["label"] == "wren"
    assert told["nearest"][0]["confused"] > 0
    missing = client.get("/api/v1/species", params={"label": "eagle"})
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_label")


def test_all_guesses_can_be_kept(client):
    rows = list(csv.DictReader(io.StringIO(client.get("/api/v1/classified.csv").text)))
    told = settled(client, "/api/v1/guesses")
    assert [row["path"] for row in rows] == [f"p{row:03}.jpg" for row in range(COUNT)]
    assert [row["guess"] for row in rows] == [told["classes"][at] for at in told["guess"]]
    assert [row["label"] for row in rows[:2]] == ["wren", "robin"]
    assert rows[-1]["label"] == ""


def test_medoids_stand_for_different_looks():
    looks = np.repeat(np.eye(3, dtype=np.float32), [10, 5, 3], axis=0)
    found = medoids(looks, 3)
    assert sorted(looks[found].argmax(axis=1).tolist()) == [0, 1, 2]
    assert looks[found[0]].argmax() == 0
    assert len(medoids(looks[:2], 6)) == 2


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Brown, Cai and DasGupta 2001 and R's binom.wilson.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (9, 10, 0.5958, 0.9821), (0, 0, 0.0, 1.0)],
)
def test_wilson_s_interval(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=2e-4)
