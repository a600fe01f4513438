import copy

import pytest
import torch
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.explain.cells import read_cells, shifted, weave
from fieldmark.explain.maps import attention_map, gradient_maps, photo_maps, toward
from fieldmark.explain.pair import explain_pair
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.heads import MLPHead, PooledHead
from fieldmark.nn.spec import EncoderSpec, PostConfig, freeze
from fieldmark.nn.whitening import fit_whitening

SIZE = 64


@pytest.fixture(scope="module")
def networks():
    """Random networks by name, made once."""
    names = ("test_resnet", "test_vit", "test_vit2", "test_convnext")
    config = {name: BackboneConfig(name=name, weights="random") for name in names}
    return {name: Backbone.build(config[name], size=SIZE) for name in names}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)


def make(backbone, images, *, whitened=False, inserted=None, **post):
    spec = freeze(EncoderSpec(backbone, PostConfig(**post), inserted=inserted))
    if not whitened:
        return spec
    whitening = fit_whitening(spec.raw(images), 6)
    return freeze(EncoderSpec(backbone, PostConfig(**post), whitening=whitening, inserted=inserted))


POSTS = [
    {},
    {"flip": True},
    {"pooling": "gem"},
    {"pooling": "gap", "stages": (-2,)},
    {"pooling": "gap", "stages": (-2,), "flip": True},
]


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("post", POSTS, ids=str)
def test_contributions_of_all_pairs_of_cells_sum_to_the_cosine(networks, images, post, whitened):
    spec = make(networks["test_resnet"], images, whitened=whitened, **post)
    pair = explain_pair(spec, images[:2])
    embeddings = spec(images[:2])
    cosine = float(embeddings[0] @ embeddings[1])
    assert pair.exact
    assert pair.similarity == pytest.approx(cosine, abs=1e-5)
    assert float(pair.between.sum()) == pytest.approx(cosine, abs=1e-5)
    assert float(pair.first.sum()) == pytest.approx(cosine, abs=1e-5)
    assert float(pair.second.sum()) == pytest.approx(cosine, abs=1e-5)
    torch.testing.assert_close(pair.between.sum(1), pair.first.flatten(), atol=1e-5, rtol=0)
    assert pair.rest == pytest.approx((0, 0), abs=1e-5)


@pytest.mark.parametrize("name", ["test_vit2", "test_convnext"])
def test_a_layer_norm_behind_the_average_is_taken_apart(networks, images, name):
    backbone = copy.deepcopy(networks[name])
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.constant_(module.bias, 0.3)
    spec = make(backbone, images, whitened=True)
    cells = read_cells(spec, images)
    assert "layer norm" in cells.pooling
    assert float(cells.rest.abs().max()) < 1e-5
    torch.testing.assert_close(cells.parts.sum(1), spec(images), atol=1e-5, rtol=0)


def test_an_attention_keeps_its_weights_and_gives_the_mean_to_what_it_weighs(networks, images):
    torch.manual_seed(0)
    backbone = networks["test_resnet"]
    attention = MaxOutAttention(backbone.token_dim, 4)
    spec = make(backbone, images, whitened=True, inserted={"max_out_attention": attention})
    cells = read_cells(spec, images)
    assert "attention" in cells.pooling
    torch.testing.assert_close(cells.parts.sum(1), spec(images), atol=1e-5, rtol=0)
    looks = attention_map(spec, images).flatten(1)
    # The least weight is 0: that cell has no part, not even of the constant.
    unseen = cells.parts[torch.arange(len(images)), looks.argmin(1)]
    assert float(unseen.abs().max()) < 1e-6


@pytest.mark.parametrize("post", [{}, {"pooling": "cls+gap"}], ids=str)
def test_what_no_cell_gives_is_told_apart(networks, images, post):
    spec = make(networks["test_vit"], images, whitened=True, **post)
    cells = read_cells(spec, images)
    torch.testing.assert_close(cells.parts.sum(1) + cells.rest, spec(images), atol=1e-5, rtol=0)
    assert float(cells.rest.norm(dim=1).min()) > 0.1
    assert cells.exact == bool(post)


def test_a_head_that_is_not_linear_is_explained_to_first_order(networks, images):
    torch.manual_seed(0)
    backbone = networks["test_resnet"]
    head = PooledHead([MLPHead((backbone.dim, 8, backbone.dim))])
    spec = make(backbone, images, inserted={"pooled_head": head})
    target = spec(images).roll(1, 0)
    found = toward(spec, images, target)
    assert not found.exact
    assert float(found.maps.abs().max()) > 0
    torch.testing.assert_close(found.maps.sum((1, 2)) + found.rest, found.total)


@pytest.mark.parametrize("post", [{}, {"flip": True}], ids=str)
def test_first_order_with_held_lengths_is_the_exact_sum_where_there_is_one(networks, images, post):
    spec = make(networks["test_resnet"], images, whitened=True, **post)
    target = spec(images).roll(1, 0)
    exact = toward(spec, images, target)
    held = gradient_maps(spec, images, target, lengths="held")
    torch.testing.assert_close(held, exact.maps, atol=1e-5, rtol=0)
    free = gradient_maps(spec, images, target)
    # A longer feature is no more alike.
    assert float(free.sum((1, 2)).abs().max()) < 1e-4


def test_the_gradient_is_that_of_the_cosine(networks, images):
    spec = make(networks["test_resnet"], images, whitened=True)
    target = spec(images[1:2])
    found = gradient_maps(spec, images[:1], target)[0].flatten()
    features = spec.features(images[:1])
    tokens = features.tokens.double()

    def cosine(scales):
        raw = nn.functional.normalize((tokens * scales[:, None]).mean(1), dim=1)
        white = (raw - spec.whitening.mean.double()) @ spec.whitening.projection.double()
        return float(nn.functional.normalize(white, dim=1) @ target[0].double())

    for cell in range(tokens.shape[1]):
        step = torch.zeros(tokens.shape[1], dtype=torch.float64)
        step[cell] = 1e-4
        slope = (cosine(1 + step) - cosine(1 - step)) / 2e-4
        assert float(found[cell]) == pytest.approx(slope, abs=1e-4)


def test_a_class_token_is_explained_by_what_its_last_block_takes(networks, images):
    spec = make(networks["test_vit"], images)
    maps = gradient_maps(spec, images, spec(images).roll(1, 0))
    assert float(maps.flatten(1).abs().amax(1).min()) > 0
    assert maps.shape[1:] == (4, 4)


def test_a_finer_grid_keeps_places_and_the_sum(networks, images):
    marked = torch.zeros(1, 3, SIZE, SIZE)
    marked[:, :, 40:48, 16:24] = 1
    passes = [
        one.mean(1).unflatten(1, (2, 32)).unflatten(3, (2, 32))
        for one in shifted(marked, (2, 2), 4)
    ]
    # How much of each shifted cell is marked: highest where the mark is.
    middles = [one[:, :, 12:20, :, 12:20].mean((2, 4)) for one in passes]
    found = weave(middles, 4)
    assert found.shape == (1, 8, 8)
    assert divmod(int(found.flatten().argmax()), 8) == (5, 2)
    spec = make(networks["test_resnet"], images, whitened=True)
    cells = read_cells(spec, images, steps=2)
    assert cells.shape == (4, 4)
    torch.testing.assert_close(cells.parts.sum(1) + cells.rest, spec(images), atol=1e-5, rtol=0)


def test_maps_of_single_photos(networks, images):
    spec = make(networks["test_vit2"], images)
    maps = photo_maps(spec, images, steps=2)
    assert maps.added.shape == maps.own.shape == maps.attention.shape == (12, 8, 8)
    assert float(maps.added.min()) >= 0
    assert float(maps.attention.min()) >= 0
    own = photo_maps(spec, images).own
    torch.testing.assert_close(own.sum((1, 2)), torch.ones(12), atol=1e-4, rtol=0)
    assert photo_maps(make(networks["test_resnet"], images), images).attention is None
