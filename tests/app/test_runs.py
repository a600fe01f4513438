import json
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fieldmark.app import runfolder
from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.training.lock import hold_run
from runfolders import PHOTO, line, make_run

HOLD = """
import sys
from pathlib import Path
from fieldmark.training.lock import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def serve_runs(*places: Path) -> TestClient:
    return TestClient(create_app(Settings(runs=places)), base_url="http://localhost")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def client(place):
    place.mkdir()
    with serve_runs(place) as client:
        yield client


def only(client: TestClient) -> dict:
    (card,) = client.get("/api/v1/runs").json()
    return card


def test_without_places_there_are_no_runs():
    with serve_runs() as client:
        assert client.get("/api/v1/runs").json() == []


def test_runs_are_found_below_a_place_and_named_by_their_way_there(place, client):
    make_run(place / "birds" / "gentle" / "seed-0", finished=True)
    make_run(place / "cars")
    make_run(place / "cars" / "store" / "no-run-of-its-own")
    make_run(place / ".hidden")
    (place / "loop").symlink_to(place)
    cards = {card["name"]: card for card in client.get("/api/v1/runs").json()}
    assert set(cards) == {"birds/gentle/seed-0", "cars"}
    assert cards["cars"] | {"run": "", "started": "", "updated": ""} == {
        "run": "",
        "name": "cars",
        "state": "stopped",
        "recipe": "gentle",
        "photos": 120,
        "epoch": 2.0,
        "epochs": 8.0,
        "verdict": None,
        "sentence": None,
        "started": "",
        "updated": "",
    }
    assert cards["birds/gentle/seed-0"]["verdict"] == "hurt"
    assert cards["birds/gentle/seed-0"]["state"] == "finished"


def test_a_run_folder_may_itself_be_the_place(tmp_path):
    make_run(tmp_path / "cars")
    with serve_runs(tmp_path / "cars") as client:
        assert only(client)["name"] == "cars"


def test_no_answer_names_a_path(place, client):
    make_run(place / "cars", finished=True)
    card = only(client)
    said = client.get("/api/v1/runs").text + client.get(f"/api/v1/runs/{card['run']}").text
    assert str(place) not in said
    assert "/secret" not in said


def test_a_running_run_is_told_by_its_lock_not_by_its_files(place, client):
    folder = make_run(place / "cars", finished=True)
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        card = only(client)
        assert (card["state"], card["verdict"]) == ("running", None)
        told = client.get(f"/api/v1/runs/{card['run']}").json()
        # 6 epochs of 120 photos at 60 a second.
        assert told["pace"] == {"images_per_second": 60.0, "eta_seconds": 12.0, "measuring": False}
        assert told["ending"] is None
        child.kill()
    assert only(client)["state"] == "finished"


def test_looking_keeps_nobody_from_starting(place, client):
    folder = make_run(place / "cars")
    assert only(client)["state"] == "stopped"
    with hold_run(folder):
        assert only(client)["state"] == "running"


def test_the_end_of_training_is_not_the_end_of_the_run(place, client):
    folder = make_run(place / "cars", steps=80)
    with hold_run(folder):
        pace = client.get(f"/api/v1/runs/{only(client)['run']}").json()["pace"]
    assert pace["measuring"] is True
    assert pace["eta_seconds"] is None


def test_the_end_of_a_run_in_words(place, client):
    make_run(place / "cars", finished=True)
    told = client.get(f"/api/v1/runs/{only(client)['run']}").json()
    ending = told["ending"]
    assert (ending["verdict"], ending["shipped"]) == ("hurt", "start")
    assert "starting encoder" in ending["meaning"]
    assert ending["advice"]
    (measure,) = ending["measures"]
    assert measure["label"] == "mAP"
    assert (measure["gain"], measure["low"], measure["high"]) == (-10.0, -12.0, -8.0)
    curves = {curve["name"]: curve for curve in told["curves"]}
    assert curves["effective_rank"]["low"] == 0.6


def test_small_photos_of_pairs_by_their_content(place, client):
    make_run(place / "cars", finished=True)
    run = only(client)["run"]
    (pair,) = client.get(f"/api/v1/runs/{run}").json()["ending"]["pairs"]
    (name,) = pair["photos_first"]
    photo = client.get(f"/media/runs/{run}/photos/{name}")
    assert (photo.content, photo.headers["content-type"]) == (PHOTO, "image/webp")
    assert client.get(f"/media/runs/{run}/photos/{'0' * 32}").status_code == 404


def test_the_log_comes_in_parts_and_goes_on(place, client, monkeypatch):
    monkeypatch.setattr(runfolder, "LINES", 8)
    log = make_run(place / "cars", steps=20) / "metrics.jsonl"
    address = f"/api/v1/runs/{only(client)['run']}/metrics"
    steps, since, more = [], 0, True
    while more:
        part = client.get(address, params={"since_line": since}).json()
        steps += [one["step"] for one in part["lines"]]
        since, more = part["next"], part["more"]
    assert steps == list(range(1, 21))
    with log.open("a") as file:
        file.write(line(21) + "\n" + line(22)[:10])
    part = client.get(address, params={"since_line": since}).json()
    assert ([one["step"] for one in part["lines"]], part["next"]) == ([21], 21)


def test_a_log_that_was_cut_back_says_so(place, client):
    log = make_run(place / "cars", steps=20) / "metrics.jsonl"
    log.write_text(line(1) + "\n")
    run = only(client)["run"]
    part = client.get(f"/api/v1/runs/{run}/metrics", params={"since_line": 20}).json()
    assert part == {"lines": [], "next": 1, "more": False}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1, 2]",
        "\xff\xfe",
        '{"began": 3, "verdict": [], "name": {}}',
        "null",
        '{"began": {"identity": [], "epochs": "many"}, "verdict": {}, "step": {}}',
        "[" * 100_000,
        '{"epoch": 1' + "0" * 400 + ', "verdict": "\\ud800"}',
    ],
)
def test_what_cannot_be_read_leaves_a_poorer_card(place, client, text):
    folder = make_run(place / "cars", finished=True)
    for name in (
        "run.json",
        "training.json",
        "metrics.jsonl",
        "timing.jsonl",
        "config.resolved.toml",
    ):
        (folder / name).write_text(text + "\n", encoding="latin-1")
    (folder / "result.json").write_text(text, encoding="latin-1")
    (folder / "report.json").write_text(text, encoding="latin-1")
    card = only(client)
    assert card["epochs"] is None
    with hold_run(folder):
        assert client.get(f"/api/v1/runs/{card['run']}").status_code == 200
    told = client.get(f"/api/v1/runs/{card['run']}").json()
    assert told["ending"] is None
    assert len(client.get(f"/api/v1/runs/{card['run']}/metrics").json()["lines"]) == 1


def test_numbers_that_json_lacks_become_none(place, client):
    log = make_run(place / "cars", steps=0) / "metrics.jsonl"
    log.write_text('{"kind": "train", "step": 1, "epoch": NaN, "loss": Infinity}\nnot json\n')
    assert runfolder.metrics(log.parent, 0).lines[0]["loss"] is None
    lines = client.get(f"/api/v1/runs/{only(client)['run']}/metrics").json()["lines"]
    assert lines == [
        {"kind": "train", "step": 1, "epoch": None, "loss": None},
        {"kind": "unreadable"},
    ]


def test_the_report_is_rendered_from_its_data_and_shut_off(place, client):
    folder = make_run(place / "cars", finished=True)
    (folder / "report.html").write_text("<script>alert(1)</script>")
    address = f"/media/runs/{only(client)['run']}/report"
    page = client.get(address)
    assert "alert(1)" not in page.text
    assert "&lt;b&gt;birds&lt;/b&gt;" in page.text
    assert "<b>birds" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox allow-scripts" in policy
    assert "unsafe" not in policy
    assert "same-origin" not in policy
    # The page shows it in a frame of its own.
    assert "frame-ancestors 'self'" in policy
    assert "x-frame-options" not in page.headers
    assert "content-disposition" not in page.headers
    kept = client.get(address, params={"download": True})
    assert kept.headers["content-disposition"].startswith("attachment")


def test_a_new_report_replaces_what_was_kept_of_the_old(place, client):
    folder = make_run(place / "cars", finished=True)
    address = f"/api/v1/runs/{only(client)['run']}"
    assert client.get(address).json()["ending"]["kind"] == "train"
    data = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(data | {"kind": "start"}))
    assert client.get(address).json()["ending"]["kind"] == "start"


@pytest.mark.parametrize("run", ["0" * 24, "..%2f..%2fetc", "%00", "A" * 24])
@pytest.mark.parametrize("rest", ["", "/metrics"])
def test_only_known_ids_are_answered(place, client, run, rest):
    make_run(place / "cars")
    answer = client.get(f"/api/v1/runs/{run}{rest}")
    assert answer.status_code in {404, 422}
    assert client.get(f"/media/runs/{run}/report").status_code in {404, 422}


def test_a_run_that_is_not_finished_has_no_report_page(place, client):
    make_run(place / "cars")
    answer = client.get(f"/media/runs/{only(client)['run']}/report")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_report")


def test_a_run_that_came_later_is_found_and_one_that_went_is_gone(place, client, monkeypatch):
    monkeypatch.setattr("fieldmark.app.runs._FRESH", 0.0)
    assert client.get("/api/v1/runs").json() == []
    folder = make_run(place / "cars")
    run = only(client)["run"]
    folder.rename(place.parent / "moved")
    assert client.get(f"/api/v1/runs/{run}").status_code == 404
