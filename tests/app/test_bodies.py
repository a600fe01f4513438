import json
import time

import pytest

from asking import check_problem, operations
from fieldmark.app.bodies import DEEPEST, check_json
from fieldmark.app.problems import HttpProblem

JSON = [("content-type", "application/json")]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[" * DEEPEST + b"]" * DEEPEST,
        json.dumps({"a": ["[[[[{{{{" * 50, {"b": '\\"['}]}).encode(),
        b'"' + b"[" * 1000 + b'"',
        json.dumps([[{}] * 3] * 1000).encode(),
    ],
)
def test_json_that_is_flat_enough(body):
    check_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"[" * 1_000_000,
        b"[}" * 1000,
        b'["a\\"]", ' + b"[" * 40 + b"]" * 40 + b"]",
    ],
)
def test_json_that_is_not(body):
    with pytest.raises(HttpProblem, match="nested"):
        check_json(body)


@pytest.mark.parametrize("body", [b'"' * 1_000_001, b'"\\' * 500_000, b"[]" * 1_000_000])
def test_looking_at_json_takes_no_longer_than_its_length_asks(body):
    began = time.thread_time()  # of this thread alone: other programs may use the processor too
    check_json(body)
    assert time.thread_time() - began < 0.5


def test_bodies_are_as_large_as_the_settings_say(asking):
    ask = asking(max_upload_bytes=1000, max_json_bytes=100)
    for operation in operations(ask.app):
        headers, body = operation.request()
        limit = {b"{}": 100, b"no photo": 1000, b"": 4096}[body]
        lying = [*headers, ("content-length", str(limit + 1))]
        answer = ask(operation.method, operation.target(), lying)
        assert answer.status == 413, operation
        check_problem(answer)
        # Without a told length the bytes are counted.
        chunked = [*headers, ("transfer-encoding", "chunked")]
        answer = ask(operation.method, operation.target(), chunked, b" " * (limit + 1))
        no_index = body and answer.json()["code"] == "no_index"  # said before a byte is read
        assert answer.status == 413 or not body or no_index, operation
    assert ask("POST", "/api/v1/probe/photo", body=b"x" * 1000).json()["size"] == 1000


def test_a_route_that_swallows_the_refusal_cannot_answer_otherwise(asking):
    ask = asking(max_upload_bytes=1000)
    headers = [("transfer-encoding", "chunked")]
    assert ask("POST", "/api/v1/probe/careless", headers, b"x" * 1000).status == 200
    assert ask("POST", "/api/v1/probe/careless", headers, b"x" * 1001).status == 413


@pytest.mark.parametrize(
    "headers",
    [
        [("content-type", "multipart/form-data; boundary=x")],
        [("content-type", "text/plain")],
        [("content-type", "")],
        [*JSON, ("content-encoding", "gzip")],
    ],
)
def test_json_is_asked_for_as_json(ask, headers):
    answer = ask("POST", "/api/v1/probe/json", headers, b"{}")
    assert answer.status == 415
    check_problem(answer)


def test_photos_come_as_they_are_and_never_as_a_form(ask):
    for kind in ("image/jpeg", "text/html", "application/x-www-form-urlencoded"):
        headers = [("content-type", kind)]
        assert ask("POST", "/api/v1/probe/photo", headers, b"xyz").json()["size"] == 3
    headers = [("content-type", "Multipart/Form-Data; boundary=x")]
    assert ask("POST", "/api/v1/probe/photo", headers, b"xyz").status == 415


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"nul", b"[1]", b'{"a": "b"}', b"1e999"])
def test_json_that_does_not_fit_is_told(ask, body):
    answer = ask("POST", "/api/v1/probe/json", [*JSON, ("content-length", str(len(body)))], body)
    assert answer.status in {400, 422}
    check_problem(answer)


def test_values_are_not_repeated_in_what_is_told(ask):
    answer = ask("POST", "/api/v1/probe/json", JSON, b'{"a": "<script>alert(1)</script>"}')
    assert answer.status == 422
    assert "script" not in answer.body.decode()
    assert "a" in answer.json()["detail"]


def test_what_many_bring_at_a_time_is_bounded(asking):
    ask = asking(max_held_bytes=1500)
    assert ask("POST", "/api/v1/probe/photo", body=b"x" * 1000).status == 200
    assert ask("POST", "/api/v1/probe/photo", body=b"x" * 1000).status == 200
    answer = ask("POST", "/api/v1/probe/photo", body=b"x" * 1501)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "2"
    assert ask("POST", "/api/v1/probe/json", JSON, b'{"a": 1}').status == 200
