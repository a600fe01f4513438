import copy

import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig


def trained(start):
    """The start, each weight and statistic moved by a number of its own."""
    network = copy.deepcopy(start)
    for place, value in enumerate(network.state_dict().values()):
        if value.is_floating_point():
            value += 0.01 * (place + 1)
        else:
            value += 5
    return network


def build():
    return Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)


@pytest.mark.parametrize("blend", [0.0, 0.3, 0.8, 1.0])
def test_every_weight_and_statistic_goes_back_by_its_share(blend):
    start = build()
    network = trained(start)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.blend_with(start, blend)
    for name, value in network.state_dict().items():
        there = start.state_dict()[name]
        if value.is_floating_point():
            expected = there.double() + blend * (before[name].double() - there.double())
            torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
        else:
            assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_start_is_not_changed_and_all_the_way_changes_nothing():
    start = build()
    kept = copy.deepcopy(start.state_dict())
    network = trained(start)
    before = copy.deepcopy(network.state_dict())
    network.blend_with(start, 1.0)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in start.state_dict().items():
        assert torch.equal(value, kept[name])


def test_what_was_inserted_has_no_start_and_stays():
    start = build()
    network = trained(start)
    network.insert("stage0", torch.nn.Conv2d(network.stage_dims[0], network.stage_dims[0], 1))
    inserted = copy.deepcopy(network.insertions.state_dict())
    network.blend_with(start, 0.0)
    for name, value in network.insertions.state_dict().items():
        assert torch.equal(value, inserted[name])
    own = network.network.state_dict()
    for name, value in start.network.state_dict().items():
        assert torch.equal(own[name], value) == value.is_floating_point()
