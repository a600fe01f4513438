import pytest

from fieldmark.backbones.backbone import Backbone, BackboneConfig


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [(32, 1.75, 64), (64, 2.0, 128), (64, 1.0, 64), (160, 1.75, 160)]
)
def test_a_longer_look_is_no_larger_than_the_network_was_made_for(size, scale, expected):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=size)
    assert backbone.network.pretrained_cfg["input_size"][-1] == 160
    assert backbone.larger_input(scale) == expected
