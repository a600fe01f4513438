"""The yardstick where there are no labels: the start, looking longer."""

import numpy as np
import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.views import ViewMaker
from fieldmark.encoder import Encoder
from fieldmark.errors import ConfigError
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.workflows import reference
from fieldmark.workflows.post import LOOKS, fit_post
from fieldmark.workflows.recipe import load_recipe


@pytest.fixture(scope="module")
def data(sample, tmp_path_factory, prepared):
    return prepared(sample.photos, load_recipe("smoke"), tmp_path_factory.mktemp("store"))


def start(name="test_resnet", size=32):
    return EncoderSpec(Backbone.build(BackboneConfig(name=name, weights="random"), size=size))


def test_it_looks_larger_and_more_often_than_what_ships(data, monkeypatch):
    seen = []
    original = Encoder.encode

    def encode(self, images):
        seen.append((self.size, self.spec.post.flip, len(images)))
        return original(self, images)

    monkeypatch.setattr(Encoder, "encode", encode)
    spec = start()
    found = reference.reference_embeddings(spec, data.store, data.train_rows, data.held_out)
    assert found.shape == (len(data.held_out), spec.raw_dim)  # too few photos to whiten
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert spec.size == 32  # the start itself is left alone
    crops = [count for size, flip, count in seen if size == 64 and flip]
    assert sum(crops) >= 4 * len(data.held_out)
    again = reference.reference_embeddings(spec, data.store, data.train_rows, data.held_out)
    np.testing.assert_allclose(found, again, atol=1e-6)


def test_photos_that_must_not_be_mirrored_are_not(data, monkeypatch):
    flips, ratios = [], []
    original = Encoder.encode
    make = ViewMaker.make

    def encode(self, images):
        flips.append(self.spec.post.flip)
        return original(self, images)

    def noting(maker, rows, epoch):
        views = make(maker, rows, epoch)
        flips.extend(bool(view.flipped.any()) for view in views)
        ratios.append(maker.multi_view.specs[0].ratio)
        return views

    monkeypatch.setattr(Encoder, "encode", encode)
    monkeypatch.setattr(ViewMaker, "make", noting)
    looks = load_recipe("smoke", ("views.preset=part",)).protect(LOOKS)
    reference.reference_embeddings(start(), data.store, data.train_rows, data.held_out, looks=looks)
    assert flips
    assert not any(flips)
    assert set(ratios) == {(1.0, 1.0)}
    reference.reference_embeddings(start(), data.store, data.train_rows, data.held_out)
    assert any(flips)


def test_the_fit_is_attached_where_there_are_photos_enough(data, monkeypatch):
    small = PostConfig(crop=1.0, whitening="instance-lda", whiten_dim=8, whiten_power=0.25)
    monkeypatch.setattr(reference, "_POST", small)
    found = reference.reference_embeddings(start(), data.store, data.train_rows, data.held_out)
    assert found.shape == (len(data.held_out), 8)


def test_a_network_of_one_size_looks_at_that_size():
    assert reference._enlarged(start("gmixer_12_224", 64)).size == 64
    spec = start()
    assert reference._enlarged(spec).size == 64
    assert torch.is_tensor(Encoder(spec).encode(torch.zeros(1, 3, 32, 32)))


def test_instance_lda_compares_the_looks_it_is_given(data):
    post = PostConfig(whitening="instance-lda", whiten_dim=8, whiten_power=0.25)
    spec, looks = start(), load_recipe("smoke", ("views.preset=part",)).protect(LOOKS)
    free, kept = (
        fit_post(spec, data.store, data.train_rows, post, looks=each).whitening.projection
        for each in (LOOKS, looks)
    )
    assert not torch.allclose(free, kept, atol=1e-3)


def test_looks_are_weakened_by_preset_and_by_hand():
    assert load_recipe("smoke").protect(LOOKS) == LOOKS
    part = load_recipe("smoke", ("views.preset=part",)).protect(LOOKS)
    assert (part.flip, part.ratio, part.scale) == (0.0, (1.0, 1.0), (0.4, 1.0))
    by_hand = load_recipe("smoke", ("views.override.flip=0.0",)).protect(LOOKS)
    assert by_hand == LOOKS.model_copy(update={"flip": 0.0})
    # What training's views add is not added to looks.
    more = load_recipe("smoke", ("views.override.flip=1.0", "views.override.gray=1.0"))
    assert more.protect(LOOKS) == LOOKS
    with pytest.raises(ConfigError, match="flip"):
        load_recipe("start", ("views.override.flip=2",)).protect(LOOKS)


@pytest.mark.parametrize("seed", range(3))
def test_the_yardstick_shares_among_photos_that_find_each_other(seed):
    """Crowds that touch: shared, neighbours are more often of the own crowd."""
    generator = np.random.default_rng(seed)
    crowd = np.repeat(np.arange(6), 20)
    own = generator.standard_normal((120, 20)).astype(np.float32)
    own[np.arange(120), crowd] += 3

    def pure(x):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        similarity = x @ x.T
        np.fill_diagonal(similarity, -1)
        nearest = np.argsort(-similarity, axis=1)[:, :10]
        return (crowd[nearest] == crowd[:, None]).mean()

    own /= np.linalg.norm(own, axis=1, keepdims=True)
    found = reference.yardstick(own)
    assert found.shape == own.shape
    assert pure(found) > pure(own) + 0.05
    np.testing.assert_array_equal(reference.yardstick(own[:1]), own[:1])
