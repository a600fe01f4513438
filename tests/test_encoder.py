import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, InputError, OutputError, PhotoError
from fieldmark.nn.inference import Runner
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import fit_whitening
from fieldmark.sklearn_api import EncoderTransformer
from tiny import ArrayStore


def make(**post):
    config = BackboneConfig(name="test_resnet", weights="random")
    spec = EncoderSpec(Backbone.build(config, size=32), PostConfig(**post))
    return Encoder(spec, {"recipe": "mocov2", "metrics": {"rank1": 12.5}}, device="cpu")


@pytest.fixture(scope="module")
def encoder():
    return make()


@pytest.fixture(scope="module")
def photo_arrays():
    generator = np.random.default_rng(0)
    shapes = [(40, 60), (90, 50), (37, 37), (20, 25), (33, 200), (64, 64), (41, 40)]
    coarse = [
        Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)) for _ in shapes
    ]
    # Smooth, as photos are: in noise every rounding of a scale shows.
    return [np.asarray(image.resize((w, h))) for image, (h, w) in zip(coarse, shapes, strict=True)]


@pytest.fixture
def folder(tmp_path, photo_arrays):
    for index, pixels in enumerate(photo_arrays):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def test_saved_and_loaded_it_is_the_same_encoder(tmp_path, encoder, photo_arrays):
    encoder.save(tmp_path / "e")
    loaded = Encoder.load(tmp_path / "e", device="cpu")
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
        "README.md",
        "encoder.json",
        "encoder.safetensors",
    ]
    assert np.array_equal(loaded.embed(photo_arrays), encoder.embed(photo_arrays))
    assert loaded.identity == encoder.identity
    assert loaded.card == encoder.card
    assert loaded.provenance.how == "random"
    assert "rank1 | 12.5" in (tmp_path / "e" / "README.md").read_text()
    card = json.loads((tmp_path / "e" / "encoder.json").read_text())
    assert card["spec"]["post"]["crop"] == 0.875


def test_post_processing_is_part_of_the_artifact(tmp_path, photo_arrays):
    post = PostConfig(pooling="gem", whiten_dim=4, flip=True, stages=(-2,), crop=1.0)
    plain = make(**post.model_dump())
    whitening = fit_whitening(torch.from_numpy(plain.embed(photo_arrays)), 4)
    encoder = Encoder(plain.spec.with_post(post, whitening), device="cpu")
    encoder.save(tmp_path / "e")
    loaded = Encoder.load(tmp_path / "e", device="cpu")
    assert loaded.dim == 4
    assert loaded.post == post
    assert np.array_equal(loaded.embed(photo_arrays), encoder.embed(photo_arrays))
    assert loaded.identity != plain.identity


def test_identity_follows_weights_and_settings(encoder):
    other = make()
    assert other.identity == encoder.identity
    assert make(flip=True).identity != encoder.identity
    with torch.no_grad():
        next(other.spec.parameters()).view(-1)[0] += 1e-3
    other._identity = None
    assert other.identity != encoder.identity


def test_a_network_in_training_is_left_alone():
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32).train()
    encoder = Encoder(EncoderSpec(backbone), device="cpu")
    encoder.embed([np.zeros((40, 40, 3), np.uint8)])
    assert backbone.training
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_noticed(tmp_path, encoder, place):
    encoder.save(tmp_path / "e")
    file = tmp_path / "e" / "encoder.safetensors"
    data = bytearray(file.read_bytes())
    data[int(len(data) * place)] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged or belongs to another encoder"):
        Encoder.load(tmp_path / "e")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: "{", "damaged or was not written by fieldmark"),
        (lambda card: "[]", "damaged or was not written by fieldmark"),
        (lambda card: json.dumps({**card, "format": "other"}), "not written by fieldmark"),
        (lambda card: json.dumps({**card, "format_version": 99}), "format 99.*install"),
        (
            lambda card: json.dumps({**card, "spec": {**card["spec"], "size": "big"}}),
            "cannot be rebuilt",
        ),
        (
            lambda card: json.dumps(
                {**card, "spec": {**card["spec"], "backbone": {"name": "resnet18"}}}
            ),
            "cannot be rebuilt",
        ),
    ],
)
def test_damaged_cards(tmp_path, encoder, change, message):
    encoder.save(tmp_path / "e")
    file = tmp_path / "e" / "encoder.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(ArtifactError, match=message):
        Encoder.load(tmp_path / "e")


def test_folders_that_are_no_encoder(tmp_path, encoder):
    with pytest.raises(ArtifactError, match="there is no encoder"):
        Encoder.load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"has no encoder\.json"):
        Encoder.load(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"other files \(notes.txt\)"):
        encoder.save(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        encoder.save(tmp_path / "notes.txt")
    encoder.save(tmp_path / "run" / "encoder")
    assert Encoder.load(tmp_path / "run").identity == encoder.identity
    (tmp_path / "run" / "encoder" / "encoder.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"no encoder\.safetensors"):
        Encoder.load(tmp_path / "run")


@pytest.mark.parametrize("step", ["write_bytes", "write_text", "_swap"])
def test_a_save_that_breaks_off_keeps_the_old_encoder(tmp_path, encoder, monkeypatch, step):
    encoder.save(tmp_path / "e")

    def fail(*arguments):
        raise KeyboardInterrupt

    place = "fieldmark.encoder._swap" if step == "_swap" else f"fieldmark.storage.{step}"
    monkeypatch.setattr(place, fail)
    with pytest.raises(KeyboardInterrupt):
        make(flip=True).save(tmp_path / "e")
    monkeypatch.undo()
    assert Encoder.load(tmp_path / "e").identity == encoder.identity
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_a_kill_between_the_two_renames_leaves_a_usable_encoder(tmp_path, encoder):
    encoder.save(tmp_path / "e")
    (tmp_path / "e").rename(tmp_path / ".e.old")
    assert Encoder.load(tmp_path / "e").identity == encoder.identity
    make(flip=True).save(tmp_path / "e")
    assert Encoder.load(tmp_path / "e").identity != encoder.identity
    assert not (tmp_path / ".e.old").exists()


def test_every_kind_of_photo_gives_the_same_embedding(encoder, photo_arrays, folder):
    expected = encoder.embed(photo_arrays)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    files = [folder / f"{index}.png" for index in range(len(photo_arrays))]
    for photos in (
        files,
        [str(file) for file in files],
        [file.read_bytes() for file in files],
        [Image.fromarray(pixels) for pixels in photo_arrays],
        [torch.from_numpy(pixels.copy()).permute(2, 0, 1) for pixels in photo_arrays],
        (pixels for pixels in photo_arrays),
        folder,
    ):
        np.testing.assert_allclose(encoder.embed(photos, batch_size=3), expected, atol=1e-5)
    floats = [torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 for pixels in photo_arrays]
    assert (encoder.embed(floats) * expected).sum(1).min() > 0.999
    stacked = np.stack([photo_arrays[5]] * 2)
    np.testing.assert_allclose(encoder.embed(stacked), expected[[5, 5]], atol=1e-5)
    np.testing.assert_allclose(encoder.embed(photo_arrays[5]), expected[[5]], atol=1e-5)
    np.testing.assert_allclose(encoder.embed_file(files[5]), expected[5], atol=1e-5)


def test_a_large_jpeg_is_scaled_while_it_is_decoded_and_looks_the_same(encoder, folder):
    coarse = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((480, 360))
    large.save(folder / "large.jpg", quality=95)
    decoded = np.asarray(Image.open(folder / "large.jpg"))
    assert encoder.embed_file(folder / "large.jpg") @ encoder.embed(decoded)[0] > 0.9999


def test_a_jpeg_little_larger_than_the_input_is_scaled_once(encoder, folder):
    noise = np.random.default_rng(2).integers(0, 256, (64, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "small.jpg", quality=95)
    decoded = np.asarray(Image.open(folder / "small.jpg"))
    expected = encoder.embed(decoded)[0]
    np.testing.assert_allclose(encoder.embed_file(folder / "small.jpg"), expected, atol=1e-5)


def test_order_is_kept_whatever_the_batches(encoder, photo_arrays):
    expected = encoder.embed(photo_arrays, batch_size=64, workers=1)
    for batch_size in (1, 2, 7):
        result = encoder.embed(photo_arrays, batch_size=batch_size, workers=3)
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_files_and_store_look_alike():
    store = ArrayStore(6, side=40)
    encoder = make()
    rows = np.arange(6)
    from_store = encoder.embed_store(store, rows, batch_size=4)
    arrays = encoder.embed([store.photo(row) for row in rows])
    assert (from_store * arrays).sum(1).min() > 0.999
    assert np.array_equal(encoder.embed_store(store, rows[::-1]), from_store[::-1])


def test_streaming_reads_ahead_a_little_only(encoder):
    taken = []

    def photos():
        for index in range(1000):
            taken.append(index)
            yield np.full((40, 40, 3), index % 256, np.uint8)

    stream = encoder.stream(photos(), batch_size=4, workers=2)
    assert next(stream).position == 0
    assert len(taken) <= 16
    stream.close()


def test_a_bad_photo_is_named(encoder, folder):
    (folder / "3.png").write_bytes(b"not a photo")
    files = [folder / "0.png", folder / "3.png", folder / "gone.png", folder / "5.png"]
    with pytest.raises(PhotoError, match=r"3\.png"):
        encoder.embed(files)
    outcomes = list(encoder.stream(files))
    assert [item.embedding is None for item in outcomes] == [False, True, True, False]
    assert [item.problem and item.problem.code for item in outcomes] == [
        None,
        "format_not_allowed",
        "missing",
        None,
    ]
    with pytest.raises(InputError, match=r"float64 \(4, 4, 3\)"):
        encoder.embed([np.zeros((4, 4, 3))])


def test_exif_orientation_is_applied(encoder, photo_arrays):
    image = Image.fromarray(photo_arrays[0])
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    both = encoder.embed([image, buffer.getvalue()])
    assert (both[0] * both[1]).sum() > 0.999


def test_tokens(encoder, photo_arrays):
    tokens, shape = encoder.embed_tokens(photo_arrays, batch_size=4)
    assert tokens.shape == (7, shape[0] * shape[1], encoder.spec.backbone.token_dim)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=2), 1, rtol=1e-4)


def test_scikit_learn(tmp_path, encoder, photo_arrays):
    encoder.save(tmp_path / "e")
    transformer = EncoderTransformer(str(tmp_path / "e"), batch_size=3, device="cpu")
    assert clone(transformer).get_params() == transformer.get_params()
    pipeline = make_pipeline(transformer, LogisticRegression(max_iter=50))
    labels = ["a", "b", "a", "b", "a", "b", "a"]
    assert pipeline.fit(photo_arrays, labels).predict(photo_arrays).shape == (7,)
    # Each chooses its own arithmetic, within the cosine that is allowed.
    cosine = (transformer.fit().transform(photo_arrays) * encoder.embed(photo_arrays)).sum(1)
    assert cosine.min() > 0.999
    assert len(transformer.get_feature_names_out()) == encoder.dim


def test_reduced_precision_is_refused_when_it_differs(encoder, monkeypatch):
    runner = Runner(encoder.spec, torch.device("cpu"), "fp32")
    images = torch.rand(4, 3, 32, 32)
    exact = runner(images)
    doubtful = Runner(encoder.spec, torch.device("cpu"), "auto")
    monkeypatch.setattr("fieldmark.nn.inference.LEAST_COSINE", 1.1)
    torch.testing.assert_close(doubtful(images), exact, atol=1e-5, rtol=1e-4)
    assert doubtful.precision == "fp32"


def test_precision_asked_for_by_name_is_missed_aloud(encoder, monkeypatch, caplog):
    def refuse(self, images, name):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Runner, "_accelerate", refuse)
    images = torch.rand(4, 3, 32, 32)
    for asked, messages in (("auto", 0), ("bf16", 1)):
        caplog.clear()
        runner = Runner(encoder.spec, torch.device("cpu"), asked)
        runner(images)
        assert runner.precision == "fp32"
        told = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(told) == messages
        assert all("bf16" in message and "no such kernel" in message for message in told)


def test_inference_needs_no_training_code(tmp_path, encoder):
    encoder.save(tmp_path / "e")
    code = (
        "import sys, numpy as np\n"
        "from fieldmark import Encoder\n"
        f"e = Encoder.load({str(tmp_path / 'e')!r}, device='cpu')\n"
        "e.embed([np.zeros((40, 40, 3), np.uint8)])\n"
        "bad = [m for m in sys.modules if m.startswith(('fieldmark.methods', 'fieldmark.training', "
        "'fieldmark.workflows', 'fieldmark.cli', 'fieldmark.evaluation'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)
