import pytest
import torch

from fieldmark.backbones import watched as watching
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.watched import feeding, last_feeding, stage_cells, watched
from fieldmark.errors import InputError


def build(name, size=64):
    return Backbone.build(BackboneConfig(name=name, weights="random"), size=size).eval()


@pytest.mark.parametrize(
    ("name", "stages"), [("test_resnet", (0, 2, -1)), ("test_efficientnet", (1, 4))]
)
def test_stages_are_those_that_can_be_asked_for(name, stages):
    backbone, images = build(name), torch.rand(2, 3, 64, 64)
    with watched(backbone, stages) as passes:
        backbone(images)
        features = backbone(images * 0.5)
    asked = backbone(images, stages=stages)
    assert len(passes) == 2
    for seen, expected in zip(passes[0].stages, asked.stages, strict=True):
        torch.testing.assert_close(seen, expected)
    assert torch.equal(passes[1].features.pooled, features.pooled)
    assert not torch.equal(passes[0].stages[0], passes[1].stages[0])
    backbone(images)
    assert len(passes) == 2  # nothing is recorded once the context is closed


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_derivatives_reach_what_was_seen(name):
    backbone, images = build(name), torch.rand(2, 3, 64, 64).requires_grad_()
    stages = (0, len(backbone.stage_dims) - 1)
    with watched(backbone, stages) as passes:
        total = backbone(images).pooled.square().sum()
    sources = [passes[0].images, *passes[0].stages]
    found = torch.autograd.grad(total, sources, allow_unused=True)
    assert all(gradient is not None for gradient in found)
    for stage, x in zip(stages, passes[0].stages, strict=True):
        cells = stage_cells(x, backbone, stage, passes[0].features)
        assert cells.shape[0] == 2
        assert cells.shape[3] == backbone.stage_dims[stage]
    h, w = passes[0].features.shape
    assert cells.shape[1:3] == (h, w)


@pytest.mark.parametrize(
    ("name", "feeds"),
    [
        ("test_resnet", (True, True, True)),
        ("test_vit", (False, False, True)),  # pools its class token
        ("test_vit3", (True, True, True)),  # pools all cells
    ],
)
def test_which_cells_the_feature_is_computed_from(name, feeds):
    backbone = build(name).train()
    before = {part: part.training for part in backbone.modules()}
    assert feeding(backbone, (None, -1, -2)) == feeds
    assert {part: part.training for part in backbone.modules()} == before
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_last_map_that_feeds_the_feature(monkeypatch):
    assert last_feeding(build("test_resnet")) is None
    vit = build("test_vit")
    assert last_feeding(vit) == -2
    monkeypatch.setattr(watching, "feeding", lambda backbone, stages: (False,) * len(stages))
    with pytest.raises(InputError, match="'test_vit' does not compute its feature from the cells"):
        last_feeding(vit)


def test_cells_keep_their_place():
    backbone = build("test_resnet")
    x = torch.rand(2, backbone.stage_dims[1], 16, 16)
    with watched(backbone) as passes:
        backbone(torch.rand(2, 3, 64, 64))
    cells = stage_cells(x, backbone, 1, passes[0].features)
    assert torch.equal(cells[1, 3, 5], x[1, :, 3, 5])


def test_a_stage_that_is_not_there_is_refused():
    backbone = build("test_resnet")
    with (
        pytest.raises(InputError, match=r"'test_resnet' has 5 stages.*asked for stage 7"),
        watched(backbone, (7,)),
    ):
        pass
