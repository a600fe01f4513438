"""What every network must do; the slow run goes over many more kinds of timm network."""

import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.errors import InputError

TINY = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_vit3"]
MANY = [
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "densenet121",
    "vgg11",
    "regnety_002",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "eva02_tiny_patch14_224",
    "mixer_s16_224",
    "volo_d1_224",
    "levit_128",
    "coat_tiny",
    "crossvit_tiny_240",
    "hiera_tiny_224",
    "twins_pcpvt_small",
]


def build(name, size=64, **settings):
    return Backbone.build(BackboneConfig(name=name, weights="random", **settings), size=size)


def check_shapes(backbone, size):
    backbone.eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        features = backbone(images)
        output = backbone.network((images - backbone.mean) / backbone.std)
    h, w = features.shape
    assert features.pooled.shape == (2, backbone.dim)
    assert features.tokens.shape == (2, h * w, backbone.token_dim)
    assert torch.isfinite(features.tokens).all()
    # The network's own output without a classifier is its pooled feature.
    torch.testing.assert_close(features.pooled, output)


def check_stages(backbone, size):
    backbone.eval()
    count = len(backbone.stage_dims)
    assert count >= 2
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        features = backbone(images, stages=(-1, 0))
        plain = backbone(images)
    assert [stage.shape[1] for stage in features.stages] == [
        backbone.stage_dims[-1],
        backbone.stage_dims[0],
    ]
    for stage, stride in zip(
        features.stages, (backbone.stage_strides[-1], backbone.stage_strides[0]), strict=True
    ):
        assert stage.shape[-1] == size // stride
    torch.testing.assert_close(features.pooled, plain.pooled)
    torch.testing.assert_close(features.tokens, plain.tokens)


@pytest.mark.parametrize("name", TINY)
def test_features(name):
    backbone = build(name)
    check_shapes(backbone, 64)
    check_stages(backbone, 64)
    with pytest.raises(InputError, match="stages"):
        backbone(torch.rand(1, 3, 64, 64), stages=(99,))


@pytest.mark.parametrize("name", TINY)
def test_tokens_are_row_major_and_without_class_token(name):
    backbone = build(name).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = backbone(images)
        x = (images - backbone.mean) / backbone.std
        raw = backbone.network.forward_features(x)
    h, w = features.shape
    for row, column in [(0, 0), (0, w - 1), (h - 1, 0)]:
        token = features.tokens[0, row * w + column]
        if raw.ndim == 4:
            assert torch.equal(token, raw[0, :, row, column])
        else:
            prefix = backbone.network.num_prefix_tokens
            assert torch.equal(token, raw[0, prefix + row * w + column])


@pytest.mark.parametrize("name", TINY)
def test_every_trainable_parameter_gets_a_gradient_and_is_in_one_group(name):
    backbone = build(name, train_from_stage=1, lr_ratios=(0.1, 1.0))
    backbone.train()
    features = backbone(torch.rand(2, 3, 64, 64))
    (features.pooled.square().sum() + features.tokens.square().sum()).backward()
    trainable = {id(p): n for n, p in backbone.named_parameters() if p.requires_grad}
    grouped = [id(p) for group in backbone.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(trainable)
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    frozen = [p for p in backbone.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None for p in frozen)
    ratios = [group["lr_ratio"] for group in backbone.parameter_groups()]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(1.0)


def test_weight_decay_spares_norms_biases_and_position():
    backbone = build("test_vit")
    names = {id(p): n for n, p in backbone.network.named_parameters()}
    groups = backbone.parameter_groups()
    spared = {names[id(p)] for g in groups if not g["decay"] for p in g["params"]}
    decayed = {names[id(p)] for g in groups if g["decay"] for p in g["params"]}
    assert "pos_embed" in spared
    assert "blocks.0.norm1.weight" in spared
    assert "blocks.0.attn.qkv.weight" in decayed


@pytest.mark.parametrize("name", TINY)
def test_random_weights_depend_on_the_seed_only(name):
    torch.manual_seed(1)
    first = build(name).state_dict()
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), expected), "building consumed the caller's randomness"
    second = build(name).state_dict()
    other = build(name, seed=1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", TINY)
def test_rebuild_and_load_gives_the_same_features(name):
    backbone = build(name, seed=3).eval()
    again = Backbone.rebuild(backbone.config, backbone.provenance, size=64)
    again.load_state_dict(backbone.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(images).pooled, backbone(images).pooled)


def test_input_is_normalised_inside():
    plain = build("test_resnet", mean=(0, 0, 0), std=(1, 1, 1)).eval()
    other = build("test_resnet", mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7)).eval()
    images = torch.rand(2, 3, 64, 64)
    mean = torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(other(images).pooled, plain((images - mean) / std).pooled)
        assert not torch.allclose(other(images).pooled, plain(images).pooled)


@pytest.mark.parametrize("size", [32, 96])
def test_transformers_take_other_sizes(size):
    backbone = build("test_vit", size=size).eval()
    assert backbone(torch.rand(1, 3, size, size)).shape == (size // 16, size // 16)


def test_impossible_sizes_are_refused_with_a_possible_one():
    with pytest.raises(InputError, match=r"100 px.*multiple of 16 such as 96"):
        build("test_vit", size=100)


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_many_kinds_of_network(name):
    patch14 = "14" in name
    size = 126 if patch14 else 224 if name in {"mixer_s16_224", "volo_d1_224", "levit_128"} else 128
    size = {"crossvit_tiny_240": 240, "hiera_tiny_224": 224}.get(name, size)
    backbone = build(name, size=size)
    check_shapes(backbone, size)
    if name != "crossvit_tiny_240":
        check_stages(backbone, size)
