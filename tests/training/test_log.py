"""Logging to Weights & Biases, with its client in miniature."""

import sys
import types

import pytest

import tiny
from fieldmark.errors import ConfigError, MissingExtraError
from fieldmark.training.log import MetricsLog


class Refused(Exception):
    pass


@pytest.fixture
def client(monkeypatch):
    """A module ``wandb`` that remembers what it was asked for."""
    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace()
    module.errors = types.SimpleNamespace(Error=Refused)
    module.started, module.logged = [], []

    def init(**options):
        module.started.append(options)
        log = lambda values, step: module.logged.append((step, values))  # noqa: E731
        return types.SimpleNamespace(log=log, finish=lambda: None)

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def start(run, **options):
    run.mkdir(parents=True, exist_ok=True)
    return MetricsLog(run, 0, 0, tiny.train_config(wandb="birds", **options))


def test_a_run_goes_on_under_its_own_id(tmp_path, client):
    for run in (tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "a" / "run"):
        log = start(run)
        log.write(3, 0.5, {"loss": 1.5})
        log.close()
    first, other, again = (options["id"] for options in client.started)
    assert first == again != other
    assert all(options["resume"] == "allow" for options in client.started)
    assert client.logged[0] == (3, {"train/loss": 1.5})


def test_a_refusal_is_explained(tmp_path, client):
    def refuse(**options):
        raise Refused("No API key configured.")

    client.init = refuse
    with pytest.raises(ConfigError, match=r"No API key configured\. Run 'wandb login'"):
        start(tmp_path)


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"fieldmark\[wandb\]"):
        start(tmp_path)
