import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

import tiny
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.errors import InputError
from fieldmark.methods import METHODS
from fieldmark.training.loop import fit, trial
from fieldmark.types import Progress
from fieldmark.workflows.plan import plan
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import train

START = Progress(0, 10, 0.0)
BASES = ["mocov2", "mocov3", "simclr"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A small text-image teacher with random weights."""
    return tiny.text_teacher(tmp_path_factory.mktemp("teacher"))


def made(base="mocov2", **settings):
    return tiny.fitting("ppssl", base, **settings)


def gradient_of_extra(method, batch):
    """Largest gradient on the backbone of what is added to the contrast."""
    output = method(batch, START)
    alone = method.base(batch, START).loss
    (output.loss - alone).backward()
    found = [p.grad.abs().max().item() for p in method.backbone.parameters() if p.grad is not None]
    return max(found, default=0.0)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("iadm", ["coupled_feat", "second_order", "faithful", "none"])
def test_loss_is_the_sum_of_its_parts(base, iadm, teacher):
    method, batch = made(base, iadm=iadm, iadm_weight=0.7, ais_weight=3.0, **teacher)
    output = method(batch, START)
    parts = output.parts
    assert parts["contrast"].item() == pytest.approx(method.base(batch, START).loss.item())
    assert parts["ais"] > 0
    expected = parts["contrast"] + 3.0 * parts["ais"] + 0.7 * parts.get("iadm", 0.0)
    assert output.loss.item() == pytest.approx(expected.item())
    assert ("iadm" in parts) == (iadm != "none")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("iadm", "reaches"), [("coupled_feat", True), ("second_order", True), ("faithful", False)]
)
def test_which_forms_reach_the_encoder(base, iadm, reaches):
    # (Rounding is what is left where two equal gradients are subtracted.)
    assert (gradient_of_extra(*made(base, iadm=iadm)) > 1e-12) == reaches


def test_released_form_stays_without_gradient_when_it_shares_the_batch_norm(teacher):
    """Only the batch-norm shared with the encoder's attention connects the two."""
    method, batch = made(iadm="faithful", ais_weight=0.0, **teacher)
    assert method.guidance.norm is None
    output = method(batch, START)
    (output.loss - method.base(batch, START).loss).backward()
    found = [p.grad for p in method.backbone.parameters() if p.grad is not None]
    assert max(g.abs().max() for g in found) < 1e-12
    assert method.attention.project.weight.grad.abs().max() == 0
    assert method.attention.norm.weight.grad.abs().max() > 0


def test_released_form_rescales_attention_over_the_batch(teacher):
    scopes = {
        iadm: made(iadm=iadm, norm_scope="image", **teacher)[0].attention.norm_scope
        for iadm in ("faithful", "coupled_feat", "none")
    }
    assert scopes == {"faithful": "batch", "coupled_feat": "image", "none": "image"}
    method, _ = made(iadm="faithful", **teacher)
    settings = method.exports()["student"].inserted["max_out_attention"].describe()
    assert settings["norm_scope"] == "batch"


def test_texts_reach_encoder_and_attention(teacher):
    method, batch = made(iadm="none", **teacher)
    method(batch, START).loss.backward()
    method.zero_grad()
    assert gradient_of_extra(method, batch) > 0
    for part in (method.attention.project, method.distillation.project):
        assert part.weight.grad.abs().max() > 0


def test_nothing_of_the_teacher_is_held_or_trained(teacher):
    method, _ = made(**teacher)
    assert not [key for key in method.state_dict() if "teacher" in key and "base." not in key]
    network = method.distillation.teacher._network
    held = {id(p) for p in method.parameters()}
    assert not any(id(p) in held or p.requires_grad for p in network.parameters())
    method.train()
    assert not network.training


def test_without_either_part_it_is_its_base_to_the_bit(tmp_path):
    config = tiny.train_config(epochs=1)
    attached = tiny.method("ppssl", iadm="none")
    fit(attached, tiny.source("mocov2"), config, tmp_path / "attached")
    plain = tiny.method("mocov2")
    fit(plain, tiny.source("mocov2"), config, tmp_path / "plain")
    assert tiny.largest_difference(tiny.state(plain), tiny.state(attached.base)) == 0


@pytest.mark.parametrize("iadm", ["none", "faithful", "second_order"])
def test_attention_that_nothing_trains_does_not_ship(iadm):
    method, _ = made(iadm=iadm)
    assert method.attention is None
    assert all(not spec.inserted for spec in method.exports().values())


def test_attention_ships_where_it_is_trained(teacher):
    for settings in ({}, {"iadm": "none", **teacher}):
        method, _ = made(**settings)
        assert list(method.exports()["student"].inserted) == ["max_out_attention"]


def test_photos_are_embedded_once_and_saved(tmp_path, teacher):
    source = tiny.source("mocov2", photos=24)
    config = tiny.train_config(epochs=2, checkpoint_seconds=0)
    method = tiny.method("ppssl", teacher_views="photo", **teacher)
    seen = []
    real = method.distillation.teacher.encode_images
    method.distillation.teacher.encode_images = lambda x: seen.append(len(x)) or real(x)
    result = fit(method, source, config, tmp_path / "run")
    assert sum(seen) == 24  # of 48 crops
    bank = method.distillation.bank.vectors
    assert torch.allclose(bank.norm(dim=1), torch.ones(24))
    # Going on needs no second look, and another start ends in the same state.
    again = tiny.method("ppssl", seed=3, teacher_views="photo", **teacher)
    again.distillation.teacher.encode_images = None
    again_result = fit(again, source, config, tmp_path / "run")
    assert torch.equal(again.distillation.bank.vectors, bank)
    assert again_result.step == result.step


def test_crops_and_photos_are_judged_differently(teacher):
    first, batch = made(iadm="none", **teacher)
    second, _ = made(iadm="none", teacher_views="photo", **teacher)
    second.start_epoch(START, tiny.source("mocov2"))
    second.distillation.bank.double()
    assert first(batch, START).loss.item() != second(batch, START).loss.item()


def test_user_is_told_that_the_teacher_is_missing(tmp_path, teacher):
    method = tiny.method("ppssl", iadm="faithful")
    result = fit(method, tiny.source(), tiny.train_config(epochs=1), tmp_path)
    assert any("AIS IS OFF" in note and "hf download" in note for note in result.notes)
    assert any("no gradient" in note for note in result.notes)
    (note,) = made(**teacher)[0].notes
    assert note.startswith("AIS is on")
    assert "extra data" in note
    assert "no text names a class" in note


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_photos_are_shown_to_the_teacher_once(teacher, tmp_path, precision):
    """Also where the loop times a step before the first epoch has begun."""
    method = tiny.method("ppssl", teacher_views="photo", **teacher)
    source = tiny.source()
    tried = trial(method, source, tiny.train_config(epochs=1), seconds=0.1)
    assert tried.images_per_second > 0
    fit(method, source, tiny.train_config(epochs=1, precision=precision), tmp_path)
    assert len(method.distillation.bank) == len(source.rows)


def test_a_run_is_not_continued_with_other_texts(teacher, tmp_path):
    bank = tmp_path / "mine.toml"
    bank.write_text('description = "d"\nrelevant = "a bird"\nirrelevant = ["a dog", "a bus"]\n')
    settings = {**teacher, "texts": str(bank), "text_count": 3}
    before = made(**settings)[0].identity()
    assert before["texts"] == ["a bird", "a dog", "a bus"]
    assert made(**settings)[0].identity() == before
    bank.write_text(bank.read_text().replace("a dog", "a cat"))
    assert made(**settings)[0].identity() != before
    assert made(ais=False)[0].identity() == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": "fieldmark:nowhere"}, "nowhere"),
        ({"teacher": "clip"}, "a text teacher is named"),
        ({"texts": "no/such/bank.toml"}, "no such file of texts"),
        ({"texts": "three.toml"}, "must be 1 to 3"),
    ],
)
def test_texts_and_teacher_are_looked_for_before_photos_are_read(
    teacher, tmp_path, monkeypatch, changes, said
):
    """And by what trains in the same words."""
    monkeypatch.chdir(tmp_path)
    bank = 'description = "d"\nrelevant = "a bird"\nirrelevant = ["a dog", "a bus"]\n'
    (tmp_path / "three.toml").write_text(bank)
    settings = {**teacher, **changes}
    recipe = load_recipe("ppssl", [f"method.{key}={value}" for key, value in settings.items()])
    told = []
    for early_or_late in (
        recipe.check,
        lambda: plan(tmp_path / "no photos", recipe),
        lambda: train(tmp_path / "no photos", tmp_path / "out", recipe),
        lambda: made(**settings),
    ):
        with pytest.raises(InputError, match=said) as caught:
            early_or_late()
        told.append(str(caught.value))
    assert len(set(told)) == 1
    assert not (tmp_path / "out").exists()


def test_what_takes_no_part_is_not_looked_for(teacher):
    for settings in ({}, {"ais": "false", "teacher": "fieldmark:nowhere"}, teacher):
        load_recipe("ppssl", [f"method.{k}={v}" for k, v in settings.items()]).check()
    load_recipe("start").check()


@pytest.mark.parametrize("base", BASES)
def test_statistics_are_shared_as_the_method_underneath_shares_them(base):
    method, _ = made(base)
    assert method.synced_statistics == METHODS[base].synced_statistics


def test_ablations_differ():
    for study, variants in METHODS["ppssl"].ablations.items():
        assert len({json.dumps(over) for over in variants.values()}) == len(variants), study


@pytest.mark.parametrize("network", ["test_resnet", "test_convnext", "test_vit"])
def test_the_study_of_layers_runs_on_any_network(network):
    """Stages are counted from the end; only cells that a class token leaves behind are refused."""
    refused = []
    for name, over in METHODS["ppssl"].ablations["layers"].items():
        backbone = Backbone.build(BackboneConfig(name=network, weights="random"), size=64)
        try:
            method = METHODS["ppssl"](tiny.config("ppssl", **over["method"]), backbone)
        except InputError:
            refused.append(name)
        else:
            assert method.guidance.stages == tuple(
                s for s in over["method"]["layers"] if s != "image"
            )
    holds_last = ["stage -1", "image and stage -1", "image and stages -4 to -1"]
    assert refused == (holds_last if network == "test_vit" else [])


def test_control_of_the_parts_ships_attention_that_nothing_fits():
    parts = METHODS["ppssl"].ablations["parts"]
    control, fitted = (
        tiny.fitting("ppssl", **parts[name]["method"])[0]
        for name in ("attention not fitted", "IADM")
    )
    assert list(control.exports()["student"].inserted) == ["max_out_attention"]
    batch = tiny.fitting("ppssl")[1]
    gradients = []
    for method in (control, fitted):
        method(batch, START).loss.backward()
        gradients.append(method.attention.project.weight.grad.abs().max().item())
    assert gradients[0] == 0 < gradients[1]


def test_recipe_is_the_papers():
    recipe = load_recipe("ppssl", ())
    method = recipe.method
    assert method.base == "mocov2"
    assert (method.contrast.dim, method.contrast.queue_size) == (256, 65536)
    assert method.contrast.temperature == 0.2
    assert (method.ais_weight, method.iadm_weight, method.text_count) == (1.2, 1.28, 8)
    assert (recipe.train.lr, recipe.train.batch_size, recipe.train.epochs) == (0.03, 128, 100)
    assert not method.distils


ALONE = """
import json, sys
for name in ("transformers", "open_clip", "fieldmark.nn.towers", "fieldmark.nn.text_teacher",
             "fieldmark.nn.texts", "fieldmark.methods", "fieldmark.training"):
    sys.modules[name] = None
import torch
from fieldmark.encoder import Encoder
encoder = Encoder.load(sys.argv[1], device="cpu", precision="fp32")
images = torch.load(sys.argv[2], weights_only=True)
print(json.dumps(encoder.encode(images).tolist()))
"""


def test_inference_needs_no_text_image_package(tmp_path, teacher):
    """Trained with a teacher, the encoder embeds where neither package nor method is there."""
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    method = METHODS["ppssl"](tiny.config("ppssl", **teacher), backbone)
    encoder = Encoder(method.exports()["student"], device="cpu", precision="fp32")
    encoder.save(tmp_path / "encoder")
    with safe_open(tmp_path / "encoder" / "encoder.safetensors", "pt") as file:
        names = set(file.keys())
    shipped = {"backbone.network", "inserted.max_out_attention"}
    assert {name for name in names if not name.startswith(tuple(shipped))} == set()
    images = torch.rand(3, 3, 32, 32)
    torch.save(images, tmp_path / "images.pt")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "encoder"), str(tmp_path / "images.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.asarray(json.loads(done.stdout.strip().splitlines()[-1]))
    expected = np.asarray(encoder.encode(images))
    assert np.abs(found - expected).max() < 1e-6
    # Section 1.4 of the paper's recipe: unit vector of the mean of attention times feature.
    with torch.no_grad():
        method.eval()
        features = method.backbone(images)
        weighed = features.tokens * method.attention.weights(features.tokens)[..., None]
        by_hand = torch.nn.functional.normalize(weighed.mean(1))
    assert np.abs(expected - by_hand.numpy()).max() < 1e-5


def test_embedding_does_not_depend_on_the_batch():
    method, _ = made()
    spec = method.exports()["student"].eval()
    images = torch.rand(4, 3, tiny.SIZE, tiny.SIZE).double()
    with torch.no_grad():
        together = spec(images)
        alone = torch.cat([spec(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-12)


def test_what_takes_part_beyond_the_photos_is_told_to_a_table():
    def told(**method):
        return load_recipe("ppssl", extra={"method": method}).extra_data

    teacher = {"teacher": "open_clip:/models/ViT-B-16", "texts": "birds", "text_count": 4}
    assert told() == load_recipe("start").extra_data == "none"
    assert told(**teacher) == "teacher open_clip:ViT-B-16, 4 texts of birds"
    assert told(**teacher, ais=False) == "none"
