"""Does the service lose a label that it has acknowledged when it is killed in the middle?

Two clients label and undo, a third follows the changes; the server is killed with SIGKILL at any moment and
started again, round after round. Afterwards every acknowledged label must stand in the history with its
version, and no refused one; the follower must have seen everything; the index must be sound.

    python benchmarks/service_kill.py
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from _record import record
from fieldmark.app.run import serve
from fieldmark.app.settings import Settings
from fieldmark.index.sqlite import SqliteIndex

PHOTOS, KEYS, DIM = 200, 12, 16
"""Few photos are labelled, so that both clients want the same ones."""
SHORTEST, LONGEST = 0.05, 0.8
"""Seconds of a round, from its first label on."""


class Acknowledged(NamedTuple):
    """An answer that a label was set."""

    key: str
    label: str | None
    version: int
    by: str


class Person:
    """Labels and undoes until the server is gone."""

    def __init__(self, name: str, port: int, seed: int) -> None:
        self.name, self.port = name, port
        self.draw = random.Random(seed)
        self.done: list[Acknowledged] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.count = 0
        self.undone = 0

    def ask(self, line: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
        """One request; an answer that does not come is told by an exception."""
        data = None if body is None else json.dumps(body)
        line.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())

    def work(self) -> None:
        """One round."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(line):
            while True:
                key = f"p{self.draw.randrange(KEYS):03}.jpg"
                status, told = self.ask(line, "GET", f"/api/v1/photo?key={key}")
                if status != 200:
                    raise SystemExit(f"unexpected {status}: {told}")
                self.count += 1
                label = f"{self.name} {self.count}"
                done = self.set(line, key, label, told["version"])
                if done is not None and self.draw.random() < 0.4:
                    self.undone += self.set(line, key, done["before"][key], done["versions"][key]) is not None

    def set(
        self, line: http.client.HTTPConnection, key: str, label: str | None, version: int
    ) -> dict[str, Any] | None:
        """Set a label where nobody was faster."""
        body = {"labels": {key: label}, "expected": {key: version}, "by": self.name}
        if label is not None:
            self.unknown.append(label)
        status, told = self.ask(line, "PUT", "/api/v1/labels", body)
        if label is not None:
            self.unknown.remove(label)
        if status == 200:
            if told["versions"][key] != version:
                self.done.append(Acknowledged(key, label, told["versions"][key], self.name))
            return dict(told)
        if status != 409:
            raise SystemExit(f"unexpected {status}: {told}")
        # An undo sets what was there before: only labels of its own say that they were refused.
        if label is not None and label.startswith(f"{self.name} {self.count}"):
            self.refused.append(label)
        return None


class Follower(Person):
    """Keeps a copy of all labels by asking what has changed."""

    def __init__(self, port: int) -> None:
        super().__init__("follower", port, 0)
        self.change = 0
        self.copy: dict[str, tuple[str | None, int]] = {}

    def work(self) -> None:
        """One round."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(line):
            while True:
                self.follow(line, 5)

    def follow(self, line: http.client.HTTPConnection, wait: float) -> int:
        """Once."""
        path = f"/api/v1/labels/changes?since={self.change}&wait={wait}"
        status, told = self.ask(line, "GET", path)
        if status != 200:
            raise SystemExit(f"unexpected {status}: {told}")
        for each in told["changes"]:
            self.copy[each["key"]] = each["after"], each["version"]
        self.change = told["change"]
        return len(told["changes"])


def start(place: Path, port: int) -> int:
    """A server in a process of its own; everything is loaded already, so that this is quick."""
    child = os.fork()
    if child:
        return child
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        serve(Settings(place=str(place), port=port, page=False), ready=lambda url: None)
    finally:
        os._exit(1)


def answers(port: int) -> None:
    """Wait until the server does."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(line):
                line.request("GET", "/readyz")
                if line.getresponse().status == 200:
                    return
        time.sleep(0.01)
    raise SystemExit("the server did not start")


def make_index(place: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(PHOTOS, DIM)).astype(np.float32)
    with SqliteIndex(place, create=True) as index:
        index.add_space("a" * 64, DIM)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        index.add([f"p{row:03}.jpg" for row in range(PHOTOS)], x)


def judge(place: Path, people: list[Person], follower: Follower) -> dict[str, Any]:
    """What is there against what was acknowledged."""
    with SqliteIndex(place) as index:
        lines: dict[str, list[Any]] = {}
        for change in index.history():
            lines.setdefault(change.key, []).append(change)
        items = {item.key: item for item in index.items()}
        wrong = index.verify()
        numbers = [change.number for change in index.history()]
    lost = 0
    for person in people:
        for done in person.done:
            of = lines.get(done.key, [])
            # A photo begins with version 1, and each line of its history makes one more.
            line = of[done.version - 2] if 0 <= done.version - 2 < len(of) else None
            lost += line is None or (line.after, line.by) != (done.label, done.by)
    texts = {line.after for of in lines.values() for line in of}
    broken = sum(
        line.before != (of[at - 1].after if at else None)
        for of in lines.values()
        for at, line in enumerate(of)
    )
    stale = sum(
        (items[key].label, items[key].version) != (of[-1].after, 1 + len(of))
        for key, of in lines.items()
    )
    copied = {key: (items[key].label, items[key].version) for key in lines}
    return {
        "history_lines": len(numbers),
        "acknowledged": sum(len(person.done) for person in people),
        "undone": sum(person.undone for person in people),
        "lost": lost,
        "refused_409": sum(len(person.refused) for person in people),
        "refused_but_there": sum(label in texts for p in people for label in p.refused),
        "without_an_answer": sum(len(person.unknown) for person in people),
        "without_an_answer_but_there": sum(label in texts for p in people for label in p.unknown),
        "history_broken": broken,
        "labels_unlike_history": stale,
        "history_in_order": numbers == sorted(set(numbers)),
        "follower_differs": sum(follower.copy.get(key) != told for key, told in copied.items()),
        "index_problems": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "index"
        make_index(place)
        people = [Person(name, port, seed) for seed, name in enumerate(("Ida", "Ole"))]
        follower = Follower(port)
        restarts = []
        for number in range(options.rounds):
            began = time.monotonic()
            child = start(place, port)
            answers(port)
            restarts.append(time.monotonic() - began)
            threads = [threading.Thread(target=each.work) for each in (*people, follower)]
            for thread in threads:
                thread.start()
            before = sum(len(person.done) for person in people)
            while sum(len(person.done) for person in people) == before:
                time.sleep(0.005)
            time.sleep(draw.uniform(SHORTEST, LONGEST))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for thread in threads:
                thread.join()
            print(f"round {number + 1}: {sum(len(p.done) for p in people)} acknowledged", flush=True)
        child = start(place, port)
        answers(port)
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(line):
            while follower.follow(line, 0):
                pass
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        told = judge(place, people, follower)
    sound = not (
        told["lost"]
        or told["refused_but_there"]
        or told["history_broken"]
        or told["labels_unlike_history"]
        or told["follower_differs"]
        or told["index_problems"]
    )
    path = record(
        "service-kill",
        {
            "target": "0 acknowledged labels lost",
            "rounds": options.rounds,
            "settings": {"photos": PHOTOS, "labelled": KEYS, "round_seconds": [SHORTEST, LONGEST]},
            "seconds_until_ready": round(float(np.median(restarts)), 3),
            **told,
            "met": sound,
        },
    )
    print(json.dumps(told, indent=2))
    print(path)


if __name__ == "__main__":
    main()
