"""Killed anywhere and run again: the same weights and log, to the bit (reliability R1, C1-C3)."""

import signal

import pytest
from safetensors.torch import load_file

import children
import tiny
from fieldmark.training import checkpoint

pytestmark = pytest.mark.slow


def run(folder, **settings):
    """Train in a process of its own; exit code and what it said."""
    said = folder.with_name(f"{folder.name}.said")
    process = children.start(
        children.train, said, str(folder), "mocov2", {"checkpoint_seconds": 0, **settings}
    )
    return children.finish(process), said


def outcome(folder):
    newest = checkpoint.available(folder / "checkpoints")[-1]
    weights = {name: load_file(newest / f"{name}.safetensors") for name in ("model", "optimizer")}
    return newest.name, weights, (folder / "metrics.jsonl").read_bytes()


def assert_same(first, second):
    assert first[0] == second[0]
    assert first[2] == second[2]
    for part in ("model", "optimizer"):
        assert tiny.largest_difference(first[1][part], second[1][part]) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, said = run(folder)
    assert code == 0, said.read_text()
    return outcome(folder)


# 13 places per save: the kill falls into the third save and between its writes.
FEW = [{"kill_at": 3}, {"kill_in": 32}, {"kill_in": 38}]
MANY = [{"kill_at": step} for step in range(8)] + [{"kill_in": n} for n in range(1, 80, 3)]


def killed_and_run_again(folder, settings, whole):
    code, said = run(folder, **settings)
    assert code == -signal.SIGKILL, said.read_text()
    for path in checkpoint.available(folder / "checkpoints"):
        checkpoint._verified(path)  # whatever has its final name is whole
    code, said = run(folder)
    assert code == 0, said.read_text()
    assert_same(outcome(folder), whole)
    left = [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("settings", FEW, ids=str)
def test_killed_and_run_again(tmp_path, whole, settings):
    killed_and_run_again(tmp_path / "run", settings, whole)


@pytest.mark.parametrize("settings", MANY, ids=str)
def test_killed_at_many_places(tmp_path, whole, settings):
    killed_and_run_again(tmp_path / "run", settings, whole)


def test_killed_again_and_again(tmp_path, whole):
    folder = tmp_path / "run"
    for step in range(7):
        assert run(folder, kill_at=step + 1)[0] == -signal.SIGKILL
    assert run(folder)[0] == 0
    assert_same(outcome(folder), whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_tell(tmp_path, whole, number, code):
    folder = tmp_path / "run"
    found, said = run(folder, signal_at=2, signal=int(number), checkpoint_seconds=3600)
    assert found == code
    # The signal comes at the end of the third step, so the fourth is the last.
    assert "stopped after step 4; everything is saved" in said.read_text()
    assert checkpoint.available(folder / "checkpoints")[-1].name == "step-00000004"
    assert run(folder)[0] == 0
    assert_same(outcome(folder), whole)
