import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fieldmark
from fieldmark import export
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.look import look_at
from fieldmark.data.looktensor import stack
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, ConfigError, MissingExtraError, PhotoError
from fieldmark.export import Look, export_onnx, probe_photos, quantise
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.classifier import ClassHead, Classifier
from fieldmark.nn.msam import insert_msam
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import fit_whitening
from fieldmark.onnx_encoder import OnnxEncoder, sealed
from tiny import TinyBackbone

CLASSES = ["wren", "goldcrest", "ruff, juvenile"]


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


PHOTOS = [
    smooth(height, width, seed)
    for seed, (height, width) in enumerate(
        [
            (60, 90),
            (200, 150),
            (40, 40),
            (20, 300),
            (400, 33),
            (8, 11),
            (1, 1),
            (1, 50),
            (37, 36),
            (100, 60),
        ]
    )
]


def whitened(spec, dim=5):
    raw = Encoder(spec, device="cpu", precision="fp32").embed(PHOTOS + probe_photos())
    return spec.with_post(spec.post, fit_whitening(torch.from_numpy(raw), dim))


def build(kind):
    torch.manual_seed(0)
    if kind == "tiny":
        spec = EncoderSpec(TinyBackbone(batch_norm=True), PostConfig(crop=1.0))
        return Encoder(spec, {"role": "student"}, device="cpu", precision="fp32"), None
    name = {"resnet": "test_resnet", "vit": "test_vit"}.get(kind.split(",")[0], "test_efficientnet")
    config = BackboneConfig(name=name, weights="random")
    backbone = Backbone.build(config, size=48 if name == "test_efficientnet" else 32)
    if kind.startswith("vit"):
        attention = MaxOutAttention(backbone.token_dim, 8)
        spec = EncoderSpec(backbone, inserted={"max_out_attention": attention})
    else:
        insert_msam(backbone, "pyramid")
        with torch.no_grad():
            for module in backbone.insertions.modules():
                if hasattr(module, "gamma"):
                    module.gamma.fill_(0.7)
        post = PostConfig(pooling="gem", flip=True, stages=(-2,), whiten_dim=5)
        spec = whitened(EncoderSpec(backbone, post))
    head = ClassHead(spec.raw_dim, len(CLASSES))
    nn.init.normal_(head.weight, std=1)
    return Encoder(spec, CARD, device="cpu", precision="fp32"), head


CARD = {"role": "student", "photos_source": "warblers", "photos_licence": "CC-BY-NC-4.0"}
EVERYTHING = "resnet, msam, gem, stages, flip, whitening"
KINDS = [
    "tiny",
    EVERYTHING,
    "vit, max-out attention",
    pytest.param("efficientnet, msam, gem, stages, flip, whitening", marks=pytest.mark.slow),
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
    assert np.array_equal(found.round().to(torch.uint8).numpy(), look_at(photo, 32, crop))


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


@pytest.mark.parametrize("kind", [EVERYTHING, "vit, max-out attention"])
def test_probabilities_are_the_classifier_s(made, kind):
    encoder, head, _, onnx = made(kind)
    images = stack([look_at(photo, encoder.size, encoder.spec.crop) for photo in PHOTOS])
    expected = Classifier(encoder.spec, head).predict(images).softmax(1).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(onnx.classify(PHOTOS), expected, atol=0.02)
    assert onnx.classes == CLASSES


def test_the_file_tells_what_it_is(made, tmp_path):
    encoder, _, exported, _ = made(EVERYTHING)
    exported.save(tmp_path / "x.onnx")
    loaded = OnnxEncoder.load(tmp_path / "x.onnx", threads=1)
    told = loaded.metadata
    assert (loaded.identity, loaded.size, loaded.dim) == (encoder.identity, 32, 5)
    assert loaded.precision == "fp32"
    assert json.loads(told["mean"]) == list(encoder.spec.backbone.config.mean)
    assert json.loads(told["std"]) == list(encoder.spec.backbone.config.std)
    assert json.loads(told["post"])["flip"] is True
    assert json.loads(told["provenance"])["how"] == "random"
    assert told["fieldmark"] == fieldmark.__version__
    assert told["network"] == "test_resnet"
    assert loaded.ledger == encoder.ledger
    assert loaded.ledger.photos_licence == "CC-BY-NC-4.0"
    assert loaded.ledger.code == "Apache-2.0"
    import onnx

    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    axes = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert axes == ["batch", "height", "width", 3]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    ]
    assert shapes == [["batch", 5], ["batch", 3]]
    assert [value.name for value in model.graph.output] == ["embedding", "probabilities"]


def test_nothing_of_the_machine_that_exported_is_in_the_file(made):
    data = made("tiny")[2].data
    assert str(Path(__file__).parents[1]).encode() not in data
    assert b"site-packages" not in data
    assert b".py" not in data


def test_damaged_cut_and_foreign_files(made, tmp_path):
    data = made("tiny")[2].data
    file = tmp_path / "x.onnx"
    for place in (10, len(data) // 2, len(data) - 100, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"x\.onnx is damaged or cut short"):
            OnnxEncoder.load(file)
    for length in (len(data) - 1, len(data) // 2, 300):
        file.write_bytes(data[:length])
        with pytest.raises(
            ArtifactError, match=r"damaged or cut short|was not written by fieldmark"
        ):
            OnnxEncoder.load(file)
    for foreign in (b"", b"\x80\x04pickle", b"<html>", data[:200]):
        file.write_bytes(foreign)
        with pytest.raises(ArtifactError, match="was not written by fieldmark"):
            OnnxEncoder.load(file)
    with pytest.raises(ArtifactError, match="cannot be read"):
        OnnxEncoder.load(tmp_path / "none.onnx")
    # Whole, and yet no model, another's, or of a later fieldmark.
    with pytest.raises(ArtifactError, match=r"ONNX Runtime .* cannot read"):
        OnnxEncoder(sealed(b"no model at all"))
    exported = made("tiny")[2]
    with pytest.raises(ArtifactError, match="format is 'other'"):
        exported.telling(format="other").encoder()
    with pytest.raises(ArtifactError, match="has format 99"):
        exported.telling(format_version="99").encoder()


def test_an_export_that_computes_something_else_is_refused(monkeypatch):
    encoder, _ = build("tiny")

    class Blurred(Look):
        def forward(self, image):
            return super().forward(image).mean(3, keepdim=True).expand(-1, -1, -1, self.size)

    monkeypatch.setattr(export, "Look", Blurred)
    with pytest.raises(ArtifactError, match=r"worst has a cosine of 0\.\d+ .*nothing was written"):
        export_onnx(encoder)


def test_nan_is_not_parity():
    assert export.Parity(3, 1.0, 1.0).holds
    assert not export.Parity(3, 0.9998, 1.0).holds
    assert not export.Parity(3, float("nan"), 1.0).holds
    assert not export.Parity(3, 1.0, 1.0, probability=0.1).holds


def test_a_network_that_cannot_be_exported_is_named():
    encoder, _ = build("tiny")

    class Undecided(nn.Module):
        def forward(self, features):
            return (
                features
                if features.pooled.sum() > 0
                else features._replace(pooled=-features.pooled)
            )

    encoder.spec.inserted["undecided"] = Undecided()
    with pytest.raises(ArtifactError, match="'tiny' cannot be exported with torch"):
        export_onnx(encoder)


def test_without_onnx_it_says_what_to_install(monkeypatch, made):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"fieldmark\[onnx\]"):
        made("tiny")[2].encoder()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"fieldmark\[onnx\]"):
        export_onnx(build("tiny")[0])


@pytest.mark.parametrize(
    ("kind", "how"), [("tiny", "static"), ("vit, max-out attention", "dynamic")]
)
def test_eight_bits_are_smaller_near_and_another_encoder(made, kind, how):
    encoder, _, exported, onnx = made(kind)
    reduced = quantise(exported, probe_photos(), kind=how)
    small = reduced.encoder(threads=1)
    assert small.precision == "int8"
    assert small.identity != encoder.identity
    assert small.metadata["made_from"] == encoder.identity
    cosine = (small.embed(PHOTOS) * onnx.embed(PHOTOS)).sum(1)
    assert 0.9 < cosine.min() < 0.999999
    kinds = {node.op_type for node in reduced.model.graph.node}
    assert kinds & {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv"}
    if how == "dynamic":
        assert len(reduced.data) < 0.5 * len(exported.data)
    # The resize is computed as before.
    (choice,) = [node for node in reduced.model.graph.node if node.op_type == "If"]
    for branch in choice.attribute:
        kinds = [node.op_type for node in branch.g.node]
        assert kinds.count("MatMul") == 2
        assert not any("Quant" in kind or "Integer" in kind for kind in kinds)


def test_photos_of_every_kind_and_bad_ones(made, tmp_path):
    encoder, _, _, onnx = made("tiny")
    files = []
    for index, photo in enumerate(PHOTOS[:3]):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(photo).save(files[-1])
    expected = encoder.embed(PHOTOS[:3])
    floats = [torch.from_numpy(p.copy()).permute(2, 0, 1) / 255 for p in PHOTOS[:3]]
    for photos in (files, [f.read_bytes() for f in files], tmp_path, PHOTOS[:3], floats):
        assert (onnx.embed(photos, batch_size=2) * expected).sum(1).min() > 0.9999
    assert onnx.embed([]).shape == (0, onnx.dim)
    (tmp_path / "1.png").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"1\.png"):
        onnx.embed(files)
    assert [item.embedding is None for item in onnx.stream(files)] == [False, True, False]
    with pytest.raises(ConfigError, match="without classes"):
        onnx.classify(files)


def test_a_file_is_used_without_torch(made, tmp_path):
    made("tiny")[2].save(tmp_path / "x.onnx")
    Image.fromarray(PHOTOS[0]).save(tmp_path / "a.png")
    code = (
        "import sys\n"
        "from fieldmark.onnx_encoder import OnnxEncoder\n"
        f"e = OnnxEncoder.load({str(tmp_path / 'x.onnx')!r}, threads=1)\n"
        f"assert e.embed([{str(tmp_path / 'a.png')!r}]).shape == (1, e.dim)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)
