import pytest
import torch

from fieldmark.nn.attention import MaxOutAttention, weighted_average
from fieldmark.types import Features


def features(count=3, cells=6, dim=5):
    tokens = torch.randn(count, cells, dim)
    return Features(tokens.mean(1), tokens, (2, cells // 2))


def test_scores_are_the_strongest_of_the_looks():
    torch.manual_seed(0)
    attention = MaxOutAttention(5, 4).double().eval()
    with torch.no_grad():
        attention.norm.running_mean.uniform_(-1, 1)
        attention.norm.running_var.uniform_(0.5, 2)
    tokens = torch.randn(2, 3, 5).double()
    found = attention.scores(tokens)
    weight = attention.project.weight.detach()
    for b in range(2):
        for t in range(3):
            looks = []
            for k in range(4):
                x = float((weight[k] * tokens[b, t]).sum())
                x = (x - float(attention.norm.running_mean[k])) / (
                    float(attention.norm.running_var[k]) + attention.norm.eps
                ) ** 0.5
                looks.append(max(0.0, x))
            assert found[b, t].item() == pytest.approx(max(looks), abs=1e-9)


def test_pooling_is_the_average_of_weight_times_feature():
    tokens, weights = torch.randn(2, 3, 4), torch.rand(2, 3)
    expected = torch.stack(
        [sum(weights[b, t] * tokens[b, t] for t in range(3)) / 3 for b in range(2)]
    )
    assert torch.allclose(weighted_average(tokens, weights), expected, atol=1e-6)


def test_embedding_does_not_depend_on_its_neighbours():
    torch.manual_seed(1)
    x = features(8)
    for scope, same in (("image", True), ("batch", False)):
        attention = MaxOutAttention(5, 4, scope).eval()
        alone = attention(x._replace(tokens=x.tokens[:1], pooled=x.pooled[:1])).pooled
        assert torch.allclose(attention(x).pooled[:1], alone, atol=1e-6) == same


def test_silent_attention_is_the_plain_average():
    attention = MaxOutAttention(5, 4).eval()
    with torch.no_grad():
        attention.norm.bias.fill_(-100.0)
    x = features()
    assert torch.allclose(attention(x).pooled, x.tokens.mean(1), atol=1e-6)


def test_described_settings_build_the_same():
    attention = MaxOutAttention(5, 4, "batch")
    other = MaxOutAttention(**attention.describe())
    other.load_state_dict(attention.state_dict())
    assert other.norm_scope == "batch"
