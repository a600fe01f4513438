import pytest
import torch
from torch import nn

from fieldmark.nn.heads import MLPHead, SyncedBatchNorm


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


def test_needs_two_widths():
    with pytest.raises(ValueError, match="input and an output"):
        MLPHead([8])


def test_batch_norm_of_one_process_is_torchs():
    torch.manual_seed(0)
    ours, theirs, x = SyncedBatchNorm(5), nn.BatchNorm1d(5), torch.randn(9, 5)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
