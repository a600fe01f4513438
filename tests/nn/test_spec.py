import json

import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.errors import ConfigError, InputError
from fieldmark.nn.heads import MLPHead, PooledHead
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import fit_whitening


@pytest.fixture(scope="module")
def backbone():
    return Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64).eval()


def images(count=6, seed=0):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


FULL = PostConfig(pooling="gem", stages=(-2,), whiten_dim=3, flip=True)


def fitted(backbone):
    spec = EncoderSpec(backbone, FULL)
    with torch.no_grad():
        return spec.with_post(FULL, fit_whitening(spec.raw(images(12)), 3))


@torch.no_grad()
def test_embeddings_are_unit_vectors_of_the_announced_length(backbone):
    for spec in (EncoderSpec(backbone), fitted(backbone)):
        result = spec(images())
        assert result.shape == (6, spec.dim)
        torch.testing.assert_close(result.norm(dim=1), torch.ones(6))
    assert fitted(backbone).raw_dim == 96 + backbone.stage_dims[-2]


@torch.no_grad()
def test_flip_averaging_makes_mirrored_photos_equal(backbone):
    spec = EncoderSpec(backbone, PostConfig(flip=True))
    torch.testing.assert_close(spec(images().flip(3)), spec(images()))
    plain = EncoderSpec(backbone)
    assert not torch.allclose(plain(images().flip(3)), plain(images()), atol=1e-4)


@torch.no_grad()
def test_rebuilt_from_json_it_computes_the_same(backbone):
    spec = fitted(backbone)
    again = EncoderSpec.rebuild(json.loads(json.dumps(spec.describe())))
    again.load_state_dict(spec.state_dict())
    assert torch.equal(again.eval()(images()), spec(images()))
    assert again.describe() == spec.describe()


@torch.no_grad()
def test_heads_that_ship_are_rebuilt(backbone):
    head = MLPHead([backbone.dim, 8, backbone.dim], batch_norm=True)
    spec = EncoderSpec(backbone, inserted=PooledHead.inserted(head)).eval()
    expected = torch.nn.functional.normalize(head(backbone(images()).pooled))
    torch.testing.assert_close(spec(images()), expected)
    again = EncoderSpec.rebuild(json.loads(json.dumps(spec.describe())))
    again.load_state_dict(spec.state_dict())
    assert torch.equal(again.eval()(images()), spec(images()))


def test_no_path_of_this_machine_is_described(backbone):
    spec = EncoderSpec(backbone)
    config = backbone.config
    try:
        backbone.config = config.model_copy(update={"weights": "/home/me/w.safetensors"})
        assert "/home/me" not in json.dumps(spec.describe())
    finally:
        backbone.config = config


def test_unknown_parts_and_settings_are_refused(backbone):
    data = EncoderSpec(backbone).describe()
    with pytest.raises(InputError, match="unknown to this version: msam"):
        EncoderSpec.rebuild({**data, "inserted": {"msam": {}}})
    with pytest.raises(ConfigError, match="did you mean 'pooling'"):
        EncoderSpec.rebuild({**data, "post": {"poling": "gap"}})
