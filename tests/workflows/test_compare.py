"""``fieldmark compare``: entries, gains, findings, and what cannot be compared."""

import json
import sys

import numpy as np
import pytest

from fieldmark import storage
from fieldmark.cli import app
from fieldmark.config import to_toml
from fieldmark.errors import ArtifactError, InputError
from fieldmark.evaluation.compare import paired_bootstrap
from fieldmark.evaluation.evaluate import EvalConfig, evaluate_encoder, evaluation_file
from fieldmark.workflows.compare import as_csv, as_markdown, compare_runs
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import train

LABELS = np.repeat(np.arange(12), 10)


def measured(noise, seed=0):
    """What an encoder reaches whose classes lie this far apart."""
    draw = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(12, 8))
    x = (means[LABELS] + noise * draw.normal(size=(120, 8))).astype(np.float32)
    names = [str(c) for c in range(12)]
    return evaluate_encoder(x[:60], LABELS[:60], x, LABELS, names, EvalConfig(fractions=()))


def write(folder, noise, *, seed=0, recipe="gentle", start=1.0, photos=None):
    folder.mkdir(parents=True)
    results = {"encoder": measured(noise, seed)}
    if start is not None:
        results["against"] = measured(start, 1000)
    photos = photos or [f"photos/{i}.jpg" for i in range(120)]
    storage.write_json(folder / "evaluation.json", evaluation_file(results, photos))
    if recipe:
        sets = [f"train.seed={seed}"]
        storage.write_text(folder / "config.resolved.toml", to_toml(load_recipe(recipe, sets)))
    return folder


def test_a_single_pair_is_the_paired_bootstrap(tmp_path):
    runs = [write(tmp_path / "a", 1.2, recipe=None), write(tmp_path / "b", 0.6, recipe=None)]
    found = compare_runs(runs)
    one, other = measured(1.2), measured(0.6)
    expected = paired_bootstrap(one.per_query["map"], other.per_query["map"], LABELS).scaled(100.0)
    over = found["entries"][1]["measures"]["map"]["over_first"]
    assert (over["gain"], over["low"], over["high"]) == pytest.approx(expected)
    assert over["finding"] == "better"
    assert over["corrected"] > over["p"]
    assert found["entries"][0]["measures"]["map"]["over_first"] is None
    assert found["entries"][0]["measures"]["map"]["value"] == one.measures["map"]
    assert found["measures"] == ["rank1", "rank5", "map", "knn", "linear"]


def test_seeds_of_one_recipe_are_one_entry(tmp_path):
    runs = [write(tmp_path / f"g{s}", 1.0, seed=s) for s in range(3)]
    runs += [write(tmp_path / f"h{s}", 0.3, seed=s, recipe="fieldmark") for s in range(2)]
    found = compare_runs([runs[0], runs[3], *runs[1:3], runs[4]])
    assert [(entry["name"], entry["seeds"]) for entry in found["entries"]] == [
        ("gentle", 3),
        ("fieldmark", 2),
    ]
    values = [measured(0.3, s).measures["map"] for s in range(2)]
    cell = found["entries"][1]["measures"]["map"]
    assert cell["value"] == pytest.approx(np.mean(values))
    assert cell["spread"] == pytest.approx(np.std(values, ddof=1))
    assert cell["over_first"]["finding"] == "better"
    assert cell["over_start"]["gain"] == pytest.approx(
        np.mean(values) - measured(1.0, 1000).measures["map"]
    )


def test_the_same_encoder_twice_is_not_shown_to_differ(tmp_path):
    runs = [write(tmp_path / name, 1.0, recipe=None, start=None) for name in "ab"]
    found = compare_runs(runs)
    for cell in found["entries"][1]["measures"].values():
        assert cell["over_first"]["finding"] == "not shown"
        assert cell["over_start"] is None
    # A start beside one seed only says nothing of the other.
    mixed = [write(tmp_path / f"m{s}", 1.0, seed=s, start=(None, 1.0)[s]) for s in range(2)]
    entries = compare_runs([runs[0], *mixed])["entries"]
    assert entries[1]["seeds"] == 2
    assert entries[1]["measures"]["map"]["over_start"] is None
    assert "| b | 1 |" in as_markdown(found)
    assert "not shown" in as_markdown(found)


def test_a_real_run_is_compared_with_another_and_with_its_start(
    sample, tmp_path, monkeypatch, capsys
):
    sets = ("train.epochs=1", "health.photos=16")
    for name, more in (("one", ()), ("two", ("method.temperature=0.5",))):
        train(
            sample.photos, tmp_path / name, load_recipe("smoke", (*sets, *more)), probe=sample.probe
        )
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    arguments = ["compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "c", "--json"]
    monkeypatch.setattr(sys, "argv", ["fieldmark", *map(str, arguments)])
    with pytest.raises(SystemExit):
        app.main()
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found["entries"]] == ["smoke", "smoke (2)"]
    cell = found["entries"][0]["measures"]["map"]
    assert cell["value"] == pytest.approx(result["trained"]["map"])
    assert cell["over_start"]["gain"] == pytest.approx(result["gain"]["map"])
    low, high = result["interval"]["map"]
    assert (cell["over_start"]["low"], cell["over_start"]["high"]) == pytest.approx((low, high))
    assert json.loads((tmp_path / "c" / "compare.json").read_text()) == found
    assert (tmp_path / "c" / "compare.csv").read_text() == as_csv(found)
    assert len(as_csv(found).splitlines()) == 1 + 2 * len(found["measures"])
    assert (tmp_path / "c" / "compare.md").read_text() == as_markdown(found)


def test_what_cannot_be_compared_is_refused(tmp_path):
    good = write(tmp_path / "good", 1.0)
    with pytest.raises(InputError, match="needs two runs or more, got 1"):
        compare_runs([good])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ArtifactError, match=r"holds no evaluation\.json"):
        compare_runs([good, empty])
    (empty / "evaluation.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        compare_runs([good, empty])
    (empty / "evaluation.json").write_text('{"results": {}}')
    with pytest.raises(ArtifactError, match="no measures of labelled photos"):
        compare_runs([good, empty])
    other = write(tmp_path / "other", 1.0, photos=[f"photos/{i}.png" for i in range(120)])
    with pytest.raises(InputError, match="measured on different photos"):
        compare_runs([good, other])
    # The same photos below another folder are the same photos.
    moved = write(tmp_path / "moved", 1.0, photos=[f"elsewhere/x/{i}.jpg" for i in range(120)])
    assert len(compare_runs([good, moved])["entries"]) == 1
