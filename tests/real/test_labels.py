"""From index to names on real birds: what docs/label.md says, on the start's plain features."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.evaluation.openset import auroc
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.label.classifier import FieldClassifier
from fieldmark.nn.spec import EncoderSpec
from fieldmark.workflows.classify import classify
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.label import next_photos, set_labels

pytestmark = pytest.mark.real
DATA = os.environ.get("FIELDMARK_DATA")
WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """An index of cub50 without labels, and the official split."""
    if not DATA:
        pytest.skip("FIELDMARK_DATA is not set: it names a folder with cub50 and weights")
    place = tmp_path_factory.mktemp("labels")
    folder = Path(DATA) / "cub50"
    with (folder / "split.csv").open() as file:
        rows = [(str(folder / r["path"]), r["class"], r["split"]) for r in csv.DictReader(file)]
    table = place / "photos.csv"
    table.write_text("\n".join(["path", *(path for path, _, _ in rows)]))
    backbone = Backbone.build(BackboneConfig(weights=str(Path(DATA) / WEIGHTS)), size=128)
    Encoder(EncoderSpec(backbone), {"role": "start"}, device="cpu").save(place / "encoder")
    told = index_photos(place / "encoder", table, place / "index", device="cpu")
    assert (told["items"], told["refused"]) == (2889, 0)
    return place, rows


def test_first_choices_show_more_species_than_chance(birds):
    place, rows = birds
    species = {path: label for path, label, _ in rows}
    told = next_photos(place / "index", count=50)
    shown = len({species[row["path"]] for row in told["photos"]})
    draw = np.random.default_rng(0)
    chance = [len({rows[i][1] for i in draw.permutation(len(rows))[:50]}) for _ in range(200)]
    assert shown > np.quantile(chance, 0.9)


def test_names_are_right_as_often_as_they_say(birds):
    place, rows = birds
    table = place / "labels.csv"
    lines = [f"{path},{label}" for path, label, split in rows if split == "train"]
    table.write_text("\n".join(["path,label", *lines]))
    assert set_labels(place / "index", table, by="test")["set"] == 1500
    out = place / "names.csv"
    told = classify(place / "index", None, out)
    truth = {path: label for path, label, _ in rows}
    with out.open() as file:
        named = list(csv.DictReader(file))
    assert len(named) == 1389
    right = np.mean([row["label"] == truth[row["path"]] for row in named])
    covered = np.mean([truth[row["path"]] in row["set"].split("|") for row in named])
    sure = np.mean([float(row["probability"]) for row in named])
    assert right > 0.62
    assert covered == pytest.approx(0.9, abs=0.02)
    assert sure == pytest.approx(right, abs=0.05)
    assert told["accuracy"] == pytest.approx(right, abs=0.05)
    unknown = np.mean([row["unknown"] == "true" for row in named])
    assert unknown < 0.07, "5 % are stated"


def test_unknown_species_are_less_familiar_than_the_largest_probability_tells(birds):
    place, rows = birds
    with SqliteIndex(place / "index") as index:
        x = index.vectors([path for path, _, _ in rows])
    labels = np.unique([label for _, label, _ in rows], return_inverse=True)[1]
    train = np.array([split == "train" for _, _, split in rows])
    known = np.isin(labels, np.random.default_rng(0).permutation(50)[:33])
    made = FieldClassifier("logistic").fit(x[train & known], labels[train & known])
    own = known[~train]
    plain = made.predict_proba(x[~train]).max(axis=1)
    familiar = made.familiarity(x[~train]).astype(np.float64)
    assert auroc(familiar, own) > auroc(plain, own)
