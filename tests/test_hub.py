import json
import re

import huggingface_hub
import numpy as np
import pytest
import yaml

from fieldmark import hub
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.provenance import Ledger, Provenance, ledger
from fieldmark.data.benchmarks.folders import told_licence
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, MissingExtraError, OutputError
from fieldmark.nn.spec import EncoderSpec

PHOTO = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)


@pytest.fixture(scope="module")
def encoder():
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    backbone.provenance = Provenance(
        how="supervised",
        data="ImageNet-1k",
        licence="Apache-2.0",
        source="timm/test_resnet.r160_in1k",
        sha256="ab" * 32,
        labels_seen="ImageNet-1k",
    )
    card = {"role": "student", "photos_source": "warblers", "photos_licence": "Apache-2.0"}
    return Encoder(EncoderSpec(backbone), card, device="cpu")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    for name in ("FIELDMARK_ALLOW_DOWNLOAD", "FIELDMARK_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*arguments, **settings):
        raise AssertionError("a test went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_both_layouts_hold_the_same_encoder(tmp_path, encoder):
    encoder.save(tmp_path / "plain")
    encoder.save_pretrained(tmp_path / "hub")
    assert sorted(p.name for p in (tmp_path / "hub").iterdir()) == sorted(hub.FILES)
    pairs = [("encoder.json", "config.json"), ("encoder.safetensors", "model.safetensors")]
    for plain, there in pairs:
        assert (tmp_path / "plain" / plain).read_bytes() == (tmp_path / "hub" / there).read_bytes()
    for read in (Encoder.load, Encoder.from_pretrained):
        for folder in ("plain", "hub"):
            again = read(tmp_path / folder, device="cpu")
            assert again.identity == encoder.identity
            assert again.ledger == encoder.ledger
            assert np.array_equal(again.embed([PHOTO]), encoder.embed([PHOTO]))
    # Written again in place, and with the other names beside nothing of the first.
    encoder.save_pretrained(tmp_path / "hub")
    with pytest.raises(OutputError, match="other files"):
        encoder.save_pretrained(tmp_path / "plain")


def test_somebody_else_s_config_is_neither_read_nor_replaced(tmp_path, encoder):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ArtifactError, match="damaged or was not written by fieldmark"):
        Encoder.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OutputError, match="other files"):
        encoder.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"model_type": "clip"}'


def test_a_cut_hub_folder_is_noticed(tmp_path, encoder):
    encoder.save_pretrained(tmp_path / "e")
    file = tmp_path / "e" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"damaged .* config\.json says"):
        Encoder.load(tmp_path / "e")
    file.unlink()
    with pytest.raises(ArtifactError, match=r"has no model\.safetensors"):
        Encoder.load(tmp_path / "e")


def front(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return yaml.safe_load(block.group(1)), text


def test_the_page_tells_licences_and_what_it_was_made_from(tmp_path, encoder):
    encoder.save_pretrained(tmp_path / "e")
    head, text = front(tmp_path / "e")
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "fieldmark"
    assert head["base_model"] == "timm/test_resnet.r160_in1k"
    assert {"fieldmark", "test_resnet"} <= set(head["tags"])
    for row in (
        "| code (fieldmark) | Apache-2.0 |",
        "| starting weights | Apache-2.0 |",
        "| labels seen | ImageNet-1k |",
        "| photos fieldmark trained on | warblers |",
        f"| SHA-256 of the weights' file | {'ab' * 32} |",
    ):
        assert row in text
    assert "Encoder.from_pretrained(" in text
    card = json.loads((tmp_path / "e" / "config.json").read_text())
    assert card["licences"]["photos_licence"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("weights", "photos", "expected"),
    [
        ("Apache-2.0", "unknown", {"license": "unknown"}),
        ("unknown", "MIT", {"license": "unknown"}),
        ("none", "none", {"license": "apache-2.0"}),
        ("none", "CC-BY-4.0", {"license": "cc-by-4.0"}),
        (
            "Apache-2.0",
            'research: "ask" us',
            {"license": "other", "license_name": 'weights: Apache-2.0; photos: research: "ask" us'},
        ),
    ],
)
def test_a_licence_is_named_only_when_all_agree(weights, photos, expected):
    text = hub.front_matter(
        {"spec": {"backbone": {"name": "no"}}}, Ledger(weights=weights, photos_licence=photos)
    )
    head = yaml.safe_load(text.strip().strip("-"))
    assert {key: head[key] for key in expected} == expected
    assert "base_model" not in head
    assert head["tags"][-1] == "no"


def test_what_was_not_told_is_unknown():
    found = ledger(Provenance(), {})
    told = found.dump()
    assert told.pop("code") == "Apache-2.0"
    assert set(told.values()) == {"unknown"}
    assert dict(found.rows())["SHA-256 of the weights' file"] == "unknown"
    assert ledger(Provenance(), {"role": "start"}).photos == "none"
    assert ledger(Provenance(), {"photos_licence": 7}).photos_licence == "unknown"


def test_a_whitened_start_has_seen_photos(encoder):
    from fieldmark.nn.whitening import Whitening

    spec = encoder.spec
    card = {"role": "start", "photos_source": "warblers"}
    assert Encoder(spec, card, device="cpu").ledger.photos == "none"
    white = spec.with_post(spec.post, Whitening(spec.raw_dim, 4))
    assert Encoder(white, card, device="cpu").ledger.photos == "warblers"


def test_the_licence_of_photos_is_read_beside_them(tmp_path):
    assert told_licence(tmp_path / "images") == "unknown"
    (tmp_path / "about.toml").write_text('licence = "CC-BY-4.0"\n')
    assert told_licence(tmp_path / "images") == "CC-BY-4.0"
    assert told_licence(tmp_path) == "CC-BY-4.0"
    (tmp_path / "about.toml").write_text("not toml at all")
    assert told_licence(tmp_path) == "unknown"


class FakeHub:
    """Stands in for huggingface_hub.HfApi."""

    def __init__(self, fail=None):
        self.calls = []
        self.uploaded = {}
        self.fail = fail

    def create_repo(self, **settings):
        self.calls.append(("create", settings))

    def upload_folder(self, *, folder_path, **settings):
        if self.fail:
            raise self.fail
        from pathlib import Path

        self.uploaded = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        self.calls.append(("upload", settings))
        return type("Commit", (), {"commit_url": "https://hub/ada/warblers/commit/1"})()


def test_push_uploads_the_folder(tmp_path, encoder, monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    assert encoder.push_to_hub("ada/warblers") == "https://hub/ada/warblers/commit/1"
    assert [name for name, _ in fake.calls] == ["create", "upload"]
    assert fake.calls[0][1] == {
        "repo_id": "ada/warblers", "repo_type": "model", "private": True, "exist_ok": True,
    }  # fmt: skip
    assert sorted(fake.uploaded) == sorted(hub.FILES)
    for name, data in fake.uploaded.items():
        (tmp_path / name).write_bytes(data)
    assert Encoder.load(tmp_path, device="cpu").identity == encoder.identity


def test_push_that_is_refused_says_why(encoder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: FakeHub(PermissionError("403 no")))
    with pytest.raises(OutputError, match=r"not uploaded \(PermissionError: 403 no\).*log in"):
        encoder.push_to_hub("ada/warblers")
    for name in ("warblers", "../x/y", "a/b/c", ""):
        with pytest.raises(OutputError, match="no repository"):
            encoder.push_to_hub(name)
    monkeypatch.setenv("FIELDMARK_OFFLINE", "1")
    with pytest.raises(OutputError, match="FIELDMARK_OFFLINE"):
        encoder.push_to_hub("ada/warblers")


def test_a_name_is_looked_for_in_the_cache_only(tmp_path, encoder, monkeypatch):
    encoder.save_pretrained(tmp_path / "cached")
    asked = []

    def snapshot(name, *, allow_patterns, local_files_only):
        asked.append(local_files_only)
        if name != "ada/warblers":
            raise FileNotFoundError("not in the cache")
        return str(tmp_path / "cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = Encoder.from_pretrained("ada/warblers", device="cpu")
    assert found.identity == encoder.identity
    with pytest.raises(ArtifactError, match=r"no folder 'ada/none'.*FIELDMARK_ALLOW_DOWNLOAD"):
        Encoder.from_pretrained("ada/none")
    assert asked == [True, True]
    Encoder.from_pretrained("ada/warblers", download=True, device="cpu")
    monkeypatch.setenv("FIELDMARK_ALLOW_DOWNLOAD", "1")
    with pytest.raises(ArtifactError, match="could not be downloaded"):
        Encoder.from_pretrained("ada/none")
    monkeypatch.setenv("FIELDMARK_OFFLINE", "1")
    Encoder.from_pretrained("ada/warblers", download=True, device="cpu")
    assert asked == [True, True, False, False, True]
    with pytest.raises(ArtifactError, match="there is no encoder at"):
        Encoder.from_pretrained(tmp_path / "nowhere")


def test_without_huggingface_hub_it_says_what_to_install(encoder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"fieldmark\[hub\]"):
        encoder.push_to_hub("ada/warblers")
