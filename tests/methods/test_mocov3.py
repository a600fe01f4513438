import math

import pytest
import torch
from torch import nn

import tiny
from fieldmark.types import Progress

START = Progress(0, 10, 0.0)


def unit(x):
    return [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.tolist()]


def test_loss_is_the_papers_pseudo_code():
    method = tiny.method("mocov3", temperature=0.3).double().eval()
    batch = tiny.source("mocov3").batch(0)
    images = [view.images.double() for view in batch.views]
    batch = batch._replace(views=tuple(v._replace(images=x) for v, x in zip(batch.views, images)))
    with torch.no_grad():
        q = [unit(method.predictor(method.projector(method.backbone(x).pooled))) for x in images]
        k = [unit(method.teacher_projector(method.teacher(x).pooled)) for x in images]
    expected = 0.0
    for a, b in ((0, 1), (1, 0)):
        total = 0.0
        for i, query in enumerate(q[a]):
            terms = [math.exp(sum(x * y for x, y in zip(query, key)) / 0.3) for key in k[b]]
            total -= math.log(terms[i] / sum(terms))
        expected += 2 * 0.3 * total / len(q[a])
    assert method(batch, START).loss.item() == pytest.approx(expected, abs=1e-9)


def test_momentum_rises_to_one():
    method = tiny.method("mocov3", momentum=0.5)
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    before = tiny.state(method.teacher)
    method.after_step(Progress(10, 10, 1.0), {})
    assert tiny.largest_difference(before, tiny.state(method.teacher)) == 0
    method.after_step(Progress(5, 10, 0.5), {})
    for name, value in method.teacher.state_dict().items():
        assert torch.allclose(value, before[name] + 0.25, atol=1e-6)


def test_patch_embedding_stays_at_its_start():
    backbone = tiny.TinyBackbone()
    backbone.network.patch_embed = nn.Conv2d(3, 4, 4)
    kind = tiny.METHODS["mocov3"]
    method = kind(tiny.config("mocov3"), backbone)
    assert not any(p.requires_grad for p in method.backbone.network.patch_embed.parameters())
    assert method.backbone.network[0].weight.requires_grad


def test_views_are_byols():
    first, second = tiny.METHODS["mocov3"].views(tiny.config("mocov3"), 224).specs
    assert (first.blur, first.solarize) == (1.0, 0.0)
    assert (second.blur, second.solarize) == (0.1, 0.2)
