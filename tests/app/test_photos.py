"""Photos over HTTP: the same answers as the library gives, and nothing of a file but its pixels."""

import io
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from fieldmark.app.batching import Batcher
from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.encoder import Encoder
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.workflows.explain import explain
from fieldmark.workflows.index import index_photos, search_photos
from fieldmark.workflows.region import search_parts
from tiny import save_encoder

API = "/api/v1"
LIMIT = 1_500_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An index of 24 drawn birds with parts, and its encoder."""
    work = tmp_path_factory.mktemp("service")
    write(draw(AviaryConfig(species=3, per_species=8, size=64)), work / "birds")
    encoder = save_encoder(work / "encoder")
    index_photos(encoder, work / "birds" / "images", work / "index", device="cpu", parts=True)
    return work


@pytest.fixture(scope="module")
def files(place):
    folder = place / "birds" / "images"
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*.*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def encoder(place):
    return Encoder.load(place / "encoder", device="cpu")


@pytest.fixture(scope="module")
def client(place):
    settings = Settings(
        place=str(place / "index"), device="cpu", max_upload_bytes=LIMIT, page=False
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as made:
        yield made


def odd(kind="JPEG", mode="RGB", orientation=None, size=(80, 50), gps=False):
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    if gps:
        exif.get_ifd(0x8825)[1] = "N"
    sink = io.BytesIO()
    image.save(sink, kind, **({"exif": exif} if orientation or gps else {}))
    return sink.getvalue()


def ask(client, path, data, **more):
    return client.post(API + path, content=data, **more)


@pytest.mark.parametrize(
    "data",
    [odd(), odd("PNG"), odd(orientation=6), odd(mode="L"), odd(mode="CMYK"), odd(size=(700, 400))],
    ids=["jpeg", "png", "turned", "grey", "cmyk", "large"],
)
def test_an_embedding_is_that_of_the_file(client, encoder, data, tmp_path):
    file = tmp_path / "photo"
    file.write_bytes(data)
    told = ask(client, "/embed", data, headers={"Content-Type": "text/html"}).json()
    assert told["identity"] == encoder.identity
    assert told["dim"] == len(told["embedding"]) == encoder.dim
    expected = encoder.embed_file(file)
    assert float(np.dot(told["embedding"], expected)) > 1 - 1e-5
    np.testing.assert_allclose(told["embedding"], expected, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_gpu_gives_what_the_processor_gives(client, place, files):
    """Many at once, so that batches form."""
    settings = Settings(place=str(place / "index"), device="cuda", page=False)
    photos = [path.read_bytes() for path in files.values()]

    def embed(asked, photo):
        return asked.post(API + "/embed", content=photo).json()["embedding"]

    with (
        TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as other,
        ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(lambda photo: embed(other, photo), photos))
    wanted = [embed(client, photo) for photo in photos]
    assert (np.array(found) * np.array(wanted)).sum(axis=1).min() > 0.999


def test_search_gives_what_the_command_gives(client, place, files):
    key, path = list(files.items())[5]
    made = ask(client, "/queries", path.read_bytes())
    assert made.status_code == 201
    query = made.json()["query"]
    assert (made.json()["width"], made.json()["height"]) == (64, 64)
    outside, inside = search_photos(place / "index", [str(path), key], k=6, device="cpu")
    for question, expected in (({"query": query}, outside), ({"key": key}, inside)):
        told = client.post(API + "/search", json={**question, "k": 6}).json()
        assert [hit["key"] for hit in told["hits"]] == [hit.key for hit in expected.hits]
        scores = [hit["score"] for hit in told["hits"]]
        np.testing.assert_allclose(scores, [hit.score for hit in expected.hits], atol=2e-3)
        assert told["query"]["media"] == query, "its content has one name"
        assert told["searched"] == 24
    once = ask(client, "/search/photo?k=6", path.read_bytes()).json()
    assert [hit["key"] for hit in once["hits"]] == [hit.key for hit in outside.hits]
    label = inside.hits[0].item.label
    told = client.post(API + "/search", json={"key": key, "where": f'label = "{label}"'}).json()
    assert {hit["label"] for hit in told["hits"]} == {label}


def test_search_by_a_part_gives_what_the_command_gives(client, place, files):
    key, path = list(files.items())[7]
    query = ask(client, "/queries", path.read_bytes()).json()["query"]
    for question, given in (({"query": query}, str(path)), ({"key": key}, key)):
        expected = search_parts(place / "index", given, "0.2,0.1,0.6,0.5", k=5, device="cpu")
        region = [0.2, 0.1, 0.6, 0.5]
        told = client.post(API + "/search", json={**question, "k": 5, "region": region}).json()
        assert [hit["key"] for hit in told["hits"]] == [hit.item.key for hit in expected.hits]
        np.testing.assert_allclose(
            [hit["box"] for hit in told["hits"]], [hit.box for hit in expected.hits], atol=1e-6
        )
        assert (told["searched"], told["without"]) == (expected.searched, expected.without)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"key": "a", "query": "0" * 32}, 422),
        ({"query": "../../etc/passwd"}, 422),
        ({"query": "0" * 32}, 404),
        ({"key": "../../etc/passwd"}, 404),
        ({"key": "KEY", "k": 0}, 422),
        ({"key": "KEY", "k": 201}, 422),
        ({"key": "KEY", "where": "label ="}, 422),
        ({"key": "KEY", "region": [0.5, 0, 0.5, 1]}, 422),
        ({"key": "KEY", "region": [0, 0, 1, 2]}, 422),
    ],
)
def test_questions_that_make_no_sense_are_refused(client, files, body, status):
    if body.get("key") == "KEY":
        body = {**body, "key": next(iter(files))}
    answer = client.post(API + "/search", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("route", ["/queries", "/embed", "/search/photo", "/classify/photo"])
@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "empty"),
        (b"<html>", 422, "format_not_allowed"),
        (b"\xff\xd8\xff\xe0 no photo", 422, "broken"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
            + (60_000).to_bytes(4, "big") * 2
            + b"\x08\x02\0\0\0"
            + bytes(99),
            422,
            None,
        ),
        (b"\xff\xd8" + bytes(LIMIT), 413, "too_large"),
    ],
    ids=["empty", "html", "broken", "bomb", "large"],
)
def test_bad_photos_are_refused_everywhere(client, route, data, status, code):
    answer = ask(client, route, data)
    assert answer.status_code == status, answer.text
    assert code in (None, answer.json()["code"])


def test_a_body_in_pieces_is_counted_and_large_photos_leave_no_file(client):
    folder = client.app.state.service.photos.folder
    size = (1400, 900)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, "JPEG", quality=88)
    data = sink.getvalue()
    assert 2**20 < len(data) < LIMIT, "it is written to a file on its way"

    def pieces(data):
        for begin in range(0, len(data), 50_000):
            yield data[begin : begin + 50_000]

    told = client.post(API + "/queries", content=pieces(data))
    assert told.status_code == 201, told.text
    assert (told.json()["width"], told.json()["height"]) == size
    assert client.post(API + "/embed", content=pieces(bytes(2 * LIMIT))).status_code == 413
    left = [path.name for path in folder.iterdir() if path.is_file()]
    assert left == []


def test_a_form_is_refused(client):
    answer = client.post(API + "/embed", files={"photo": odd()})
    assert (answer.status_code, answer.json()["code"]) == (415, "wrong_type")


def test_pictures_are_small_upright_bare_and_kept_by_browsers(client, files):
    key = next(iter(files))
    media = client.post(API + "/search", json={"key": key}).json()["query"]["media"]
    for size in ("small", "medium", "large"):
        answer = client.get(f"/media/{media}/{size}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["cache-control"].startswith("private")
        assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
        again = client.get(
            f"/media/{media}/{size}", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
    query = ask(client, "/queries", odd(orientation=6, size=(600, 300), gps=True)).json()
    assert (query["width"], query["height"]) == (300, 600)
    small = client.get(f"/media/{query['query']}/small").content
    large = client.get(f"/media/{query['query']}/large").content
    assert Image.open(io.BytesIO(small)).size == (112, 224)
    assert Image.open(io.BytesIO(large)).size == (300, 600)
    for data in (small, large):
        assert not Image.open(io.BytesIO(data)).getexif()
        assert b"Exif" not in data


def test_parts_of_a_picture_are_not_cut_out(client):
    """However many are asked for (H7): it is small, and comes whole."""
    media = client.get(f"{API}/table").json()["media"][0]
    whole = client.get(f"/media/{media}/small").content
    ranges = ",".join(f"{first}-{first + 1}" for first in range(1_500))
    found = client.get(f"/media/{media}/small", headers={"Range": f"bytes={ranges}"})
    assert (found.status_code, found.content) == (200, whole)
    assert "content-range" not in found.headers


@pytest.mark.parametrize(
    "name", ["0" * 32, "0" * 31, "..%2f..%2fetc", "0" * 33, "A" * 32, "%00" * 32]
)
def test_other_names_show_nothing(client, name):
    assert client.get(f"/media/{name}/small").status_code in (404, 422)
    assert client.get(f"/media/{'0' * 32}/huge").status_code == 422


def test_classify_says_what_the_labels_tell(client, files):
    path = next(iter(files.values()))
    told = ask(client, "/classify/photo", path.read_bytes()).json()
    service = client.app.state.service
    made = service.indexed.heads.current()
    x = service.photos.embed(path.read_bytes()).result(30).vector[None]
    assert told["label"] == made.predict(x)[0]
    shares = [each["probability"] for each in told["probabilities"]]
    assert told["probability"] == shares[0] == max(shares)
    assert sum(shares) == pytest.approx(1, abs=1e-6), "three labels"
    assert told["unknown"] == bool(made.is_unknown(x)[0])


def test_reasons_are_those_of_the_sheet(client, place, files, tmp_path):
    (first, one), (second, two) = list(files.items())[:2]
    sheet = explain(place / "encoder", [one, two], tmp_path / "pair.png", device="cpu")
    body = {"first": {"key": first}, "second": {"key": second}}
    told = client.post(API + "/explain/pair", json=body).json()
    assert told["similarity"] == pytest.approx(sheet["similarity"], abs=1e-3)
    np.testing.assert_allclose(told["maps"]["second"], sheet["maps"]["second"], atol=1e-3)
    assert len(told["matches"]) == len(sheet["matches"])
    assert told["believable"] == (sheet["faithfulness"]["shown"] == "better than chance")
    x0, y0, x1, y1 = told["square"]["first"]
    assert (x1 - x0, y1 - y0) == pytest.approx((0.875, 0.875), abs=0.03)
    began = time.perf_counter()
    assert client.post(API + "/explain/pair", json=body).json() == told
    assert time.perf_counter() - began < 0.5, "it was kept"
    query = ask(client, "/queries", odd(size=(100, 50))).json()["query"]
    alone = client.post(API + "/explain/photo", json={"query": query}).json()
    x0, y0, x1, y1 = alone["square"]
    assert 2 * (x1 - x0) == pytest.approx(y1 - y0, abs=0.05), "a square of a wide photo"
    assert np.asarray(alone["map"]).shape == (16, 16)


@pytest.mark.slow
def test_what_separates_two_labels_is_told_with_places(client, files):
    names = sorted({key.split("/")[0] for key in files})[:2]
    body = {"first": names[0], "second": names[1], "count": 4}
    while (answer := client.post(API + "/explain/classes", json=body)).status_code == 202:
        assert answer.json()["state"] == "working"
        assert answer.headers["retry-after"] == "1"
        time.sleep(0.05)
    told = answer.json()
    assert told["photos"] == [4, 4]
    for mark in told["marks"]:
        for example in mark["examples"]:
            assert example["key"].split("/")[0] == example["label"]
            x0, y0, x1, y1 = example["box"]
            assert -0.01 <= x0 < x1 <= 1.01
            assert -0.01 <= y0 < y1 <= 1.01
    for other in ({"second": names[0]}, {"second": "nobody"}):
        assert client.post(API + "/explain/classes", json={**body, **other}).status_code in (
            404,
            422,
        )


def test_too_much_at_a_time_is_told_when_to_come_again(client, monkeypatch):
    photos = client.app.state.service.photos
    monkeypatch.setattr(photos, "_in_flight", photos.settings.max_waiting)
    answer = ask(client, "/embed", odd())
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_what_came_and_went_is_not_counted_for_ever(client):
    photos = client.app.state.service.photos
    for data in (odd(), b"", b"\xff\xd8\xff"):
        ask(client, "/embed", data)
    given_up = photos.embed(odd())
    given_up.cancel()
    until = time.monotonic() + 10
    while photos._in_flight and time.monotonic() < until:
        time.sleep(0.01)
    assert photos._in_flight == 0


def test_a_photo_whose_file_has_changed_is_not_shown(place, files, tmp_path):
    birds = shutil.copytree(place / "birds" / "images", tmp_path / "birds")
    index = shutil.copytree(place / "index", tmp_path / "index")
    shutil.rmtree(index / "cache", ignore_errors=True)
    keys = list(files)
    settings = Settings(place=str(index), photos=birds, device="cpu", page=False)
    with SqliteIndex(index) as opened:
        names = [item.stamp.sha256[:32] for item in opened.get(keys)]
    (birds / keys[0]).write_bytes(odd())
    (birds / keys[1]).unlink()
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        told = [client.get(f"/media/{name}/medium") for name in names[:3]]
        assert [answer.status_code for answer in told] == [409, 404, 200]
        assert [answer.json()["code"] for answer in told[:2]] == ["changed", "missing"]
        body = {"first": {"key": keys[0]}, "second": {"key": keys[2]}}
        assert client.post(API + "/explain/pair", json=body).status_code == 409


@pytest.mark.parametrize("closed", ["decoders", "batcher"])
def test_a_service_may_be_closed_while_it_gets_ready(place, monkeypatch, closed):
    cancelled = Future()
    cancelled.cancel()
    if closed == "batcher":
        monkeypatch.setattr(Batcher, "call", lambda batcher, work: cancelled)
    else:
        monkeypatch.setattr(
            "fieldmark.app.media.Media.picture", lambda *given: cancelled, raising=True
        )
    settings = Settings(place=str(place / "index"), device="cpu", page=False)
    # What a thread raises fails the test.
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        until = time.monotonic() + 20
        while not client.get("/readyz").is_success and time.monotonic() < until:
            time.sleep(0.01)
