import math

import pytest
import torch

import tiny
from fieldmark.types import Progress

START = Progress(0, 10, 0.0)


def fitting(**settings):
    return tiny.fitting("mocov2", **settings)


def unit(x):
    return [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.tolist()]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def by_hand(method, batch, *, masked=False, swap=False):
    first, second = batch.views[::-1] if swap else batch.views
    with torch.no_grad():
        queries = unit(method.head(method.backbone(first.images).pooled))
        keys = unit(method.teacher_head(method.teacher(second.images).pooled))
    queue, temperature, total = method.queue.keys.tolist(), method.config.temperature, 0.0
    for i, query in enumerate(queries):
        negatives = [
            key
            for key, row in zip(queue, method.queue.rows.tolist())
            if not (masked and row == int(batch.rows[i]))
        ]
        positive = math.exp(dot(query, keys[i]) / temperature)
        others = sum(math.exp(dot(query, key) / temperature) for key in negatives)
        total -= math.log(positive / (positive + others))
    return total / len(queries), keys


def filled(method, batch):
    """A queue that holds old keys of the batch's own photos."""
    method.queue.push(
        torch.nn.functional.normalize(torch.randn(20, 16).double(), dim=1),
        batch.rows.repeat(3)[:20],
    )


@pytest.mark.parametrize("masked", [False, True])
def test_loss_is_the_papers_pseudo_code(masked):
    method, batch = fitting(mask_same_image=masked)
    filled(method, batch)
    expected, keys = by_hand(method, batch, masked=masked)
    result = method(batch, START)
    assert result.loss.item() == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(result.carry["keys"], torch.tensor(keys).double(), atol=1e-9)
    assert torch.equal(result.carry["rows"], batch.rows)


def test_masking_matters_here():
    method, batch = fitting()
    filled(method, batch)
    assert abs(by_hand(method, batch)[0] - by_hand(method, batch, masked=True)[0]) > 1e-3


def test_symmetric_averages_both_ways_and_queues_both_keys():
    method, batch = fitting(symmetric=True)
    there, _ = by_hand(method, batch)
    back, _ = by_hand(method, batch, swap=True)
    result = method(batch, START)
    assert result.loss.item() == pytest.approx((there + back) / 2, abs=1e-9)
    method.after_step(START, result.carry)
    assert method.queue.rows[:16].tolist() == batch.rows.repeat_interleave(2).tolist()
    assert int(method.queue.pointer) == 16


def test_teacher_and_queue_after_a_step():
    method, batch = fitting(momentum=0.9)
    with torch.no_grad():
        for parameter in [*method.backbone.parameters(), *method.head.parameters()]:
            parameter.add_(1.0)
    before = tiny.state(method.teacher)
    result = method(batch, START)
    method.after_step(START, result.carry)
    for name, value in method.teacher.state_dict().items():
        assert torch.allclose(value, before[name] + 0.1, atol=1e-9)
    assert torch.allclose(method.queue.keys[:8], result.carry["keys"])
    assert method.queue.rows[:8].tolist() == batch.rows.tolist()


def test_papers_defaults():
    config = type(tiny.config("mocov2"))()
    assert (config.dim, config.queue_size, config.temperature, config.momentum) == (
        128,
        65_536,
        0.2,
        0.999,
    )
    assert not (config.symmetric)
    assert not (config.head_bn)
    assert not (config.mask_same_image)
    spec = tiny.METHODS["mocov2"].views(config, 224).specs[0]
    assert (spec.scale, spec.jitter_probability, spec.gray, spec.blur, spec.flip) == (
        (0.2, 1.0),
        0.8,
        0.2,
        0.5,
        0.5,
    )
    assert (spec.brightness, spec.contrast, spec.saturation, spec.hue) == (0.4, 0.4, 0.4, 0.1)
