import json
import re
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from asking import check_problem, operations
from fieldmark.app.access import dependants
from fieldmark.app.problems import HttpProblem, explain, problem_of, without_paths
from fieldmark.app.problems import answer as answer_of
from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.errors import (
    ArtifactError,
    BusyError,
    ConfigError,
    ConflictError,
    InputError,
    StorageError,
)

sys.path.insert(0, str(Path(__file__).parent))


def test_the_service_answers(ask):
    assert ask("GET", "/healthz").json() == {"status": "ok"}
    assert ask("GET", "/readyz").status == 200


def test_a_part_that_cannot_work_makes_the_service_not_ready(asking, tmp_path):
    ask = asking(photos=tmp_path)
    checks = ask.app.state.service.checks
    checks.clear()
    checks["index"] = lambda: "ok"
    assert ask("GET", "/readyz").json() == {"status": "ready", "checks": {"index": "ok"}}
    checks["photos"] = lambda: f"{tmp_path}/a is not there"
    answer = ask("GET", "/readyz")
    assert answer.status == 503
    assert answer.json()["checks"] == {"index": "ok", "photos": "the photos' folder is not there"}


def test_every_operation_describes_what_it_may_answer(ask_guarded):
    schemas = ask_guarded.app.openapi()["components"]["schemas"]
    problem = set(schemas["Problem"]["properties"])
    for operation in operations(ask_guarded.app):
        assert operation.told.get("summary"), operation.path
        for status, response in operation.told["responses"].items():
            content = response.get("content", {})
            if int(status) >= 400 and operation.path != "/readyz":
                assert set(content) == {"application/problem+json"}, operation
                schema = content["application/problem+json"]["schema"]
                for each in schema.get("anyOf", [schema]):
                    name = each["$ref"].rpartition("/")[2]
                    assert problem <= set(schemas[name]["properties"]), operation
        if operation.scope:
            assert {"401", "403"} <= set(operation.told["responses"])
    assert "HTTPValidationError" not in str(ask_guarded.app.openapi())


def test_a_conflict_of_labels_is_described_with_the_labels_of_now(ask):
    [told] = [
        o.told for o in operations(ask.app) if (o.method, o.path) == ("PUT", "/api/v1/labels")
    ]
    schema = told["responses"]["409"]["content"]["application/problem+json"]["schema"]
    assert {"$ref": "#/components/schemas/Changed"} in schema["anyOf"]


def test_links_of_the_description_lead_to_operations_that_take_the_values(ask):
    by_name = {o.told["operationId"]: o.told for o in operations(ask.app)}
    links = [
        link
        for operation in operations(ask.app)
        for response in operation.told["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert len(links) >= 18
    for link in links:
        target = by_name[link["operationId"]]
        assert set(link.get("parameters", ())) <= {p["name"] for p in target.get("parameters", ())}
        assert ("requestBody" in link) <= ("requestBody" in target)


def test_without_tokens_the_description_asks_for_none(ask):
    assert all("security" not in operation.told for operation in operations(ask.app))


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("POST", "/healthz", 405, "wrong_method"),
        ("GET", "/api/v1/probe/named/a/b", 422, "bad_input"),
        ("GET", "/api/v1/probe/fails", 500, "failed"),
        ("BREW", "/", 405, "wrong_method"),
    ],
)
def test_what_goes_wrong_is_told_without_the_inside(ask, method, target, status, code):
    answer = ask(method, target)
    check_problem(answer)
    assert (answer.status, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/labels", "GET, PUT"),
        ("/api/v1/session", "DELETE, POST"),
        ("/healthz", "GET"),
        ("/explore", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_all_right_ones(ask, path, allowed):
    answer = ask("PATCH", path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_a_failure_is_found_in_the_log_by_its_number(ask, caplog):
    answer = ask("GET", "/api/v1/probe/fails")
    number = answer.headers["x-request-id"]
    assert number in answer.json()["detail"]
    [record] = [record for record in caplog.records if record.exc_info]
    assert number in record.getMessage()


def test_errors_of_the_library_lose_the_servers_paths(asking, tmp_path):
    ask = asking(photos=tmp_path)
    service = ask.app.state.service
    place = str(tmp_path / "birds.index")
    service.settings = service.settings.model_copy(update={"place": place})
    answer = ask("GET", f"/api/v1/probe/artifact?where={tmp_path}/birds.index/encoders/0123")
    check_problem(answer)
    told = answer.json()["detail"]
    assert answer.status == 503
    assert told == "the index holds no encoder; see a file of the server"
    assert str(tmp_path) not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'/data/birds/a.jpg' is gone", "'a file of the server' is gone"),
        ("a label and/or a key, 3/4 of them", "a label and/or a key, 3/4 of them"),
        ("birds/robin/a.jpg is no photo", "birds/robin/a.jpg is no photo"),
        ("give https://birds.example/x/y", "give https://birds.example/x/y"),
        (r"C:\photos\birds\a.jpg is gone", "a file of the server is gone"),
    ],
)
def test_only_places_of_the_server_are_paths(text, told):
    assert without_paths(text, Settings()) == told


def test_every_place_of_the_server_has_a_name_also_by_its_other_ways(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "real")
    settings = Settings(
        place=str(tmp_path / "way"),
        photos=tmp_path / "way" / "photos",
        tokens=tmp_path / "keys.toml",
        runs=(tmp_path / "runs",),
    )
    said = {
        tmp_path / "way" / "index.sqlite": "the index",
        tmp_path / "real" / "index.sqlite": "the index",
        tmp_path / "way" / "photos" / "a.jpg": "the photos' folder",
        tmp_path / "keys.toml": "the token file",
        tmp_path / "runs" / "first" / "run.json": "the run",
    }
    for path, words in said.items():
        assert without_paths(f"{path} is gone", settings) == f"{words} is gone"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("x"), 422, "bad_input"),
        (ConflictError("x", ["a"]), 409, "changed_meanwhile"),
        (BusyError("x"), 409, "busy"),
        (StorageError("x"), 507, "no_room"),
        (ArtifactError("x"), 503, "not_ready"),
        (ConfigError("x"), 422, "bad_input"),
    ],
)
def test_errors_of_the_library_have_a_status(error, status, code):
    problem = problem_of(error).problem
    assert (problem.status, problem.code) == (status, code)


def test_long_texts_are_cut():
    told = json.loads(answer_of(HttpProblem(400, "bad_request", "x" * 5_000)).body)
    assert len(told["detail"]) == 1_000
    many = [{"loc": ("body", "y" * 500), "type": "missing", "msg": ""}] * 40
    assert len(explain(many)) < 700
    assert explain(many).endswith("35 more.")


def test_operations_describe_what_bodies_and_tokens_may_be_answered(ask, ask_guarded):
    for service, guarded in ((ask, False), (ask_guarded, True)):
        for operation in operations(service.app):
            told = set(operation.told["responses"])
            assert ("requestBody" in operation.told) <= ({"413", "415"} <= told), operation
            assert ("429" in told) == (guarded and operation.scope is not None), operation
        schemas = service.app.openapi()["components"]["schemas"]
        assert "ValidationError" not in schemas


def test_texts_that_utf8_has_no_word_for_are_answered(ask):
    body = b'{"a": "\\ud800"}'
    answer = ask("POST", "/api/v1/probe/json", [("content-type", "application/json")], body)
    check_problem(answer)
    assert answer.status == 422


def test_metrics_count_templates_and_never_paths(asking):
    ask = asking()
    for number in range(3):
        ask("GET", f"/api/v1/probe/named/secret{number}/7?token=abc")
        ask("GET", f"/nothing/secret{number}")
    ask("GET", "/healthz", [("host", "evil.example")])
    ask("EVIL", "/healthz")
    text = ask("GET", "/metrics").body.decode()
    route = 'route="/api/v1/probe/named/{name}/{size}",status="400"'
    assert f'fieldmark_requests_total{{method="GET",{route}}} 3.0' in text
    assert 'fieldmark_refused_total{reason="wrong_host"} 1.0' in text
    assert 'method="other"' in text
    seconds = 'fieldmark_request_seconds_count{route="/api/v1/probe/named/{name}/{size}"}'
    assert f"{seconds} 3.0" in text
    assert "fieldmark_requests_in_flight 1.0" in text  # this one
    assert "process_resident_memory_bytes" in text
    assert "fieldmark_received_bytes_total 0.0" in text
    ask("POST", "/api/v1/probe/json", [("content-type", "application/json")], b'{"a": 1}')
    assert "fieldmark_received_bytes_total 8.0" in ask("GET", "/metrics").body.decode()
    assert "secret" not in text
    assert "EVIL" not in text


def test_the_log_has_paths_but_no_queries_and_no_secrets(asking, token_file, caplog):
    caplog.set_level("INFO")
    file, secrets = token_file
    ask = asking(tokens=file)
    ask("GET", "/api/v1/me?key=hidden", [("authorization", f"Bearer {secrets['label']}")])
    ask("GET", "/api/v1/me?key=hidden%0Aline", [("authorization", "Bearer wrong-one")])
    ask("GET", "/%0A%0Dforged%20line")
    lines = [r.getMessage() for r in caplog.records if r.name == "fieldmark.access"]
    assert len(lines) == 3
    assert "/api/v1/me 400" in lines[0]
    assert "'label person'" in lines[0]
    together = caplog.text
    assert "hidden" not in together
    assert secrets["label"] not in together
    assert "wrong-one" not in together
    assert "\nforged" not in together


def test_large_answers_are_compressed_for_those_who_take_it(ask):
    plain = ask("GET", "/api/v1/openapi.json")
    small = ask("GET", "/api/v1/openapi.json", [("accept-encoding", "gzip")])
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert len(small.body) < len(plain.body) / 3


def test_a_service_of_another_kind_of_tokens_does_not_start(tmp_path):
    with pytest.raises(ConfigError, match="fieldmark token add"):
        create_app(Settings(tokens=tmp_path / "none.toml"))


def test_the_description_is_made_before_the_first_request():
    app = create_app(Settings())
    with TestClient(app, base_url="http://localhost"):
        assert app.openapi_schema is not None


def test_parameters_that_are_not_there_are_refused_everywhere_under_the_api(ask):
    """Every route of the description, so one that is added later too."""
    described = ask.app.openapi()["paths"]
    asked = 0
    for route in ask.app.state.routes:
        for method in getattr(route, "methods", ()):
            told = described.get(route.path, {}).get(method.lower())
            if told is None or not route.path.startswith("/api/"):
                continue
            known = {each["name"] for each in told.get("parameters", []) if each["in"] == "query"}
            fields = {field.alias for each in dependants(route) for field in each.query_params}
            assert known == fields, route.path
            path = re.sub("{.*?}", "0", route.path)
            for name in ("nonsense", ""):
                sent = {}
                if "requestBody" in told:
                    kind = next(iter(told["requestBody"]["content"]))
                    sent = {"headers": [("content-type", kind)], "body": b"{}"}
                answer = ask(method, f"{path}?{name}=1", **sent)
                assert (answer.status, answer.json()["code"]) == (400, "unknown_parameter"), (
                    route.path
                )
                asked += 1
    assert asked > 50
