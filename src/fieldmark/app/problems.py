"""How the service says that something went wrong: RFC 9457 problem details, with a code of a closed list."""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from fieldmark.app.settings import Settings
from fieldmark.errors import (
    ArtifactError,
    BusyError,
    ConflictError,
    FieldmarkError,
    InputError,
    PhotoError,
    StorageError,
)

MEDIA_TYPE = "application/problem+json"
LONGEST_DETAIL = 1000
_PATH = re.compile(r"(?<![\w.:/<])(?:[A-Za-z]:\\|/)(?:[^\s/\\'\"`,;:()<>]+[/\\])+[^\s'\"`,;:()<>]*")
"""A path of a file system: at least two parts, and nothing before the first."""


class Problem(BaseModel):
    """The body of every answer from 400 on."""

    status: int
    code: str
    """Stable and machine-readable."""
    detail: str
    """For people; no path of the server's machine in it."""
    keys: list[str] = Field(default_factory=list)
    """Photos that it is about."""


class HttpProblem(Exception):
    """Raised where a request cannot be answered.

    Args:
        status: From 400 on.
        code: Stable and machine-readable.
        detail: For people.
        keys: Photos that it is about.
        headers: Of the answer.
        more: Further members of the body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        keys: list[str] | None = None,
        headers: dict[str, str] | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, code=code, detail=detail, keys=keys or [])
        self.headers = headers or {}
        self.more = more or {}


def answer(problem: HttpProblem) -> Response:
    """As a response; what JSON or UTF-8 have no word for is escaped, never an error of its own."""
    told = problem.problem.model_dump(mode="python") | problem.more
    told["detail"] = told["detail"][:LONGEST_DETAIL]
    return Response(
        json.dumps(told, default=str),
        status_code=problem.problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def without_paths(text: str, settings: Settings) -> str:
    """A text as it may leave this machine: places of the server are named, not told.

    Args:
        text: Of an error of the library, which is written for whoever runs it.
        settings: Say which places there are.
    """
    named: list[tuple[str | Path | None, str]] = [
        (settings.photos, "the photos' folder"),
        (settings.tokens, "the token file"),
        *((run, "the run") for run in settings.runs),
        (settings.place, "the index"),
    ]
    places = [
        (form, words)
        for place, words in named
        if place is not None
        for form in {str(place), str(Path(place).resolve())}
        if len(form) > 1
    ]
    # The longest first: a place may lie in another.
    for form, words in sorted(places, key=lambda each: -len(each[0])):
        text = re.sub(rf"(?<![\w/]){re.escape(form)}(?:/[^\s'\"`,;:()<>]*)?", words, text)
    return _PATH.sub("a file of the server", text)


_CODES: tuple[tuple[type[FieldmarkError], int, str], ...] = (
    (PhotoError, 422, "bad_photo"),
    (ConflictError, 409, "changed_meanwhile"),
    (BusyError, 409, "busy"),
    (ArtifactError, 503, "not_ready"),
    (StorageError, 507, "no_room"),
    (InputError, 422, "bad_input"),
    (FieldmarkError, 500, "failed"),
)


def problem_of(error: FieldmarkError) -> HttpProblem:
    """An error of the library as a problem."""
    status, code = next((s, c) for kind, s, c in _CODES if isinstance(error, kind))
    if isinstance(error, PhotoError):
        return HttpProblem(status, error.code, error.detail)
    keys = error.keys if isinstance(error, ConflictError) else None
    return HttpProblem(status, code, str(error), keys=keys)


def _told(request: Request, problem: HttpProblem) -> Response:
    settings: Settings = request.app.state.service.settings
    told = problem.problem
    problem.problem = told.model_copy(update={"detail": without_paths(told.detail, settings)})
    return answer(problem)


async def on_fieldmark_error(request: Request, error: Exception) -> Response:
    """Handler for what the library raises on purpose."""
    assert isinstance(error, FieldmarkError)
    return _told(request, problem_of(error))


async def on_problem(request: Request, error: Exception) -> Response:
    """Handler for what routes raise."""
    assert isinstance(error, HttpProblem)
    return _told(request, error)


_HTTP_CODES = {
    400: ("bad_request", "the request cannot be read; a body of JSON must be UTF-8 and whole."),
    404: ("not_found", "there is nothing by this name."),
    405: ("wrong_method", "this takes other methods; the header Allow lists them."),
}


def _allowed(request: Request) -> str:
    """Methods that a path takes: the framework tells those of one of its routes only."""
    methods: set[str] = set()
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= set(route.methods or ())
    return ", ".join(sorted(methods))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handler for what the framework raises, whose own texts name what is inside."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code, words = _HTTP_CODES.get(
        error.status_code, (phrase.lower().replace(" ", "_"), f"{phrase.lower()}.")
    )
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _allowed(request)
    return answer(HttpProblem(error.status_code, code, words, headers=headers))


async def on_invalid(_: Request, error: Exception) -> Response:
    """Handler for what does not fit the description: names each field and what it takes."""
    assert isinstance(error, RequestValidationError)
    return answer(HttpProblem(422, "bad_input", explain(error.errors())))


def explain(errors: Sequence[Any]) -> str:
    """What pydantic found, as sentences.

    Args:
        errors: Its list; the values in it are the client's own and are not repeated.
    """
    sentences = []
    for item in errors[:5]:
        where = ".".join(str(part)[:60] for part in item["loc"]) or "the request"
        if item["type"] == "json_invalid":
            sentences.append("the body is no JSON.")
        elif item["type"] == "missing":
            sentences.append(f"{where} is missing.")
        else:
            message = str(item["msg"]).removeprefix("Value error, ")
            sentences.append(f"{where}: {message[:200]}.")
    if len(errors) > len(sentences):
        sentences.append(f"{len(errors) - len(sentences)} more.")
    return " ".join(sentences)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For ``responses=`` of a route: which problems it may answer with."""
    return {status: {"model": Problem} for status in statuses}
