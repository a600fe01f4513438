"""A small index without photos, and a service on it."""

import contextlib
import time

import numpy as np
from starlette.testclient import TestClient

from fieldmark.app.server import create_app
from fieldmark.app.settings import Settings
from fieldmark.index.index import Stamp
from fieldmark.index.sqlite import SqliteIndex

ENCODER = "a" * 64
KINDS = ("wren", "robin", "tit")
DIM = 8


def near_kinds(count, *, seed=0, dim=DIM, spread=0.25):
    """Unit vectors around a direction for each kind, kind after kind."""
    rng = np.random.default_rng(seed)
    x = np.eye(dim)[np.arange(count) % len(KINDS)] + spread * rng.normal(size=(count, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def kind_of(row):
    return KINDS[row % len(KINDS)]


def make_index(place, count=60, *, labelled=0, **vectors):
    """Photos ``p000.jpg`` and on, of which the first have their label."""
    keys = [f"p{row:03}.jpg" for row in range(count)]
    with SqliteIndex(place, create=True) as index:
        index.add_space(ENCODER, DIM, {"network": "tiny", "size": 16, "weights": "random"})
        index.add(
            keys,
            near_kinds(count, **vectors),
            metas=[{"year": 2020 + row % 2, "site": "pond"} for row in range(count)],
            stamps=[Stamp(10 + row, row, f"{row:064x}"[::-1]) for row in range(count)],
        )
        if labelled:
            index.set_labels({keys[row]: kind_of(row) for row in range(labelled)}, by="table")
    return keys


@contextlib.contextmanager
def serving(place, **settings):
    """A client of a service."""
    app = create_app(Settings(place=str(place), page=False, **settings))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def settled(client, path, seconds=30):
    """An answer once it is computed."""
    end = time.monotonic() + seconds
    while True:
        found = client.get(path)
        if found.status_code != 202:
            assert found.status_code == 200, found.text
            return found.json()
        assert found.json()["state"] == "working"
        assert time.monotonic() < end, found.text
        time.sleep(0.02)


def until(holds, seconds=10):
    """Wait for something."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found
