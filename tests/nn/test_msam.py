import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.errors import InputError
from fieldmark.nn.inference import Runner
from fieldmark.nn.msam import (
    MSAMBlock,
    MSAMPyramid,
    MSAMStem,
    ScaleWeights,
    insert_msam,
    scale_weights,
)
from fieldmark.nn.spec import EncoderSpec

FORMS = ["block", "pyramid", "stem"]


def build(name="test_resnet", form="none", size=64, **settings):
    torch.manual_seed(0)
    backbone = Backbone.build(BackboneConfig(name=name, weights="random"), size=size)
    insert_msam(backbone, form, **settings)
    return backbone


def opened(backbone, gamma=0.7):
    """As after training: gates open, statistics collected."""
    with torch.no_grad():
        for module in backbone.insertions.values():
            module.gamma.fill_(gamma)
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.uniform_(-0.1, 0.1)
                    layer.running_var.uniform_(0.5, 2)
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.uniform_(-0.1, 0.1)
    return backbone


def images(count=4, size=64, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def check_identity(name, form, size):
    plain, changed = build(name, size=size), build(name, form, size=size)
    x = images(2, size)
    for mode in (False, True):
        plain.train(mode)
        changed.train(mode)
        with torch.no_grad():
            torch.manual_seed(0)
            before = plain(x)
            torch.manual_seed(0)
            after = changed(x)
        for first, second in zip(before, after, strict=True):
            if isinstance(first, torch.Tensor):
                assert torch.equal(first, second)
    assert len(changed.insertions) == {"block": 3, "pyramid": 1, "stem": 1}[form]


@pytest.mark.parametrize(
    ("name", "form"),
    [("test_resnet", "block"), ("test_efficientnet", "pyramid"), ("test_convnext", "stem")],
)
def test_at_step_0_the_network_is_the_same_to_the_bit(name, form):
    check_identity(name, form, 32)


def test_at_step_0_a_transformer_with_blocks_is_the_same_to_the_bit():
    check_identity("test_vit", "block", 32)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "mobilenetv2_100",
        "convnext_tiny",
        "vit_tiny_patch16_224",
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "test_vit",
    ],
)
def test_at_step_0_large_networks_are_the_same_to_the_bit(name, form):
    check_identity(name, form, 96)


def plain_weights(weights, maps):
    """``alpha_i = softmax_i(w2_i . ReLU(W1 GAP(F_i) + b))``, one number at a time."""
    first, bias = weights.first.weight.tolist(), weights.first.bias.tolist()
    second = weights.second.tolist()
    result = []
    for image in range(len(maps[0])):
        scores = []
        for scale, item in enumerate(maps):
            _, channels, rows, columns = item.shape
            pooled = [
                sum(item[image, c].flatten().tolist()) / (rows * columns) for c in range(channels)
            ]
            hidden = [
                max(0.0, b + sum(w * p for w, p in zip(line, pooled, strict=True)))
                for line, b in zip(first, bias, strict=True)
            ]
            scores.append(
                [sum(w * h for w, h in zip(row, hidden, strict=True)) for row in second[scale]]
            )
        largest = [math.log(sum(math.exp(row[c]) for row in scores)) for c in range(len(scores[0]))]
        result.append([[math.exp(s - m) for s, m in zip(row, largest)] for row in scores])
    return torch.tensor(result, dtype=torch.float32).double()


@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_are_the_equation_and_a_distribution_over_scales(per_channel):
    torch.manual_seed(0)
    weights = ScaleWeights(4, 6, per_channel=per_channel).double()
    maps = [torch.randn(3, 6, 2, 3).double() for _ in range(4)]
    alpha = weights(maps)
    assert alpha.shape == (3, 4, 6 if per_channel else 1)
    assert alpha.min() >= 0
    torch.testing.assert_close(alpha.sum(1), torch.ones_like(alpha[:, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(alpha, plain_weights(weights, maps), atol=1e-6, rtol=0)


@pytest.mark.parametrize("per_channel", [False, True])
def test_block_is_the_equation(per_channel):
    torch.manual_seed(0)
    block = MSAMBlock(8, per_channel=per_channel).double().eval()
    with torch.no_grad():
        block.gamma.fill_(0.3)
    x = torch.randn(2, 8, 5, 5).double()
    reduced = block.reduce(x)
    maps = [branch(reduced) for branch in block.branches]
    alpha = block.weights(maps)
    fused = torch.zeros_like(reduced)
    for image in range(2):
        for channel in range(reduced.shape[1]):
            for scale in range(4):
                weight = alpha[image, scale, channel if per_channel else 0]
                fused[image, channel] += weight * maps[scale][image, channel]
    expected = x + 0.3 * block.norm(block.expand(fused))
    torch.testing.assert_close(block(x), expected, atol=1e-9, rtol=0)


def test_branches_see_1_3_5_and_7_cells():
    block = MSAMBlock(8).eval()
    for branch, side in zip(block.branches, (1, 3, 5, 7), strict=True):
        x = torch.zeros(1, 4, 11, 11, requires_grad=True)
        branch[0](x)[0, :, 5, 5].sum().backward()
        rows, columns = torch.nonzero(x.grad.abs().sum((0, 1)), as_tuple=True)
        assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (
            side,
            side,
        )


def test_pyramid_adds_what_stages_hold_to_map_and_pooled_feature():
    backbone = opened(build(form="pyramid")).eval()
    module = backbone.insertions["features"]
    plain = build().eval()
    with torch.no_grad():
        before, after = plain(images(), stages=module.stages), backbone(images())
        maps = []
        for lateral, stage in zip(module.laterals, before.stages, strict=True):
            conv, norm, act = lateral
            wide = conv(stage)
            # The order of the reconstruction: one width first, then averaged.
            step = wide.shape[-1] // before.shape[0]
            small = wide.unflatten(3, (-1, step)).mean(4).unflatten(2, (-1, step)).mean(3)
            maps.append(act(norm(small)))
        alpha = module.weights(maps)
        fused = sum(alpha[:, i, :, None, None] * item for i, item in enumerate(maps))
        added = 0.7 * module.expand(fused)
    torch.testing.assert_close(after.tokens, before.tokens + added.flatten(2).mT)
    # The network's pooled feature is the average of its map, and so is the new one.
    torch.testing.assert_close(after.pooled, after.tokens.mean(1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(after.pooled, before.pooled)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_each_image_can_be_looked_at_and_nothing_changes(form):
    backbone = opened(build(form=form)).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    modes = [part.training for part in backbone.modules()]
    alpha = scale_weights(backbone, images(5))
    assert set(alpha) == set(backbone.insertions)
    for value in alpha.values():
        assert value.shape == (5, 4)
        assert value.min() >= 0
        torch.testing.assert_close(value.sum(1), torch.ones(5))
        # Per image, not one for all.
        assert value.std(0).max() > 0
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])
    assert [part.training for part in backbone.modules()] == modes
    assert not any(part._forward_hooks for part in backbone.insertions.modules())
    assert scale_weights(build(), images()) == {}


def test_weights_per_channel_are_averaged_for_looking():
    alpha = scale_weights(build(form="block", per_channel=True), images(3))
    assert [value.shape for value in alpha.values()] == [(3, 4)] * 3


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("test_resnet", "block"),
        pytest.param("test_efficientnet", "pyramid", marks=slow),
        pytest.param("test_convnext", "block", marks=slow),
        pytest.param("test_convnext", "pyramid", marks=slow),
        pytest.param("test_convnext", "stem", marks=slow),
        pytest.param("test_efficientnet", "block", marks=slow),
        pytest.param("test_resnet", "stem", marks=slow),
        pytest.param("test_vit", "block", marks=slow),
        pytest.param("mobilenetv2_100", "block", marks=slow),
        pytest.param("resnet50", "block", marks=slow),
    ],
)
def test_artifact_embeds_the_same_as_the_network_in_training(name, form, tmp_path):
    """Described, rebuilt, folded, fused: the same embeddings with gates open."""
    backbone = opened(build(name, form, size=32)).eval()
    spec = EncoderSpec(backbone)
    again = EncoderSpec.rebuild(json.loads(json.dumps(spec.describe())))
    again.load_state_dict(spec.state_dict())
    x = images(8, 32)
    with torch.no_grad():
        expected = spec(x)
        assert torch.equal(again.eval()(x), expected)
        closed = EncoderSpec(build(name, size=32).eval())(x)
    assert not torch.allclose(closed, expected, atol=1e-3), "the modules change nothing here"
    encoder = Encoder(spec, device="cpu")
    encoder.save(tmp_path / "encoder")
    loaded = Encoder.load(tmp_path / "encoder", device="cpu")
    assert loaded.identity == encoder.identity
    readme = (tmp_path / "encoder" / "README.md").read_text()
    assert all(f"| inserted at {place} | msam_{form} |" in readme for place in backbone.insertions)
    photos = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    assert np.array_equal(loaded.embed(photos), encoder.embed(photos))
    for precision in ("fp32", "bf16", "auto"):
        runner = Runner(spec, torch.device("cpu"), precision)
        result = runner(x)
        tolerance = 1e-5 if runner.precision == "fp32" else 2e-3
        assert (result * expected).sum(1).min() > 1 - tolerance, runner.precision
        fast = runner._accelerate(x, "fp32")
        torch.testing.assert_close(fast(x), expected, atol=1e-5, rtol=0)
        assert not any(
            isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None
            for layer in fast.backbone.insertions.modules()
        ), "batch-norm of inserted modules was not folded"


@pytest.mark.parametrize("stage", [0, pytest.param(1, marks=slow), pytest.param(-1, marks=slow)])
def test_a_module_after_a_layer_that_is_fused_away_stays(stage):
    """ResNet's stage 0 ends in an activation, which fusing replaces."""
    spec = EncoderSpec(opened(build(form="block", stages=(stage,))).eval())
    runner = Runner(spec, torch.device("cpu"), "fp32")
    x = images(8)
    with torch.no_grad():
        fast = runner._accelerate(x, "fp32")
        torch.testing.assert_close(fast(x), spec(x), atol=1e-5, rtol=0)
        assert not torch.allclose(spec(x), EncoderSpec(build().eval())(x), atol=1e-3)


def test_an_encoder_without_modules_is_described_as_before():
    assert "insertions" not in EncoderSpec(build()).describe()
    data = EncoderSpec(build(form="stem")).describe()
    data["insertions"]["image"]["kind"] = "other"
    with pytest.raises(InputError, match="unknown to this version: other"):
        EncoderSpec.rebuild(data)


@pytest.mark.parametrize(
    "module",
    [
        MSAMBlock(12, width=5, per_channel=True),
        MSAMStem(width=6),
        MSAMPyramid((0, -1), (4, 8), 8, width=3),
    ],
)
def test_settings_rebuild_the_module(module):
    again = type(module)(**json.loads(json.dumps(module.describe())))
    again.load_state_dict(module.state_dict())
    assert again.describe() == module.describe()


def test_which_stages():
    assert list(build(form="block").insertions) == ["stage1", "stage2", "stage3"]
    assert list(build(form="block", stages=(-1, 2)).insertions) == ["stage2", "stage4"]
    assert build(form="pyramid").insertions["features"].stages == (1, 2, 3, 4)
    with pytest.raises(InputError, match=r"has 5 stages, -5 to 4; asked for \[7\]"):
        build(form="block", stages=(7,))
    blind = build()
    blind.stage_dims = ()
    for form in ("block", "pyramid"):
        with pytest.raises(InputError, match=r"'test_resnet' has no stages.*resnet50"):
            insert_msam(blind, form)
    insert_msam(blind, "stem")
    wide = build("mobilenetv3_small_050")
    with pytest.raises(InputError, match="use the form 'block'"):
        insert_msam(wide, "pyramid")
