"""Who may do what."""

import getpass
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request, Response, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fieldmark.app.problems import HttpProblem
from fieldmark.app.sessions import COOKIE, find_session
from fieldmark.app.settings import Settings
from fieldmark.app.tokens import Keyring, Scope, Token, find
from fieldmark.errors import ConfigError

__all__ = ["Access", "Admin", "Allowed", "Caller", "Direct", "Labeller", "Reader", "Scope"]

_log = logging.getLogger(__name__)
_BEARER = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token of fieldmark serve's token file."
)
_ASK = {"WWW-Authenticate": 'Bearer realm="fieldmark"'}
_MOST_WRONG = 20
_WINDOW_SECONDS = 60.0
_MOST_REMEMBERED = 1024


class Caller(NamedTuple):
    """Who calls."""

    name: str
    """Stands in the history of labels."""
    scope: Scope


class Access:
    """Knows callers by their token or session.

    Without a token file everybody who reaches the service may do everything; it then listens to this
    machine alone (:mod:`fieldmark.app.run`).
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = None if settings.tokens is None else Keyring(settings.tokens)
        self._own = Caller(_user(), Scope.admin)
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def guarded(self) -> bool:
        """Whether callers need a token."""
        return self._keys is not None

    def _tokens(self) -> tuple[Token, ...]:
        assert self._keys is not None
        try:
            return self._keys.tokens()
        except ConfigError as error:
            _log.error("nobody is let in: %s", error)
            raise HttpProblem(
                503,
                "not_ready",
                "the service cannot read its tokens just now; ask who runs it to look at its log.",
                headers={"Retry-After": "10"},
            ) from None

    def bearer(self, secret: str, address: str) -> Token:
        """Whose token this is.

        Raises:
            HttpProblem: 401 where it is nobody's; 429 after many such from one address. A right token
                is never refused: others may come from the same address (a proxy's), and 256 bits
                are not found by trying.
        """
        token = find(self._tokens(), secret)
        if token is None:
            self._count_wrong(address)
            raise HttpProblem(
                401, "wrong_token", "this token is not known, or was removed.", headers=_ASK
            )
        return token

    def _count_wrong(self, address: str) -> None:
        now = time.monotonic()
        recent = [at for at in self._wrong.pop(address, []) if now - at < _WINDOW_SECONDS]
        recent = [*recent[-_MOST_WRONG:], now]
        self._wrong[address] = recent
        while len(self._wrong) > _MOST_REMEMBERED:
            self._wrong.popitem(last=False)
        if len(recent) > _MOST_WRONG:
            raise HttpProblem(
                429,
                "too_many_tries",
                f"more than {_MOST_WRONG} unknown tokens came from this address within a minute.",
                headers={"Retry-After": str(int(_WINDOW_SECONDS))},
            )

    def caller(self, secret: str | None, session: str | None, address: str) -> Caller:
        """Who it is.

        Raises:
            HttpProblem: 401, 429 or 503.
        """
        if self._keys is None:
            return self._own
        token = None
        if secret is not None:
            token = self.bearer(secret, address)
        elif session is not None:
            token = find_session(self._tokens(), session)
        if token is None:
            raise HttpProblem(
                401, "token_needed", "this needs a token, or a session of the page.", headers=_ASK
            )
        return Caller(token.name, token.scope)


def _user() -> str:
    """Who started the service, for the history where nobody else has a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "page"


def address_of(request: Request) -> str:
    """Where a request comes from; of a proxy, the proxy's."""
    return "" if request.client is None else request.client.host


def secret_of(request: Request) -> str | None:
    """The token that a request brings in its header; None where it brings none."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" and secret.strip() else None


def dependants(route: APIRoute) -> Iterator[Dependant]:
    """What a route's function and all its dependencies ask of a request."""
    waiting = [route.dependant]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += each.dependencies


def check_parameters(request: Request) -> None:
    """Refuse what a route does not know: a mistyped name would quietly change the question.

    Raises:
        HttpProblem: 400 ``unknown_parameter``.
    """
    if not request.url.query:
        return
    known = {
        field.alias for each in dependants(request.scope["route"]) for field in each.query_params
    }
    if not known.issuperset(request.query_params):
        there = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        # Which one is not said again: it may be anything, and what is said is shown to people.
        raise HttpProblem(
            400,
            "unknown_parameter",
            f"the address has a parameter that is not known here; {there}.",
        )


class Allowed:
    """Dependency of a route: the caller may do this, and asks for nothing that is not there."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
    ) -> str:
        """Who it is, for the history; raises 401, 403, or 400 ``unknown_parameter``."""
        access: Access = request.app.state.service.access
        caller = access.caller(secret_of(request), request.cookies.get(COOKIE), address_of(request))
        if not caller.scope.holds(self.scope):
            raise HttpProblem(
                403,
                "not_allowed",
                f"this needs a token with the scope {self.scope}; yours has {caller.scope}.",
            )
        request.state.caller = caller
        check_parameters(request)
        return caller.name


class Direct(APIRoute):
    """A route whose function takes the request alone and gives the whole response.

    FastAPI describes it and solves nothing, which costs a fifth of what the event loop does for an embedded
    photo. Who may call it stands in ``dependencies=`` of the route, and is asked here.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        asked = [each.dependency for each in self.dependencies]
        guards = [each for each in asked if isinstance(each, Allowed)]
        if not guards or len(guards) != len(asked):
            raise TypeError(f"{self.path} must say who may call it, and nothing else.")

        async def handle(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            response: Response = await self.endpoint(request)
            return response

        return handle


Reader = Annotated[str, Depends(Allowed(Scope.read))]
Labeller = Annotated[str, Depends(Allowed(Scope.label))]
Admin = Annotated[str, Depends(Allowed(Scope.admin))]
"""Parameters that say who calls; every route under /api has one of these."""
