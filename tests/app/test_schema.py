"""Every operation keeps to what the OpenAPI description says of it, whatever it is asked."""

import io
import shutil
from contextlib import contextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from fieldmark.app.routes import guesses
from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.app.tokens import Scope, add_token
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.index.places import open_index
from fieldmark.workflows.index import index_photos
from runfolders import make_run
from tiny import save_encoder

# Threads of the service draw from it while a case is made.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
EXAMPLES = 6
HOST = {"host": "localhost"}
# What JSON Schema has no word for may still be refused with 422: a filter's grammar, bytes that are no photo.
NOT_SAID = [positive_data_acceptance]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("described")
    write(draw(AviaryConfig(species=2, per_species=4, size=32)), root / "birds")
    photos = root / "birds" / "images"
    index_photos(save_encoder(root / "encoder"), photos, root / "index", device="cpu", parts=True)
    make_run(root / "runs" / "first", finished=True)
    return root


@pytest.fixture
def here(place, tmp_path):
    """Settings of a service on an index that a test may write into."""
    shutil.copytree(place / "index", tmp_path / "index")
    return {
        "place": str(tmp_path / "index"),
        "photos": place / "birds" / "images",
        "runs": (place / "runs",),
    }


@contextmanager
def described(**changes):
    """An application that runs, and its description as schemathesis reads it."""
    app = create_app(Settings(page=False, device="cpu", **changes))
    with TestClient(app, base_url="http://localhost") as client:
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HOST), client


def keeps(seen, case):
    """Ask; the answer must be one that is described."""
    if case.query and "wait" in case.query:
        case.query["wait"] = 0
    answer = case.call(headers=HOST)
    seen.append(answer.status_code)
    case.validate_response(answer, excluded_checks=NOT_SAID)


def asked(operation, mode, examples):
    """Ask one operation; the answers' statuses."""
    seen = []
    limits = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @limits
    @given(operation.as_strategy(generation_mode=mode))
    def run(case):
        keeps(seen, case)

    try:
        run()
    except Unsatisfiable:
        # Nothing can be wrong: an operation without parameters, or whose body is any bytes.
        assert mode is GenerationMode.NEGATIVE
    return seen


def ask_all(schema, examples=EXAMPLES):
    """Ask every operation what fits its description and what does not; answers by operation."""
    return {
        operation.label: [s for mode in GenerationMode for s in asked(operation, mode, examples)]
        for operation in (found.ok() for found in schema.get_all_operations())
    }


def test_whatever_is_asked_is_answered_as_described(here, monkeypatch):
    monkeypatch.setattr(guesses, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(guesses, "BEHIND_SECONDS", 0.05)
    with described(**here) as (schema, _):
        answers = ask_all(schema)
    assert len(answers) >= 43
    assert all(answers.values())
    # It comes to the routes, and to more of them than those that refuse.
    assert {200, 201, 202, 204, 404, 409, 422} <= {s for each in answers.values() for s in each}


def test_what_is_there_is_answered_as_described(here, monkeypatch):
    """The same of keys, labels and photos that the index has: what chance does not find."""
    monkeypatch.setattr(guesses, "_PATIENCE_SECONDS", 5)
    sink = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(sink, "PNG")
    photo = sink.getvalue()
    with open_index(here["place"]) as index:
        items = sorted(index.items(), key=lambda item: item.key)
    labels = sorted({item.label for item in items})
    first = {"key": items[0].key}
    with described(**here) as (schema, client):

        def ask(operation, status=(200,), body=None, **parts):
            method, path = operation.split()
            case = schema[path][method].Case(
                **{
                    **parts,
                    **({} if body is None else {"body": body}),
                    **({"media_type": "application/octet-stream"} if body is photo else {}),
                    **({"media_type": "application/json"} if isinstance(body, dict) else {}),
                }
            )
            answer = case.call(headers=HOST)
            assert answer.status_code in status, (operation, answer.status_code, answer.text)
            case.validate_response(answer, excluded_checks=NOT_SAID)
            return answer

        api = "/api/v1"
        query = ask(f"POST {api}/queries", (201,), photo).json()["query"]
        for question in (first, {"query": query}, {**first, "region": [0.2, 0.2, 0.8, 0.8]}):
            ask(f"POST {api}/search", body={**question, "k": 3})
        for path in ("embed", "search/photo", "classify/photo"):
            ask(f"POST {api}/{path}", body=photo)
        made = (200, 202)
        ask(f"POST {api}/explain/pair", made, {"first": first, "second": {"query": query}})
        ask(f"POST {api}/explain/photo", made, first)
        ask(f"POST {api}/explain/classes", made, {"first": labels[0], "second": labels[1]})
        ask(f"GET {api}/photo", query=first)
        ask(f"GET {api}/species", query={"label": labels[0]})
        ask(f"GET {api}/rows", query={"where": "label is not null"})
        for name in ("guesses", "next", "pairs", "suspects", "clusters", "outliers", "duplicates"):
            ask(f"GET {api}/{name}", made)
        said = ask(f"PUT {api}/labels", body={"labels": {items[0].key: "wren"}}).json()
        late = {items[0].key: said["versions"][items[0].key] - 1}
        wanted = {"labels": {items[0].key: "tit"}, "expected": late}
        now = ask(f"PUT {api}/labels", (409,), wanted).json()["now"]
        assert now[items[0].key]["label"] == "wren"
        ask(f"POST {api}/labels/rename", body={"from": "wren", "to": labels[0]})
        changes = ask(f"GET {api}/labels/changes", query={"since": 0}).json()["changes"]
        assert len(changes) >= 2
        added = ask(f"POST {api}/index/photos", made, photo, query={"name": "teal.png"}).json()
        ask("GET /media/{media}/{size}", path_parameters={"media": added["media"], "size": "small"})
        ask(f"DELETE {api}/index/photos", body={"keys": [added["key"]]})
        [run] = ask(f"GET {api}/runs").json()
        named = {"run": run["run"]}
        ask(f"GET {api}/runs/{{run}}", path_parameters=named)
        ask(f"GET {api}/runs/{{run}}/metrics", path_parameters=named)
        ask("GET /media/runs/{run}/report", path_parameters=named)
        assert client.get("/readyz").json()["status"] == "ready"


def test_a_service_of_runs_alone_answers_as_described():
    with described() as (schema, _):
        answers = ask_all(schema, examples=3)
    assert 409 in answers["PUT /api/v1/labels"]
    assert 200 in answers["GET /api/v1/runs"]


def test_a_guarded_service_answers_strangers_as_described(tmp_path):
    add_token(tmp_path / "tokens.toml", "Ida", Scope.admin)
    with described(tokens=tmp_path / "tokens.toml") as (schema, _):
        answers = ask_all(schema, examples=1)
    free = {"GET /healthz", "GET /readyz"}
    for label, statuses in answers.items():
        assert label in free or set(statuses) <= {401, 429, 413, 415, 400}, (label, statuses)
