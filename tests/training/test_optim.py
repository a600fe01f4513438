import math

import pytest
import torch
from torch import nn

import tiny
from fieldmark.errors import ConfigError
from fieldmark.training.optim import LARS, build_optimizer, learning_rate, parameter_groups
from fieldmark.types import Progress


def test_bias_and_scale_do_not_decay_and_backbones_say_their_ratio():
    method = tiny.method("mocov2", head_bn=True)
    real = method.backbone.parameter_groups
    method.backbone.parameter_groups = lambda: [{**group, "lr_ratio": 0.1} for group in real()]
    groups = parameter_groups(method, tiny.train_config(weight_decay=0.3))
    names = {id(p): name for name, p in method.named_parameters()}
    found = {}
    for group in groups:
        for p in group["params"]:
            found[names[id(p)]] = (group["lr_ratio"], group["weight_decay"])
    assert found["backbone.network.0.weight"] == (0.1, 0.3)
    assert found["backbone.network.0.bias"] == (0.1, 0.0)
    assert found["head.layers.0.weight"] == (1.0, 0.3)
    assert found["head.layers.1.weight"] == (1.0, 0.0)
    assert set(found) == {name for name, p in method.named_parameters() if p.requires_grad}
    assert not any(name.startswith("teacher") for name in found)


def test_everything_decays_when_asked():
    config = tiny.train_config(weight_decay=0.3, decay_bias_and_norm=True)
    assert {g["weight_decay"] for g in parameter_groups(tiny.method("mocov2"), config)} == {0.3}


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="nothing trains"):
        parameter_groups(tiny.method("simclr").requires_grad_(False), tiny.train_config())


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam", "lars"])
def test_each_optimiser_steps(name):
    method = tiny.method("simclr")
    optimizer = build_optimizer(method, tiny.train_config(optimizer=name))
    before = tiny.state(method)
    method(tiny.source("simclr").batch(0), Progress(0, 1, 0.0)).loss.backward()
    optimizer.step()
    assert tiny.largest_difference(before, tiny.state(method)) > 0


def test_lars_is_the_papers_update():
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([2.0]))
    optimizer = LARS(
        [
            {"params": [weight], "weight_decay": 0.1, "adapt": True},
            {"params": [bias], "weight_decay": 0.0, "adapt": False},
        ],
        lr=0.5,
        momentum=0.9,
        trust=0.01,
    )
    w, m = [3.0, 4.0], [0.0, 0.0]
    for _ in range(3):
        weight.grad, bias.grad = torch.tensor([[1.0, -2.0]]), torch.tensor([1.0])
        optimizer.step()
        g = [1.0 + 0.1 * w[0], -2.0 + 0.1 * w[1]]
        ratio = 0.01 * math.hypot(*w) / math.hypot(*g)
        m = [0.9 * m[i] + ratio * g[i] for i in range(2)]
        w = [w[i] - 0.5 * m[i] for i in range(2)]
    assert weight[0].tolist() == pytest.approx(w)
    assert bias.item() == pytest.approx(2 - 0.5 * (1 + 1.9 + 2.71))


def test_lars_moves_weights_of_zero():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([weight], lr=1.0).step()
    assert weight.eq(-1).all()


def rate(step, **settings):
    config = tiny.train_config(epochs=10, lr=1.0, **settings)
    return learning_rate(config, Progress(step, 100, step / 10))


def test_rates_are_functions_of_progress():
    assert [rate(s) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert rate(100, final_lr_ratio=0.1) == pytest.approx(0.1)
    assert rate(73, schedule="constant") == 1
    step = {"schedule": "step", "milestones": (6.0, 8.0)}
    assert [rate(s, **step) for s in (59, 60, 80)] == pytest.approx([1, 0.1, 0.01])
    warm = {"warmup_epochs": 2.0}
    assert [rate(s, **warm) for s in (0, 10, 20, 60)] == pytest.approx([0, 0.5, 1, 0.5])
    assert rate(0, lr_scaling="linear", batch_size=128) == 0.5
    assert rate(0, lr_scaling="sqrt", batch_size=64) == 0.5
