"""Labels over HTTP: two people at once, others' changes, and any order of calls against a dict."""

import csv
import io
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parent))
from shelf import make_index, serving

from fieldmark.app.tokens import Scope, add_token
from fieldmark.index.sqlite import SqliteIndex

LABELS = "/api/v1/labels"
CHANGES = "/api/v1/labels/changes"


@pytest.fixture
def place(tmp_path):
    make_index(tmp_path / "index", 12, labelled=3)
    return tmp_path / "index"


@pytest.fixture
def client(place):
    with serving(place) as client:
        yield client


def put(client, labels, expected=None, **more):
    return client.put(LABELS, json={"labels": labels, "expected": expected or {}, **more})


def test_a_label_is_in_the_index_once_it_is_answered(place, client):
    done = put(client, {"p005.jpg": "wren", "p000.jpg": None}, {"p005.jpg": 1, "p000.jpg": 2})
    assert done.status_code == 200
    told = done.json()
    assert told["versions"] == {"p005.jpg": 2, "p000.jpg": 3}
    assert told["before"] == {"p005.jpg": None, "p000.jpg": "wren"}
    with SqliteIndex(place) as index:
        assert [item.label for item in index.get(["p005.jpg", "p000.jpg"])] == ["wren", None]
        assert index.marks().labels == told["change"]
    table = client.get("/api/v1/table").json()
    assert table["change"] == told["change"]
    assert table["labels"][table["label"][5]] == "wren"
    assert table["version"][5] == 2
    assert table["label"][0] == -1


def test_who_saw_an_old_state_is_told_what_is_there_now(place, client):
    assert put(client, {"p005.jpg": "wren"}, {"p005.jpg": 1}, by="Ida").status_code == 200
    late = put(
        client, {"p005.jpg": "tit", "p006.jpg": "tit"}, {"p005.jpg": 1, "p006.jpg": 1}, by="Ole"
    )
    assert late.status_code == 409
    told = late.json()
    assert told["code"] == "changed_meanwhile"
    assert told["keys"] == ["p005.jpg"]
    assert told["now"] == {"p005.jpg": {"label": "wren", "version": 2, "by": "Ida"}}
    with SqliteIndex(place) as index:
        assert [item.label for item in index.get(["p005.jpg", "p006.jpg"])] == ["wren", None]
        assert len(index.history()) == 4


def test_two_people_lose_nothing(place, client):
    won = {0: 0, 1: 0}

    def work(number):
        for _ in range(10):
            while True:
                told = client.get("/api/v1/photo", params={"key": "p007.jpg"}).json()
                count = int(told["label"] or "0") + 1
                done = put(client, {"p007.jpg": str(count)}, {"p007.jpg": told["version"]})
                if done.status_code == 200:
                    won[number] += 1
                    break
                assert done.status_code == 409

    threads = [threading.Thread(target=work, args=(number,)) for number in won]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("/api/v1/photo", params={"key": "p007.jpg"}).json()["label"] == "20"
    assert won == {0: 10, 1: 10}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"labels": {}}, 422),
        ({"labels": {"p001.jpg": ""}}, 422),
        ({"labels": {"p001.jpg": "  "}}, 422),
        ({"labels": {"p001.jpg": "x" * 501}}, 422),
        ({"labels": {"p001.jpg": "a\0b"}}, 422),
        ({"labels": {"p001.jpg": 3}}, 422),
        ({"labels": {"no.jpg": "wren", "p001.jpg": "wren"}}, 404),
        ({"labels": {"p001.jpg": "wren"}, "expected": {"p002.jpg": 1}}, 422),
        ({"labels": {f"k{i}": None for i in range(10_001)}}, 422),
    ],
)
def test_what_cannot_be_a_label_changes_nothing(place, client, body, status):
    assert client.put(LABELS, json=body).status_code == status
    with SqliteIndex(place) as index:
        assert len(index.history()) == 3


@pytest.mark.parametrize(
    "body",
    [rb'{"labels": {"\ud800": "wren"}}', rb'{"labels": {"p001.jpg": "\ud800"}}', b'{"labels": 1}'],
)
def test_texts_that_are_no_text_are_refused(client, body):
    found = client.put(LABELS, content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 422


def test_labels_are_counted_and_renamed_in_one_step(client):
    assert client.get(LABELS).json()["labels"] == [
        {"name": name, "photos": 1} for name in ("robin", "tit", "wren")
    ]
    put(client, {"p003.jpg": "wren"})
    done = client.post(f"{LABELS}/rename", json={"from": "wren", "to": "robin"})
    assert (done.status_code, done.json()["photos"]) == (200, 2)
    assert client.get(LABELS).json()["labels"] == [
        {"name": "robin", "photos": 3},
        {"name": "tit", "photos": 1},
    ]
    missing = client.post(f"{LABELS}/rename", json={"from": "wren", "to": "robin"})
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_label")


def test_tables_are_kept_as_they_are_and_never_shown(client):
    put(client, {"p001.jpg": '=cmd|"a",b'})
    found = client.get("/api/v1/labels.csv")
    assert found.headers["content-type"].startswith("text/csv")
    assert found.headers["content-disposition"].startswith("attachment")
    assert found.headers["x-content-type-options"] == "nosniff"
    rows = list(csv.reader(io.StringIO(found.text)))
    assert rows == [
        ["path", "label"],
        ["p000.jpg", "wren"],
        ["p001.jpg", '=cmd|"a",b'],
        ["p002.jpg", "tit"],
    ]


def test_names_of_tokens_stand_in_the_history_and_nobody_is_another(place, tmp_path):
    file = tmp_path / "tokens.toml"
    token = add_token(file, "Ida", Scope.label)
    with serving(place, tokens=file) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        put(client, {"p005.jpg": "wren"}, by="Ole")
        line = client.get("/api/v1/photo", params={"key": "p005.jpg"}).json()["history"][-1]
        assert line["by"] == "Ida"


# -- what others do


def test_changes_are_told_from_a_number_on(client):
    first = put(client, {"p005.jpg": "wren"}, by="Ida").json()["change"]
    put(client, {"p005.jpg": "tit"}, by="Ole")
    told = client.get(CHANGES, params={"since": first}).json()
    (line,) = told["changes"]
    assert line["at"].startswith("20")
    assert {name: line[name] for name in ("key", "before", "after", "by", "version")} == {
        "key": "p005.jpg",
        "before": "wren",
        "after": "tit",
        "by": "Ole",
        "version": 3,
    }
    assert told["change"] == line["number"]
    versions = [
        line["version"] for line in client.get(CHANGES, params={"since": 0}).json()["changes"]
    ]
    assert versions == [2, 2, 2, 2, 3]
    assert client.get(CHANGES, params={"since": told["change"]}).json()["changes"] == []
    ahead = client.get(CHANGES, params={"since": told["change"] + 1})
    assert (ahead.status_code, ahead.json()["code"]) == (409, "snapshot_gone")


def waited(client, since, wait=20.0):
    """Ask for changes in a thread; the list gets the answer and how long it took."""
    found = []

    def ask():
        began = time.monotonic()
        told = client.get(CHANGES, params={"since": since, "wait": wait}).json()
        found.append((told, time.monotonic() - began))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, found


def test_who_waits_is_told_at_once(place, client):
    since = client.get(LABELS).json()["change"]
    waiting = [waited(client, since) for _ in range(50)]
    library = client.app.state.service.indexed.library
    while len(library._waiters) < 50:
        time.sleep(0.01)
    put(client, {"p005.jpg": "wren"})
    for thread, found in waiting:
        thread.join(10)
        told, seconds = found[0]
        assert [line["key"] for line in told["changes"]] == ["p005.jpg"]
        assert seconds < 5
    assert not library._waiters


def test_another_process_s_labels_are_told_within_two_seconds(place, client):
    since = client.get(LABELS).json()["change"]
    thread, found = waited(client, since)
    time.sleep(0.1)
    with SqliteIndex(place) as index:
        index.set_labels({"p008.jpg": "tit"}, by="cli")
    thread.join(10)
    told, seconds = found[0]
    assert [(line["key"], line["by"]) for line in told["changes"]] == [("p008.jpg", "cli")]
    assert seconds < 2.5


def test_nothing_happens_and_the_wait_ends(client):
    since = client.get(LABELS).json()["change"]
    thread, found = waited(client, since, wait=0.2)
    thread.join(10)
    told, seconds = found[0]
    assert told["changes"] == []
    assert 0.1 < seconds < 5


def test_a_service_that_stops_lets_nobody_wait(place):
    with serving(place) as client:
        since = client.get(LABELS).json()["change"]
        thread, found = waited(client, since)
        library = client.app.state.service.indexed.library
        while not library._waiters:
            time.sleep(0.01)
        client.app.state.service.stopping.set()
        thread.join(10)
        assert found[0][1] < 5


# -- any order of calls

keys = st.sampled_from([f"p{row:03}.jpg" for row in range(5)])
names = st.sampled_from(["wren", "robin", "größe \N{BIRD}", None])


class Clients(RuleBasedStateMachine):
    """Two clients that follow changes, a command line, and a dict of what must be there."""

    def __init__(self):
        super().__init__()
        self.place = self.root / str(id(self)) / str(time.monotonic_ns())
        make_index(self.place, 5)
        self.serving = serving(self.place)
        self.client = self.serving.__enter__()
        self.truth = {f"p{row:03}.jpg": (None, 1) for row in range(5)}
        self.lines = []
        self.seen = [dict(self.truth), dict(self.truth)]
        self.change = [0, 0]

    def teardown(self):
        self.serving.__exit__(None, None, None)

    def note(self, key, label):
        before, version = self.truth[key]
        if before != label:
            self.truth[key] = label, version + 1
            self.lines.append((key, before, label))

    @rule(who=st.integers(0, 1), labels=st.dictionaries(keys, names, min_size=1, max_size=3))
    def label(self, who, labels):
        expected = {key: self.seen[who][key][1] for key in labels}
        late = sorted(key for key in labels if self.truth[key] != self.seen[who][key])
        done = put(self.client, labels, expected)
        if late:
            assert done.status_code == 409
            told = done.json()["now"]
            assert sorted(told) == late
            assert {key: (n["label"], n["version"]) for key, n in told.items()} == {
                key: self.truth[key] for key in late
            }
            return
        assert done.status_code == 200
        assert done.json()["before"] == {key: self.truth[key][0] for key in labels}
        for key, label in labels.items():
            self.note(key, label)
            self.seen[who][key] = self.truth[key]
        assert done.json()["versions"] == {key: self.truth[key][1] for key in labels}

    @rule(who=st.integers(0, 1))
    def follow(self, who):
        self.client.app.state.service.indexed.library.look()
        told = self.client.get(CHANGES, params={"since": self.change[who]}).json()
        for line in told["changes"]:
            self.seen[who][line["key"]] = line["after"], line["version"]
        self.change[who] = told["change"]
        assert self.seen[who] == self.truth

    @rule(key=keys, label=names)
    def command_line(self, key, label):
        with SqliteIndex(self.place) as index:
            index.set_labels({key: label}, by="cli")
        self.note(key, label)

    @rule(old=st.sampled_from(["wren", "robin"]), new=st.sampled_from(["tit", "robin"]))
    def rename(self, old, new):
        having = [key for key, (label, _) in self.truth.items() if label == old]
        done = self.client.post(f"{LABELS}/rename", json={"from": old, "to": new})
        assert done.status_code == (200 if having else 404)
        for key in having:
            self.note(key, new)

    @invariant()
    def nothing_is_lost(self):
        with SqliteIndex(self.place) as index:
            assert {i.key: (i.label, i.version) for i in index.items()} == self.truth
            assert [(c.key, c.before, c.after) for c in index.history()] == self.lines


def test_any_order_of_calls(tmp_path):
    Clients.root = tmp_path
    run_state_machine_as_test(
        Clients,
        settings=settings(
            max_examples=5,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
