import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.look import look_at
from fieldmark.encoder import Encoder
from fieldmark.export import Look, export_onnx, probe_photos
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.classifier import ClassHead
from fieldmark.nn.msam import insert_msam
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import fit_whitening
from tiny import TinyBackbone

CLASSES = ["wren", "goldcrest", "ruff, juvenile"]


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


PHOTOS = [
    smooth(height, width, seed)
    for seed, (height, width) in enumerate(
        [(60, 90), (200, 150), (40, 40), (20, 300), (400, 33), (8, 11), (1, 1), (1, 50), (37, 36)]
    )
]


def whitened(spec, dim=5):
    raw = Encoder(spec, device="cpu", precision="fp32").embed(PHOTOS + probe_photos())
    return spec.with_post(spec.post, fit_whitening(torch.from_numpy(raw), dim))


def build(kind):
    torch.manual_seed(0)
    head = None
    if kind == "tiny":
        spec = EncoderSpec(TinyBackbone(batch_norm=True), PostConfig(crop=1.0))
    elif kind == "resnet, gem, flip, whitening":
        config = BackboneConfig(name="test_resnet", weights="random")
        post = PostConfig(pooling="gem", flip=True, stages=(-2,), whiten_dim=5)
        spec = whitened(EncoderSpec(Backbone.build(config, size=32), post))
    elif kind == "vit, max-out attention":
        backbone = Backbone.build(BackboneConfig(name="test_vit", weights="random"), size=32)
        attention = MaxOutAttention(backbone.token_dim, 8)
        spec = EncoderSpec(backbone, inserted={"max_out_attention": attention})
    else:
        config = BackboneConfig(
            name="test_efficientnet", weights="random", arguments={"pad_type": "same"}
        )
        backbone = Backbone.build(config, size=48)
        insert_msam(backbone, "pyramid")
        with torch.no_grad():
            for module in backbone.insertions.modules():
                if hasattr(module, "gamma"):
                    module.gamma.fill_(0.7)
        spec = EncoderSpec(backbone)
        head = ClassHead(spec.raw_dim, len(CLASSES))
        nn.init.normal_(head.weight, std=1)
    return Encoder(spec, {"role": "student"}, device="cpu", precision="fp32"), head


KINDS = [
    "tiny",
    "resnet, gem, flip, whitening",
    "vit, max-out attention",
    "efficientnet, msam, classes",
]


@pytest.fixture(scope="module")
def made():
    kept = {}

    def make(kind):
        if kind not in kept:
            encoder, head = build(kind)
            exported = export_onnx(encoder, head=head, classes=CLASSES if head else ())
            kept[kind] = encoder, head, exported, exported.encoder(threads=1)
        return kept[kind]

    return make


@pytest.mark.parametrize("crop", [0.875, 1.0, 0.6])
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: "x".join(map(str, photo.shape[:2])))
def test_the_graph_looks_as_fieldmark_does(photo, crop):
    found = Look(32, crop)(torch.from_numpy(photo.copy())[None])[0].permute(1, 2, 0) * 255
    difference = np.abs(found.numpy() - look_at(photo, 32, crop))
    # Values half-way between two levels, after either axis, may round to the other one.
    assert difference.max() <= 2.001
    assert (difference > 0.5).mean() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_embeds_as_the_encoder_does(made, kind):
    encoder, _, exported, onnx = made(kind)
    expected = encoder.embed(PHOTOS)
    for photo, vector in zip(PHOTOS, expected, strict=True):
        found = onnx.run(photo[None])
        assert found.embedding.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found.embedding, axis=1), 1, rtol=1e-5)
        assert found.embedding[0] @ vector >= 0.9999
    five = np.stack([smooth(50, 70, seed) for seed in range(5)])
    assert (onnx.run(five).embedding * encoder.embed(five)).sum(1).min() >= 0.9999
    # Shapes of all kinds in one batch, framed.
    assert (onnx.embed(PHOTOS, batch_size=4) * expected).sum(1).min() >= 0.99999
    parity = json.loads(exported.metadata["parity"])
    assert parity["photos"] == len(probe_photos())
    assert parity["least"] >= 0.9999
