"""What every method must do, as functions that fail; also run against faults on purpose."""

import contextlib
import copy

import torch
from torch.nn.functional import normalize

import tiny
from fieldmark.errors import ConfigError
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.loop import fit
from fieldmark.types import Batch, Progress, View

START = Progress(3, 10, 0.75)


def batch_norm_statistics(method):
    return {
        f"{name}.{key}"
        for name, module in method.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        for key in ("running_mean", "running_var", "num_batches_tracked")
    }


def output(build, name):
    """Scalar finite loss with gradient; parts and carry detached, carry by photo."""
    method, batch = build(), tiny.source(name).batch(0)
    result = method(batch, START)
    assert result.loss.shape == ()
    assert result.loss.requires_grad
    assert torch.isfinite(result.loss)
    for part in result.parts.values():
        assert part.shape == ()
    for value in [*result.parts.values(), *result.carry.values()]:
        assert not value.requires_grad
    for value in result.carry.values():
        assert len(value) == len(batch.rows)


def purity(build, name):
    """Two forward calls: same loss, and state_dict unchanged but for batch-norm statistics."""
    method, batch = build(), tiny.source(name).batch(0)
    with torch.no_grad():
        # A teacher that equals the student could follow it unseen.
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01)
    before = tiny.state(method)
    losses = []
    for _ in range(2):
        torch.manual_seed(batch.key)
        losses.append(method(batch, START).loss.item())
    after = tiny.state(method)
    free = batch_norm_statistics(method)
    assert losses[0] == losses[1]
    for key in before.keys() - free:
        assert torch.equal(before[key], after[key]), key


def every_view_counts(build, name):
    """The loss compares the views: each of them changes it."""
    source = tiny.source(name)
    # After a few steps, so that a queue holds keys.
    method, batch = build(), source.batch(0)
    for step in range(3):
        carry = method(source.batch(step), START).carry
        with torch.no_grad():
            method.after_step(START, carry)
    losses = [method(batch, START).loss.item()]
    for index, view in enumerate(batch.views):
        views = list(batch.views)
        views[index] = view._replace(images=view.images.roll(index + 1, 0))
        losses.append(method(batch._replace(views=tuple(views)), START).loss.item())
    assert len(set(losses)) == len(losses), losses


def gradient_flow(build, name):
    """Every trainable parameter gets a gradient, and no other one does."""
    method = build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # A gate that starts at 0 holds back the gradient of what is behind it, for one step. Away
        # from the start what gets none is cut off.
        for parameter in method.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(0.05 * noise)
    method(tiny.source(name).batch(0), START).loss.backward()
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 0, key
        else:
            assert parameter.grad is None, key
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    # What a teacher holds must not be trained by the optimiser.
    student = next(iter(method.exports().values()))
    others = [spec for key, spec in method.exports().items() if key != "student"]
    assert all(id(p) in trained for p in student.parameters())
    # (A readout may be shared: what is learnt on the student's map is read on the teacher's.)
    assert not any(id(p) in trained for spec in others for p in spec.backbone.parameters())


def once_per_step(build, name, run):
    """after_step runs once per optimiser step, with the carry of the whole batch in its order."""
    method, seen = build(), []
    real = method.after_step

    def counted(progress, carry):
        seen.append((progress.step, {key: value.clone() for key, value in carry.items()}))
        real(progress, carry)

    method.after_step = counted
    source = tiny.source(name)
    config = tiny.train_config(epochs=1, accumulate=2, allow_coupled_accumulation=True)
    fit(method, source, config, run)
    assert [step for step, _ in seen] == list(range(source.steps_per_epoch))
    for step, carry in seen:
        if "rows" in carry:
            assert torch.equal(carry["rows"], source.batch(step).rows)


def accumulation(build, name, run):
    """Accumulating 1, 2 or 4 times gives equal weights; refused where it would not."""
    if build().batch_coupled:
        refused = False
        try:
            fit(build(), tiny.source(name), tiny.train_config(accumulate=2), run)
        except ConfigError as error:
            refused = "accumulate" in str(error)
        assert refused
        return
    results = []
    for count in (1, 2, 4):
        method = build()
        fit(method, tiny.source(name), tiny.train_config(accumulate=count), run / str(count))
        results.append(tiny.state(method))
    for other in results[1:]:
        assert tiny.largest_difference(results[0], other) < 2e-6


def resume(build, name, run):
    """Stopped after 3 of 6 steps and started again with another seed: equal to the bit."""
    source = tiny.source(name, batch_size=8, photos=24)
    whole = build()
    fit(whole, source, tiny.train_config(epochs=2), run / "whole")

    first = build()
    real, steps = first.before_step, []

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 3:
            raise Stop
        real(progress)
        steps.append(progress.step)

    first.before_step = stop
    config = tiny.train_config(epochs=2, checkpoint_seconds=0)
    with contextlib.suppress(Stop):
        fit(first, source, config, run / "parts")
    assert steps == [0, 1, 2]
    torch.manual_seed(12345)
    second = build(seed=7)
    result = fit(second, source, config, run / "parts")
    assert result.resumed_from == 3
    assert tiny.largest_difference(tiny.state(whole), tiny.state(second)) == 0
    logs = [(run / part / "metrics.jsonl").read_bytes() for part in ("whole", "parts")]
    assert logs[0] == logs[1]


def pairs(noise=0.15, seed=0, count=16):
    """Two noisy looks at each of a few random images: half of them are confused at the start."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, tiny.SIZE, tiny.SIZE, generator=generator)
    rows = torch.arange(count)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, 4)
    flipped = torch.zeros(count, dtype=torch.bool)
    looks = [clean + noise * torch.randn(clean.shape, generator=generator) for _ in range(2)]
    return Batch(tuple(View(look, rows, boxes, flipped) for look in looks), rows, 1)


def overfit(build, *, steps=200, lr=0.05, seed=0):
    """One batch, many steps: views find each other, and features still vary.

    The loss is not looked at: MoCo's rises while it learns.
    """
    method, batch = build(seed=seed), pairs(seed=seed)
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=0.9)
    for step in range(steps):
        progress = Progress(step, steps, float(step))
        torch.manual_seed(batch.key)
        result = method(batch, progress)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        method.after_step(progress, result.carry)
    recall, spread = agreement(method, batch)
    # One of 16 may stay confused: features are compared before the head, where no loss looks.
    assert recall > 0.9, (recall, spread)
    assert spread > 0.1, (recall, spread)


@torch.no_grad()
def agreement(method, batch):
    """Recall@1 between two views, and feature spread (1 when even), of the student's feature.

    Without an inserted readout: weights over four cells say little.
    """
    student = copy.deepcopy(EncoderSpec(method.exports()["student"].backbone)).eval()
    first, second = (normalize(student(view.images)) for view in batch.views[:2])
    found = (first @ second.T).argmax(1) == torch.arange(len(first))
    spread = first.std(0, correction=0).mean() * first.shape[1] ** 0.5
    return float(found.float().mean()), float(spread)
