"""Cells of whole photos."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.nn.detail import MOST, Detail

sys.path.insert(0, str(Path(__file__).parents[1] / "explain"))
from planted import CELL, Patches, noise, stamp


@pytest.fixture(scope="module")
def resnet():
    return Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)


def test_photos_keep_their_proportions_as_far_as_the_steps_allow(resnet):
    detail = Detail(resnet)
    assert detail.side == 96
    shapes = {
        size: detail.frame(*size) for size in [(500, 500), (300, 600), (600, 300), (100, 900)]
    }
    assert shapes == {
        (500, 500): (96, 96),
        (300, 600): (64, 128),
        (600, 300): (128, 64),
        (100, 900): (64, 128),
    }
    every = [(y, x) for y in range(1, 10) for x in range(1, 10) if y * x <= 9]
    for height, width in ((333, 500), (480, 640), (700, 250), (500, 480)):
        ratio = np.log(height / width)
        loss = [abs(np.log(y / x) - ratio) + 0.5 * np.log(9 / (y * x)) for y, x in every]
        y, x = every[int(np.argmin(loss))]
        assert detail.frame(height, width) == (32 * y, 32 * x)
    for size in ((333, 500), (480, 640), (1, 5000)):
        height, width = detail.frame(*size)
        assert height * width <= 96**2
        assert detail.frame(*size[::-1]) == (width, height)


def test_a_network_of_one_shape_is_given_squares(resnet, monkeypatch):
    real = type(resnet).forward

    def square(self, images, **more):
        if images.shape[2] != images.shape[3]:
            raise AssertionError("one shape only")
        return real(self, images, **more)

    monkeypatch.setattr(type(resnet), "forward", square)
    detail = Detail(resnet)
    assert detail.frame(300, 600) == (96, 96)
    assert "pressed square" in detail.kind


def test_a_coarse_last_map_has_a_finer_one_beside_it(resnet):
    detail = Detail(resnet)
    images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    cells = detail(images)
    with torch.no_grad():
        features = resnet(images, stages=(detail.stage,))
    (early,) = features.stages
    assert resnet.stage_strides[detail.stage] == 16
    assert cells.shape == (2, 4, 8, detail.dim)
    split = resnet.token_dim
    torch.testing.assert_close(cells[..., :split].norm(dim=3), torch.ones(2, 4, 8))
    wanted = functional.normalize(early, dim=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(cells[..., split:], wanted)
    # The middle of each coarse cell is what the last map says there, no place is shifted.
    coarse = features.tokens.unflatten(1, features.shape).permute(0, 3, 1, 2)
    near = functional.interpolate(coarse, (4, 8), mode="bilinear")
    near = functional.normalize(near, dim=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(cells[..., :split], near)


def test_each_cell_is_of_its_own_place():
    detail = Detail(Patches())
    image = noise(1, side=64)
    moved = image.clone()
    moved[:, :, 3 * CELL : 4 * CELL, 5 * CELL : 6 * CELL] = stamp(1)
    changed = (detail(image) - detail(moved)).abs().sum(3)[0] > 1e-6
    assert changed.nonzero().tolist() == [[3, 5]]
    assert detail.stage is None


def test_finer_grids_are_averaged_down():
    detail = Detail(Patches())
    cells = detail(torch.rand(1, 3, 160, 80, generator=torch.Generator().manual_seed(0)))
    assert cells.shape[1] * cells.shape[2] <= MOST
    assert cells.shape[1:3] == (19, 9)


def test_a_whole_photo_is_looked_at(resnet):
    detail = Detail(resnet)
    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, :100] = 255
    seen = detail.look(pixels)
    assert seen.shape == (64, 128, 3)
    assert seen[:, :31].min() == 255
    assert seen[:, 33:].max() == 0
