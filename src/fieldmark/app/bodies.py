"""How much a request may bring, and how slowly.

What a route takes is read from its own description, so a new route is guarded without a word here: a JSON
body is read as a whole (never more than allowed, and of unknown callers nothing) and looked at before it is
parsed; other bodies are photos, counted as they stream; a route that describes no body gets none.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldmark.app.access import Access, address_of, secret_of
from fieldmark.app.problems import HttpProblem, answer
from fieldmark.app.sessions import COOKIE
from fieldmark.app.settings import Settings

DEEPEST = 32
"""Lists and objects of a JSON body within each other."""
_NOTHING_BYTES = 4096
"""Let in where no body is described: some clients send an empty object."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Kind(Enum):
    """What an operation takes."""

    nothing = auto()
    json = auto()
    photo = auto()


class Bodies:
    """Counts bodies, keeps time, and answers 400, 401, 408, 413, 415 or 503 instead of reading on."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        access: Access,
        description: Callable[[], dict[str, Any]],
    ) -> None:
        self._app = app
        self._settings = settings
        self._access = access
        self._description = description
        self._table: list[tuple[re.Pattern[str], dict[str, Kind]]] | None = None
        self._held = self._coming = 0
        self._limits = {
            Kind.nothing: _NOTHING_BYTES,
            Kind.json: settings.max_json_bytes,
            Kind.photo: settings.max_upload_bytes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        kind = self._kind(scope)
        body = _Body(self, self._limits[kind], receive, send)
        self._coming += 1
        try:
            self._check_head(headers, kind)
            if self._coming > self._settings.max_bodies:
                raise _busy()
            if kind is Kind.json:
                request = Request(scope)
                session = request.cookies.get(COOKIE)
                self._access.caller(secret_of(request), session, address_of(request))
                await body.read_whole()
                check_json(body.whole)
            await self._app(scope, body.receive, body.send)
        except HttpProblem as problem:
            body.refused = body.refused or problem
        except Exception:
            # What the application made of a refusal does not count either.
            if body.refused is None or body.started:
                raise
        finally:
            self._held -= body.size
            self.came(body)
        if body.refused is not None and not body.started:
            await answer(body.refused)(scope, receive, send)

    def _kind(self, scope: Scope) -> Kind:
        if self._table is None:
            self._table = [
                (compile_path(path)[0], {name.upper(): _takes(told) for name, told in item.items()})
                for path, item in self._description()["paths"].items()
            ]
        for pattern, methods in self._table:
            if pattern.match(scope["path"]):
                return methods.get(scope["method"], Kind.nothing)
        return Kind.nothing

    def _check_head(self, headers: Headers, kind: Kind) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front may read it the other way, and see another request in it.
            raise HttpProblem(
                400, "bad_request", "a body has a length or comes in chunks, not both."
            )
        told = headers.get("content-type", "").partition(";")[0].strip().lower()
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HttpProblem(415, "wrong_type", "bodies are taken as they are, not compressed.")
        if told.startswith("multipart/"):
            raise HttpProblem(
                415,
                "wrong_type",
                "forms are not taken; send the photo's own bytes as the body (curl --data-binary @FILE).",
            )
        if kind is Kind.json and told != "application/json":
            raise HttpProblem(
                415, "wrong_type", "the body must be JSON (Content-Type: application/json)."
            )
        length = headers.get("content-length")
        if length is not None and (not length.isdigit() or int(length) > self._limits[kind]):
            raise self.too_large(self._limits[kind])

    def too_large(self, limit: int) -> HttpProblem:
        """More than is taken."""
        return HttpProblem(413, "too_large", f"the body is larger than {limit:,} bytes.")

    def hold(self, size: int) -> None:
        """Bytes more of requests that are not answered yet.

        Raises:
            HttpProblem: Too many requests bring too much at a time.
        """
        self._held += size
        if self._held > self._settings.max_held_bytes:
            raise _busy()

    def came(self, body: "_Body") -> None:
        """Nothing more of a body is waited for."""
        if body.coming:
            body.coming = False
            self._coming -= 1

    def seconds_left(self, spent: float, size: int) -> float:
        """How long the next piece of a body may take.

        Args:
            spent: Seconds since its beginning.
            size: Bytes that have come.
        """
        allowed = self._settings.body_seconds + size / self._settings.body_rate
        return min(allowed - spent, self._settings.body_seconds)


def _busy() -> HttpProblem:
    return HttpProblem(
        503,
        "busy",
        "too much is being sent to the service at a time; try again.",
        headers={"Retry-After": "2"},
    )


class _Body:
    """One body on its way in."""

    def __init__(self, guard: Bodies, limit: int, receive: Receive, send: Send) -> None:
        self._guard, self._limit = guard, limit
        self._receive, self._send = receive, send
        self._began = asyncio.get_running_loop().time()
        self._done = self._replayed = False
        self.refused: HttpProblem | None = None
        self.size = 0
        self.whole: bytes | None = None
        self.started = False
        self.coming = True

    async def read_whole(self) -> None:
        pieces = []
        while not self._done:
            message = await self._next()
            if message["type"] == "http.disconnect":
                break
            pieces.append(message.get("body", b""))
        self.whole = b"".join(pieces)

    async def receive(self) -> Message:
        if self.whole is not None and not self._replayed:
            self._replayed = True
            # A client that went in the middle of it has sent no request.
            if not self._done:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": self.whole, "more_body": False}
        return await (self._receive() if self._done else self._next())

    async def _next(self) -> Message:
        """The next piece, or why there is none; what the application then says does not count."""
        try:
            return await self._piece()
        except HttpProblem as problem:
            self.refused = problem
            raise

    async def _piece(self) -> Message:
        spent = asyncio.get_running_loop().time() - self._began
        try:
            async with asyncio.timeout(self._guard.seconds_left(spent, self.size)):
                message = await self._receive()
        except TimeoutError:
            raise HttpProblem(408, "too_slow", "the body came too slowly.") from None
        if message["type"] == "http.request":
            piece = len(message.get("body", b""))
            self.size += piece
            self._done = not message.get("more_body", False)
            if self._done:
                self._guard.came(self)
            self._guard.hold(piece)
            if self.size > self._limit:
                raise self._guard.too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        if self.refused is None or self.started:
            self.started = True
            await self._send(message)


def _takes(operation: Any) -> Kind:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return Kind.nothing
    return Kind.json if "application/json" in content else Kind.photo


def check_json(body: bytes | None) -> None:
    """Refuse what is nested so deeply that reading it takes the parser's stack.

    Raises:
        HttpProblem: 400.
    """
    brackets = _STRINGS.sub(b"", body or b"").translate(None, _NO_BRACKETS)
    for _ in range(DEEPEST):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise HttpProblem(
            400, "bad_request", f"the body is no JSON, or nested deeper than {DEEPEST} levels."
        )
