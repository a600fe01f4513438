"""Two services over one index in PostgreSQL: what is said at one is known at the other, and nothing is lost."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.index.places import open_index
from fieldmark.workflows.index import index_photos
from tiny import save_encoder

sys.path.insert(0, str(Path(__file__).parent))
from shelf import settled

API = "/api/v1"


@pytest.fixture(scope="module")
def replicas(server, tmp_path_factory):
    """Two services of one index in a database, and the folder of its photos."""
    work = tmp_path_factory.mktemp("replicas")
    write(draw(AviaryConfig(species=3, per_species=8, size=64)), work / "birds")
    photos = work / "birds" / "images"
    place = f"{server}#replicas"
    index_photos(save_encoder(work / "encoder"), photos, place, device="cpu")
    settings = Settings(place=place, photos=photos, device="cpu", page=False)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(TestClient(create_app(settings), base_url="http://127.0.0.1:8000"))
            for _ in range(2)
        ]
        yield clients, photos, place


def put(client, labels, expected, by):
    body = {"labels": labels, "expected": expected, "by": by}
    return client.put(f"{API}/labels", json=body)


def changes(client, since):
    told = client.get(f"{API}/labels/changes", params={"since": since, "wait": 10}).json()
    return [(line["key"], line["after"], line["by"], line["version"]) for line in told["changes"]]


def test_a_label_of_one_is_told_at_the_other_and_who_saw_less_is_asked(replicas):
    (first, second), _, place = replicas
    keys = first.get(f"{API}/table").json()["keys"]
    assert keys == second.get(f"{API}/table").json()["keys"]
    since = second.get(f"{API}/labels").json()["change"]
    version = second.get(f"{API}/photo", params={"key": keys[0]}).json()["version"]
    own = put(first, {keys[0]: "wren"}, {keys[0]: version}, "Ida")
    assert own.status_code == 200
    late = put(second, {keys[0]: "tit"}, {keys[0]: version}, "Ole")
    assert (late.status_code, late.json()["now"][keys[0]]["label"]) == (409, "wren")
    assert changes(second, since) == [(keys[0], "wren", "Ida", version + 1)]
    # Having seen it, he may.
    assert put(second, {keys[0]: "tit"}, {keys[0]: version + 1}, "Ole").status_code == 200
    assert changes(first, own.json()["change"]) == [(keys[0], "tit", "Ole", version + 2)]
    with open_index(place) as index:
        assert [line.after for line in index.history()][-2:] == ["wren", "tit"]


def test_two_people_at_two_replicas_lose_nothing(replicas):
    clients, _, place = replicas
    keys = clients[0].get(f"{API}/table").json()["keys"][2:5]
    acknowledged = []

    def work(number):
        client, done = clients[number], 0
        seen = dict.fromkeys(keys, 1)
        while done < 12:
            key = keys[(done + number) % len(keys)]
            label = f"{number}-{done}"
            told = put(client, {key: label}, {key: seen[key]}, str(number))
            if told.status_code == 409:
                seen[key] = told.json()["now"][key]["version"]
                continue
            assert told.status_code == 200
            seen[key] += 1
            acknowledged.append((key, label))
            done += 1

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    with open_index(place) as index:
        kept = [(line.key, line.after) for line in index.history() if line.by in ("0", "1")]
    assert sorted(kept) == sorted(acknowledged)
    assert len(kept) == 24


def test_each_answers_alike(replicas):
    clients, photos, _ = replicas
    photo = min(photos.rglob("*.*")).read_bytes()
    found = [client.post(f"{API}/embed", content=photo).json()["embedding"] for client in clients]
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)
    hits = [client.post(f"{API}/search/photo?k=5", content=photo).json() for client in clients]
    keys = [[hit["key"] for hit in one["hits"]] for one in hits]
    assert keys[0] == keys[1]
    assert (photos / keys[0][0]).read_bytes() == photo
    maps = [settled(client, f"{API}/map") for client in clients]
    assert len(maps[0]["x"]) == len(maps[1]["x"]) == 24
    media = clients[0].get(f"{API}/table").json()["media"][0]
    assert clients[1].get(f"/media/{media}/small").status_code == 200


def test_photos_are_not_added_over_http(replicas):
    (first, _), photos, _ = replicas
    photo = min(photos.rglob("*.*")).read_bytes()
    told = first.post(f"{API}/index/photos", content=photo)
    assert (told.status_code, told.json()["code"]) == (409, "no_folder")
