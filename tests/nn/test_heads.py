import pytest
import torch
from torch import nn

from fieldmark.nn.heads import MLPHead, PooledHead, SyncedBatchNorm
from fieldmark.types import Features


def kinds(head):
    return [type(layer).__name__ for layer in head.layers]


def test_moco_v2_head_has_no_batch_norm():
    head = MLPHead([8, 8, 4])
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert head.layers[0].bias is not None
    assert head.layers[2].bias is not None


def test_moco_v3_projector_normalises_its_output_without_scale():
    head = MLPHead([8, 16, 16, 4], batch_norm=True, last_batch_norm=True)
    norm = "SyncedBatchNorm"
    assert kinds(head) == ["Linear", norm, "ReLU", "Linear", norm, "ReLU", "Linear", norm]
    assert head.layers[0].bias is None
    assert head.layers[-1].weight is None
    output = head(torch.randn(64, 8))
    assert output.mean(0).abs().max() < 1e-5
    assert torch.allclose(output.std(0, correction=0), torch.ones(4), atol=1e-3)


def test_dropout_is_after_hidden_layers_only():
    head = MLPHead([8, 16, 16, 4], dropout=0.5)
    hidden = ["Linear", "ReLU", "Dropout"]
    assert kinds(head) == [*hidden, *hidden, "Linear"]
    x = torch.randn(3, 8)
    torch.manual_seed(0)
    first = head(x)
    torch.manual_seed(0)
    assert torch.equal(head(x), first)
    assert not torch.equal(head(x), first)
    assert torch.equal(head.eval()(x), head(x))


def test_a_head_described_is_made_again():
    head = MLPHead([8, 16, 4], batch_norm=True, last_batch_norm=True, bias=False, dropout=0.1)
    again = MLPHead(**head.describe())
    again.load_state_dict(head.state_dict())
    assert kinds(again) == kinds(head)
    assert MLPHead(**MLPHead([8, 4], bias=False).describe()).layers[0].bias is None


def test_pooled_head_replaces_the_pooled_feature_only():
    first, second = MLPHead([8, 5]), MLPHead([5, 8])
    module = PooledHead([first, second])
    features = Features(torch.randn(2, 8), torch.randn(2, 4, 8), (2, 2), torch.randn(2, 8))
    result = module(features)
    assert torch.equal(result.pooled, second(first(features.pooled)))
    assert result.tokens is features.tokens
    assert result.cls is features.cls
    again = PooledHead(**module.describe())
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(features).pooled, result.pooled)
    with pytest.raises(ValueError, match="the width they take, 8, got 5"):
        PooledHead([first])


def test_nothing_is_inserted_without_heads():
    assert PooledHead.inserted(nn.Identity()) == {}
    head = MLPHead([4, 4])
    assert list(PooledHead.inserted(nn.Identity(), head)["pooled_head"].heads) == [head]


def test_needs_two_widths():
    with pytest.raises(ValueError, match="input and an output"):
        MLPHead([8])


def test_batch_norm_of_one_process_is_torchs():
    torch.manual_seed(0)
    ours, theirs, x = SyncedBatchNorm(5), nn.BatchNorm1d(5), torch.randn(9, 5)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
