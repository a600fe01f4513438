"""How the service says that something went wrong: RFC 9457 problem details, with a code of a closed list."""

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from fieldmark.errors import (
    ArtifactError,
    BusyError,
    ConflictError,
    FieldmarkError,
    InputError,
    PhotoError,
    StorageError,
)


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
    """Raised where a request cannot be answered."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        keys: list[str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, code=code, detail=detail, keys=keys or [])
        self.headers = headers or {}


def answer(problem: HttpProblem) -> JSONResponse:
    """As a response."""
    told = problem.problem
    return JSONResponse(
        told.model_dump(),
        status_code=told.status,
        headers=problem.headers,
        media_type="application/problem+json",
    )


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


async def on_fieldmark_error(_: Request, error: Exception) -> JSONResponse:
    """Handler for what the library raises on purpose."""
    assert isinstance(error, FieldmarkError)
    return answer(problem_of(error))


async def on_problem(_: Request, error: Exception) -> JSONResponse:
    """Handler for what routes raise."""
    assert isinstance(error, HttpProblem)
    return answer(error)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For ``responses=`` of a route: which problems it may answer with."""
    return {status: {"model": Problem} for status in statuses}
