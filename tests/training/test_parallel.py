"""Two processes compute what one does (reliability R2), and the test notices when they do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import children
import tiny
from fieldmark.methods import METHODS
from fieldmark.training import checkpoint
from fieldmark.training.log import read_metrics
from fieldmark.training.loop import fit

pytestmark = pytest.mark.slow


def together(out, epochs, fault="none", lr=0.02):
    rendezvous = f"file://{out / 'rendezvous'}"
    processes = [
        children.start(
            children.train_together,
            out / f"said-{rank}",
            str(out),
            rendezvous,
            rank,
            2,
            epochs,
            fault,
            lr,
        )
        for rank in range(2)
    ]
    # Each trains every method in turn.
    codes = [children.finish(process, 90 * len(METHODS)) for process in processes]
    assert codes == [0, 0], [(out / f"said-{rank}").read_text() for rank in range(2)]


def alone(name, out, epochs, lr=0.02):
    config = tiny.train_config(epochs=epochs, lr=lr)
    fit(tiny.exact_method(name), tiny.source(name), config, out)


def difference(first, second):
    """Largest relative difference of losses, and largest difference of states."""
    losses = [[line["loss"] for line in read_metrics(run, "train")] for run in (first, second)]
    assert len(losses[0]) == len(losses[1]) > 0
    relative = max(abs(a - b) / abs(a) for a, b in zip(*losses))
    newest = [checkpoint.available(run / "checkpoints")[-1] for run in (first, second)]
    return relative, tiny.largest_difference(
        *(load_file(path / "model.safetensors") for path in newest)
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    out = tmp_path_factory.mktemp("pair")
    together(out, epochs=3)
    return out


@pytest.mark.parametrize("name", list(METHODS))
def test_two_processes_equal_one(name, pair, tmp_path):
    alone(name, tmp_path, 3)
    loss, state = difference(tmp_path, pair / name)
    assert loss < 1e-6  # the log keeps single precision
    assert state < 1e-9


def test_two_processes_that_accumulate_equal_one_that_does_not(pair, tmp_path):
    alone("mocov2", tmp_path, 3)
    loss, state = difference(tmp_path, pair / "accumulated")
    assert loss < 1e-6
    assert state < 1e-9


def test_only_the_first_process_writes(pair):
    lines = read_metrics(pair / "mocov2", "train")
    assert [line["step"] for line in lines] == list(range(1, 13))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("queue not gathered", "mocov2"),
        ("gradients not averaged", "mocov2"),
        ("keys not gathered", "simclr"),
        ("statistics not synchronised", "mocov3"),
    ],
)
def test_faults_are_noticed(fault, name, tmp_path):
    """A run that differs on purpose must differ."""
    try:
        together(tmp_path, 3, fault)
    except AssertionError:
        return  # it did not even run, which is notice enough
    alone(name, tmp_path / "alone", 3)
    loss, state = difference(tmp_path / "alone", tmp_path / name)
    assert max(loss, state) > 1e-3


def test_three_hundred_steps_stay_together(tmp_path):
    # At ten times this rate SimCLR on eight photos a batch is chaotic: the last bit of a float64
    # grows to a percent within these steps.
    together(tmp_path, 75, lr=0.002)
    for name in METHODS:
        alone(name, tmp_path / "alone" / name, 75, lr=0.002)
        loss, _ = difference(tmp_path / "alone" / name, tmp_path / name)
        assert loss < 1e-3, name


def test_torchrun_with_its_defaults(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
        str(Path(children.__file__)), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    alone("mocov2", tmp_path / "alone", 3)
    loss, state = difference(tmp_path / "alone", tmp_path / "mocov2")
    assert loss < 1e-6
    assert state < 1e-9
