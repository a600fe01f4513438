"""Many callers, one network."""

import threading

import numpy as np
import pytest

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
