import copy

import torch
from torch import nn

from fieldmark.nn.fused import InFloat32, keep_in_float32


def cancelling(channels=4):
    """Filters whose weights are large and sum to nearly nothing, as folded batch-norm can make them."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, channels, 1)
    wide = nn.Conv2d(channels, channels, 3, groups=channels)
    weight = 50 * torch.randn(channels, 1, 3, 3)
    wide.weight = nn.Parameter(weight - weight.mean((2, 3), keepdim=True))
    return nn.Sequential(first, wide, nn.Conv2d(channels, 2, 1)).eval().requires_grad_(False)


def test_layers_that_amplify_their_rounding_stay_in_float32():
    exact = cancelling()
    images = 3 + torch.rand(2, 3, 8, 8)
    rounded, kept = copy.deepcopy(exact), copy.deepcopy(exact)
    assert keep_in_float32(kept) == 1
    assert isinstance(kept[1], InFloat32)
    errors = [
        (network.to(torch.bfloat16)(images.bfloat16()).float() - exact(images.bfloat16().float()))
        .abs()
        .mean()
        for network in (rounded, kept)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert keep_in_float32(nn.Sequential(nn.Conv2d(3, 4, 3))) == 0
