import platform
import subprocess
import sys

import pytest
import torch

from fieldmark import runtime
from fieldmark.errors import InputError


def test_one_process_is_its_own_group(monkeypatch):
    for key in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(key, raising=False)
    assert not runtime.start_processes()
    assert (runtime.rank(), runtime.world_size()) == (0, 1)
    x = torch.arange(3.0)
    for function in (
        runtime.gather,
        runtime.gather_with_gradient,
        runtime.all_reduce,
        runtime.sum_with_gradient,
        runtime.broadcast,
    ):
        assert torch.equal(function(x), x)
    runtime.barrier()
    layer = torch.nn.Linear(1, 1)
    assert runtime.data_parallel(layer) is layer
    with runtime.no_gradient_averaging(layer):
        pass


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "8"}, None),
        (
            {
                "SLURM_PROCID": "2",
                "SLURM_NTASKS": "8",
                "SLURM_LOCALID": "2",
                "MASTER_ADDR": "n0",
            },
            (2, 8, 2),
        ),
    ],
)
def test_reads_torchrun_and_slurm(monkeypatch, environment, expected):
    monkeypatch.setattr(runtime.os, "environ", dict(environment))
    assert runtime._from_environment() == expected


def test_world_of_one_needs_no_group(monkeypatch):
    monkeypatch.setattr(runtime.os, "environ", {"RANK": "0", "WORLD_SIZE": "1"})
    assert not runtime.start_processes()


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match="device 'warp' cannot be used"):
        runtime.pick_device("warp")
    assert runtime.pick_device("cpu") == torch.device("cpu")


FAULTS = """
import resource
import torch
from fieldmark import runtime

torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.empty(16_000_000).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
assert runtime.tune_allocator()
faults()
faults()
print(plain, faults())
"""


@pytest.mark.skipif(
    platform.system() != "Linux" or not platform.libc_ver()[0].startswith("glibc"),
    reason="page faults of glibc's allocator",
)
def test_tuned_allocator_stops_page_faults():
    """Buffers of 64 MB go back to the kernel when freed, unless told otherwise from inside."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    plain, tuned = map(int, done.stdout.split())
    assert plain >= 8 * 16  # one fault for each 4 MB or less
    assert tuned * 10 < plain
