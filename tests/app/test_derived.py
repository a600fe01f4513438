"""Answers that take long: computed once, kept, given up, and made anew where a file is damaged."""

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shelf import until

from fieldmark.app import derived as module
from fieldmark.app.derived import Derived, Made, Working
from fieldmark.app.problems import HttpProblem
from fieldmark.errors import InputError

KIND = Made("thing", 1, dump=bytes, load=bytes)


class Work:
    """Computes, and counts how often."""

    def __init__(self, value=b"value", error=None):
        self.go, self.begun = threading.Event(), threading.Event()
        self.count, self.value, self.error = 0, value, error

    def __call__(self, report):
        self.count += 1
        self.begun.set()
        report("working", 1, 3)
        assert self.go.wait(10)
        report("working", 3, 3)
        if self.error is not None:
            raise self.error
        return self.value


@pytest.fixture
def now():
    return ["one"]


@pytest.fixture
def derived(tmp_path, now, monkeypatch):
    monkeypatch.setattr(module, "_SLOW_SECONDS", -1.0)
    made = Derived(tmp_path, lambda: now[0])
    yield made
    made.close()


def finished(derived, kind, work, snapshot="one", **more):
    work.go.set()
    return until(
        lambda: (
            None
            if isinstance(found := derived.ask(kind, snapshot, work, **more), Working)
            else found
        )
    )


def test_many_who_ask_share_one_computation(derived):
    work = Work()
    told = derived.ask(KIND, "one", work)
    assert isinstance(told, Working)
    assert work.begun.wait(10)
    told = until(lambda: (t := derived.ask(KIND, "one", work)).total and t)
    assert (told.what, told.done, told.total) == ("working", 1, 3)
    assert finished(derived, KIND, work) == b"value"
    assert derived.ask(KIND, "one", work) == b"value"
    assert work.count == 1
    assert finished(derived, KIND, Work(b"other"), of={"count": 2}) == b"other"


def test_answers_outlive_the_service(tmp_path, derived, now):
    assert finished(derived, KIND, Work(b"kept")) == b"kept"
    again, work = Derived(tmp_path, lambda: now[0]), Work(b"anew")
    assert finished(again, KIND, work) == b"kept"
    assert work.count == 0
    assert finished(again, Made("thing", 2, dump=bytes, load=bytes), Work(b"newer")) == b"newer"
    now[0] = "two"
    assert finished(again, KIND, Work(b"other photos"), "two") == b"other photos"
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:-1] + b"X",
        lambda data: b"{}" + data[2:],
        lambda data: b"\xff" * len(data),
        lambda data: data.replace(b"|one|", b"|two|"),
    ],
)
def test_a_damaged_file_is_computed_anew(tmp_path, derived, now, damage):
    finished(derived, KIND, Work(b"kept"))
    (file,) = tmp_path.glob("thing-*")
    file.write_bytes(damage(file.read_bytes()))
    again = Derived(tmp_path, lambda: now[0])
    assert finished(again, KIND, Work(b"anew")) == b"anew"
    again.close()


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path, now, monkeypatch):
    monkeypatch.setattr(module, "_SLOW_SECONDS", -1.0)
    (tmp_path / "file").write_text("no folder")
    made = Derived(tmp_path / "file" / "cache", lambda: now[0])
    assert finished(made, KIND, Work()) == b"value"
    made.close()


def test_of_photos_that_are_no_more_nothing_is_computed(derived, now):
    work = Work()
    derived.ask(KIND, "one", work)
    assert work.begun.wait(10)
    now[0] = "two"
    work.go.set()

    def gone():
        try:
            derived.ask(KIND, "one", work)
        except HttpProblem as problem:
            return problem.problem.code
        return None

    assert until(gone) == "snapshot_gone"
    assert finished(derived, KIND, Work(b"two"), "two") == b"two"
    derived.forget_others()
    assert derived.peek(KIND, "two") == b"two"


@pytest.mark.parametrize(
    ("error", "code"), [(InputError("too many."), "bad_input"), (ZeroDivisionError(), "failed")]
)
def test_what_fails_is_told_and_the_next_is_computed(derived, error, code):
    work = Work(error=error)
    work.go.set()
    with pytest.raises(HttpProblem) as told:
        until(lambda: isinstance(derived.ask(KIND, "one", work), bytes))
    assert told.value.problem.code == code
    with pytest.raises(HttpProblem):
        derived.ask(KIND, "one", work)
    assert work.count == 1
    assert finished(derived, KIND, Work(b"next"), of={"count": 3}) == b"next"


def test_the_queue_is_bounded_and_the_urgent_comes_first(derived, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    order, first = [], Work()
    derived.ask(KIND, "one", first)
    assert first.begun.wait(10)
    slow, quick = Made("slow", 1, urgency=9), Made("quick", 1, urgency=0)
    derived.ask(slow, "one", lambda report: order.append("slow"))
    derived.ask(quick, "one", lambda report: order.append("quick"))
    with pytest.raises(HttpProblem) as told:
        derived.ask(quick, "one", lambda report: None, of={"more": 1})
    assert (told.value.problem.status, told.value.problem.code) == (503, "busy")
    assert told.value.headers["Retry-After"]
    first.go.set()
    until(lambda: len(order) == 2)
    assert order == ["quick", "slow"]


def test_what_nobody_asks_for_any_more_makes_room(derived):
    impatient = Made("reasons", 1, patience_seconds=0.05)
    work, waiting = Work(), Work(b"never")
    derived.ask(impatient, "one", work)
    derived.ask(impatient, "one", waiting, of={"second": 1})
    assert work.begun.wait(10)
    until(lambda: derived._jobs and all(job.abandoned for job in derived._jobs.values()))
    work.go.set()
    assert finished(derived, KIND, Work(b"next")) == b"next"
    assert waiting.count == 0
    assert not derived._jobs
    # Whoever comes back is not told of a failure.
    assert finished(derived, impatient, Work(b"again")) == b"again"


def test_who_waits_is_not_forgotten(derived):
    impatient = Made("reasons", 1, patience_seconds=0.05)
    work, answers = Work(), []
    asking = threading.Thread(
        target=lambda: answers.append(derived.ask(impatient, "one", work, wait_seconds=10.0))
    )
    asking.start()
    assert work.begun.wait(10)
    time.sleep(0.1)
    work.go.set()
    asking.join(10)
    assert (answers, work.count) == ([b"value"], 1)
