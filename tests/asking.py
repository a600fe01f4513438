"""Asks the service exactly what is written: an application directly, with routes that misbehave beside its own."""

import asyncio
import json
import re
import threading
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request

from fieldmark.app.access import Admin, Labeller, Reader
from fieldmark.app.problems import described
from fieldmark.errors import ArtifactError

HOST = ("host", "localhost")
_LEAKS = re.compile(
    r"(?<![\w/:])/(?:tmp|home|root|usr|work|etc|src|proc|var)/|[A-Z]:\\\\|Traceback|\.py\b|fieldmark\.\w"
    r"|pydantic|starlette|fastapi|uvicorn|\w+Error\b|<class|0x[0-9a-f]{8}|root:x"
)
"""What no error's text may hold: paths, traces, names of what is inside."""


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


class Asker:
    """Asks an application exactly what is written, as the server would pass it on."""

    def __init__(self, app):
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._lifespan = app.router.lifespan_context(app)
        self._run(self._lifespan.__aenter__())

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def close(self):
        self._run(self._lifespan.__aexit__(None, None, None))
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __call__(self, method, target, headers=(), body=b"", client="127.0.0.1"):
        raw, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
        given = [(name.lower(), value) for name, value in headers]
        if "host" not in dict(given):
            given.append(HOST)
        if body and "transfer-encoding" not in dict(given):
            given.append(("content-length", str(len(body))))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(raw).decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in given],
            "client": (client, 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        return self._run(self._ask(scope, body))

    async def _ask(self, scope, body):
        sent, messages = [], [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        start = sent[0]
        headers = {n.decode().lower(): v.decode() for n, v in start["headers"]}
        return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]))


def check_problem(answer):
    """An answer from 400 on is a problem, tells nothing of the inside, and keeps browsers careful."""
    assert answer.headers["content-type"] == "application/problem+json", answer
    told = answer.json()
    assert told["status"] == answer.status
    assert {"status", "code", "detail", "keys"} <= set(told)
    assert re.fullmatch(r"[a-z_]+", told["code"])
    assert told["detail"]
    assert not _LEAKS.search(told["detail"]), told
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


class Operation(NamedTuple):
    """One operation of the OpenAPI description."""

    method: str
    path: str
    told: dict

    @property
    def scope(self):
        return self.told.get("x-fieldmark-scope")

    def target(self, value="0" * 32):
        """Its path with something in every parameter."""
        return re.sub(r"\{[^}]*\}", lambda _: value, self.path)

    def request(self):
        """Headers and body that come as far as the route."""
        content = self.told.get("requestBody", {}).get("content", {})
        if not content:
            return [], b""
        if "application/json" in content:
            return [("content-type", "application/json")], b"{}"
        return [("content-type", "application/octet-stream")], b"no photo"


def operations(app):
    return [
        Operation(method.upper(), path, told)
        for path, item in app.openapi()["paths"].items()
        for method, told in item.items()
    ]


probe = APIRouter(prefix="/api/v1/probe", tags=["probe"])
PHOTO = {"requestBody": {"content": {"application/octet-stream": {}}, "required": True}}


@probe.get("/fails", responses=described(500))
def fails(_: Reader) -> None:
    raise RuntimeError("secret of /home/ida/birds.py")


@probe.get("/artifact", responses=described(503))
def artifact(_: Reader, where: str) -> None:
    raise ArtifactError(f"{where} holds no encoder; see /opt/data/secret/weights.bin.")


@probe.get("/named/{name}/{size}")
def named(name: str, size: int, _: Reader) -> dict[str, int]:
    return {"size": size}


@probe.post("/json")
def takes_json(body: dict[str, int], _: Labeller) -> dict[str, int]:
    return body


@probe.post("/photo", openapi_extra=PHOTO)
async def takes_photo(request: Request, by: Admin) -> dict[str, object]:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {"size": size, "by": by}


@probe.post("/careless", openapi_extra=PHOTO)
async def careless(request: Request, by: Admin) -> dict[str, str]:
    """Swallows whatever goes wrong while the body comes."""
    try:
        await request.body()
    except Exception:
        return {"by": by}
    return {"by": by}
