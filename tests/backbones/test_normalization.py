import copy

import pytest
import torch
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.normalization import batch_norms, statistics_held
from fieldmark.errors import InputError


def build(name="test_resnet", **settings):
    return Backbone.build(BackboneConfig(name=name, weights="random", **settings), size=64)


def statistics(backbone):
    return [
        torch.stack([n.running_mean, n.running_var]).clone() for n in batch_norms(backbone.network)
    ]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def images(seed=0, count=4):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_frozen_keeps_statistics_and_treats_each_photo_alone():
    backbone = build(normalization="frozen").train()
    before = statistics(backbone)
    together = backbone(images())
    assert equal(before, statistics(backbone))
    torch.testing.assert_close(backbone(images()[:1]).pooled, together.pooled[:1])
    assert backbone.training


def test_train_mode_uses_and_moves_batch_statistics():
    backbone = build(normalization="train").train()
    before = statistics(backbone)
    together = backbone(images())
    assert not equal(before, statistics(backbone))
    assert not torch.allclose(backbone(images()[:2]).pooled, together.pooled[:2], atol=1e-3)


def test_slow_normalises_with_running_statistics_and_moves_them_by_its_share():
    backbone = build(normalization="slow", slow_momentum=0.25).train()
    first = next(iter(batch_norms(backbone.network)))
    seen = []
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    before = first.running_mean.clone(), first.running_var.clone()
    backbone(images())
    x = seen[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(first.running_mean, 0.75 * before[0] + 0.25 * x.mean(1))
    torch.testing.assert_close(first.running_var, 0.75 * before[1] + 0.25 * x.var(1))
    kept = statistics(backbone)
    backbone.eval()(images(1))
    with torch.no_grad():
        backbone.train()(images(1))
    assert equal(kept, statistics(backbone)), "statistics moved outside training"


def test_slow_allows_several_forwards_before_one_backward():
    backbone = build(normalization="slow", slow_momentum=0.5).train()
    loss = backbone(images(0)).pooled.sum() + backbone(images(1)).pooled.sum()
    loss.backward()  # fails if a buffer that autograd kept was written in place

    # Each forward's gradient is that of a network frozen at the statistics it read.
    reference = build(normalization="slow", slow_momentum=0.5).train()
    total = None
    for seed in (0, 1):
        reference(images(seed))  # moves the statistics as above
        frozen = copy.deepcopy(reference).eval()
        frozen.zero_grad()
        frozen(images(seed)).pooled.sum().backward()
        gradient = frozen.network.layer4[0].conv1.weight.grad
        total = gradient if total is None else total + gradient
    assert backbone.network.layer4[0].conv1.weight.grad.shape == total.shape


def test_a_copied_network_moves_its_own_statistics():
    backbone = build(normalization="slow").train()
    twin = copy.deepcopy(backbone).train()
    before = statistics(backbone)
    twin(images())
    assert equal(before, statistics(backbone))
    assert not equal(before, statistics(twin))


def test_frozen_stages_keep_their_statistics_in_train_mode():
    backbone = build(normalization="train", train_from_stage=-1).train()
    before = {name: m.running_mean.clone() for name, m in named(backbone)}
    backbone(images())
    moved = {name for name, m in named(backbone) if not torch.equal(m.running_mean, before[name])}
    assert moved
    assert all(name.startswith("layer4") for name in moved)


def named(backbone):
    return [
        (name, module)
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_affine_parameters_can_be_frozen(name):
    backbone = build(name, norm_affine_trainable=False)
    frozen = [n for n, p in backbone.network.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("norm" in n or "bn" in n or "downsample" in n or "conv1" in n for n in frozen)
    assert all(p.requires_grad for p in build(name).parameters())


def test_networks_without_batch_norm_take_every_policy():
    for policy in ("frozen", "slow", "train"):
        backbone = build("test_vit", normalization=policy).train()
        backbone(images()).pooled.sum().backward()
    assert backbone.reestimate_statistics(iter([])) == 0


def test_reestimated_statistics_are_those_of_the_photos():
    backbone = build().train()
    first = next(iter(batch_norms(backbone.network)))
    seen = []
    hook = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    before = statistics(backbone)
    assert backbone.reestimate_statistics([images(0), images(1), images(2)]) == 3
    hook.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(first.running_mean, means)
    assert not equal(before, statistics(backbone))
    assert backbone.training
    assert first.momentum == 0.1
    with pytest.raises(InputError, match="at least one batch"):
        backbone.reestimate_statistics([])


def test_reestimating_with_nothing_keeps_what_was():
    backbone = build()
    before = statistics(backbone)
    with pytest.raises(InputError):
        backbone.reestimate_statistics([])
    assert equal(before, statistics(backbone))


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((), [1, 1, 1, 1, 1]), ((0.5,), [0.5] * 5), ((0.01, 1.0), [0.01, 0.0316, 0.1, 0.316, 1.0])],
)
def test_learning_rate_ratios_spread_over_the_stages(ratios, expected):
    groups = build(lr_ratios=ratios).parameter_groups()
    by_stage = {group["name"][5]: group["lr_ratio"] for group in groups}
    assert list(by_stage.values()) == pytest.approx(expected, rel=1e-2)


def test_impossible_stages_are_refused():
    with pytest.raises(InputError, match=r"train_from_stage.*\[-5, 4\].*got 5"):
        build(train_from_stage=5)
    with pytest.raises(InputError, match="lr_ratios has 6"):
        build(lr_ratios=(1,) * 6).parameter_groups()


@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_held_statistics_change_nothing_else(policy):
    backbone = build(normalization=policy).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with statistics_held(backbone), torch.no_grad():
        held = backbone(images()).pooled
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with torch.no_grad():
        torch.testing.assert_close(backbone(images()).pooled, held)
    assert equal(statistics(build(normalization=policy)), statistics(backbone)) == (
        policy == "frozen"
    )
