"""Does the service stay up while it is abused? Each attack, what it was answered, and what others noticed.

A server is started with its usual limits, and every byte that it reads from a socket is counted where sockets
are read, apart from its own guards. While an attack runs, another process asks /healthz on a new connection
every 50 ms. The page of results says: answers, bytes sent and read, seconds, p99 of /healthz, memory.

    python benchmarks/service_attacks.py [--index INDEX] [--connections 1000] [--gigabytes 10]
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import re
import resource
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import psutil

_SPAWN = multiprocessing.get_context("spawn")
_HELLO = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_MIB = 2**20


def serve_counted(index: str | None, read: Any, told: Any) -> None:
    """A service in a process of its own, whose reads are counted."""
    from fieldmark.app import protocol
    from fieldmark.app.run import serve
    from fieldmark.app.settings import Settings

    taken = protocol.Guarded.buffer_updated

    def counted(self: Any, nbytes: int) -> None:
        read.value += nbytes
        taken(self, nbytes)

    protocol.Guarded.buffer_updated = counted  # type: ignore[method-assign]
    serve(Settings(place=index, port=0), ready=told.send)


def watch_health(port: int, stop: Any, told: Any) -> None:
    """Ask again and again; seconds of each answer, infinite where there is none."""
    took: list[float] = []
    while not took or not stop.is_set():
        began = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(_HELLO)
                heard = b""
                while data := connection.recv(4096):
                    heard += data
            good = heard.startswith(b"HTTP/1.1 200")
        except OSError:
            good = False
        took.append(time.perf_counter() - began if good else float("inf"))
        time.sleep(0.05)
    told.send(took)


class Service(NamedTuple):
    """What is attacked."""

    port: int
    read: Any
    process: psutil.Process


def head(path: str, kind: str, *lines: str) -> bytes:
    told = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *lines, "", ""]
    return "\r\n".join(told).encode()


def status_of(heard: bytes) -> str:
    found = re.match(rb"HTTP/1.1 (\d+)", heard)
    return found[1].decode() if found else "closed"


def one(port: int, pieces: Iterable[bytes], *, pause: float = 0.0) -> tuple[str, int]:
    """Send until the other side has enough; status and bytes that left."""
    sent, heard = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            for piece in pieces:
                connection.sendall(piece)
                sent += len(piece)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while data := connection.recv(65_536):
                heard += data
    return status_of(heard), sent


def many(
    port: int, count: int, first: bytes, drip: bytes, limit: float
) -> tuple[Counter[str], int]:
    """So many connections at once, each of which sends a byte a second until it is sent away."""
    chosen, answers, sent = selectors.DefaultSelector(), Counter[str](), 0
    heard: dict[socket.socket, bytes] = {}
    began = time.monotonic()
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(first)
        sent += len(first)
        connection.setblocking(False)
        heard[connection] = b""
        chosen.register(connection, selectors.EVENT_READ)
    last = time.monotonic()
    while heard and time.monotonic() - began < limit:
        for key, _ in chosen.select(timeout=0.2):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                data = connection.recv(4096)
            except ConnectionError:
                data = b""
            if data:
                heard[connection] += data
            else:
                answers[status_of(heard.pop(connection))] += 1
                chosen.unregister(connection)
                connection.close()
        if drip and time.monotonic() - last > 1:
            last = time.monotonic()
            for connection in heard:
                with contextlib.suppress(OSError):
                    sent += connection.send(drip)
    answers["still open"] += len(heard)
    for connection in heard:
        connection.close()
    return answers, sent


def attacks(
    photo: str, text: str, arguments: argparse.Namespace
) -> dict[str, Callable[[int], Any]]:
    """By name; each takes the port and says answers and bytes sent."""
    block, count = b"x" * _MIB, arguments.connections
    size = int(arguments.gigabytes * 1e9)
    raw, json_type = "application/octet-stream", "application/json"

    def stream(start: bytes, piece: bytes, whole: int) -> Callable[[int], tuple[str, int]]:
        def send(port: int) -> tuple[str, int]:
            return one(port, chained(start, piece, whole))

        return send

    chunk = b"%x\r\n" % _MIB + block + b"\r\n"
    tiny = b"1\r\nx\r\n" * 1000
    chunked = "Transfer-Encoding: chunked"
    return {
        "body of 10 GB, length told": stream(
            head(photo, raw, f"Content-Length: {size}"), block, size
        ),
        "body of 10 GB, in chunks": stream(head(photo, raw, chunked), chunk, size),
        "JSON of 10 GB, in chunks": stream(head(text, json_type, chunked), chunk, size),
        "length told is a lie, 1,000 of 40,000,000 bytes come": lambda port: one(
            port, [head(photo, raw, "Content-Length: 40000000"), b"x" * 1000]
        ),
        "3 MB in chunks of one byte": stream(head(photo, raw, chunked), tiny, 18_000_000),
        "endless header lines": stream(
            b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"x-y: " + b"z" * 995 + b"\r\n", size
        ),
        "endless header line": stream(b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ", block, size),
        "JSON nested 900,000 deep": lambda port: one(
            port, [head(text, json_type, "Content-Length: 900000"), b"[" * 900_000]
        ),
        f"{count:,} heads, a byte a second": lambda port: many(
            port, count, b"GET / HTTP/1.1\r\nx: ", b"y", 40
        ),
        f"{count:,} bodies, a byte a second": lambda port: many(
            port, count, head(photo, raw, "Content-Length: 100000"), b"y", 40
        ),
        f"{3 * count:,} connections that say nothing": lambda port: many(
            port, 3 * count, b"", b"", 40
        ),
        "20,000 wrong requests, one behind the other": hammer,
    }


def chained(start: bytes, piece: bytes, whole: int) -> Iterator[bytes]:
    yield start
    yield from repeat(piece, whole // len(piece))


def hammer(port: int) -> tuple[Counter[str], int]:
    answers, sent = Counter[str](), 0
    wrong = b"GET /../../etc/passwd HTTP/1.1\r\nHost: evil.example\r\n\r\n" * 20
    for _ in range(1000):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(wrong)
            sent += len(wrong)
            heard = b""
            while heard.count(b"HTTP/1.1 ") < 20 and (data := connection.recv(65_536)):
                heard += data
        answers.update(found.decode() for found in re.findall(rb"HTTP/1.1 (\d+)", heard))
    return answers, sent


def measure(name: str, attack: Callable[[int], Any], service: Service) -> dict[str, Any]:
    """Run one attack while another process watches."""
    stop, (here, there) = _SPAWN.Event(), _SPAWN.Pipe()
    watching = _SPAWN.Process(target=watch_health, args=(service.port, stop, there))
    watching.start()
    time.sleep(1.0)
    before, began = service.read.value, time.perf_counter()
    answers, sent = attack(service.port)
    seconds = time.perf_counter() - began
    time.sleep(1.2)  # what the server still reads of it
    read = service.read.value - before
    stop.set()
    took = here.recv()
    watching.join()
    told = {
        "attack": name,
        "answers": {answers: 1} if isinstance(answers, str) else dict(answers),
        "sent_bytes": sent,
        "read_bytes": read,
        "seconds": round(seconds, 2),
        "health_asked": len(took),
        "health_failed": sum(each == float("inf") for each in took),
        "health_p99_ms": round(1e3 * float(np.quantile(took, 0.99, method="higher")), 1),
        "rss_mb": round(service.process.memory_info().rss / 1e6, 1),
    }
    print(json.dumps(told), flush=True)
    return told


def operation(description: dict[str, Any], *, json_body: bool) -> str:
    """The first that takes a photo, or a JSON body; else one that takes nothing."""
    for path, item in description["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        if content and ("application/json" in content) == json_body and "{" not in path:
            return str(path)
    return "/api/v1/session"


def main() -> None:
    from _record import record  # loads torch, which processes that watch do not need

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    read, (here, there) = _SPAWN.Value(ctypes.c_uint64, lock=False), _SPAWN.Pipe()
    server = _SPAWN.Process(target=serve_counted, args=(arguments.index, read, there))
    server.start()
    try:
        if not here.poll(120):
            raise SystemExit("the service did not start")
        port = int(here.recv().rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(_HELLO.replace(b"/healthz", b"/api/v1/openapi.json"))
            heard = b"".join(iter(lambda: connection.recv(65_536), b""))
        description = json.loads(heard.partition(b"\r\n\r\n")[2])
        photo = operation(description, json_body=False)
        text = operation(description, json_body=True)
        assert server.pid is not None
        service = Service(port, read, psutil.Process(server.pid))
        quiet = measure("none", lambda _: (time.sleep(5), ({}, 0))[1], service)
        found = [
            measure(name, each, service) for name, each in attacks(photo, text, arguments).items()
        ]
        assert server.is_alive()
        threads = threading.active_count()
        told = {
            "photo": photo,
            "json": text,
            "quiet": quiet,
            "attacks": found,
            "own_threads": threads,
        }
        record("service-attacks", told)
    finally:
        server.terminate()
        server.join(20)
        assert server.exitcode == 0


if __name__ == "__main__":
    main()
