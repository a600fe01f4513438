import fcntl
import subprocess
import sys
import threading
import time

import pytest

from fieldmark.errors import OutputError
from fieldmark.training.lock import hold_run, is_held

HOLD = """
import sys
from pathlib import Path
from fieldmark.training.lock import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        words = rf"process {child.pid}, started .*another --out"
        with pytest.raises(OutputError, match=words), hold_run(tmp_path):
            pass
        child.kill()
    # The lock goes with its process, however that ended.
    with hold_run(tmp_path):
        pass


def test_nests_within_a_process(tmp_path):
    with hold_run(tmp_path), hold_run(tmp_path):
        pass
    with hold_run(tmp_path):
        pass


def test_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), hold_run(tmp_path):
        raise RuntimeError
    with hold_run(tmp_path):
        pass


def test_whether_a_run_is_held_is_told_without_holding_it(tmp_path):
    assert not is_held(tmp_path)
    with hold_run(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_run_held_by_another_process_is_held_until_that_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        child.kill()
    assert not is_held(tmp_path)


def test_somebody_who_only_looks_does_not_keep_a_run_from_starting(tmp_path):
    with hold_run(tmp_path):
        pass
    file = (tmp_path / "run.lock").open("rb")
    fcntl.flock(file, fcntl.LOCK_SH)

    def leave():
        time.sleep(0.03)
        file.close()

    thread = threading.Thread(target=leave)
    thread.start()
    with hold_run(tmp_path):
        pass
    thread.join()
