import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.cli import app
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, LabelError, OutputError
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.finetune import FinetuneConfig
from fieldmark.training.log import read_metrics
from fieldmark.workflows.finetune import finetune, load_classifier

TRAIN = {
    "epochs": 2,
    "batch_size": 16,
    "optimizer": "adamw",
    "lr": 2e-3,
    "precision": "fp32",
    "tensorboard": False,
}
FAST = FinetuneConfig.parse({"train": TRAIN}, "the test")


def start_of(folder, size=32):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=size)
    Encoder(EncoderSpec(backbone), device="cpu").save(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_of(tmp_path_factory.mktemp("start") / "encoder")


@pytest.fixture(scope="module")
def tuned(sample, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "out"
    result = finetune(start, sample.photos, out, labels=sample.probe, config=FAST, device="cpu")
    return out, result


def test_the_result_keeps_the_contract_of_json(tuned, sample):
    out, result = tuned
    assert json.loads((out / "result.json").read_text()) == result
    assert set(result["measures"]) == {"top1", "top5", "recall", "precision", "f1", "f1_paper"}
    assert all(0 <= value <= 100 for value in result["measures"].values())
    low, high = result["interval"]["top1"]
    assert low <= result["measures"]["top1"] <= high
    split = match_split(Catalog.open(sample.photos), sample.probe)
    assert (result["train_photos"], result["test_photos"]) == (
        len(split.train_rows),
        len(split.test_rows),
    )
    assert f"{result['measures']['top1']:.1f} %" in result["sentence"]


def test_tables_agree_with_the_measures(tuned):
    out, result = tuned
    lines = list(csv.DictReader((out / "confusion.csv").read_text().splitlines()))
    right = sum(int(line[line["true class"]]) for line in lines)
    assert 100 * right / result["test_photos"] == pytest.approx(result["measures"]["top1"])
    photos = list(csv.DictReader((out / "photos.csv").read_text().splitlines()))
    assert sum(line["class"] == line["predicted"] for line in photos) == right
    assert len(photos) == result["test_photos"]
    assert sum(pair["photos"] for pair in result["confused"]) <= len(photos) - right


def test_what_is_saved_is_what_was_measured(tuned, sample):
    out, _ = tuned
    classifier, classes = load_classifier(out / "classifier")
    photos = list(csv.DictReader((out / "photos.csv").read_text().splitlines()))
    paths = [sample.photos / line["path"] for line in photos]
    images = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in paths])
    assert images.shape[1:3] == (32, 32)  # as large as the network's input
    guesses = classifier.predict(images.permute(0, 3, 1, 2) / 255).argmax(1)
    agree = np.mean([classes[g] == line["predicted"] for g, line in zip(guesses, photos)])
    assert agree > 0.5  # whole photos here, the centre of each there
    encoder = Encoder.load(out / "classifier", device="cpu")
    assert encoder.card["role"] == "fine-tuned with labels"
    assert str(sample.photos) not in (out / "classifier" / "encoder" / "encoder.json").read_text()


def test_the_encoder_says_that_it_has_seen_labels(tuned, start):
    out, result = tuned
    before = Encoder.load(start, device="cpu").provenance
    after = Encoder.load(out / "classifier", device="cpu").provenance
    assert before.labels_seen == "none"
    assert f"{result['train_photos']} photos of 4 classes" in after.labels_seen
    assert after.how == "supervised"
    assert any("random weights" in note for note in after.notes)


def test_the_same_command_again_trains_nothing_and_says_the_same(tuned, sample, start):
    out, result = tuned
    log = (out / "metrics.jsonl").read_bytes()
    again = finetune(start, sample.photos, out, labels=sample.probe, config=FAST, device="cpu")
    assert again["measures"] == result["measures"]
    assert (out / "metrics.jsonl").read_bytes() == log


def test_other_settings_or_another_start_in_the_same_folder_are_refused(
    tuned, sample, start, tmp_path
):
    out, _ = tuned
    other = FinetuneConfig.parse({"label_smoothing": 0.2, "train": TRAIN}, "the test")
    with pytest.raises(OutputError, match=r"label_smoothing was 0\.1, is 0\.2"):
        finetune(start, sample.photos, out, labels=sample.probe, config=other, device="cpu")
    tuned_once = out / "classifier" / "encoder"
    with pytest.raises(OutputError, match="encoder was"):
        finetune(tuned_once, sample.photos, out, labels=sample.probe, config=FAST, device="cpu")


def test_only_train_photos_train(sample, start, tmp_path, monkeypatch):
    seen = set()
    from fieldmark.training.finetune import SupervisedObjective

    real = SupervisedObjective.forward

    def watched(self, batch, progress):
        seen.update(batch.rows.tolist())
        return real(self, batch, progress)

    monkeypatch.setattr(SupervisedObjective, "forward", watched)
    finetune(start, sample.photos, tmp_path / "out", labels=sample.probe, config=FAST, device="cpu")
    split = match_split(Catalog.open(sample.photos), sample.probe)
    assert seen <= set(split.train_rows.tolist())
    assert len(seen) > len(split.train_rows) / 2


def test_a_stopped_run_goes_on_to_the_same_end(sample, start, tuned, tmp_path, monkeypatch):
    from fieldmark.training.finetune import SupervisedObjective

    whole, result = tuned
    real = SupervisedObjective.before_step

    def stop(self, progress):
        if progress.step == 3:
            raise KeyboardInterrupt
        real(self, progress)

    eager = FinetuneConfig.parse({"train": {**TRAIN, "checkpoint_seconds": 0}}, "the test")
    settings = {"labels": sample.probe, "config": eager, "device": "cpu"}
    with monkeypatch.context() as patch:
        patch.setattr(SupervisedObjective, "before_step", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(start, sample.photos, tmp_path / "out", **settings)
    again = finetune(start, sample.photos, tmp_path / "out", **settings)
    assert again["measures"] == result["measures"]
    assert read_metrics(tmp_path / "out", "train") == read_metrics(whole, "train")


def write_split(path, lines):
    path.write_text("path,class,split\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def few(tmp_path):
    """Twelve photos of two colours, half of them to train on."""
    folder, lines = tmp_path / "few", []
    folder.mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 90, (40, 40, 3))
        pixels[..., i % 2] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        lines.append(f"few/{i}.png,{'rg'[i % 2]},{'train' if i < 6 else 'test'}")
    return folder, lines


def test_fewer_photos_than_a_batch_train_in_a_smaller_one(few, start, tmp_path):
    folder, lines = few
    table = write_split(tmp_path / "split.csv", lines)
    result = finetune(start, folder, tmp_path / "out", labels=table, config=FAST, device="cpu")
    assert result["settings"]["train"]["batch_size"] == 6
    assert any("fewer than one batch of 16" in note for note in result["notes"])
    assert result["measures"]["top5"] == 100


def test_what_cannot_be_taught_is_refused(few, start, tmp_path):
    folder, lines = few

    def attempt(changed):
        table = write_split(tmp_path / "split.csv", changed)
        finetune(start, folder, tmp_path / "out", labels=table, config=FAST, device="cpu")

    with pytest.raises(LabelError, match="give --labels"):
        finetune(start, folder, tmp_path / "out", config=FAST, device="cpu")
    with pytest.raises(LabelError, match="of one class, 'r'"):
        attempt([line.replace(",g,", ",r,") for line in lines])
    with pytest.raises(LabelError, match="no photo with split 'test'"):
        attempt([line.replace(",test", ",train") for line in lines])
    with pytest.raises(LabelError, match=r"not in .*absent\.png"):
        attempt([*lines, "few/absent.png,r,test"])
    with pytest.raises(ArtifactError, match="no encoder at"):
        finetune(tmp_path / "nothing", folder, tmp_path / "out", config=FAST, device="cpu")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("precious")
    table = write_split(tmp_path / "split.csv", lines)
    with pytest.raises(OutputError, match="not empty"):
        finetune(start, folder, tmp_path / "full", labels=table, config=FAST, device="cpu")
    assert not (tmp_path / "out").exists()


def test_photos_that_cannot_be_read_and_classes_never_taught_are_told(few, start, tmp_path):
    folder, lines = few
    (folder / "0.png").write_bytes(b"nothing")
    (folder / "11.png").write_bytes(b"nothing")
    lines[10] = "few/10.png,blue,test"
    table = write_split(tmp_path / "split.csv", lines)
    result = finetune(start, folder, tmp_path / "out", labels=table, config=FAST, device="cpu")
    assert (result["train_photos"], result["test_photos"]) == (5, 5)
    assert {item["path"] for item in result["left_out"]} == {"0.png", "11.png"}
    assert any("2 labelled photos cannot be read" in note for note in result["notes"])
    assert any(
        "1 classes have test photos and no train photos (blue)" in n for n in result["notes"]
    )
    tuned = Encoder.load(tmp_path / "out" / "classifier" / "encoder", device="cpu")
    assert "5 photos of 2 classes" in tuned.provenance.labels_seen  # nobody taught it blue
    for name in ("2", "4"):
        (folder / f"{name}.png").write_bytes(b"nothing")
    with pytest.raises(LabelError, match=r"all 3 train photos of .* are of one class, 'g'"):
        finetune(start, folder, tmp_path / "one", labels=table, config=FAST, device="cpu")
    for file in folder.glob("*.png"):
        if int(file.stem) >= 6:
            file.write_bytes(b"nothing")
    with pytest.raises(LabelError, match="none of the 6 labelled test photos can be read"):
        finetune(start, folder, tmp_path / "other", labels=table, config=FAST, device="cpu")


def test_folders_named_train_and_test_need_no_table(few, start, tmp_path):
    folder, lines = few
    for i, line in enumerate(lines):
        _, label, half = line.split(",")
        target = tmp_path / "photos" / half / label / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{i}.png", target)
    result = finetune(start, tmp_path / "photos", tmp_path / "out", config=FAST, device="cpu")
    assert (result["train_photos"], result["test_photos"], result["classes"]) == (6, 6, 2)


def test_a_head_of_another_encoder_is_refused(tuned, start, tmp_path):
    out, _ = tuned
    shutil.copytree(out / "classifier", tmp_path / "copy")
    Encoder.load(start, device="cpu").save(tmp_path / "copy" / "encoder")
    with pytest.raises(ArtifactError, match="was trained with encoder"):
        load_classifier(tmp_path / "copy")
    (tmp_path / "copy" / "classes.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"classes\.json is missing or damaged"):
        load_classifier(tmp_path / "copy")


@pytest.mark.parametrize(
    "optimizer", [("--optimizer", "sgd"), ("--set", "train.optimizer=sgd")], ids=["option", "set"]
)
def test_command_line(sample, start, tmp_path, monkeypatch, capsys, optimizer):
    out = tmp_path / "out"
    arguments = ["finetune", start, sample.photos, "--labels", sample.probe, "--out", out]
    arguments += ["--epochs", 1, *optimizer, "--batch-size", 16, "--device", "cpu"]
    arguments += ["--set", "train.precision=fp32", "--set", "train.tensorboard=false", "--json"]
    monkeypatch.setattr("sys.argv", ["fieldmark", *map(str, arguments)])
    app.app(standalone_mode=False)
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    settings = result["settings"]["train"]
    assert (settings["optimizer"], settings["lr"], settings["weight_decay"]) == ("sgd", 0.01, 1e-4)
    assert settings["epochs"] == 1
    monkeypatch.setattr("sys.argv", ["fieldmark", *map(str, arguments[:-1])])
    app.app(standalone_mode=False)
    text = capsys.readouterr().out
    assert "F1 of the MSAM paper" in text
    assert "top-1 accuracy" in text


@pytest.mark.slow
def test_a_small_network_learns_the_birds(tmp_path):
    write(draw(AviaryConfig(species=8, per_species=80, size=64)), tmp_path / "birds")
    birds, labels = tmp_path / "birds" / "images", tmp_path / "birds" / "split.csv"
    start = start_of(tmp_path / "start", size=64)
    train = {**TRAIN, "epochs": 40, "batch_size": 32}
    config = FinetuneConfig.parse({"smallest_crop": 0.5, "train": train}, "the test")
    result = finetune(start, birds, tmp_path / "out", labels=labels, config=config, device="cpu")
    assert result["measures"]["top1"] > 90
