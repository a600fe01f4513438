import csv
import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fieldmark.data.stream import Embedded, prepare
from fieldmark.encoder import Encoder
from fieldmark.errors import InputError, LabelError, PhotoError
from fieldmark.evaluation.evaluate import EvalConfig, EvalResult, evaluate_encoder
from fieldmark.workflows.evaluate import evaluate

FAST = EvalConfig(fractions=(0.5, 0.25), subset_seeds=2)


class ColourEncoder(Encoder):
    """Embeds the mean colour of a photo, with as much noise as asked for."""

    dim, size, post = 3, 32, "plain"

    def __init__(self, noise=0.0):
        self.noise = noise

    def stream(self, photos, *, batch_size):
        for position, photo in enumerate(photos):
            try:
                image, problem = prepare(photo, 32, 1.0)
            except PhotoError as error:
                yield Embedded(position, None, error)
                continue
            colour = image.reshape(-1, 3).mean(axis=0) / 255 - 0.5
            noise = np.random.default_rng(position).normal(0, 1, 3)
            vector = (colour + self.noise * noise).astype(np.float32)
            yield Embedded(position, vector / np.linalg.norm(vector), problem)


COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (30, 60, 220)}


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Thirty photos of three colours with a split table, and two encoders to measure."""
    generator = np.random.default_rng(0)
    lines = ["path,class,split"]
    for name, colour in COLOURS.items():
        for i in range(10):
            file = tmp_path / "photos" / f"{name}{i}.png"
            file.parent.mkdir(exist_ok=True)
            noise = generator.normal(0, 30, (40, 40, 3))
            Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(file)
            lines.append(f"photos/{file.name},{name},{'train' if i < 4 else 'test'}")
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    made = {"good": ColourEncoder(), "poor": ColourEncoder(noise=1.0)}
    monkeypatch.setattr(Encoder, "load", lambda place, device: made[place.name])
    return tmp_path


def test_labelled_photos(birds):
    found = evaluate(birds / "good", birds / "photos", labels=birds / "split.csv", config=FAST)
    data = found.data
    assert (data["photos"], data["train_photos"], data["test_photos"], data["classes"]) == (
        30,
        12,
        18,
        3,
    )
    assert data["measures"]["rank1"] == 100
    assert data["measures"]["map"] == pytest.approx(100)
    assert data["measures"]["linear"] == 100
    assert "linear@50" in data["measures"]
    assert "verdict" not in data
    json.dumps(data, allow_nan=False)


def test_against_another(birds):
    found = evaluate(
        birds / "good",
        birds / "photos",
        labels=birds / "split.csv",
        against=birds / "poor",
        config=FAST,
    )
    assert found.data["verdict"] == "helped"
    assert found.data["trained"]["map"] > found.data["start"]["map"] + 20
    assert found.data["interval"]["map"][0] > 0
    back = evaluate(
        birds / "poor",
        birds / "photos",
        labels=birds / "split.csv",
        against=birds / "good",
        config=FAST,
    )
    assert back.data["verdict"] == "hurt"


def test_files_that_cannot_be_read_are_left_out_of_both_sides(birds):
    (birds / "photos" / "red9.png").write_bytes(b"\x89PNG nothing")
    (birds / "photos" / "blue0.png").write_bytes(b"")
    found = evaluate(
        birds / "good",
        birds / "photos",
        labels=birds / "split.csv",
        against=birds / "poor",
        config=FAST,
    )
    assert (found.data["train_photos"], found.data["test_photos"]) == (11, 17)
    assert {item["path"] for item in found.data["left_out"]} == {"red9.png", "blue0.png"}


def test_no_test_photo_can_be_read(birds):
    for file in (birds / "photos").glob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(LabelError, match="none of the 18 labelled test photos"):
        evaluate(birds / "good", birds / "photos", labels=birds / "split.csv", config=FAST)


def test_without_labels(birds):
    alone = evaluate(birds / "good", birds / "photos", config=FAST).data
    assert alone["verdict"] == "not measured"
    assert set(alone["measures"]) == {"view_recall", "effective_rank"}
    both = evaluate(birds / "good", birds / "photos", against=birds / "poor", config=FAST).data
    assert both["verdict"] == "not measured"
    assert both["gain"]["view_recall"] > 0
    assert "of 30 photos" in both["sentence"]
    assert "Label-free measures only" in both["sentence"]


def test_class_folders_without_split(birds):
    for name in COLOURS:
        (birds / "classes" / name).mkdir(parents=True)
        for file in (birds / "photos").glob(f"{name}*.png"):
            file.rename(birds / "classes" / name / file.name)
    data = evaluate(birds / "good", birds / "classes", config=FAST).data
    assert (data["train_photos"], data["test_photos"]) == (0, 30)
    assert data["measures"]["rank1"] == 100
    assert "linear" not in data["measures"]
    assert "not split" in data["notes"][0]


def test_files_written(birds):
    out = birds / "deep" / "measured"
    found = evaluate(
        birds / "good", birds / "photos", labels=birds / "split.csv", against=birds / "poor", out=out,
        config=FAST,
    )  # fmt: skip
    kept = json.loads((out / "evaluation.json").read_text())
    again = EvalResult.from_dict(kept["results"]["encoder"])
    assert again.measures == found.result.measures
    lines = list(csv.DictReader((out / "photos.csv").read_text().splitlines()))
    assert len(lines) == 18
    assert {line["class"] for line in lines} == set(COLOURS)
    share = np.mean([float(line["against.rank1"]) for line in lines])
    assert 100 * share == pytest.approx(found.data["start"]["rank1"])
    assert all(line["encoder.knn class"] == line["class"] for line in lines)
    subsets = list(csv.DictReader((out / "label_subsets.csv").read_text().splitlines()))
    assert len(subsets) == found.data["train_photos"] == 12
    for seed in FAST.seeds:
        for fraction in FAST.fractions:
            given = [line for line in subsets if float(line[f"seed {seed}"]) <= fraction]
            counts = Counter(line["class"] for line in given)
            assert counts == dict.fromkeys(COLOURS, math.ceil(fraction * 4))


def test_the_probe_is_measured_as_a_classifier_too(birds, tmp_path):
    labels, out = birds / "split.csv", tmp_path / "measured"
    settings = {"labels": labels, "against": birds / "poor", "out": out, "config": FAST}
    found = evaluate(birds / "good", birds / "photos", **settings)
    tables = found.data["classification"]
    sure = dict(tables["encoder"])
    assert 0 < sure.pop("ece") < 10  # always right, and nearly always sure of it
    assert sure == dict.fromkeys(sure, 100.0)
    assert set(sure) == {"top1", "top5", "recall", "precision", "f1", "f1_paper"}
    assert tables["against"]["top1"] == found.data["start"]["linear"] < 100
    written = json.loads((out / "evaluation.json").read_text())
    assert written["classification"] == tables
    again = EvalResult.from_dict(written["results"]["against"])
    assert again.classification == found.against.classification
    for name, file in (("encoder", "confusion.csv"), ("against", "confusion_against.csv")):
        lines = list(csv.DictReader((out / file).read_text().splitlines()))
        right = sum(int(line[line["true class"]]) for line in lines)
        assert 100 * right / 18 == pytest.approx(tables[name]["top1"])


def test_gallery_of_train_photos(birds):
    labels = birds / "split.csv"
    config = FAST.model_copy(update={"gallery": "train"})
    data = evaluate(birds / "poor", birds / "photos", labels=labels, config=config).data
    among_test = evaluate(birds / "poor", birds / "photos", labels=labels, config=FAST).data
    assert data["gallery"] == "train"
    assert data["measures"]["map"] != among_test["measures"]["map"]
    assert data["measures"]["knn"] == among_test["measures"]["knn"]
    nothing, some = np.zeros((0, 3), np.float32), np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match="train photos, and there are none"):
        evaluate_encoder(nothing, np.zeros(0, int), some, np.arange(3), ["a", "b", "c"], config)


def test_differences_that_are_not_training_are_named(birds, monkeypatch):
    found = evaluate(birds / "good", birds / "photos", against=birds / "poor", config=FAST)
    assert found.data["notes"] == []
    monkeypatch.setattr(ColourEncoder, "size", property(lambda self: 32 if self.noise else 64))
    found = evaluate(birds / "good", birds / "photos", against=birds / "poor", config=FAST)
    assert "64 and 32 px" in found.data["notes"][0]


def test_command_line(birds):
    import typer

    from fieldmark.cli.eval import command

    app = typer.Typer()
    app.command()(command)
    arguments = [str(birds / "good"), str(birds / "photos"), "--labels", str(birds / "split.csv")]
    arguments += ["--against", str(birds / "poor")]
    text = CliRunner().invoke(app, arguments)
    assert text.exit_code == 0, text.output
    assert "Verdict: helped" in text.output
    assert "linear, 50 % of labels" in text.output
    plain = CliRunner().invoke(app, [*arguments, "--json"])
    data = json.loads(plain.stdout.strip().splitlines()[-1])
    assert data["verdict"] == "helped"
    assert {"rank1", "rank5", "map", "linear"} <= set(data["trained"])


def test_the_probe_of_the_papers(birds, monkeypatch):
    seen = []

    class Colours(ColourEncoder):
        device = "cpu"

        def encode(self, images):
            seen.append(images.shape)
            colour = images.mean(dim=(2, 3)) - 0.5
            return colour / colour.norm(dim=1, keepdim=True)

    monkeypatch.setattr(Encoder, "load", lambda place, device: Colours())
    config = EvalConfig(**{**FAST.model_dump(), "sgd_probe": True, "sgd_views": 2})
    found = evaluate(birds / "good", birds / "photos", labels=birds / "split.csv", config=config)
    assert found.data["measures"]["linear_sgd"] == 100
    assert found.result.predictions["linear_sgd"].tolist() == found.result.labels.tolist()
    assert seen == [(12, 3, 32, 32)] * 2
    plain = evaluate(birds / "good", birds / "photos", labels=birds / "split.csv", config=FAST)
    assert "linear_sgd" not in plain.data["measures"]


@pytest.mark.parametrize(
    "odd",
    [
        ("007", "7", 'Grey, "great" heron'),
        ("Ääkkönen 鷺", "e\u0301", "\u00e9"),
        ("=1+1", "nan", "0.5"),
        ("train", "test", "None"),
    ],
)
def test_labels_may_be_any_text(birds, tmp_path, odd):
    """Blanks, commas, quotes, digits, other scripts: kept as they are, in every file."""
    with (birds / "split.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    known = sorted({line["class"] for line in lines})
    renamed = dict(zip(known, odd, strict=True))
    table = tmp_path / "odd.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "class", "split"])
        writer.writeheader()
        for line in lines:
            path = f"{(birds / line['path']).resolve()}"
            writer.writerow({**line, "path": path, "class": renamed[line["class"]]})
    plain = evaluate(birds / "good", birds / "photos", labels=birds / "split.csv", config=FAST)
    found = evaluate(
        birds / "good", birds / "photos", labels=table, out=tmp_path / "out", config=FAST
    )
    assert found.data["measures"]["map"] == pytest.approx(plain.data["measures"]["map"])
    expected = set(odd)
    assert set(found.result.classes) == expected
    with (tmp_path / "out" / "photos.csv").open(newline="", encoding="utf-8") as file:
        assert {row["class"] for row in csv.DictReader(file)} == expected
    with (tmp_path / "out" / "confusion.csv").open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert set(header[1:]) == expected
