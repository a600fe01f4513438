"""What ``fieldmark plan`` advises: by the number of photos and by what the start knows."""

import json

import pytest

from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.shipped import recipes
from fieldmark.workflows import plan as plan_module
from fieldmark.workflows.advice import FITTED, TRAINED, advise


@pytest.mark.parametrize(
    ("photos", "start", "recipe"),
    [
        (1, "supervised", "start"),
        (FITTED - 1, "supervised", "start"),
        (FITTED, "supervised", "start"),
        (TRAINED - 1, "self-supervised", "start"),
        (TRAINED, "supervised", "fieldmark"),
        (1_000_000, "self-supervised", "fieldmark"),
        (60, "random", "simclr"),
        (1_000_000, "random", "simclr"),
    ],
)
def test_photos_and_start_decide(photos, start, recipe):
    found = advise(photos, start)
    assert found.recipe == recipe
    assert found.recipe in recipes()


def test_reasons_differ_where_the_advice_does_not():
    assert advise(FITTED - 1, "supervised").why != advise(FITTED, "supervised").why
    assert f"{FITTED - 1} photos are too few" in advise(FITTED - 1, "supervised").why
    assert f"{FITTED} photos are enough for post-processing" in advise(FITTED, "supervised").why


def test_plan_takes_the_advice_unless_told_otherwise(tmp_path, run, monkeypatch):
    monkeypatch.setattr(
        plan_module, "plan", lambda photos, recipe, **_: {"recipe": recipe.name, "notes": []}
    )
    write(draw(AviaryConfig(species=2, per_species=20, size=32)), tmp_path / "birds")
    asked = ["plan", tmp_path / "birds" / "images", "--probe", tmp_path / "birds" / "split.csv"]
    asked += ["--size", "32", "--json"]

    def planned(*more):
        code, out, err = run(*asked, *more)
        assert code == 0, err
        return json.loads(out.strip().splitlines()[-1])

    random = ("--weights", "random", "--set", "backbone.name=test_resnet")
    few = planned("--weights", "random", "--epochs", "1")
    assert few["recipe"] == "simclr"
    assert "the start is random" in few["why"]
    # A recipe or a setting by hand is a choice made.
    for chosen in (planned(*random, "--recipe", "smoke"), planned(*random)):
        assert "why" not in chosen
    assert chosen["recipe"] == "fieldmark"
