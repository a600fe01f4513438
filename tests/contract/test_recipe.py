"""Every shipped recipe on a folder of a hundred photos, with a tiny network and no other change."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.encoder import Encoder
from fieldmark.workflows.recipe import available, load_recipe
from fieldmark.workflows.run import default_folder
from fieldmark.workflows.train import train

TINY = ("size=32", "backbone.weights=random", "train.epochs=2", "train.tensorboard=false")


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hundred") / "photos"
    folder.mkdir()
    for index in range(100):
        coarse = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pixels = Image.fromarray(coarse).resize((48, 36), Image.Resampling.BICUBIC)
        pixels.save(folder / f"{index:03d}.png")
    return folder


def slow_but(quick):
    marks = {name: () if name in quick else pytest.mark.slow for name in available()}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


@pytest.mark.parametrize("name", slow_but({"fieldmark", "simclr"}))
def test_a_hundred_photos_are_enough_for(name, hundred, tmp_path):
    vit = str(load_recipe(name).backbone.name).startswith("vit")
    recipe = load_recipe(name, (*TINY, f"backbone.name={'test_vit' if vit else 'test_resnet'}"))
    said = []
    result = train(hundred, tmp_path / "run", recipe, device="cpu", say=said.append)
    assert result["verdict"] == "not measured"
    assert Encoder.load(tmp_path / "run", device="cpu").size == 32
    lowered = [text for text in said if "fewer than one batch" in text]
    assert bool(lowered) == (recipe.trains and recipe.train.batch_size > 100)


def test_default_folder():
    assert str(default_folder(Path("my photos/"), "gentle")) == "runs/my-photos-gentle"
    assert (
        str(default_folder(Path("a/shards-{000..010}.tar"), "my/own")) == "runs/shards-000-my-own"
    )
