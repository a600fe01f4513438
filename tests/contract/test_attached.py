"""Methods that add losses to another one keep the contract on every base and in every form."""

import sys
from functools import partial
from pathlib import Path

import pytest

import tiny

sys.path.insert(0, str(Path(__file__).parent))
import checks


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return tiny.text_teacher(tmp_path_factory.mktemp("teacher"))


# (mocov2 in the default form: test_method.py)
CASES = {
    "lcr on mocov3": ("lcr", "mocov3", {}),
    "lcr on simclr": ("lcr", "simclr", {}),
    "lcr as released": ("lcr", "mocov2", {"faithful": True}),
    "ppssl on mocov3": ("ppssl", "mocov3", {}),
    "ppssl on simclr": ("ppssl", "simclr", {}),
    "both parts on mocov2": ("ppssl", "mocov2", {"texts": True}),
    "both parts on mocov3": ("ppssl", "mocov3", {"texts": True}),
    "both parts on simclr": ("ppssl", "simclr", {"texts": True}),
    "texts alone": ("ppssl", "mocov2", {"texts": True, "iadm": "none"}),
    "ppssl as released": ("ppssl", "mocov2", {"texts": True, "iadm": "faithful"}),
    "map as released": ("ppssl", "mocov2", {"iadm": "faithful"}),
    "second order": ("ppssl", "mocov2", {"iadm": "second_order"}),
}


@pytest.fixture(params=list(CASES))
def case(request, texts):
    name, base, settings = CASES[request.param]
    if settings.get("texts"):
        settings = {**settings, **texts}
    return partial(tiny.method, name, base=base, **settings), base


def test_output(case):
    checks.output(*case)


def test_forward_reads_only(case):
    checks.purity(*case)


@pytest.mark.slow
def test_every_view_counts(case):
    checks.every_view_counts(*case)


def test_gradients_reach_what_trains_and_nothing_else(case):
    checks.gradient_flow(*case)


@pytest.mark.slow
def test_after_step_once_per_step(case, tmp_path):
    checks.once_per_step(*case, tmp_path)


@pytest.mark.slow
def test_resume_is_exact(case, tmp_path):
    checks.resume(*case, tmp_path)
