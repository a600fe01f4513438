"""Around every request: a number, headers that keep browsers careful, counts, a line of log, a last resort."""

import logging
import secrets
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldmark.app.metrics import Metrics
from fieldmark.app.problems import HttpProblem, answer

_log = logging.getLogger("fieldmark.app")
_access = logging.getLogger("fieldmark.access")
_GONE = 499
"""In log and counts: the client went before it had an answer."""

_REASONS = {
    401: "token",
    403: "not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "wrong_type",
    421: "wrong_host",
    429: "too_many_tries",
    503: "busy",
}

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)


class Watch:
    """The outermost layer; whatever happens inside, an answer leaves that tells nothing of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, receive, send, self._metrics)
        began = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, seen.receive, seen.send)
        except ClientDisconnect:
            seen.status = seen.status or _GONE
        except Exception as error:
            if seen.status:
                _log.exception("request %s broke off", seen.number)
                raise
            _log.error("request %s failed", seen.number, exc_info=error)
            await answer(_failed(seen.number))(scope, receive, seen.send)
        finally:
            self._metrics.in_flight.dec()
            self._told(scope, seen, time.perf_counter() - began)

    def _told(self, scope: Scope, seen: "_Seen", seconds: float) -> None:
        status, method = seen.status or _GONE, scope["method"]
        route = template(scope)
        self._metrics.count(method, route, status, seconds)
        if reason := _REASONS.get(status):
            self._metrics.refused.labels(reason).inc()
        caller = getattr(scope.get("state", {}).get("caller"), "name", "-")
        # The path as it was sent is ASCII without control characters; what follows ? is left out.
        path = scope.get("raw_path", b"")[:200].decode("ascii", "backslashreplace").split("?")[0]
        client = (scope.get("client") or ("-",))[0]
        _access.info(
            "%s %s %s %s %d %.1fms in=%d out=%d by=%r",
            seen.number,
            client,
            method,
            path,
            status,
            seconds * 1e3,
            seen.received,
            seen.sent,
            caller,
        )


def template(scope: Scope) -> str:
    """The route that answered, as it was written; ``none`` where a guard did, or nothing is there."""
    route = scope.get("route")
    if route is not None:
        return str(getattr(route, "path", "other"))
    return "page" if "endpoint" in scope else "none"


def _failed(number: str) -> HttpProblem:
    return HttpProblem(
        500,
        "failed",
        f"something went wrong inside the service; its log says more at request {number}.",
    )


class _Seen:
    """One request's way in and out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: Metrics) -> None:
        self._receive, self._send, self._metrics = receive, send, metrics
        self.number = secrets.token_hex(8)
        self.status = self.received = self.sent = 0
        names = {name for name, value in scope["headers"] if value != b"0"}
        self._unread = bool(names & {b"content-length", b"transfer-encoding"})

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.received += size
            self._metrics.bytes_in.inc(size)
            self._unread = self._unread and bool(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            present = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS if name not in present]
            if b"content-security-policy" not in present:
                headers.append((b"x-frame-options", b"DENY"))
            headers.append((b"x-request-id", self.number.encode()))
            if self._unread:
                # What is left of the body is not read to its end for the sake of the next request.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)
