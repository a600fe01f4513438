"""The service answers and never asks: no code of it speaks HTTP to others, and nothing connects outward."""

import ast
import contextlib
import socket
import sys
from pathlib import Path

import fieldmark
from asking import operations

CLIENTS = {
    "requests", "httpx", "urllib3", "aiohttp", "urllib.request", "http.client", "ftplib", "smtplib",
    "telnetlib", "xmlrpc", "huggingface_hub", "websockets",
}  # fmt: skip
ROOT = Path(fieldmark.__file__).parent
MODEL_HUB = {"fieldmark.hub", "fieldmark.backbones.weights", "fieldmark.nn.clip"}
"""Fetch models by name when a command asks for one; the service works offline (see below)."""


def _file(module):
    path = ROOT.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(module):
    for node in ast.walk(ast.parse(_file(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _reached():
    waiting, seen = ["fieldmark.app.run", "fieldmark.app.server"], {}
    while waiting:
        module = waiting.pop()
        if module in seen or not _file(module).is_file():
            continue
        seen[module] = set(_imports(module))
        waiting += [name for name in seen[module] if name.startswith("fieldmark")]
    return seen


def test_no_module_that_the_service_reaches_is_an_http_client():
    reached = _reached()
    assert "fieldmark.app.bodies" in reached
    for module, names in reached.items():
        told = {name for name in names for c in CLIENTS if name == c or name.startswith(c + ".")}
        assert not told or module in MODEL_HUB, (module, told)


_CALLED = []
_WATCHED = {"socket.connect", "socket.getaddrinfo", "urllib.Request", "http.client.connect"}


def _audit(event, arguments):
    if event in _WATCHED:
        _CALLED.append((event, str(arguments)))


def test_nothing_connects_outward_while_every_operation_is_asked(ask):
    sys.addaudithook(_audit)  # for good: Python has no way to take one away
    _CALLED.clear()
    for operation in operations(ask.app):
        headers, body = operation.request()
        for value in ("0" * 32, "http:%2f%2fevil.example%2fx"):
            ask(operation.method, operation.target(value), headers, body)
        for parameter in operation.told.get("parameters", ()):
            query = f"?{parameter['name']}=http://127.0.0.1:9/evil.jpg"
            ask(operation.method, operation.target() + query, headers, body)
    assert _CALLED == []


def test_the_watch_sees_a_connection():
    sys.addaudithook(_audit)
    _CALLED.clear()
    with socket.socket() as outward, contextlib.suppress(OSError):
        outward.connect(("127.0.0.1", 9))
    assert _CALLED
