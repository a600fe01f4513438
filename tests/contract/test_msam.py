"""MSAM-CL keeps the contract in every form and as printed (by default: test_method.py)."""

import sys
from functools import partial
from pathlib import Path

import pytest

import tiny

sys.path.insert(0, str(Path(__file__).parent))
import checks

CASES = {
    "pyramid": {"module": "pyramid"},
    "stem": {"module": "stem"},
    "in batch": {"negatives": "in_batch"},
    "symmetric": {"symmetric": True},
    "as printed": {"faithful": True},
}


@pytest.fixture(params=list(CASES))
def build(request):
    return partial(tiny.method, "msam", **CASES[request.param])


def test_output(build):
    checks.output(build, "msam")


def test_forward_reads_only(build):
    checks.purity(build, "msam")


def test_every_view_counts(build):
    checks.every_view_counts(build, "msam")


def test_gradients_reach_what_trains_and_nothing_else(build):
    checks.gradient_flow(build, "msam")


@pytest.mark.slow
def test_after_step_once_per_step(build, tmp_path):
    checks.once_per_step(build, "msam", tmp_path)


@pytest.mark.slow
def test_resume_is_exact(build, tmp_path):
    checks.resume(build, "msam", tmp_path)
