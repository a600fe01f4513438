"""Many callers, one network."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shelf import until

from fieldmark.app.batching import Batcher
from fieldmark.app.problems import HttpProblem
from fieldmark.errors import FieldmarkError


class Network:
    """Embeds a look as its first number; can be held up."""

    def __init__(self):
        self.sizes, self.go, self.began = [], threading.Event(), threading.Event()

    def __call__(self, looks):
        self.began.set()
        assert self.go.wait(30)
        self.sizes.append(len(looks))
        if any(look[0, 0, 0] == 13 for look in looks):
            raise RuntimeError("an unlucky photo")
        values = np.array([[look[0, 0, 0], 1] for look in looks], np.float32)
        values[values[:, 0] == 14] = np.nan
        return values


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def batcher(network):
    made = Batcher(network, largest=4, most=8)
    yield made
    network.go.set()
    made.close()


def look(value):
    return np.full((2, 2, 3), value, np.uint8)


def fill(batcher, network, values):
    """The first is in work, the others wait."""
    futures = [batcher.submit(look(values[0]))]
    assert network.began.wait(30)
    return futures + [batcher.submit(look(value)) for value in values[1:]]


def test_what_waits_goes_together_and_each_gets_its_own(batcher, network):
    futures = fill(batcher, network, range(8))
    network.go.set()
    assert [future.result(30)[0] for future in futures] == list(range(8))
    assert network.sizes == [1, 4, 3]


def test_only_the_photo_to_blame_fails(batcher, network):
    futures = fill(batcher, network, [1, 2, 13, 14, 5])
    network.go.set()
    told = [future.exception(30) for future in futures]
    assert [type(error) for error in told] == [
        type(None), type(None), FieldmarkError, FieldmarkError, type(None),
    ]  # fmt: skip
    assert "unlucky" not in str(told[2])
    assert futures[4].result()[0] == 5


def test_the_queue_is_bounded_and_who_gives_up_makes_room_in_the_batch(batcher, network):
    futures = fill(batcher, network, range(9))
    with pytest.raises(HttpProblem) as error:
        batcher.submit(look(1))
    assert error.value.problem.code == "busy"
    assert all(future.cancel() for future in futures[1:5])
    network.go.set()
    assert [future.result(30)[0] for future in futures[5:]] == [5, 6, 7, 8]
    assert sum(network.sizes) == 5


def test_other_work_runs_between_batches_and_its_error_is_its_own(batcher, network):
    futures = fill(batcher, network, [1, 2])
    work = batcher.call(lambda: 1 // 0)
    last = batcher.submit(look(3))
    network.go.set()
    assert isinstance(work.exception(30), ZeroDivisionError)
    assert last.result(30)[0] == 3
    assert futures[1].result(30)[0] == 2


def test_closing_cancels_what_waits(batcher, network):
    futures = fill(batcher, network, [1, 2, 3])
    network.go.set()
    batcher.close()
    assert futures[0].done()
    assert all(future.done() for future in futures)
    with pytest.raises(HttpProblem):
        batcher.submit(look(1))


def test_a_few_wait_for_company_while_another_batch_runs(network):
    begun = []

    def encode(looks):
        begun.append(len(looks))
        return network(looks)

    made = Batcher(encode, largest=8, threads=2, most=16)
    try:
        first = made.submit(look(0))
        assert network.began.wait(30)
        alone = made.submit(look(1))
        time.sleep(0.1)
        assert begun == [1]
        second = made.submit(look(2))
        until(lambda: begun == [1, 2])
        network.go.set()
        assert [each.result(30)[0] for each in (first, alone, second)] == [0, 1, 2]
    finally:
        network.go.set()
        made.close()


def test_who_waits_for_company_goes_when_the_other_batch_ends(network):
    made = Batcher(network, largest=8, threads=2, most=16)
    try:
        futures = fill(made, network, [0, 1])
        network.go.set()
        assert [each.result(30)[0] for each in futures] == [0, 1]
    finally:
        made.close()


def test_batches_take_no_longer_than_they_may(network):
    def slow(looks):
        began = time.thread_time()
        while time.thread_time() - began < 0.02 * len(looks):
            pass
        return network(looks)

    network.go.set()
    made = Batcher(slow, largest=32, seconds=0.12, most=64)
    try:
        made.submit(look(0)).result(30)
        for future in [made.submit(look(1)) for _ in range(20)]:
            future.result(30)
        assert 4 <= max(network.sizes) <= 6
    finally:
        made.close()
