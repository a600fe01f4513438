"""The yardstick where there are no labels: the start, looking longer."""

import numpy as np
import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.workflows import photos, reference
from fieldmark.workflows.recipe import load_recipe


@pytest.fixture(scope="module")
def data(sample, tmp_path_factory):
    return photos.prepare(sample.photos, load_recipe("smoke"), tmp_path_factory.mktemp("store"))


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


def test_the_fit_is_attached_where_there_are_photos_enough(data, monkeypatch):
    small = PostConfig(crop=1.0, whitening="instance-lda", whiten_dim=8, whiten_power=0.25)
    monkeypatch.setattr(reference, "_POST", small)
    found = reference.reference_embeddings(start(), data.store, data.train_rows, data.held_out)
    assert found.shape == (len(data.held_out), 8)


def test_a_network_of_one_size_looks_at_that_size(monkeypatch):
    spec = start()
    plain = Encoder.encode

    def encode(self, images):
        if images.shape[2] != 32:
            raise AssertionError("built for 32 px")
        return plain(self, images)

    monkeypatch.setattr(Encoder, "encode", encode)
    assert reference._enlarged(spec).size == 32
    monkeypatch.undo()
    assert reference._enlarged(spec).size == 64
    assert torch.is_tensor(Encoder(spec).encode(torch.zeros(1, 3, 32, 32)))
