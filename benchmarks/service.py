"""The service under load, beside what decoder and encoder do alone on the same processors.

A server of its own process with an index of real photos; 32 clients on loopback send it photos to embed:
80 % good ones, 12 % that are cut off, no photos, or say that they are enormous, and 8 % larger than allowed.
Beside them one asks every 50 ms whether the service lives. Before them pictures: small ones, first made,
then kept.

The ceiling: the same files decoded to the encoder's look by sandboxed workers alone, d photos a second, and looks
embedded alone, m a second, by the best of several numbers of threads and batches (larger batches than occur
in the service are allowed), each with all processors and before and after the load. Together they allow

    ceiling = 1 / (1/d + 1/m) * (1 - c / (p * s))

photos a second, where c are the seconds of processor that the clients took on the same p processors while
s seconds passed; ``ratio`` is what was embedded (answers 200; a photo that is cut off may be one) over it.
What refused requests cost is not taken off: a service has to refuse.

Beside the rates, which other programs of the machine disturb, processor time (user and system, of the server and
of all its decoders): ``processor_ratio`` is what decoder and encoder need for a photo alone, the processes
that decode and the threads that embed only, over what the whole service takes for an embedded one, refusals
included; the clients' time is in neither.

    python benchmarks/service.py ENCODER PHOTOS [--seconds 60]
"""

import argparse
import itertools
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from _record import record
from fieldmark import storage
from fieldmark.data.catalog import Catalog
from fieldmark.data.tables import csv_text
from fieldmark.workflows.index import index_photos

CLIENTS = 32
PHOTOS = 2000
LIMIT = 2_000_000
SERVER = """
import sys
from fieldmark.app.run import serve
from fieldmark.app.settings import Settings
serve(
    Settings(place=sys.argv[1], port=0, page=False, device="cpu", max_upload_bytes=int(sys.argv[2])),
    ready=lambda url: print(url, flush=True),
)
"""
ALONE = """
import json, resource, sys, threading, time
from pathlib import Path
import torch
from fieldmark.data.catalog import Location
from fieldmark.data.looktensor import stack
from fieldmark.data.sandbox import DecodePool, Job
from fieldmark.data.stream import prepare
from fieldmark.encoder import Encoder
from fieldmark.runtime import processor_count, tune_allocator

tune_allocator()
encoder = Encoder.load(sys.argv[1], device="cpu")
files = json.loads(sys.stdin.read())
count, seconds = processor_count(), float(sys.argv[2])
want = {"look": (encoder.size, encoder.spec.crop)}
with DecodePool(count) as pool:
    list(pool.map(Job(n, Location(file), want=want) for n, file in enumerate(files[:64])))
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += len(list(pool.map(Job(n, Location(f), want=want) for n, f in enumerate(files))))
    decode = done / (time.perf_counter() - began)
told = resource.getrusage(resource.RUSAGE_CHILDREN)
decode_spent = (told.ru_utime + told.ru_stime) / (done + 64)
spent = {}
looks = [prepare(Path(file).read_bytes(), encoder.size, encoder.spec.crop)[0] for file in files[:256]]
rates = {}
for threads, inside, batch in ((count, 1, 8), (count, 1, 16), (1, count, 16), (1, count, 32)):
    torch.set_num_threads(inside)
    encoder.encode(stack(looks[:8]))
    counts = [0] * threads
    end = time.perf_counter() + seconds / 2
    def work(lane):
        at = 0
        while time.perf_counter() < end:
            encoder.encode(stack(looks[at : at + batch]))
            counts[lane] += len(looks[at : at + batch])
            at = (at + batch) % len(looks)
    began, used = time.perf_counter(), time.process_time()
    lanes = [threading.Thread(target=work, args=(lane,)) for lane in range(threads)]
    [lane.start() for lane in lanes]
    [lane.join() for lane in lanes]
    name = f"{threads} x {inside} threads, batches of {batch}"
    rates[name] = sum(counts) / (time.perf_counter() - began)
    spent[name] = (time.process_time() - used) / sum(counts)
print(json.dumps({"decode": decode, "model": rates, "decode_ms": 1e3 * decode_spent,
                  "model_ms": 1e3 * min(spent.values()), "size": encoder.size,
                  "network": encoder.spec.backbone.config.name, "precision": encoder._runner.precision}))
"""


class Request:
    """What is sent, and what the answer should be."""

    def __init__(
        self, kind: str, body: bytes, expected: set[int], length: int | None = None
    ) -> None:
        self.kind, self.expected = kind, expected
        told = len(body) if length is None else length
        head = f"POST /api/v1/embed HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {told}\r\n\r\n"
        self._head, self._body = head, body
        self.data = b""

    def to(self, host: str) -> "Request":
        self.data = self._head.format(host=host).encode() + self._body
        return self


def requests(files: list[str], host: str) -> list[Request]:
    """A round of them, in the shares that are promised."""
    draw = random.Random(0)
    good = [Request("good", Path(file).read_bytes(), {200}) for file in draw.sample(files, 160)]
    bad = []
    for number in range(8):
        whole = Path(draw.choice(files)).read_bytes()
        bad.append(Request("cut off", whole[: len(whole) // 2], {200, 422}))
        bad.append(Request("no photo", bytes(draw.randbytes(20_000)), {422}))
        bomb = bytearray(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2)
        bomb += b"\x08\x02\0\0\0" + bytes([number]) * 5000
        bad.append(Request("enormous", bytes(bomb), {422}))
    large = [Request("too large", b"\xff\xd8" * 20_000, {413}, LIMIT * 20) for _ in range(8)]
    large += [Request("too large", b"\xff\xd8" * 20_000, {413}, LIMIT + 1) for _ in range(8)]
    found = [one.to(host) for one in good + bad + large]
    draw.shuffle(found)
    return found


class Connection:
    """One client: sends, waits for the answer, sends the next."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socket: socket.socket | None = None
        self.request: Request | None = None
        self.began = 0.0
        self.left = memoryview(b"")
        self.answer = bytearray()

    def send(self, request: Request, now: float) -> None:
        if self.socket is None:
            self.socket = socket.create_connection(self.address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.setblocking(False)
        self.request, self.began = request, now
        self.left, self.answer = memoryview(request.data), bytearray()

    def push(self) -> None:
        assert self.socket is not None
        try:
            while self.left:
                self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            pass
        except OSError:
            self.left = memoryview(b"")  # It refused; the answer says why.

    def pull(self) -> tuple[int, bool] | None:
        """Status, and whether the connection ends, once the answer is whole; 0 where there is none."""
        assert self.socket is not None
        try:
            data = self.socket.recv(2**16)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self.answer += data
        head, blank, body = bytes(self.answer).partition(b"\r\n\r\n")
        if not blank:
            return None if data else (0, True)
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
        if len(body) < length and data:
            return None
        return int(head.split()[1]), not data or b"connection: close" in lower or bool(self.left)

    def drop(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def load(address: tuple[str, int], round_of: list[Request], seconds: float) -> dict:
    """Send from all clients for some time."""
    times: dict[str, list[float]] = {}
    statuses: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    bodies = itertools.cycle(round_of)
    selector = selectors.DefaultSelector()
    clients = [Connection(address) for _ in range(CLIENTS)]
    embedded = 0
    began = time.perf_counter()

    def begin(client: Connection) -> None:
        client.send(next(bodies), time.perf_counter())
        client.push()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.left else 0)
        selector.register(client.socket, events, client)

    for client in clients:
        begin(client)
    while time.perf_counter() - began < seconds:
        for key, events in selector.select(timeout=1):
            client = key.data
            if events & selectors.EVENT_WRITE:
                client.push()
                if not client.left:
                    selector.modify(client.socket, selectors.EVENT_READ, client)
            if not events & selectors.EVENT_READ:
                continue
            told = client.pull()
            if told is None:
                continue
            status, ends = told
            request = client.request
            times.setdefault(request.kind, []).append(time.perf_counter() - client.began)
            statuses[f"{request.kind} {status}"] += 1
            embedded += status == 200
            if status not in request.expected:
                wrong[f"{request.kind} {status}"] += 1
            selector.unregister(client.socket)
            if ends:
                client.drop()
            begin(client)
    passed = time.perf_counter() - began
    for client in clients:
        client.drop()
    return {
        "seconds": round(passed, 1),
        "embedded_per_second": round(embedded / passed, 1),
        "answers_per_second": round(sum(statuses.values()) / passed, 1),
        "statuses": dict(sorted(statuses.items())),
        "unexpected": dict(wrong),
        "milliseconds": {
            kind: {f"p{q}": round(float(np.percentile(found, q)) * 1e3, 1) for q in (50, 99)}
            for kind, found in times.items()
        },
    }


class Health(threading.Thread):
    """Asks whether the service lives, and how much memory its processes take."""

    def __init__(self, address: tuple[str, int], process: int) -> None:
        super().__init__(daemon=True)
        self.address, self.process = address, process
        self.milliseconds: list[float] = []
        self.memory: list[tuple[float, float, float]] = []
        self.end = threading.Event()

    def run(self) -> None:
        began = looked = time.perf_counter()
        wish = (
            f"GET /healthz HTTP/1.1\r\nHost: {self.address[0]}:{self.address[1]}\r\n\r\n".encode()
        )
        with socket.create_connection(self.address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self.end.wait(0.05):
                start = time.perf_counter()
                answer = exchange(connection, wish)
                self.milliseconds.append((time.perf_counter() - start) * 1e3)
                assert b" 200 " in answer[:20], answer[:200]
                if time.perf_counter() - looked > 2:
                    looked = time.perf_counter()
                    own = resident(self.process)
                    others = sum(resident(child) for child in children(self.process))
                    self.memory.append((round(looked - began), round(own, 1), round(others, 1)))


def exchange(connection: socket.socket, wish: bytes) -> bytes:
    """A request's whole answer."""
    connection.sendall(wish)
    answer = bytearray()
    while True:
        answer += connection.recv(65536)
        head, blank, body = bytes(answer).partition(b"\r\n\r\n")
        if blank and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return bytes(answer)


def resident(process: int) -> float:
    """Memory in MB."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_seconds(process: int) -> tuple[float, float]:
    """Of a process, and of those that it started."""

    def one(number: int) -> float:
        words = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    return one(process), sum(one(child) for child in children(process))


def children(process: int) -> list[int]:
    """Processes that it started."""
    found = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        found += [int(word) for word in (thread / "children").read_text().split()]
    return found


def pictures(address: tuple[str, int], names: list[str]) -> float:
    """Small pictures per second, by 6 connections as a browser has."""
    waiting = iter(names)
    lock = threading.Lock()

    def fetch() -> None:
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host = f"{address[0]}:{address[1]}"
            while True:
                with lock:
                    name = next(waiting, None)
                if name is None:
                    return
                wish = f"GET /media/{name}/small HTTP/1.1\r\nHost: {host}\r\n\r\n"
                answer = exchange(connection, wish.encode())
                assert b" 200 " in answer[:20], answer[:200]

    began = time.perf_counter()
    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(names) / (time.perf_counter() - began)


def alone(encoder: Path, files: list[str], seconds: float) -> dict:
    """Decoder and encoder without a service."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(encoder), str(seconds)],
        input=json.dumps(files), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--name", default="service", help="of the file of results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        catalog = Catalog.open(chosen.photos)
        rows = np.random.default_rng(0).permutation(len(catalog))[:PHOTOS]
        files = [str(Path(catalog.location(int(row)).file).resolve()) for row in rows]
        table = Path(work) / "photos.csv"
        storage.write_text(table, csv_text(["path"], ([file] for file in files)))
        index = Path(work) / "index"
        index_photos(chosen.encoder, table, index, device="cpu")
        before = alone(chosen.encoder, files, 8)
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(index), str(LIMIT)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            parts = urlsplit(process.stdout.readline().strip())
            address = (parts.hostname, parts.port)
            time.sleep(1)
            from fieldmark.data.catalog import Location, read_location
            from fieldmark.storage import sha256_bytes

            names = [sha256_bytes(read_location(Location(file))[0])[:32] for file in files]
            shown = {"cold_per_second": pictures(address, names[-500:])}
            shown["warm_per_second"] = pictures(address, names[-500:])
            time.sleep(10)  # The rest are made ahead meanwhile.
            host = f"{address[0]}:{address[1]}"
            round_of = requests(files, host)
            load(address, round_of, 5)
            before_load = processor_seconds(process.pid)
            health = Health(address, process.pid)
            health.start()
            own = time.process_time()
            told = load(address, round_of, chosen.seconds)
            clients = time.process_time() - own
            spent = np.subtract(processor_seconds(process.pid), before_load)
            health.end.set()
            health.join()
        finally:
            process.terminate()
            process.wait(30)
        after = alone(chosen.encoder, files, 8)
    decode = (before["decode"] + after["decode"]) / 2
    model = np.mean([max(one["model"].values()) for one in (before, after)])
    processors = len(os.sched_getaffinity(0))
    left = 1 - clients / (processors * told["seconds"])
    ceiling = left / (1 / decode + 1 / model)
    needed = np.mean([one["decode_ms"] + one["model_ms"] for one in (before, after)])
    taken = 1e3 * spent.sum() / (told["embedded_per_second"] * told["seconds"])
    memory = np.array(health.memory)
    half = len(memory) // 2
    result = {
        "encoder": {key: before[key] for key in ("network", "size", "precision")},
        "photos": len(files),
        "mean_kilobytes": round(np.mean([Path(file).stat().st_size for file in files]) / 1e3, 1),
        "clients": CLIENTS,
        "load": told,
        "alone": {"before": before, "after": after},
        "ceiling_per_second": round(ceiling, 1),
        "left_by_clients": round(left, 3),
        "ratio": round(told["embedded_per_second"] / ceiling, 3),
        "processor_ms_per_embedded": {"alone": round(needed, 2), "service": round(taken, 2)},
        "processor_ratio": round(needed / taken, 3),
        "processor_seconds": {
            "server": round(spent[0], 1),
            "decoders": round(spent[1], 1),
            "clients": round(clients, 1),
        },
        "health_milliseconds": {
            f"p{q}": round(float(np.percentile(health.milliseconds, q)), 1) for q in (50, 99, 100)
        },
        "memory_mb": [list(each) for each in health.memory],
        "memory_grows": round(
            float(memory[half:, 1:].sum(1).mean() / memory[:half, 1:].sum(1).mean() - 1), 4
        ),
        "pictures": {key: round(value) for key, value in shown.items()},
    }
    chosen.name != "none" and record(chosen.name, result)
    print(json.dumps({k: v for k, v in result.items() if k != "memory_mb"}, indent=1))


if __name__ == "__main__":
    main()
