import math

import pytest
import torch

import tiny
from fieldmark.types import Progress


def test_loss_is_the_papers_pseudo_code():
    method = tiny.method("simclr", temperature=0.5).double().eval()
    batch = tiny.source("simclr").batch(0)
    views = tuple(v._replace(images=v.images.double()) for v in batch.views)
    with torch.no_grad():
        z = [method.head(method.backbone(view.images).pooled).tolist() for view in views]
    # Algorithm 1: views of photo k at 2k and 2k + 1.
    z = [row for pair in zip(*z) for row in pair]
    n = [math.sqrt(sum(x * x for x in row)) for row in z]
    count = len(z)
    s = [
        [sum(x * y for x, y in zip(z[i], z[j])) / (n[i] * n[j]) for j in range(count)]
        for i in range(count)
    ]

    def pair_loss(i, j):
        return -math.log(
            math.exp(s[i][j] / 0.5) / sum(math.exp(s[i][k] / 0.5) for k in range(count) if k != i)
        )

    expected = sum(
        pair_loss(2 * k, 2 * k + 1) + pair_loss(2 * k + 1, 2 * k) for k in range(count // 2)
    )
    loss = method(batch._replace(views=views), Progress(0, 1, 0.0)).loss
    assert loss.item() == pytest.approx(expected / count, abs=1e-9)


def test_colours_are_distorted_as_in_the_appendix():
    spec = tiny.METHODS["simclr"].views(tiny.config("simclr", strength=0.5), 32).specs[0]
    assert (spec.brightness, spec.contrast, spec.saturation, spec.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (spec.count, spec.scale, spec.gray) == (2, (0.08, 1.0), 0.2)


def test_there_is_no_teacher():
    assert set(tiny.method("simclr").exports()) == {"student"}
