"""The whole command, killed, run by several processes, out of room: what users really do to it."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from fieldmark.workflows.run import RunFolder

pytestmark = pytest.mark.slow

SETTINGS = ("--recipe", "smoke", "--set", "train.tensorboard=false", "--set", "train.epochs=4")
LOG = "metrics.jsonl"


def command(sample, out, *more):
    return [
        "-m", "fieldmark", "train", str(sample.photos), "--probe", str(sample.probe),
        "--out", str(out), "--json", *SETTINGS, *more,
    ]  # fmt: skip


def run(words, *, seconds=None, before=None):
    """Exit code, standard output, standard error; killed after ``seconds``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds or 280)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return process.returncode, out, err


def weights(folder):
    names = ("start", "student", "teacher")
    return {
        name: (folder / "encoders" / name / "encoder.safetensors").read_bytes() for name in names
    }


@pytest.fixture(scope="module")
def undisturbed(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    code, said, err = run(command(sample, out))
    assert code == 0, err
    return out, json.loads(said.splitlines()[-1])


def test_killed_again_and_again_it_ends_where_it_would_have(undisturbed, sample, tmp_path):
    expected, result = undisturbed
    out, kills, code = tmp_path / "run", 0, -signal.SIGKILL
    seconds = 2.0
    while code == -signal.SIGKILL:
        code, said, err = run(command(sample, out), seconds=seconds)
        kills += code == -signal.SIGKILL
        seconds += 0.7
        assert kills < 60, "it never ends"
    assert code == 0, err
    assert kills > 2
    assert weights(out) == weights(expected)
    assert (out / LOG).read_bytes() == (expected / LOG).read_bytes()
    again = json.loads(said.splitlines()[-1])
    for key in ("verdict", "start", "trained", "gain", "interval", "shipped"):
        assert again[key] == result[key], key


def test_two_processes_do_the_main_job(sample, tmp_path):
    launcher = (
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        *command(sample, tmp_path / "r"),
    )
    code, said, err = run(launcher)
    assert code == 0, err
    result = json.loads(said.splitlines()[-1])
    assert result["verdict"] in {"helped", "hurt", "no difference shown"}
    assert err.count("start: test_resnet") == 1  # one voice
    assert RunFolder(tmp_path / "r").result.is_file()


def test_two_processes_agree_on_which_variants_are_done(sample, tmp_path):
    """The second study's first variant is the run that has just ended: nobody may run ahead."""
    sets = ("backbone.name=test_resnet", "backbone.weights=random", "size=32", "method.hidden=16")
    sets += ("train.epochs=1", "train.batch_size=16", "train.tensorboard=false")
    words = ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "fieldmark", "ablate"]
    words += ["lodisc", str(sample.photos), "--probe", str(sample.probe)]
    words += ["--out", str(tmp_path / "a"), "--study", "branches", "--study", "selection", "--json"]
    code, said, err = run([*words, *(word for each in sets for word in ("--set", each))])
    assert code == 0, err
    rows = json.loads(said.splitlines()[-1])["rows"]
    assert [row["variant"] for row in rows] == [
        "global", "local", "both", "attention", "random", "inverse",
    ]  # fmt: skip
    assert rows[3]["same_as"] == "branches, both"


def test_without_room_it_says_so_and_goes_on_when_there_is(undisturbed, sample, tmp_path):
    """No file may grow beyond a limit: the store and the log fit, a checkpoint does not."""
    expected, _ = undisturbed
    out = tmp_path / "run"

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    code, _, err = run(command(sample, out), before=small_files)
    assert code == 1, err
    assert "Traceback" not in err
    assert "fieldmark:" in err
    code, _, err = run(command(sample, out))
    assert code == 0, err
    assert weights(out) == weights(expected)
