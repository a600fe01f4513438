"""Who calls, and the cookie by which the page's pictures are shown."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from fieldmark import __version__
from fieldmark.app.access import Reader, Scope, address_of, secret_of
from fieldmark.app.guard import is_loopback
from fieldmark.app.problems import described
from fieldmark.app.service import Served
from fieldmark.app.sessions import COOKIE, SECONDS, make_session

router = APIRouter(prefix="/api/v1", tags=["access"])


class Me(BaseModel):
    """Who calls."""

    name: str
    """Stands in the history of labels."""
    scopes: list[Scope]
    """What they may do."""
    tokens: bool
    """Whether the service asks for tokens."""
    version: str
    """Of fieldmark."""


@router.get("/me", responses=described(401, 403))
def me(request: Request, service: Served, name: Reader) -> Me:
    """Who the service takes the caller for."""
    scope: Scope = request.state.caller.scope
    scopes = [each for each in Scope if scope.holds(each)]
    return Me(name=name, scopes=scopes, tokens=service.access.guarded, version=__version__)


@router.post("/session", status_code=204, responses=described(401, 403))
async def begin_session(request: Request, response: Response, service: Served, _: Reader) -> None:
    """Give the browser a cookie for twelve hours; a token is needed, a cookie is not enough."""
    if not service.access.guarded:
        return
    token = service.access.bearer(secret_of(request) or "", address_of(request))
    response.set_cookie(
        COOKIE,
        make_session(token),
        max_age=SECONDS,
        httponly=True,
        samesite="strict",
        secure=not is_loopback(request.url.hostname or ""),
        path="/",
    )


@router.delete("/session", status_code=204, responses=described(401, 403))
def end_session(response: Response, _: Reader) -> None:
    """Take the browser's cookie away."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
