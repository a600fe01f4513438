import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [(32, 1.75, 64), (64, 2.0, 128), (64, 1.0, 64), (160, 1.75, 160)]
)
def test_a_longer_look_is_no_larger_than_the_network_was_made_for(size, scale, expected):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=size)
    assert backbone.network.pretrained_cfg["input_size"][-1] == 160
    assert backbone.larger_input(scale) == expected


def build(name, size, **arguments):
    config = BackboneConfig(name=name, weights="random", arguments=arguments)
    return Backbone.build(config, size=size)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("mobilenetv2_035", 128, 224),
        ("test_vit", 128, 160),
        ("vit_tiny_patch16_224", 128, 224),
    ],
)
def test_patches_of_16_px_grow_in_steps_of_32(name, size, expected):
    backbone = build(name, size)
    assert backbone.larger_input(1.75) == expected
    assert backbone(torch.zeros(1, 3, expected, expected)).pooled.shape == (1, backbone.dim)


def test_the_input_grows_by_whole_patches():
    backbone = build("vit_tiny_patch16_224", 70, patch_size=14)
    assert [backbone.larger_input(scale) for scale in (1.0, 1.5, 1.75)] == [70, 112, 126]


def test_the_input_grows_by_whole_windows():
    backbone = build("maxvit_rmlp_pico_rw_256", 128)
    assert backbone.larger_input(1.75) == 256


@pytest.mark.parametrize("name", ["convit_tiny", "gmixer_12_224"])
def test_networks_of_one_size_keep_it(name):
    backbone = build(name, 64)
    assert backbone.larger_input(1.75) == 64


def test_trying_a_size_leaves_no_trace():
    backbone = build("test_resnet", 32)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [part.training for part in backbone.modules()]
    assert backbone.larger_input(2.0) == 64
    assert modes == [part.training for part in backbone.modules()]
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
