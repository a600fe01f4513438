import json
import logging
import os
import signal
import time

import pytest
import torch

import tiny
from fieldmark.errors import CollapseError, ConfigError, Interrupted, NonFiniteError, OutputError
from fieldmark.methods.mocov2 import MoCoV2
from fieldmark.training import checkpoint, precision
from fieldmark.training.health import MEASURES, HealthProbe
from fieldmark.training.log import Observer, read_metrics
from fieldmark.training.loop import fit, trial
from fieldmark.types import Progress


class Watcher(Observer):
    def __init__(self):
        self.plans, self.steps, self.looks, self.saves, self.notes = [], [], [], [], []
        self.prepared = []

    def begin(self, plan):
        self.plans.append(plan)

    def preparing(self, what, done, total):
        self.prepared.append((what, done, total))

    def step(self, report):
        self.steps.append(report)

    def health(self, epoch, measures):
        self.looks.append(epoch)

    def saved(self, path):
        self.saves.append(path.name)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, "fieldmark")


def look(method):
    return HealthProbe.build(
        method.exports()["student"],
        tiny.ArrayStore(32),
        range(32),
        tiny.views("mocov2"),
        size=tiny.SIZE,
        photos=16,
    )


def test_a_run_from_beginning_to_end(tmp_path):
    method, watcher = tiny.method("mocov2"), Watcher()
    result = fit(
        method,
        tiny.source(),
        tiny.train_config(epochs=2),
        tmp_path,
        observer=watcher,
        health=look(method),
    )
    assert (result.step, result.epochs, result.resumed_from) == (8, 2.0, 0)
    assert (result.precision, result.notes) == ("fp32", [])
    assert watcher.looks == [0.0, 1.0, 2.0]
    assert [report.step for report in watcher.steps] == list(range(1, 9))
    assert watcher.steps[-1].eta_seconds == 0
    assert watcher.steps[-1].images_per_second > 0
    assert watcher.saves == ["step-00000008"]
    assert watcher.plans[0].total == 8
    lines = read_metrics(tmp_path)
    assert [line["kind"] for line in lines] == ["health", *["train"] * 4, "health"] + [
        "train"
    ] * 4 + ["health"]
    assert {"loss", "lr", "grad_norm", "step", "epoch"} <= lines[1].keys()
    assert lines[1]["lr"] == 0.05
    assert set(MEASURES) <= lines[-1].keys()
    assert len(result.health) == 3
    assert checkpoint.last_healthy(tmp_path / "checkpoints").name == "step-00000008"
    assert "images_per_second" not in (tmp_path / "metrics.jsonl").read_text()


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    logs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(
            tiny.method("mocov2"),
            tiny.source(seed=seed),
            tiny.train_config(seed=seed),
            tmp_path / name,
        )
        logs.append((tmp_path / name / "metrics.jsonl").read_bytes())
    assert logs[0] == logs[1] != logs[2]


def test_a_finished_run_goes_on_when_asked_for_more(tmp_path):
    method = tiny.method("mocov2")
    fit(method, tiny.source(), tiny.train_config(epochs=1), tmp_path)
    again = fit(tiny.method("mocov2", seed=3), tiny.source(), tiny.train_config(epochs=1), tmp_path)
    assert (again.step, again.resumed_from) == (4, 4)
    assert "ask for more epochs" in again.notes[0]
    more = fit(tiny.method("mocov2", seed=3), tiny.source(), tiny.train_config(epochs=3), tmp_path)
    assert (more.step, more.resumed_from) == (12, 4)
    assert "epochs changed from 1 to 3" in more.notes[0]
    rates = [line["lr"] for line in read_metrics(tmp_path, "train")]
    assert rates[4] > rates[3]  # as the note says


def test_other_settings_and_photos_are_refused_unless_allowed(tmp_path):
    photos = {"photos": {"count": 32, "fingerprint": "a"}}
    fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(), tmp_path, identity=photos)
    other = tiny.train_config(lr=0.01, epochs=3)
    with pytest.raises(OutputError, match=r"train\.lr was 0\.05, is 0\.01.*another --out"):
        fit(tiny.method("mocov2"), tiny.source(), other, tmp_path, identity=photos)
    more = {"photos": {"count": 40, "fingerprint": "b"}}
    arguments = (tiny.source(photos=40), tiny.train_config(epochs=3), tmp_path)
    with pytest.raises(OutputError, match=r"32 photos and are 40 now: an epoch has 5 steps"):
        fit(tiny.method("mocov2"), *arguments, identity=more)
    result = fit(tiny.method("mocov2"), *arguments, identity=more, allow_changed=True)
    assert (result.step, result.resumed_from) == (15, 8)
    assert any("goes on with changed settings" in note for note in result.notes)


def test_another_method_is_refused_before_its_weights_are_tried(tmp_path):
    fit(
        tiny.method("mocov2"),
        tiny.source(),
        tiny.train_config(),
        tmp_path,
        identity={"m": "mocov2"},
    )
    with pytest.raises(OutputError, match='m was "mocov2", is "simclr"'):
        fit(
            tiny.method("simclr"),
            tiny.source(),
            tiny.train_config(),
            tmp_path,
            identity={"m": "simclr"},
        )


def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path):
    fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(checkpoint_seconds=0), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    newest = tmp_path / "checkpoints" / "step-00000008" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    method = tiny.method("mocov2", seed=5)
    result = fit(method, tiny.source(), tiny.train_config(checkpoint_seconds=0), tmp_path)
    assert result.resumed_from == 7
    assert "step-00000008 is damaged" in result.notes[0]
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


class Bad(MoCoV2):
    """Gives NaN from the sixth step on: in the loss, or only in a gradient."""

    where = "loss"

    def forward(self, batch, progress):
        result = super().forward(batch, progress)
        if progress.step < 5:
            return result
        if self.where == "loss":
            return result._replace(loss=result.loss * float("nan"))
        loss = result.loss
        loss.register_hook(lambda grad: grad * float("inf"))
        return result._replace(loss=loss * 1.0)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_before_the_step_and_names_the_photos(tmp_path, where, monkeypatch):
    monkeypatch.setattr(Bad, "where", where)
    method = tiny.method("mocov2", kind=Bad)
    source = tiny.source()
    config = tiny.train_config(checkpoint_seconds=0)
    with pytest.raises(
        NonFiniteError, match=r"before step 6.*healthy is .*step-00000004"
    ) as caught:
        fit(method, source, config, tmp_path, health=look(method))
    assert sorted(caught.value.rows) == sorted(source.batch(5).rows.tolist())
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())
    kept = [path.name for path in checkpoint.available(tmp_path / "checkpoints")]
    assert kept == ["step-00000004", "step-00000005"]
    assert len(read_metrics(tmp_path, "train")) == 5


class Collapsing(MoCoV2):
    def after_step(self, progress, carry):
        super().after_step(progress, carry)
        if progress.step >= 5:
            with torch.no_grad():
                self.backbone.network[-1].weight.zero_()


def test_collapse_stops_the_run_and_keeps_the_healthy_checkpoint(tmp_path):
    method = tiny.method("mocov2", kind=Collapsing)
    config = tiny.train_config(epochs=4, checkpoint_seconds=0)
    with pytest.raises(CollapseError, match="step-00000004"):
        fit(method, tiny.source(), config, tmp_path, health=look(method))
    kept = checkpoint.last_healthy(tmp_path / "checkpoints")
    again = tiny.method("mocov2")
    checkpoint.load_weights(kept, again)
    assert again.backbone.network[-1].weight.abs().max() > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 16}, "the source makes batches of 8"),
        ({"accumulate": 3}, "cannot be cut into 3 equal parts"),
    ],
)
def test_contradictions_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(**settings), tmp_path)
    assert not any(tmp_path.iterdir())


def test_clipping_limits_the_step(tmp_path):
    first, second = tiny.method("mocov2"), tiny.method("mocov2")
    start = tiny.state(first)
    config = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "lr": 1.0}
    source = tiny.source(batch_size=32)
    fit(first, source, tiny.train_config(**config, batch_size=32), tmp_path / "a")
    fit(second, source, tiny.train_config(**config, batch_size=32, clip_norm=0.01), tmp_path / "b")

    def moved(method):
        now = method.state_dict()
        names = [name for name, p in method.named_parameters() if p.requires_grad]
        return sum(float((now[n] - start[n]).square().sum()) for n in names) ** 0.5

    assert moved(first) > 0.02
    assert moved(second) == pytest.approx(0.01, rel=1e-3)
    assert read_metrics(tmp_path / "b", "train")[0]["grad_norm"] > 0.02  # logged before clipping


def test_arithmetic_is_measured_once_and_kept(tmp_path, monkeypatch):
    calls = []
    real = precision._time

    def slow_float(method, batch, name, device):
        calls.append(name)
        return real(method, batch, name, device) * 0 + {"fp32": 2.0, "bf16": 1.0}[name]

    monkeypatch.setattr(precision, "_time", slow_float)
    config = {"precision": "auto", "epochs": 1}
    first = fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(**config), tmp_path)
    assert (first.precision, calls) == ("bf16", ["fp32", "bf16"])
    monkeypatch.setattr(precision, "_time", lambda *a: pytest.fail("measured again"))
    config["epochs"] = 2
    second = fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(**config), tmp_path)
    assert second.precision == "bf16"
    assert (
        json.loads((tmp_path / "training.json").read_text())["began"]["precision_seconds"]["fp32"]
        == 2.0
    )


def test_measuring_leaves_no_trace():
    method = tiny.method("mocov2", batch_norm=True)
    before = tiny.state(method)
    choice, seconds = precision.decide("auto", method, tiny.source().batch(0), torch.device("cpu"))
    assert choice in {"fp32", "bf16"}
    assert set(seconds) == {"fp32", "bf16"}
    assert tiny.largest_difference(before, tiny.state(method)) == 0
    assert all(p.grad is None for p in method.parameters())


def test_bfloat16_trains_with_float32_weights(tmp_path):
    method = tiny.method("mocov2")
    result = fit(method, tiny.source(), tiny.train_config(precision="bf16"), tmp_path)
    assert result.precision == "bf16"
    assert all(p.dtype == torch.float32 for p in method.parameters())


def test_trial_tells_photos_per_second():
    tried = trial(tiny.method("mocov2"), tiny.source(), tiny.train_config(), seconds=0.05)
    assert tried.images_per_second > 0


def test_a_trial_prepares_as_training_does_and_times_it(monkeypatch):
    method, source = tiny.method("house"), tiny.source("house")
    slow = type(method).start_epoch

    def start_epoch(self, progress, photos):
        time.sleep(0.2)
        slow(self, progress, photos)

    monkeypatch.setattr(type(method), "start_epoch", start_epoch)
    tried = trial(method, source, tiny.train_config(), seconds=0.05)
    assert len(method.bank) == len(source.rows)
    assert tried.preparation_seconds > 0.2


def test_tensorboard_is_written_where_installed(tmp_path):
    pytest.importorskip("tensorboard")
    fit(
        tiny.method("mocov2"),
        tiny.source(),
        tiny.train_config(tensorboard=True, epochs=1),
        tmp_path,
    )
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_an_unfinished_last_line_is_cut_off(tmp_path):
    fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(epochs=1), tmp_path)
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()
    path.write_bytes(before + b'{"kind": "train", "st')
    assert len(read_metrics(tmp_path)) == 4
    fit(tiny.method("mocov2"), tiny.source(), tiny.train_config(epochs=1), tmp_path)
    assert path.read_bytes() == before


def test_progress_is_a_share():
    assert Progress(5, 10, 0.5).fraction == 0.5


def test_a_long_preparation_says_how_far_it_is(tmp_path):
    watcher, config = Watcher(), tiny.train_config(epochs=2)
    fit(tiny.method("house"), tiny.source("house", photos=80), config, tmp_path, observer=watcher)
    expected = [("asking the teacher", done, 80) for done in (0, 32, 64, 80)]
    assert watcher.prepared == expected  # once, not once an epoch
    assert watcher.steps


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_preparation_stops_when_asked_and_begins_anew(tmp_path, number, code):
    class Impatient(Watcher):
        def preparing(self, what, done, total):
            super().preparing(what, done, total)
            if done == 32:
                os.kill(os.getpid(), number)

    def run(folder, watcher):
        source = tiny.source("house", photos=80)
        fit(tiny.method("house"), source, tiny.train_config(), folder, observer=watcher)
        return (folder / "metrics.jsonl").read_bytes()

    stopped = Impatient()
    with pytest.raises(Interrupted, match=r"asking the teacher \((32|64) of 80 .*anew") as told:
        run(tmp_path / "run", stopped)
    assert told.value.exit_code == code
    assert not stopped.steps
    assert len(stopped.prepared) <= 3
    whole, again = Watcher(), Watcher()
    assert run(tmp_path / "run", again) == run(tmp_path / "whole", whole)
    assert again.prepared == whole.prepared
