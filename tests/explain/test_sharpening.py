import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from planted import CELL, GRID, noise, patches, put, stamp

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.explain.faithfulness import blurred
from fieldmark.explain.sharpening import sharpening_maps
from fieldmark.nn.spec import EncoderSpec, PostConfig, freeze
from tiny import TinyBackbone


@pytest.fixture(scope="module")
def spec():
    return patches()


class Strided(TinyBackbone):
    """Strides that pad on one side only, as TensorFlow's do: cells lie half a cell off."""

    def __init__(self, dim=16):
        super().__init__(dim)
        torch.manual_seed(5)
        layers = []
        for before in (3, dim, dim):
            layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(before, dim, 3, 2), nn.GELU()]
        self.network = nn.Sequential(*layers)
        self.size = CELL * GRID

    def forward(self, images, *, stages=(), attention=(), keep=None, mask=None, mask_token=None):
        from fieldmark.types import Features

        x = self.network((images - 0.5) / 0.25)
        tokens = x.flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, (x.shape[2], x.shape[3]), last=x)


def test_what_places_bring_is_what_the_photo_has_gained_over_its_blurred_forms(spec):
    images = put(noise(3), stamp(11), 2, 4)
    directions = spec(images[[1, 2, 0]])
    found = sharpening_maps(spec, images, directions, points=24)
    soft = [(spec(blurred(images, side)) * directions).sum(1) for side in (4, 8)]
    gained = (spec(images) * directions).sum(1) - (soft[0] + soft[1]) / 2
    torch.testing.assert_close(found.gained, gained)
    # The mirrored looks of an encoder that is not symmetric gain something else.
    mirrored = [(spec(blurred(images, side).flip(3)) * directions).sum(1) for side in (4, 8)]
    turned = (spec(images.flip(3)) * directions).sum(1) - (mirrored[0] + mirrored[1]) / 2
    sums = found.maps.sum((1, 2))
    torch.testing.assert_close(sums, (gained + turned) / 2, atol=0.01, rtol=0.02)


@pytest.mark.parametrize("make", [patches, lambda: freeze(EncoderSpec(Strided(), PostConfig()))])
def test_the_strongest_place_is_where_the_part_is(make):
    spec = make()
    images = noise(4, seed=3)
    spots = [(0, 0), (5, 5), (1, 4), (3, 2)]
    for image, spot in zip(images, spots):
        put(image, stamp(7), *spot)
    directions = spec(images) - spec(noise(4, seed=3))
    maps = sharpening_maps(spec, images, directions).maps
    for found, (row, column) in zip(maps.flatten(1).argmax(1).tolist(), spots):
        at = [(place + 0.5) / 16 * GRID for place in divmod(found, 16)]
        assert abs(at[0] - row - 0.5) <= 0.5
        assert abs(at[1] - column - 0.5) <= 0.5


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_every_network_has_maps_also_in_inference_mode(name):
    backbone = Backbone.build(BackboneConfig(name=name, weights="random"), size=64)
    spec = freeze(EncoderSpec(backbone, PostConfig()))
    with torch.inference_mode():
        images = noise(2, side=64)
        maps = sharpening_maps(spec, images, spec(images).flip(0), grid=8).maps
    assert maps.shape == (2, 8, 8)
    assert float(maps.abs().max()) > 0
    assert not maps.requires_grad
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_photos_do_not_depend_on_their_batch(spec):
    images = put(noise(20, seed=6), stamp(4), 1, 1)
    directions = spec(images).roll(1, 0)
    alone = sharpening_maps(spec, images[17:18], directions[17:18])
    together = sharpening_maps(spec, images, directions)
    torch.testing.assert_close(alone.maps[0], together.maps[17], atol=1e-6, rtol=1e-4)
