"""The table and what is made of it, against the index and brute force."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shelf import ENCODER, kind_of, make_index, near_kinds, serving, settled, until

from fieldmark.app.library import Library
from fieldmark.app.problems import HttpProblem
from fieldmark.index.index import Stamp
from fieldmark.index.sqlite import SqliteIndex


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("library") / "index"
    make_index(place, 60, labelled=20)
    return place


@pytest.fixture(scope="module")
def client(place):
    with serving(place) as client:
        yield client


def test_the_table_is_what_the_index_holds(place, client):
    told = client.get("/api/v1/table").json()
    with SqliteIndex(place) as index:
        items = list(index.items())
        change = index.marks().labels
    assert told["change"] == change
    assert told["keys"] == [item.key for item in items]
    assert told["media"] == [item.stamp.sha256[:32] for item in items]
    names = [told["labels"][at] if at >= 0 else None for at in told["label"]]
    assert names == [item.label for item in items]
    assert told["version"] == [item.version for item in items]
    assert set(told["missing"]) == {0}


def test_the_table_is_packed_only_for_who_takes_it(client):
    plain = client.get("/api/v1/table", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.get("/api/v1/table", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    raw = client.app.state.service.indexed
    assert json.loads(gzip.decompress(raw.tables.pack(raw.library.view()).gzip)) == plain.json()


def test_the_library_is_described(client):
    told = client.get("/api/v1/library").json()
    assert (told["photos"], told["labelled"], told["missing"]) == (60, 20, 0)
    assert told["encoder"]["identity"] == ENCODER
    fields = {field["name"]: field for field in told["fields"]}
    assert fields["year"]["kind"] == "number"
    assert sorted(fields["year"]["values"]) == [2020, 2021]
    assert fields["site"] == {"name": "site", "kind": "text", "values": ["pond"]}
    assert told["snapshot"] == client.get("/api/v1/table").json()["snapshot"]


@pytest.mark.parametrize("where", ["year = 2021", 'label = "wren" and year = 2020', "label is null"])
def test_filters_choose_the_rows_that_the_index_chooses(place, client, where):
    told = client.get("/api/v1/rows", params={"where": where}).json()
    keys = client.get("/api/v1/table").json()["keys"]
    with SqliteIndex(place) as index:
        assert [keys[row] for row in told["rows"]] == [item.key for item in index.items(where)]


def test_a_filter_that_cannot_be_read_is_refused_with_the_place(client):
    refused = client.get("/api/v1/rows", params={"where": "year = = 3"})
    assert refused.status_code == 422
    assert refused.json()["code"] == "bad_input"
    assert "year = = 3" in refused.json()["detail"] or "=" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["table", "rows?where=label is null", "map", "clusters", "outliers"])
def test_a_snapshot_that_is_gone_is_told(client, path):
    joined = "&" if "?" in path else "?"
    refused = client.get(f"/api/v1/{path}{joined}snapshot=0123")
    assert (refused.status_code, refused.json()["code"]) == (409, "snapshot_gone")


@pytest.mark.parametrize(
    "path",
    ["clusters?count=0", "clusters?count=5001", "next?count=0", "next?count=201", "pairs?count=51",
     "labels/changes?since=-1", "labels/changes?since=0&wait=26", "rows?where=", "guesses?change=-1"],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(client, path):
    assert client.get(f"/api/v1/{path}").status_code == 422


def test_more_clusters_than_photos_are_refused(client):
    found = until(lambda: (f := client.get("/api/v1/clusters?count=61")).status_code != 202 and f)
    assert (found.status_code, found.json()["code"]) == (422, "bad_input")


def test_one_photo(client):
    told = client.get("/api/v1/photo", params={"key": "p001.jpg"}).json()
    assert told["label"] == "robin"
    assert told["meta"] == {"year": 2021, "site": "pond"}
    assert [(line["before"], line["after"], line["by"]) for line in told["history"]] == [
        (None, "robin", "table")
    ]
    assert client.get("/api/v1/photo", params={"key": "no.jpg"}).status_code == 404


def test_clusters_are_told_row_by_row(client):
    told = settled(client, "/api/v1/clusters?count=3")
    assert [cluster["size"] for cluster in told["clusters"]] == [20, 20, 20]
    for cluster in range(3):
        rows = [row for row, at in enumerate(told["assigned"]) if at == cluster]
        kind = {kind_of(row) for row in rows}
        assert kind == {told["clusters"][cluster]["label"]}
        x = near_kinds(60)[rows]
        centre = x.mean(axis=0)
        assert told["clusters"][cluster]["medoid"] == rows[int((x @ centre).argmax())]


def test_the_oddest_photo_comes_first(tmp_path):
    make_index(tmp_path / "index", 60, labelled=60)
    with SqliteIndex(tmp_path / "index") as index:
        odd = -np.ones((1, 8), np.float32) / np.sqrt(np.float32(8))
        index.update(["p010.jpg"], vectors=odd)
        index.set_labels({"p030.jpg": "robin"})
    with serving(tmp_path / "index") as client:
        told = settled(client, "/api/v1/outliers")
        assert told["rows"][0] == 10
        assert told["scores"] == sorted(told["scores"], reverse=True)
        doubted = settled(client, "/api/v1/outliers?by_label=true")
        assert 30 in doubted["rows"][:2]
        assert doubted["nearest"][doubted["rows"].index(30)] == "wren"


def test_copies_are_grouped(tmp_path):
    make_index(tmp_path / "index", 30)
    with SqliteIndex(tmp_path / "index") as index:
        (item,) = index.get(["p003.jpg"])
        index.add(["copy.jpg"], index.vectors(["p003.jpg"]), stamps=[item.stamp])
    with serving(tmp_path / "index") as client:
        keys = client.get("/api/v1/table").json()["keys"]
        told = settled(client, "/api/v1/duplicates")
        exact = [group for group in told["groups"] if group["kind"] == "exact"]
        assert [sorted(keys[row] for row in group["rows"]) for group in exact] == [
            ["copy.jpg", "p003.jpg"]
        ]
        assert exact[0]["cosine"] == 1.0
        assert told["checked"] is False


def test_the_map_has_a_place_for_every_photo_and_keeps_it(tmp_path):
    place = tmp_path / "index"
    make_index(place, 60)
    with serving(place) as client:
        first = client.get("/api/v1/map").json()
        assert len(first["x"]) == len(first["y"]) == 60
        told = until(lambda: (m := client.get("/api/v1/map").json())["final"] and m)
        places = np.array([told["x"], told["y"]]).T
        assert places.min() >= 0
        assert places.max() <= 1
        with SqliteIndex(place) as index:
            index.add(["new.jpg"], near_kinds(1, seed=9))
        client.app.state.service.indexed.library.look()
        told = until(lambda: (m := client.get("/api/v1/map").json())["final"] and m)
        keys = client.get("/api/v1/table").json()["keys"]
        assert keys[0] == "new.jpg"
        after = np.array([told["x"], told["y"]]).T
        np.testing.assert_allclose(after[1:], places, atol=1e-4)
        alike = places[np.argsort(-(near_kinds(60) @ near_kinds(1, seed=9)[0]))[:5]]
        spread = np.linalg.norm(places - places.mean(axis=0), axis=1).mean()
        assert np.linalg.norm(alike - after[0], axis=1).min() < 0.5 * spread
    with serving(place) as client:
        again = until(lambda: (m := client.get("/api/v1/map").json())["final"] and m)
        np.testing.assert_allclose(np.array([again["x"], again["y"]]).T, after, atol=1e-4)


def test_an_empty_index_is_no_error(tmp_path):
    with SqliteIndex(tmp_path / "index", create=True):
        pass
    with serving(tmp_path / "index") as client:
        assert client.get("/api/v1/table").json()["keys"] == []
        assert client.get("/api/v1/library").json()["encoder"] is None
        assert client.get("/api/v1/map").json()["x"] == []
        for path in ("clusters", "outliers", "duplicates", "guesses", "next", "pairs", "suspects"):
            settled(client, f"/api/v1/{path}")


def test_a_service_of_runs_has_no_index():
    with _runs() as client:
        refused = client.get("/api/v1/table")
        assert (refused.status_code, refused.json()["code"]) == (409, "no_index")


def _runs():
    from starlette.testclient import TestClient

    from fieldmark.app.server import create_app
    from fieldmark.app.settings import Settings

    return TestClient(create_app(Settings(page=False)), base_url="http://127.0.0.1")


# -- keeping up


def test_the_same_photos_are_the_same_snapshot_wherever_they_are(tmp_path):
    snapshots = set()
    for name in ("a", "b"):
        make_index(tmp_path / name, 20)
        library = Library(tmp_path / name, watch_seconds=None)
        snapshots.add(library.view().table.snapshot)
        library.close()
    assert len(snapshots) == 1


def test_snapshots_change_with_photos_and_not_with_labels(tmp_path):
    keys = make_index(tmp_path / "index", 20)
    library = Library(tmp_path / "index", watch_seconds=None)
    called = []
    library.on_photos.append(lambda: called.append(1))
    seen = [library.view().table.snapshot]

    def step(change):
        with SqliteIndex(tmp_path / "index") as index:
            change(index)
        seen.append(library.look().table.snapshot)
        return seen[-1] != seen[-2]

    assert not step(lambda index: index.set_labels({keys[0]: "wren"}))
    assert library.view().label(0) == "wren"
    assert not step(lambda index: index.update([keys[0]], metas=[{"year": 1}]))
    assert int(library.view().labels.version[0]) == 3
    assert step(lambda index: index.update([keys[0]], missing=True))
    assert step(lambda index: index.update([keys[1]], vectors=near_kinds(1, seed=4)))
    assert step(lambda index: index.update([keys[2]], stamps=[Stamp(1, 1, "f" * 64)]))
    assert step(lambda index: index.remove([keys[3]]))
    assert step(lambda index: index.add([keys[3]], near_kinds(1, seed=5)))
    assert len(called) == 5
    with pytest.raises(HttpProblem, match="load the table again"):
        library.view(seen[0])
    assert library.view(seen[-1]).label(0) == "wren"
    library.close()


def test_what_another_process_changes_is_seen_unasked(tmp_path):
    keys = make_index(tmp_path / "index", 20)
    library = Library(tmp_path / "index", watch_seconds=0.05)
    before = library.view()
    with SqliteIndex(tmp_path / "index") as index:
        index.set_labels({keys[4]: "wren"}, by="cli")
        until(lambda: library.view().label(4) == "wren")
        index.remove([keys[5]])
    until(lambda: len(library.view().table.keys) == 19)
    # What was handed out stays as it was.
    assert before.label(4) is None
    assert len(before.table.keys) == 20
    library.close()


def test_an_index_that_goes_away_is_told_and_the_last_state_shown(tmp_path, monkeypatch):
    make_index(tmp_path / "index", 20)
    library = Library(tmp_path / "index", watch_seconds=0.02)
    from fieldmark.errors import ArtifactError

    def gone():
        raise ArtifactError("the server went away.")

    monkeypatch.setattr(library._index, "marks", gone)
    until(lambda: library.problem == "the server went away.")
    assert len(library.view().table.keys) == 20
    monkeypatch.undo()
    until(lambda: library.problem is None)
    library.close()
