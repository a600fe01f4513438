"""An encoder whose every part is known: cells are patches of colour, the feature is their mean."""

import torch
from torch import nn

from fieldmark.nn.spec import EncoderSpec, PostConfig, freeze
from tiny import TinyBackbone

CELL, GRID = 8, 6


class Patches(TinyBackbone):
    """Each cell's feature is a random function of its own patch and of nothing else."""

    def __init__(self, dim=24):
        super().__init__(dim)
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Conv2d(3, 32, CELL, CELL), nn.GELU(), nn.Conv2d(32, dim, 1))
        for layer in (self.network[0], self.network[2]):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.size = CELL * GRID

    def forward(self, images, *, stages=(), attention=(), keep=None, mask=None, mask_token=None):
        from fieldmark.types import Features

        x = self.network((images - 0.5) / 0.25)
        tokens = x.flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, (x.shape[2], x.shape[3]), last=x)


def patches():
    return freeze(EncoderSpec(Patches(), PostConfig(crop=1.0)))


def noise(count, seed=0, side=CELL * GRID):
    """Photos of quiet grain, the same at every place."""
    return 0.5 + 0.06 * torch.randn(
        count, 3, side, side, generator=torch.Generator().manual_seed(seed)
    )


def stamp(seed):
    """A patch that is like no other."""
    return torch.rand(3, CELL, CELL, generator=torch.Generator().manual_seed(seed)).round()


def put(images, patch, row, column):
    """Stamp a patch on one cell of all images, in place."""
    images[..., row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = patch
    return images
