import json
import logging
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.provenance import provenance_from_metadata, provenance_from_tag
from fieldmark.backbones.weights import find_weights, read_tensors
from fieldmark.errors import InputError, WeightsError

METADATA = {
    "arch": "test_resnet",
    "mean": "0.5,0.4,0.3",
    "std": "0.2,0.2,0.25",
    "supervision": "labels (ImageNet-1k)",
    "source": "made for tests, Apache-2.0",
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.delenv("FIELDMARK_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def state():
    config = BackboneConfig(name="test_resnet", weights="random", seed=9)
    return Backbone.build(config, size=64).network.state_dict()


def write(path, state, metadata=METADATA):
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
    return path


def build(path, **settings):
    return Backbone.build(BackboneConfig(weights=str(path), **settings), size=64)


def test_a_file_alone_is_enough(tmp_path, state):
    classifier = {"fc.weight": torch.zeros(10, 96), "fc.bias": torch.zeros(10)}
    file = write(tmp_path / "w.safetensors", {**state, **classifier})
    backbone = build(file)
    assert backbone.config.name == "test_resnet"
    assert backbone.config.mean == (0.5, 0.4, 0.3)
    assert backbone.config.std == (0.2, 0.2, 0.25)
    assert all(torch.equal(backbone.network.state_dict()[key], state[key]) for key in state)
    provenance = backbone.provenance
    assert provenance.how == "supervised"
    assert provenance.labels_seen == "ImageNet-1k"
    assert provenance.licence == "Apache-2.0"
    assert len(provenance.sha256) == 64


def test_constructor_arguments_come_from_the_metadata(tmp_path):
    config = BackboneConfig(
        name="mobilenetv2_035", weights="random", arguments={"pad_type": "same"}
    )
    made = Backbone.build(config, size=64)
    metadata = {"arch": "mobilenetv2_035", "pad_type": "same"}
    file = write(tmp_path / "w.safetensors", made.network.state_dict(), metadata)
    images = torch.rand(1, 3, 64, 64)
    loaded = build(file)
    assert loaded.config.arguments == {"pad_type": "same"}
    plain = build(file, arguments={"pad_type": ""})
    made.eval(), loaded.eval(), plain.eval()
    assert torch.equal(loaded(images).pooled, made(images).pooled)
    assert not torch.allclose(plain(images).pooled, made(images).pooled)


def test_a_file_may_name_the_shape_of_its_network(tmp_path):
    shape = {"depth": 2, "embed_dim": 48, "num_heads": 3, "class_token": True}
    config = BackboneConfig(name="test_vit", weights="random", arguments=shape)
    made = Backbone.build(config, size=64).eval()
    metadata = {"arch": "test_vit", "arguments": json.dumps(shape)}
    file = write(tmp_path / "w.safetensors", made.network.state_dict(), metadata)
    loaded = build(file).eval()
    assert loaded.config.arguments == shape
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images).pooled, made(images).pooled)
    with pytest.raises(WeightsError, match="not those of"):
        build(file, arguments={"depth": 3})


@pytest.mark.parametrize("text", ["depth=2", "[2]", '{"depth": [2]}', '{"depth": null}', ""])
def test_arguments_that_cannot_be_read(tmp_path, state, text):
    file = write(tmp_path / "w.safetensors", state, {**METADATA, "arguments": text})
    with pytest.raises(WeightsError, match="a JSON object of numbers"):
        build(file)


def test_a_file_cannot_make_timm_read_another(tmp_path, state):
    arguments = json.dumps({"checkpoint_path": "/tmp/pickle.pth"})
    file = write(tmp_path / "w.safetensors", state, {**METADATA, "arguments": arguments})
    with pytest.raises(InputError, match="checkpoint_path, which is no argument"):
        build(file)


def test_settings_win_over_the_metadata(tmp_path, state):
    backbone = build(write(tmp_path / "w.safetensors", state), mean=(0.1, 0.1, 0.1))
    assert backbone.config.mean == pytest.approx((0.1, 0.1, 0.1))
    assert backbone.config.std == (0.2, 0.2, 0.25)


@pytest.mark.parametrize("prefix", ["module.", "model.backbone."])
def test_a_common_prefix_is_taken_off(tmp_path, state, prefix):
    renamed = {prefix + key: value for key, value in state.items()}
    assert build(write(tmp_path / "w.safetensors", renamed)).dim == 96


class Canary:
    def __reduce__(self):
        return (open, ("canary", "w"))


BAD = {
    "html": (b"<!DOCTYPE html><html>login</html>", "web page"),
    "spaced html": (b"\n\n <html>", "web page"),
    "pickle": (pickle.dumps(Canary()), "pickle"),
    "torch checkpoint": (b"PK\x03\x04" + bytes(100), "pickle"),
    "empty": (b"", "not a safetensors file"),
    "text": (b"hello there, this is text", "not a safetensors file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
    "huge header": (struct.pack("<Q", 2**40) + b"{}", "not a safetensors file"),
    "cut header": (struct.pack("<Q", 500) + b'{"a": ', "cut short"),
    "broken header": (struct.pack("<Q", 5) + b"{nope", "damaged header"),
    "wrong header": (struct.pack("<Q", 10) + b'{"a": [1]}', "damaged header"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_weights(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message = BAD[name]
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        build(file)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("length", [0x80, 0x180, 0x280, 0x4B50])
def test_a_header_whose_length_begins_like_a_pickle_or_a_zip(tmp_path, length):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", length) + header.ljust(length) + struct.pack("<f", 1.5))
    assert file.read_bytes()[:2] == b"PK" or file.read_bytes()[:1] == b"\x80"
    assert read_tensors(file)["a"].tolist() == [1.5]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated(tmp_path, state, share):
    file = write(tmp_path / "w.safetensors", state)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match="cut short"):
        build(file)


def test_offsets_that_lie(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(WeightsError, match="cannot be read"):
        build(file, name="test_resnet")


def test_pth_is_refused_with_advice(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="weights_only=True"):
        build(tmp_path / "w.pth")


def test_other_network(tmp_path, state):
    file = write(tmp_path / "w.safetensors", state, {"arch": "test_efficientnet"})
    with pytest.raises(WeightsError, match=r"belong to another network \(\d+ of \d+"):
        build(file)


def test_name_that_contradicts_the_metadata(tmp_path, state):
    file = write(tmp_path / "w.safetensors", state)
    with pytest.raises(WeightsError, match=r"'test_resnet'.*'resnet18'"):
        build(file, name="resnet18")


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_what_differs_is_named(tmp_path, state, change):
    state = dict(state)
    if change == "missing":
        del state["layer3.0.conv1.weight"]
    elif change == "surplus":
        state["layer9.conv1.weight"] = torch.zeros(1)
    else:
        state["layer3.0.conv1.weight"] = torch.zeros(2, 2)
    with pytest.raises(WeightsError, match=rf"{change}: layer\d.*conv1.weight"):
        build(write(tmp_path / "w.safetensors", state))


def test_not_finite(tmp_path, state):
    state = {**state, "conv1.0.weight": torch.full_like(state["conv1.0.weight"], torch.nan)}
    with pytest.raises(WeightsError, match=r"NaN.*conv1\.0\.weight"):
        build(write(tmp_path / "w.safetensors", state))


@pytest.mark.parametrize("mean", ["0.5,0.5", "a,b,c", ""])
def test_statistics_that_are_no_numbers(tmp_path, state, mean):
    if not mean:
        with pytest.raises(WeightsError, match="std"):
            build(write(tmp_path / "w.safetensors", state, {**METADATA, "std": "0,1,1"}))
        return
    with pytest.raises(WeightsError, match="three numbers"):
        build(write(tmp_path / "w.safetensors", state, {**METADATA, "mean": mean}))


def test_absent_file_and_unknown_network():
    with pytest.raises(WeightsError, match="no weights file"):
        build("nowhere.safetensors")
    with pytest.raises(WeightsError, match="did you mean 'resnet50'"):
        Backbone.build(BackboneConfig(name="resnet5O", weights="random"), size=64)


def test_the_weights_folder_comes_before_random(tmp_path, state, monkeypatch, caplog):
    monkeypatch.setenv("FIELDMARK_WEIGHTS_DIR", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert find_weights("test_resnet", None).file is None
    assert "RANDOM" in caplog.text
    file = write(tmp_path / "test_resnet.mine.safetensors", state)
    assert find_weights("test_resnet", None).file == file
    assert find_weights("test_resnet", "random").file is None
    write(tmp_path / "test_resnet.other.safetensors", state)
    with pytest.raises(WeightsError, match="several"):
        find_weights("test_resnet", "auto")
    exact = write(tmp_path / "test_resnet.safetensors", state)
    assert find_weights("test_resnet", "auto").file == exact
    monkeypatch.setenv("FIELDMARK_WEIGHTS_DIR", str(exact))
    with pytest.raises(WeightsError, match="not a folder"):
        find_weights("test_resnet", None)


def test_the_hub_is_asked_only_when_allowed(monkeypatch, tmp_path, state):
    import huggingface_hub

    calls = []

    def download(repository, name):
        calls.append(repository)
        raise OSError("offline\nlong story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.delenv("FIELDMARK_ALLOW_DOWNLOAD", raising=False)
    assert find_weights("test_resnet", None).file is None
    assert calls == []
    with pytest.raises(WeightsError, match=r"could not be downloaded \(OSError: offline\)"):
        find_weights("test_resnet", "hub")
    monkeypatch.setenv("FIELDMARK_ALLOW_DOWNLOAD", "1")
    with pytest.raises(WeightsError):
        find_weights("test_resnet", None)
    assert calls == ["timm/test_resnet.r160_in1k"] * 2
    cached = write(tmp_path / "model.safetensors", state, {"format": "pt"})
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(cached))
    found = find_weights("test_resnet", None)
    assert found.file == cached
    assert found.provenance.how == "supervised"
    assert found.provenance.source == "timm/test_resnet.r160_in1k"


@pytest.mark.parametrize(
    ("text", "how", "seen"),
    [
        ("labels (ImageNet-1k)", "supervised", "ImageNet-1k"),
        ("self-supervised (DINO)", "self-supervised", "none"),
        ("text (LAION)", "text-supervised", "unknown"),
        ("distilled from a network trained with labels", "distilled", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_provenance_from_metadata(text, how, seen):
    provenance = provenance_from_metadata({"supervision": text}, "file", "0" * 64)
    assert (provenance.how, provenance.labels_seen) == (how, seen)


@pytest.mark.parametrize(
    ("tag", "how"),
    [
        ("a1_in1k", "supervised"),
        ("augreg_in21k_ft_in1k", "supervised"),
        ("lvd142m", "self-supervised"),
        ("dino", "self-supervised"),
        ("fcmae", "self-supervised"),
        ("fcmae_ft_in1k", "supervised"),
        ("laion2b", "text-supervised"),
        ("openai_ft_in1k", "supervised"),
    ],
)
def test_provenance_from_tag(tag, how):
    assert provenance_from_tag(tag, None, "hub", "0" * 64).how == how
