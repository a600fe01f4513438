import csv
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import export
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, ConfigError, MissingExtraError, OutputError
from fieldmark.export import LEAST_COSINE
from fieldmark.label.classifier import FieldClassifier
from fieldmark.nn.classifier import ClassHead, Classifier, EmbeddingHead
from fieldmark.nn.spec import EncoderSpec
from fieldmark.onnx_encoder import OnnxEncoder
from fieldmark.workflows import engines
from fieldmark.workflows.embed import embed_photos
from fieldmark.workflows.export import export_encoder
from fieldmark.workflows.finetune import save_classifier


@pytest.fixture(scope="module")
def _converted_once():
    """Every test here exports the same network, with a head or without: recorded once each."""
    kept = {}
    convert = export._convert

    def remembered(graph, name):
        if type(graph.head) is EmbeddingHead:  # has weights of its own
            return convert(graph, name)
        if (graph.head is None) not in kept:
            kept[graph.head is None] = convert(graph, name)
        model = kept[graph.head is None]
        copy = type(model)()
        copy.CopyFrom(model)
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_convert", remembered)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory, _converted_once):
    """A saved encoder, a classifier, an aviary on disk, and one export of the classifier."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    encoder = Encoder(EncoderSpec(backbone), {"role": "start"}, device="cpu")
    encoder.save(folder / "encoder")
    head = ClassHead(encoder.spec.raw_dim, 4)
    save_classifier(
        folder / "out" / "classifier",
        Classifier(encoder.spec, head),
        ["a", "b", "c", "d"],
        card={"role": "fine-tuned with labels", "photos_source": "images"},
        provenance=backbone.provenance,
    )
    aviary = draw(AviaryConfig(species=4, per_species=6, size=48, test_every=2))
    write(aviary, folder / "aviary")
    export_encoder(folder / "encoder", onnx=folder / "x.onnx")
    return folder


def test_a_classifier_s_folder_exports_its_classes(place, run):
    code, out, _ = run(
        "export", place / "out", "--onnx", place / "c.onnx", "--photos", place / "aviary" / "images",
        "--json",
    )  # fmt: skip
    assert code == 0
    told = json.loads(out.splitlines()[-1])
    assert told["classes"] == 4
    assert told["parity"]["photos"] == 24
    assert told["parity"]["least"] >= LEAST_COSINE
    assert told["licences"]["code"] == "Apache-2.0"
    assert told["licences"]["photos"] == "images"
    assert told["licences"]["photos_licence"] == "unknown"
    assert told["bytes"] == (place / "c.onnx").stat().st_size
    loaded = OnnxEncoder.load(place / "c.onnx")
    assert loaded.classes == ["a", "b", "c", "d"]
    shares = loaded.classify(place / "aviary" / "images")
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert loaded.identity == told["identity"] == told["encoder"]


def test_the_head_of_a_few_labels_is_exported_calibrated(place, tmp_path):
    encoder = Encoder.load(place / "encoder", device="cpu")
    files = sorted((place / "aviary" / "images").rglob("*.jpg"))
    x, labels = encoder.embed(files), [file.parent.name for file in files]
    made = FieldClassifier("logistic").fit(x, labels)
    made.save(tmp_path / "c", about={"encoder": encoder.identity})
    export_encoder(place / "encoder", onnx=tmp_path / "l.onnx", classifier=tmp_path / "c")
    exported = OnnxEncoder.load(tmp_path / "l.onnx")
    assert exported.classes == made.classes_.tolist()
    np.testing.assert_allclose(exported.classify(files), made.predict_proba(x), atol=0.01)
    made.save(tmp_path / "o", about={"encoder": "f" * 64})
    with pytest.raises(ArtifactError, match="embeddings of encoder ffffffffffff…, and this is"):
        export_encoder(place / "encoder", onnx=tmp_path / "n.onnx", classifier=tmp_path / "o")
    FieldClassifier("neighbours").fit(x, labels).save(
        tmp_path / "k", about={"encoder": encoder.identity}
    )
    with pytest.raises(ArtifactError, match="--head logistic"):
        export_encoder(place / "encoder", onnx=tmp_path / "n.onnx", classifier=tmp_path / "k")
    with pytest.raises(ConfigError, match="without a head of its own"):
        export_encoder(place / "out", onnx=tmp_path / "n.onnx", classifier=tmp_path / "c")


def test_the_loss_of_eight_bits_is_measured_told_and_stored(place):
    out = place / "8.onnx"
    photos, labels = place / "aviary" / "images", place / "aviary" / "split.csv"
    result = export_encoder(place / "encoder", onnx=out, int8=True, photos=photos, labels=labels)
    loss = result.summary["int8"]
    assert loss["kind"] == "static"
    assert (loss["calibrated_on"], loss["measured_on"]) == (12, 12)
    assert 0.9 < loss["cosine_least"] <= loss["cosine_mean"] < 1
    exact, small = OnnxEncoder.load(place / "x.onnx"), OnnxEncoder.load(out)
    with labels.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    files = [place / "aviary" / row["path"] for row in rows]
    names = np.array([row["class"] for row in rows])
    for encoder, key in ((exact, "rank1_fp32"), (small, "rank1_int8")):
        vectors = encoder.embed(files)
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -2)
        expected = 100 * (names[scores.argmax(1)] == names).mean()
        assert loss[key] == pytest.approx(expected, abs=1e-3)
    cosine = (exact.embed(files) * small.embed(files)).sum(1)
    assert loss["cosine_least"] == pytest.approx(cosine.min(), abs=1e-5)
    assert json.loads(small.metadata["quantisation"]) == loss
    assert small.identity == result.summary["identity"] != exact.identity
    assert "rank-1 of 12 test photos" in result.text
    assert f"{loss['cosine_least']:.4f} at worst" in result.text


def test_a_failing_parity_leaves_no_file(place, monkeypatch):
    monkeypatch.setattr("fieldmark.export.LEAST_COSINE", 1.1)
    with pytest.raises(ArtifactError, match=r"worst has a cosine of \d\.\d+"):
        export_encoder(place / "encoder", onnx=place / "new" / "y.onnx")
    assert not (place / "new").exists()
    before = (place / "x.onnx").read_bytes()
    with pytest.raises(ArtifactError, match="nothing was written"):
        export_encoder(place / "encoder", onnx=place / "x.onnx")
    assert (place / "x.onnx").read_bytes() == before
    assert not list(place.glob(".*"))


def test_options_that_do_not_fit(place, tmp_path):
    encoder = place / "encoder"
    with pytest.raises(ConfigError, match="nothing to export to"):
        export_encoder(encoder)
    with pytest.raises(ConfigError, match="--int8 needs --onnx and --photos"):
        export_encoder(encoder, onnx=tmp_path / "x.onnx", int8=True)
    with pytest.raises(ConfigError, match="give their folder with --photos"):
        export_encoder(encoder, onnx=tmp_path / "x.onnx", labels=tmp_path / "t.csv")
    with pytest.raises(OutputError, match=r"must end in \.onnx"):
        export_encoder(encoder, onnx=tmp_path / "x.pb")
    (tmp_path / "mine.onnx").write_bytes(b"another program's")
    with pytest.raises(OutputError, match="no whole file of fieldmark export"):
        export_encoder(encoder, onnx=tmp_path / "mine.onnx")
    with pytest.raises(ArtifactError, match="there is no encoder"):
        export_encoder(tmp_path / "none", onnx=tmp_path / "x.onnx")


def test_a_hub_folder(place, run, tmp_path):
    code, out, _ = run("export", place / "encoder", "--hub", tmp_path / "hub")
    assert code == 0
    assert "Licences: code Apache-2.0; starting weights none" in out
    loaded = Encoder.load(tmp_path / "hub", device="cpu")
    assert loaded.identity == Encoder.load(place / "encoder").identity


def table(file):
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_embed_takes_an_onnx_file(place, tmp_path):
    photos = place / "aviary" / "images"
    plain = embed_photos(
        place / "encoder", photos, tmp_path / "t.npz", device="cpu", precision="fp32"
    )
    other = embed_photos(place / "x.onnx", photos, tmp_path / "o.npz")
    assert (plain.summary["engine"], other.summary["engine"]) == ("torch", "onnx")
    assert plain.summary["encoder"] == other.summary["encoder"]
    one, two = table(tmp_path / "t.npz"), table(tmp_path / "o.npz")
    assert str(two["fieldmark_engine"]) == "onnx"
    assert (one["path"] == two["path"]).all()
    assert (one["content_hash"] == two["content_hash"]).all()
    assert (one["embedding"] * two["embedding"]).sum(1).min() >= LEAST_COSINE
    again = embed_photos(place / "x.onnx", photos, tmp_path / "o.npz")
    assert again.summary["already_complete"]
    assert again.summary["engine"] == "onnx"
    with pytest.raises(ConfigError, match="runs in ONNX Runtime, on the CPU"):
        embed_photos(place / "x.onnx", photos, tmp_path / "u.npz", engine="torch")


class Pace(OnnxEncoder):
    """Stands in for an engine: how long it takes, and what it says."""

    def __init__(self, real, seconds, wrong=False):
        self.__dict__.update(real.__dict__)
        self._seconds, self._wrong = seconds, wrong

    def run(self, images):
        time.sleep(self._seconds)
        found = super().run(images)
        return found._replace(embedding=found.embedding[::-1].copy()) if self._wrong else found


@pytest.mark.parametrize(
    ("torch_seconds", "onnx_seconds", "wrong", "expected"),
    [(0.2, 0.0, False, "onnx"), (0.0, 0.2, False, "torch"), (0.2, 0.0, True, "torch")],
)
def test_auto_takes_the_faster_one_that_agrees(
    place, tmp_path, monkeypatch, torch_seconds, onnx_seconds, wrong, expected
):
    real = OnnxEncoder.load(place / "x.onnx", threads=1)
    monkeypatch.setattr(engines, "WORTH", 10)
    monkeypatch.setattr(engines, "_exported", lambda encoder, kept: Pace(real, onnx_seconds, wrong))
    encode = Encoder.encode

    def slowly(self, images):
        time.sleep(torch_seconds)
        return encode(self, images)

    monkeypatch.setattr(Encoder, "encode", slowly)
    encoder = engines.load(place / "encoder", engine="auto", device="cpu", precision="auto")
    from fieldmark.data.catalog import Catalog

    catalog = Catalog.open(place / "aviary" / "images")
    chosen = engines.choose(encoder, catalog, "auto", kept=tmp_path / "kept.onnx")
    assert chosen.name == expected
    assert (chosen.encoder is encoder) == (expected == "torch")
    if wrong:
        assert "differs on these photos" in chosen.why


def test_auto_is_torch_where_an_export_is_not_worth_it_or_not_possible(
    place, tmp_path, monkeypatch
):
    from fieldmark.data.catalog import Catalog

    catalog = Catalog.open(place / "aviary" / "images")
    encoder = Encoder.load(place / "encoder", device="cpu")

    def never(*arguments):
        raise AssertionError("exported for nothing")

    monkeypatch.setattr(engines, "export_onnx", never)
    assert engines.choose(encoder, catalog, "auto", kept=tmp_path / "k.onnx").name == "torch"
    monkeypatch.setattr(engines, "WORTH", 10)
    monkeypatch.setattr(engines, "_installed", lambda: False)
    assert engines.choose(encoder, catalog, "auto", kept=tmp_path / "k.onnx").name == "torch"
    monkeypatch.setattr(engines, "_installed", lambda: True)
    reduced = Encoder.load(place / "encoder", device="cpu", precision="bf16")
    assert engines.choose(reduced, catalog, "auto", kept=tmp_path / "k.onnx").name == "torch"
    with pytest.raises(ConfigError, match="engine onnx computes in fp32 on a CPU"):
        engines.choose(reduced, catalog, "onnx", kept=tmp_path / "k.onnx")

    def refuse(*arguments):
        raise ArtifactError("no such operator")

    monkeypatch.setattr(engines, "export_onnx", refuse)
    chosen = engines.choose(encoder, catalog, "auto", kept=tmp_path / "k.onnx")
    assert (chosen.name, chosen.why) == ("torch", "it cannot be exported")
    with pytest.raises(ArtifactError, match="no such operator"):
        engines.choose(encoder, catalog, "onnx", kept=tmp_path / "k.onnx")


def test_a_stopped_job_goes_on_with_its_engine(place, tmp_path, monkeypatch):
    from fieldmark.workflows import embed

    photos, out = place / "aviary" / "images", tmp_path / "t.npz"
    monkeypatch.setattr(embed, "CHUNK", 8)
    work = out.with_name(f".{out.name}.partial")
    # Exporting is shown elsewhere: an export of this encoder lies where the job keeps its own.
    start = embed._start

    def begin(work, key):
        start(work, key)
        (work / "engine.onnx").write_bytes((place / "x.onnx").read_bytes())

    monkeypatch.setattr(embed, "_start", begin)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_photos(place / "encoder", photos, out, device="cpu", engine="onnx", progress=stop)
    assert json.loads((work / "engine.json").read_text())["engine"] == "onnx"
    result = embed_photos(place / "encoder", photos, out, device="cpu")
    assert result.summary["engine"] == "onnx"
    assert str(table(out)["fieldmark_engine"]) == "onnx"
    assert not work.exists()


def test_without_onnxruntime(place, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    photos = place / "aviary" / "images"
    with pytest.raises(MissingExtraError, match=r"fieldmark\[onnx\]"):
        embed_photos(place / "x.onnx", photos, tmp_path / "t.npz")
    assert embed_photos(place / "encoder", photos, tmp_path / "t.npz").summary["engine"] == "torch"
    with pytest.raises(MissingExtraError, match=r"fieldmark\[onnx\]"):
        export_encoder(place / "encoder", onnx=tmp_path / "x.onnx")


def test_a_bad_photo_stops_neither_check_nor_measure(place, tmp_path):
    for index in range(12):
        coarse = np.random.default_rng(index).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((50, 40)).save(tmp_path / f"{index:02}.png")
    (tmp_path / "03.png").write_bytes((tmp_path / "02.png").read_bytes()[:60])
    result = export_encoder(place / "encoder", onnx=tmp_path / "x.onnx", int8=True, photos=tmp_path)
    assert result.summary["parity"]["photos"] == 11
    assert result.summary["int8"]["calibrated_on"] == 6
    assert result.summary["int8"]["measured_on"] == 5
    assert "rank1_fp32" not in result.summary["int8"]
