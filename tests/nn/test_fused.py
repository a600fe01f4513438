import copy

import torch
from torch import nn

from fieldmark.backbones.insertion import Insertion
from fieldmark.nn.fused import InFloat32, fold_batch_norm, keep_in_float32


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


class Square(nn.Module):
    def forward(self, x):
        return x.square()


def test_batch_norm_is_not_folded_past_an_inserted_module():
    torch.manual_seed(0)
    inserted = nn.ModuleDict({"between": Square()})
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    network = network.eval().requires_grad_(False)
    network[1].running_mean.uniform_()
    network[0].register_forward_hook(Insertion(inserted, "between", "NCHW", 0))
    images = torch.rand(2, 3, 4, 4)
    expected = network(images)
    assert fold_batch_norm(network, lambda: network(images)) == 0
    assert torch.equal(network(images), expected)


def test_an_inserted_module_follows_a_layer_that_is_computed_in_float32_once():
    network, images = cancelling(), torch.rand(2, 3, 8, 8)
    inserted = nn.ModuleDict({"after": Square()})
    network[1].register_forward_hook(Insertion(inserted, "after", "NCHW", 0))
    expected = network(images)
    assert keep_in_float32(network) == 1
    assert torch.equal(network(images), expected)
