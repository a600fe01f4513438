"""Folded frozen batch-norm: the same numbers and gradients, in fewer passes over the maps."""

import copy

import pytest
import timm
import torch
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.folding import FoldedConv, PassingNorm, fold_frozen


def build(name="mobilenetv2_035", **settings):
    config = BackboneConfig(name=name, weights="random", **settings)
    backbone = Backbone.build(config, size=64)
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.2)
    return backbone


def outcome(backbone, images):
    backbone.zero_grad()
    pooled = backbone(images).pooled
    pooled.square().sum().backward()
    return pooled.detach(), {n: p.grad.clone() for n, p in backbone.named_parameters()}


@pytest.mark.parametrize(
    "name", ["mobilenetv2_035", "resnet18", "tf_efficientnet_b0", "regnetx_002"]
)
def test_the_same_features_and_gradients(name):
    # In double precision: in single, rounding may carry a unit over a ReLU's corner, and its whole
    # gradient with it.
    torch.manual_seed(0)
    backbone = build(name).double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    backbone._to_fold = False
    expected, gradients = outcome(backbone, images)
    backbone._to_fold = True
    found, others = outcome(backbone, images)
    folded = sum(isinstance(m, PassingNorm) for m in backbone.modules())
    assert folded == sum(isinstance(m, FoldedConv) for m in backbone.modules())
    assert folded == sum(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert set(gradients) == set(others)
    for key, gradient in gradients.items():
        difference = (others[key] - gradient).norm()
        assert difference <= 1e-8 * gradient.norm() + 1e-10, key


def test_state_names_and_copies_stay(tmp_path):
    backbone = build()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    backbone(images)
    assert list(backbone.state_dict()) == list(before)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    torch.testing.assert_close(backbone.state_dict(), before)
    alone = build()
    alone.load_state_dict(twin.state_dict())
    alone._to_fold = False
    torch.testing.assert_close(twin(images).pooled, alone(images).pooled, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(twin(images).pooled, backbone(images).pooled)


def count_norms(monkeypatch):
    """How many batch-norm layers computed something themselves."""
    calls = []
    original = nn.functional.batch_norm
    monkeypatch.setattr(
        nn.functional, "batch_norm", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    return calls


def test_only_where_it_is_the_same(monkeypatch):
    backbone, images = build(), torch.rand(2, 3, 64, 64)
    backbone(images)
    calls = count_norms(monkeypatch)
    backbone(images)
    assert not calls
    with torch.no_grad():
        backbone(images)
    assert calls
    for context in (torch.autocast("cpu", torch.bfloat16),):
        calls.clear()
        with context:
            backbone(images)
        assert calls
    calls.clear()
    backbone.eval()(images)  # statistics stand still there too
    assert not calls


@pytest.mark.parametrize("policy", ["slow", "train"])
def test_statistics_that_move_are_never_folded(policy):
    backbone = build(normalization=policy)
    backbone(torch.rand(2, 3, 64, 64))
    assert not any(isinstance(m, FoldedConv) for m in backbone.modules())


def test_a_layer_that_runs_twice_is_left_alone():
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).eval()
    network = nn.ModuleList([conv, norm])
    x = torch.rand(1, 3, 4, 4)
    assert fold_frozen(network, lambda: norm(conv(conv(x)))) == 0
    assert fold_frozen(network, lambda: norm(conv(x))) == 1
    assert fold_frozen(network, lambda: norm(conv(x))) == 0


def test_networks_without_batch_norm_are_left_alone():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
    image = torch.rand(1, 3, 32, 32)
    assert fold_frozen(network, lambda: network.forward_features(image)) == 0
