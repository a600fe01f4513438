import asyncio
import json
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request

import pytest

from fieldmark.app import run as running
from fieldmark.app.run import check_exposure, listen, most_connections, url_of
from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.app.tokens import Scope, add_token
from fieldmark.errors import ConfigError, FieldmarkError, InputError, OutputError


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "[::]", "192.0.2.1", "example.org", "10.0.0.1", "", "localhost.evil"]
)
def test_other_machines_are_not_served_without_tokens(host, monkeypatch, tmp_path):
    def never(*_):
        raise AssertionError("something was opened")

    monkeypatch.setattr(running, "listen", never)
    monkeypatch.setattr(running, "create_app", never)
    with pytest.raises(InputError, match="fieldmark token add"):
        running.serve(Settings(host=host), ready=never)
    file = tmp_path / "tokens.toml"
    add_token(file, "ida", Scope.read)
    check_exposure(Settings(host=host, tokens=file))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
def test_this_machine_is(host):
    check_exposure(Settings(host=host))


def test_an_empty_token_file_lets_nobody_in_and_is_refused(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text("")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="no token"):
        check_exposure(Settings(tokens=file))


def test_a_name_that_means_another_address_is_refused(monkeypatch):
    told = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)
    with pytest.raises(InputError, match=r"192\.0\.2\.1"):
        listen(Settings(host="localhost", port=0))


def test_names_are_names():
    with pytest.raises(InputError, match="https://"):
        check_exposure(Settings(names=("https://birds.example",)))


def test_a_used_port_is_told():
    with listen(Settings(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match="--port 0"):
            listen(Settings(port=port))
        assert url_of(Settings(), port) == f"http://127.0.0.1:{port}/"
    assert url_of(Settings(host="0.0.0.0"), 80) == "http://127.0.0.1:80/"
    assert url_of(Settings(host="::1"), 80) == "http://[::1]:80/"


def test_there_are_never_more_connections_than_files(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert most_connections(Settings(max_connections=5000)) == 1024 - 256
    assert most_connections(Settings(max_connections=10)) == 10


def test_the_server_believes_nobody_and_says_little(monkeypatch):
    settings = Settings(page=False, stop_seconds=3.0, keep_alive_seconds=7.0)
    app = create_app(settings)
    made = running.make_server(settings, app, lambda: None)
    config = made.config
    assert not config.server_header
    assert not config.proxy_headers
    assert not config.access_log
    assert config.ws == "none"
    assert config.h11_max_incomplete_event_size == running.HEAD_BYTES <= 65_536
    # Connections that come at once are taken a few at a time: those that speak are heard in between.
    assert config.backlog <= 100
    assert (config.timeout_graceful_shutdown, config.timeout_keep_alive) == (3.0, 7.0)

    async def done(*_):
        assert app.state.service.stopping.is_set()

    # Whoever waits is told before the server waits for them.
    monkeypatch.setattr(running.uvicorn.Server, "shutdown", done)
    asyncio.run(made.shutdown())
    # A second Ctrl+C does not wait any more; a second polite request does.
    made.handle_exit(signal.SIGTERM, None)
    made.handle_exit(signal.SIGTERM, None)
    assert (made.should_exit, made.force_exit) == (True, False)
    made.handle_exit(signal.SIGINT, None)
    assert made.force_exit
    app.state.service.close()


SERVE = """
import sys, threading
from fieldmark.app.run import serve
from fieldmark.app.settings import Settings
from fieldmark.app import server
from fastapi import APIRouter
router = APIRouter()
@router.get("/api/v1/slow")
def slow() -> dict[str, bool]:
    import time
    time.sleep(0.7)
    return {"slow": True}
server.ROUTERS = (*server.ROUTERS, router)
import gc
def ready(url):
    # What lives as long as the process is not looked through for garbage while requests wait.
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())
    print(url, flush=True)
serve(Settings(port=0), ready=ready)
assert gc.get_freeze_count() == 0
import os
assert os.environ["FIELDMARK_OFFLINE"] == "1"
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    "kind", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_after_the_answers(kind):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().strip()
        port = int(url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /api/v1/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with urllib.request.urlopen(f"{url}healthz", timeout=5) as answer:
                assert answer.status == 200
            process.send_signal(kind)
            heard = b""
            while data := connection.recv(65_536):
                heard += data
        assert b'{"slow":true}' in heard
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out.strip()) == (0, "ended"), err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_the_service_fetches_nothing():
    from fieldmark.nn import places

    assert running.OFFLINE_VARIABLE == places.OFFLINE_VARIABLE


def test_the_command_refuses_in_one_paragraph(run, tmp_path):
    code, _, err = run("serve", tmp_path, "--host", "0.0.0.0")
    assert code == 2
    assert "fieldmark token add" in err
    code, _, err = run("serve", tmp_path)
    assert code == 2
    assert "neither an index" in err
    code, _, err = run("serve", tmp_path, "--tokens", tmp_path / "none.toml")
    assert code == 2
    assert "no token file" in err


@pytest.fixture
def served(monkeypatch):
    """What the command would serve."""
    seen = []

    def serve(settings, *, ready):
        seen.append(settings)
        ready("http://127.0.0.1:1234/")

    monkeypatch.setattr(running, "serve", serve)
    monkeypatch.setattr("fieldmark.cli.serve._log_to_stderr", lambda **_: None)
    return seen


def test_the_command_hands_over_what_was_asked(run, served, tmp_path):
    (tmp_path / "a.index").mkdir()
    (tmp_path / "a.index" / "index.sqlite").touch()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}")
    code, out, _ = run(
        "serve", tmp_path / "a.index", "--runs", tmp_path / "runs", "--photos", tmp_path, "--port", 0,
        "--name", "birds.example", "--max-upload-mb", 2, "--api", "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["url"] == "http://127.0.0.1:1234/"
    [settings] = served
    assert settings.place == str(tmp_path / "a.index")
    assert settings.runs == (tmp_path / "runs",)
    assert settings.max_upload_bytes == 2_000_000
    assert settings.names == ("birds.example",)
    assert not settings.page
    run("serve", "postgresql://ida:geheim@birds.example/photos", "--no-open")
    assert served[-1].place == "postgresql://ida:geheim@birds.example/photos"
    code, _, err = run("serve", tmp_path / "runs", "--no-open")
    assert served[-1].runs == (tmp_path / "runs",)
    code, _, err = run("serve", tmp_path / "runs" / "one", "--no-open")
    assert served[-1].place is None
    assert "not finished" in err


def test_the_url_of_a_server_is_told_without_its_password(run, served):
    _, out, err = run("serve", "postgresql://ida:geheim@birds.example/photos", "--json")
    assert "geheim" not in out + err
    assert "birds.example" in out


def test_tokens_are_made_listed_and_removed(run, tmp_path):
    file = tmp_path / "tokens.toml"
    code, out, err = run("token", "add", file, "ida", "--scope", "label")
    assert code == 0
    assert out.startswith("fm_")
    assert out.strip() not in file.read_text()
    assert tomllib.loads(file.read_text())["token"][0]["scope"] == "label"
    told = json.loads(run("token", "add", file, "max", "--json")[1])
    assert told["scope"] == "read"
    assert run("token", "list", file)[1].split() == ["label", "ida", "read", "max"]
    assert run("token", "remove", file, "max")[0] == 0
    assert json.loads(run("token", "list", file, "--json")[1])["tokens"] == [
        {"name": "ida", "scope": "label"}
    ]
    code, _, err = run("token", "remove", file, "max")
    assert code == 2
    assert "no token called" in err


def test_a_run_gets_an_index_of_its_photos_once(tmp_path, monkeypatch):
    from fieldmark.workflows import serve as workflow

    folder = tmp_path / "run"
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder" / "encoder.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"photos": str(tmp_path / "photos")}))
    made = []

    def index_photos(encoder, photos, out, **_):
        made.append((encoder, photos, out))
        out.mkdir()
        (out / "index.sqlite").touch()

    monkeypatch.setattr(workflow, "index_photos", index_photos)
    assert workflow.find_shown(folder).place is None  # training goes on
    (folder / "result.json").write_text("{}")
    for _ in range(2):
        shown = workflow.find_shown(folder)
        assert shown.place == str(folder / "index")
        assert shown.runs == (folder,)
    assert made == [(folder / "encoder", tmp_path / "photos", folder / "index")]


def test_a_run_whose_photos_are_gone_is_shown_all_the_same(tmp_path):
    from fieldmark.workflows.serve import find_shown
    from tiny import save_encoder

    save_encoder(tmp_path / "encoder")
    (tmp_path / "run.json").write_text(json.dumps({"photos": str(tmp_path / "gone")}))
    (tmp_path / "result.json").write_text("{}")
    shown = find_shown(tmp_path)
    assert shown.place is None
    assert "not here" in shown.note
    assert not (tmp_path / "index" / "index.sqlite").exists()


def test_a_place_that_is_nothing_is_refused(tmp_path):
    from fieldmark.workflows.serve import find_shown

    for place in (tmp_path, tmp_path / "absent", "https://birds.example/x"):
        with pytest.raises(FieldmarkError):
            find_shown(place)
