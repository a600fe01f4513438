"""The contract suite against methods and loops that are wrong on purpose: each must be caught."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import tiny
from fieldmark.methods.mocov2 import MoCoV2
from fieldmark.nn.momentum import follow
from fieldmark.training import checkpoint, loop

sys.path.insert(0, str(Path(__file__).parent))
import checks

pytestmark = pytest.mark.slow


class QueueInForward(MoCoV2):
    def forward(self, batch, progress):
        result = super().forward(batch, progress)
        self.queue.push(result.carry["keys"], result.carry["rows"])
        return result


class TeacherNotFrozen(MoCoV2):
    def __init__(self, config, backbone):
        super().__init__(config, backbone)
        self.teacher.requires_grad_(True)


class TeacherMovesInForward(MoCoV2):
    def forward(self, batch, progress):
        follow(self.teacher, self.backbone, 0.5)
        return super().forward(batch, progress)


class KeyFromStudent(MoCoV2):
    """The student's own view is its key: the two views are never compared."""

    def _contrast(self, queries, keys, same, step):
        return super()._contrast(queries, queries, same, step)


class StudentKeysQueued(MoCoV2):
    """Negatives come from the student itself: they move with it."""

    def forward(self, batch, progress):
        result = super().forward(batch, progress)
        with torch.no_grad():
            key = normalize(self.head(self.backbone(batch.views[0].images).pooled), dim=1)
        return result._replace(carry={**result.carry, "keys": key})


class NeverUsed(MoCoV2):
    def __init__(self, config, backbone):
        super().__init__(config, backbone)
        self.spare = torch.nn.Linear(2, 2)


class GateStaysShut(MoCoV2):
    """What would open the gate is cut off: the part behind it never learns."""

    def __init__(self, config, backbone):
        super().__init__(config, backbone)
        self.part = torch.nn.Linear(config.dim, config.dim)
        self.register_buffer("gate", torch.zeros(()))

    def _contrast(self, queries, keys, same, step):
        loss, key = super()._contrast(queries, keys, same, step)
        return loss + self.gate * self.part(key).mean(), key


class Detached(MoCoV2):
    """The backbone's features reach the loss without their gradient."""

    def _contrast(self, queries, keys, same, step):
        real = self.backbone.forward
        self.backbone.forward = lambda images: real(images)._replace(
            pooled=real(images).pooled.detach()
        )
        try:
            return super()._contrast(queries, keys, same, step)
        finally:
            self.backbone.forward = real


class CarryAttached(MoCoV2):
    def forward(self, batch, progress):
        result = super().forward(batch, progress)
        key = self.head(self.backbone(batch.views[1].images).pooled)
        return result._replace(carry={**result.carry, "keys": key})


class UnsavedPointer(MoCoV2):
    def __init__(self, config, backbone):
        super().__init__(config, backbone)
        pointer = self.queue.pointer
        del self.queue.pointer
        self.queue.register_buffer("pointer", pointer, persistent=False)


class CountsItself(MoCoV2):
    """A schedule of its own counter instead of progress."""

    count = 0

    def after_step(self, progress, carry):
        self.count += 1
        follow(self.teacher, self.backbone, 1 - 1 / (1 + self.count))
        self.queue.push(carry["keys"], carry["rows"])


def build(kind, **settings):
    return partial(tiny.method, "mocov2", kind=kind, **settings)


def caught(check, *arguments, **settings):
    # torch itself notices some of them.
    with pytest.raises((AssertionError, RuntimeError)):
        check(*arguments, **settings)


def test_queue_written_in_forward():
    caught(checks.purity, build(QueueInForward), "mocov2")


def test_teacher_moved_in_forward():
    caught(checks.purity, build(TeacherMovesInForward), "mocov2")


def test_views_never_compared():
    caught(checks.every_view_counts, build(KeyFromStudent), "mocov2")


@pytest.mark.parametrize("kind", [TeacherNotFrozen, NeverUsed, GateStaysShut, Detached])
def test_gradient_where_it_should_not_be_or_missing(kind):
    caught(checks.gradient_flow, build(kind), "mocov2")


def test_carry_with_gradient():
    caught(checks.output, build(CarryAttached), "mocov2")


def test_queue_written_in_forward_breaks_accumulation(tmp_path):
    caught(checks.accumulation, build(QueueInForward), "mocov2", tmp_path)


def test_missing_division_by_accumulate(tmp_path, monkeypatch):
    real = loop._Run._backward

    def undivided(self, batch, progress, *, last):
        config = self.config
        self.config = config.model_copy(update={"accumulate": 1})
        try:
            return real(self, batch, progress, last=last)
        finally:
            self.config = config

    monkeypatch.setattr(loop._Run, "_backward", undivided)
    caught(checks.accumulation, build(MoCoV2), "mocov2", tmp_path)


def test_update_per_micro_batch(tmp_path, monkeypatch):
    real = loop._Run._backward

    def eager(self, batch, progress, *, last):
        output = real(self, batch, progress, last=last)
        if not last:
            self.method.after_step(progress, output.carry)
        return output

    monkeypatch.setattr(loop._Run, "_backward", eager)
    caught(checks.once_per_step, build(MoCoV2), "mocov2", tmp_path)


@pytest.mark.parametrize("kind", [UnsavedPointer, CountsItself])
def test_state_that_is_not_saved(tmp_path, kind):
    caught(checks.resume, build(kind), "mocov2", tmp_path)


def test_optimiser_that_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_optimizer_tensors", lambda optimizer: ({}, {}))
    caught(checks.resume, build(MoCoV2), "mocov2", tmp_path)


def test_off_by_one(tmp_path, monkeypatch):
    real = loop._Run._steps
    monkeypatch.setattr(
        loop._Run, "_steps", lambda self, done: real(self, done + 1 if done else done)
    )
    caught(checks.resume, build(MoCoV2), "mocov2", tmp_path)


@pytest.mark.parametrize(
    "build",
    [
        build(StudentKeysQueued, momentum=0.99),
        build(MoCoV2, momentum=0.9),
    ],
    ids=["student keys queued", "teacher too fast"],
)
def test_nothing_is_learnt(build):
    """All of these have a loss that looks well; only what the views find shows it."""
    caught(checks.overfit, build, steps=300)
