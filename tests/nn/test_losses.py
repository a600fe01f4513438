import math

import pytest
import torch
from torch.nn.functional import normalize

from fieldmark.nn.losses import batch_contrast, info_nce, nt_xent


def vectors(count, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=1)


def dot(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist()))


def test_info_nce_is_the_papers_sum():
    query, key, negatives = vectors(4), vectors(4, seed=1), vectors(7, seed=2)
    temperature, total = 0.2, 0.0
    for i in range(4):
        positive = math.exp(dot(query[i], key[i]) / temperature)
        others = sum(math.exp(dot(query[i], n) / temperature) for n in negatives)
        total -= math.log(positive / (positive + others))
    assert info_nce(query, key, negatives, temperature).item() == pytest.approx(
        total / 4, abs=1e-12
    )


@pytest.mark.parametrize("count", [64, 65_536])
def test_info_nce_of_equal_similarities_is_the_log_of_their_number(count):
    same = normalize(torch.ones(2, 4), dim=1)
    loss = info_nce(same, same, same[:1].expand(count, 4), 0.2)
    assert loss.item() == pytest.approx(math.log(count + 1), abs=1e-4)


def test_info_nce_leaves_out_masked_negatives():
    query, key, negatives = vectors(3), vectors(3, seed=1), vectors(6, seed=2)
    masked = torch.zeros(3, 6, dtype=torch.bool)
    masked[0, [1, 4]] = True
    masked[2] = True
    loss = info_nce(query, key, negatives, 0.5, masked=masked)
    kept = negatives[[0, 2, 3, 5]]
    parts = [
        info_nce(query[:1], key[:1], kept, 0.5),
        info_nce(query[1:2], key[1:2], negatives, 0.5),
        torch.zeros(()),  # nothing to confuse it with
    ]
    assert loss.item() == pytest.approx(sum(parts).item() / 3, abs=1e-12)
    query.requires_grad_(True)
    info_nce(query, key, negatives, 0.5, masked=masked).backward()
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize("loss", ["info_nce", "batch_contrast", "nt_xent"])
@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_temperature_must_be_positive(loss, temperature):
    x = vectors(3)
    calls = {
        "info_nce": lambda: info_nce(x, x, x, temperature),
        "batch_contrast": lambda: batch_contrast(x, x, temperature),
        "nt_xent": lambda: nt_xent(x, x, temperature),
    }
    with pytest.raises(ValueError, match="temperature must be > 0"):
        calls[loss]()


def test_batch_contrast_is_the_papers_sum():
    query, keys = vectors(3), vectors(6, seed=1)
    temperature, offset, total = 0.2, 3, 0.0
    for i in range(3):
        terms = [math.exp(dot(query[i], key) / temperature) for key in keys]
        total -= math.log(terms[i + offset] / sum(terms))
    expected = 2 * temperature * total / 3
    loss = batch_contrast(query, keys, temperature, offset=offset)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_nt_xent_is_the_papers_sum():
    first, second = vectors(4), vectors(4, seed=1)
    temperature, everyone, total = 0.1, torch.cat([first, second]), 0.0
    for i in range(8):
        partner = (i + 4) % 8
        terms = {
            k: math.exp(dot(everyone[i], everyone[k]) / temperature) for k in range(8) if k != i
        }
        total -= math.log(terms[partner] / sum(terms.values()))
    assert nt_xent(first, second, temperature).item() == pytest.approx(total / 8, abs=1e-12)


def test_nt_xent_of_parts_averages_to_the_whole():
    first, second = vectors(6), vectors(6, seed=1)
    whole = nt_xent(first, second, 0.3)
    parts = [
        nt_xent(
            first[i : i + 3],
            second[i : i + 3],
            0.3,
            all_first=first,
            all_second=second,
            offset=i,
        )
        for i in (0, 3)
    ]
    assert whole.item() == pytest.approx(sum(parts).item() / 2, abs=1e-12)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_full(kind):
    x, y, n = (vectors(4, seed=s).to(kind) for s in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(x, y, n, 0.07)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(info_nce(x.float(), y.float(), n.float(), 0.07).item())
