"""``fieldmark bench``: cells that are done once, tables that say what they are."""

import csv
import json
import re
import shutil
import sys

import numpy as np
import pytest

from fieldmark.cli import app
from fieldmark.data.store import PhotoStore
from fieldmark.errors import (
    BusyError,
    CatalogError,
    ConfigError,
    InputError,
    Interrupted,
    OutputError,
)
from fieldmark.evaluation.evaluate import EvalResult
from fieldmark.evaluation.significance import combine_seeds
from fieldmark.workflows import bench as module
from fieldmark.workflows import leaderboard
from fieldmark.workflows.bench import bench, redraw
from layouts import LAYOUTS

EXTRA = {"backbone": {"name": "test_resnet", "weights": "random"}, "size": 32}
SETS = ("train.epochs=1", "health.photos=16")


@pytest.fixture(scope="module", autouse=True)
def _short_trials():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TRIAL_SECONDS", 0.05)
        yield


def run(sample, out, **more):
    asked = {"methods": ["smoke"], "seeds": 2, "sets": SETS, "extra": EXTRA, **more}
    return bench({"folder": sample.photos.parent}, out, **asked)


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    return out, run(sample, out)


def test_every_cell_is_a_run_with_its_provenance(finished, sample):
    out, found = finished
    name = sample.photos.parent.name
    assert [(c["method"], c["seed"], c["status"]) for c in found["cells"]] == [
        ("start", 0, "done"),
        ("smoke", 0, "done"),
        ("smoke", 1, "done"),
    ]
    assert set(found["minutes"]) == {"smoke"}
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    cells = [line for line in lines if line["kind"] == "cell"]
    for cell in cells:
        assert cell["data"] == name
        for key in ("data_sha256", "split_sha256", "recipe_sha256", "code_sha256"):
            assert re.fullmatch("[0-9a-f]{64}", cell[key]), key
        assert (cell["start_saw"], cell["start_how"]) == ("none", "random")
        assert cell["seconds"] > 0
        assert cell["machine"]["device"] == "cpu"
        assert cell["versions"]["numpy"] == np.__version__
        assert cell["train_photos"] + cell["test_photos"] == 64
        assert (cell["test_photos_in_train"], cell["pictures_in_several_classes"]) == (0, 0)
        for measure in (
            "rank1", "map", "map_cmd", "linear", "linear@1", "knn:cover", "nmi", "auroc", "ece",
        ):  # fmt: skip
            assert 0 <= cell["trained"][measure] <= 100, measure
        # Four species make no 5-way episode.
        assert "few-shot@1" not in cell["trained"]
    assert len({cell["data_sha256"] for cell in cells}) == 1
    # A seed is not a setting.
    assert cells[1]["recipe_sha256"] == cells[2]["recipe_sha256"] != cells[0]["recipe_sha256"]
    assert cells[1]["trained"] != cells[2]["trained"]
    result = json.loads((out / "cells" / name / "smoke" / "seed-1" / "result.json").read_text())
    assert cells[2]["trained"]["map"] == pytest.approx(result["trained"]["map"])


def test_the_start_is_embedded_in_one_pass_as_the_others_are(finished):
    out, _ = finished
    settings = next((out / "cells").glob("*/start/seed-0/config.resolved.toml")).read_text()
    assert "flip = false" in settings


def test_gains_reach_over_photos_and_seeds(finished):
    out, found = finished
    runs = sorted((out / "cells").glob("*/smoke/seed-?/evaluation.json"))
    read = [json.loads(path.read_text())["results"] for path in runs]
    sides = {
        side: [EvalResult.from_dict(each[side]) for each in read] for side in ("against", "encoder")
    }
    before, after = (
        np.stack([e.per_query["map"] for e in sides[s]]) for s in ("against", "encoder")
    )
    expected = combine_seeds(before, after, sides["against"][0].labels)
    gain = found["rows"][1]["gains"]["map"]
    assert gain["gain"] == pytest.approx(100 * expected.value)
    assert (gain["low"], gain["high"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert gain["corrected"] >= gain["p"]
    row = found["rows"][1]
    assert (row["seeds"], row["wanted"], row["failed"]) == (2, 2, [])
    values = [each.measures["map"] for each in sides["encoder"]]
    assert row["measures"]["map"] == pytest.approx(np.mean(values))
    assert row["spread"]["map"] == pytest.approx(np.std(values, ddof=1))


def test_tables_hold_the_same_numbers_in_each_form(finished):
    out, found = finished
    row = found["rows"][1]
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[1]["map"]) == pytest.approx(row["measures"]["map"])
    assert lines[1]["map finding"] == row["gains"]["map"]["finding"]
    shown = f"{row['measures']['map']:.1f} ± {row['spread']['map']:.1f}"
    markdown, latex = ((out / f"table.{kind}").read_text() for kind in ("md", "tex"))
    assert shown in markdown
    assert shown.replace("±", r"$\pm$") in latex
    assert "The start saw no labels." in markdown
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in body}) == 1
    assert not re.search(r"(?<!\\)[%_#](?!.*%)", "\n".join(body))


def test_what_is_done_is_not_done_again(finished, sample, monkeypatch):
    out, before = finished

    def never(*arguments, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", never)
    monkeypatch.setattr(module, "plan", never)
    again = run(sample, out)
    assert again["rows"] == before["rows"]
    assert again["minutes"] == {}


def test_tables_are_drawn_again_without_computing(finished, tmp_path):
    out, found = finished
    assert redraw(out / "results.jsonl", tmp_path / "again") == found["rows"]
    for name in ("table.csv", "table.md", "table.tex", "results.jsonl", "report.html"):
        assert (tmp_path / "again" / name).read_text() == (out / name).read_text()
    (tmp_path / "bad.jsonl").write_text('{"kind": "photo"}\n')
    with pytest.raises(InputError, match=r"line 2, is not of the results\.jsonl .* 'photo'"):
        redraw(tmp_path / "bad.jsonl", tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_other_settings_or_another_split_do_not_mix_into_a_table(finished, sample, tmp_path):
    out, _ = finished
    with pytest.raises(OutputError, match="smoke, seed 0 with other settings"):
        run(sample, out, sets=("train.epochs=2", "health.photos=16"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds not a benchmark"):
        run(sample, tmp_path / "full")


def test_a_failing_cell_is_marked_and_tried_again_and_the_others_go_on(
    finished, sample, tmp_path, monkeypatch
):
    real, calls = module.train, []

    def fails_once(photos, folder, recipe, **more):
        calls.append(recipe.train.seed)
        if recipe.name == "smoke" and recipe.train.seed == 0 and calls.count(0) < 3:
            raise RuntimeError("the power went out | twice")
        return real(photos, folder, recipe, **more)

    monkeypatch.setattr(module, "train", fails_once)
    found = run(sample, tmp_path / "out")
    assert [cell["status"] for cell in found["cells"]] == ["done", "failed", "done"]
    assert found["cells"][1]["error"] == "the power went out | twice"
    assert (found["rows"][1]["seeds"], found["rows"][1]["failed"]) == (
        1,
        ["the power went out | twice"],
    )
    assert "1 (1 FAILED)" in (tmp_path / "out" / "table.md").read_text()
    again = run(sample, tmp_path / "out")
    assert [cell["status"] for cell in again["cells"]] == ["done"] * 3
    assert "FAILED" not in (tmp_path / "out" / "table.md").read_text()
    # What failed once and was made again is what it would have been.
    assert again["rows"][1]["measures"] == finished[1]["rows"][1]["measures"]


def test_a_cell_that_another_process_works_on_is_left_to_it(sample, tmp_path, monkeypatch):
    name, real = sample.photos.parent.name, module.hold_run

    def held(folder):
        if folder.name == f"{name}--smoke--seed-1":
            raise BusyError("process 7 works there")
        return real(folder)

    monkeypatch.setattr(module, "hold_run", held)
    said = []
    out = tmp_path / "out"
    (out / "locks" / f"{name}--smoke--seed-1").mkdir(parents=True)
    (out / "bench.json").write_text("{}")
    found = run(sample, out, say=said.append)
    assert [cell["status"] for cell in found["cells"]] == ["done", "done", "busy"]
    assert "(1 missing)" in (tmp_path / "out" / "table.md").read_text()
    assert any("left to another process" in text for text in said)


def test_fine_tuning_is_a_column_of_its_own_and_trains_nothing_anew(
    finished, sample, tmp_path, monkeypatch
):
    out = shutil.copytree(finished[0], tmp_path / "out")
    name = sample.photos.parent.name
    told = []

    def never(*_, **__):
        raise AssertionError("trained again")

    def fails_once(cell, *arguments, **more):
        if "start" in str(cell) and not told:
            told.append(cell)
            raise InputError("no room")
        tune(cell, *arguments, **more)

    tune = module.tune
    monkeypatch.setattr(module, "train", never)
    monkeypatch.setattr(module, "tune", fails_once)
    found = run(sample, out, finetune=1)
    assert set(found["minutes"]) == {"finetuned"}
    rows = {row["method"]: row for row in found["rows"]}
    assert "finetuned" not in rows["start"]["measures"]
    assert "finetuned" not in rows["smoke"]["gains"]
    table = (out / "table.md").read_text()
    assert f"FAILED: fine-tuning of {name}, start: no room" in table
    # Called again it makes what is missing, no more.
    rows = {row["method"]: row for row in run(sample, out, finetune=1)["rows"]}
    cells = out / "cells" / name
    tops = [
        json.loads((cells / method / f"seed-{seed}.finetuned" / "result.json").read_text())
        for method, seed in (("start", 0), ("smoke", 0), ("smoke", 1))
    ]
    tops = [told["measures"]["top1"] for told in tops]
    assert rows["start"]["measures"]["finetuned"] == tops[0]
    assert rows["smoke"]["measures"]["finetuned"] == pytest.approx(np.mean(tops[1:]))
    gain = rows["smoke"]["gains"]["finetuned"]
    assert gain["gain"] == pytest.approx(np.mean(tops[1:]) - tops[0])
    assert gain["low"] <= gain["gain"] <= gain["high"]
    table = (out / "table.md").read_text()
    assert "fine-tuned gain" in table
    assert "FAILED" not in table
    assert "all train labels (epochs: 1;" in table
    assert "fine-tuned" in (out / "report.html").read_text()
    monkeypatch.setattr(module, "tune", never)
    assert run(sample, out, finetune=1)["minutes"] == {}
    # Its columns stay when it is not asked for, and other epochs do not mix.
    rows = {row["method"]: row for row in run(sample, out)["rows"]}
    assert rows["start"]["measures"]["finetuned"] == tops[0]
    with pytest.raises(OutputError, match="fine-tuned for 1 epochs, not 2"):
        run(sample, out, finetune=2)


def test_the_time_of_a_cell_is_that_of_all_calls_that_worked_on_it(sample, tmp_path, monkeypatch):
    real, clock = module.train, [0.0]

    def slow(*arguments, **more):
        clock[0] += 100
        if clock[0] < 200:
            raise Interrupted("stopped")
        return real(*arguments, **more)

    monkeypatch.setattr(module, "train", slow)
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    monkeypatch.setattr(module, "plan", lambda *_, **__: {"minutes": 1.0, "train_photos": 48})
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        run(sample, out, methods=[], seeds=1)
    run(sample, out, methods=[], seeds=1)
    cell = json.loads(next(out.glob("cells/*/start/seed-0/cell.json")).read_text())
    assert cell["seconds"] == 200
    assert not list(out.glob("cells/*/*/*.seconds.json"))


def test_photos_that_another_process_decodes_are_waited_for(sample, tmp_path, monkeypatch):
    real, tries, told = PhotoStore.build, [], []

    def busy_twice(*arguments, **more):
        tries.append(1)
        if len(tries) < 3:
            raise BusyError("another process is building the photo store")
        return real(*arguments, **more)

    monkeypatch.setattr(PhotoStore, "build", busy_twice)
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "plan", lambda *_, **__: {"minutes": 1.0, "train_photos": 48})
    found = run(sample, tmp_path / "out", methods=[], seeds=1, say=told.append)
    assert [cell["status"] for cell in found["cells"]] == ["done"]
    assert sum("waiting for it" in text for text in told) == 1


def test_photos_of_the_validation_part_do_not_train(tmp_path, monkeypatch):
    root = LAYOUTS["flowers102"](tmp_path / "flowers")
    bench({"flowers102": root}, tmp_path / "out", methods=[], extra=EXTRA, only_plan=True)
    table = (tmp_path / "out" / "data" / "flowers102.csv").read_text()
    assert table.count(",train") == 2
    assert ",val" not in table


def test_recipes_may_be_files_and_two_of_one_name_are_refused(sample, tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text('base = "smoke"\n[method]\ntemperature = 0.3\n')
    found = run(sample, tmp_path / "out", methods=["smoke", str(own)], only_plan=True, seeds=1)
    assert [cell["method"] for cell in found["cells"]] == ["start", "smoke", "mine"]
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "mine.toml"
    twin.write_text('base = "smoke"\n[method]\ntemperature = 0.4\n')
    with pytest.raises(ConfigError, match="two recipes are called 'mine'"):
        run(sample, tmp_path / "no", methods=[str(own), str(twin)])


def test_a_plan_trains_nothing(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_run", None)
    found = run(sample, tmp_path / "out", only_plan=True)
    assert {cell["status"] for cell in found["cells"]} == {"missing"}
    assert "rows" not in found
    assert not (tmp_path / "out" / "results.jsonl").exists()
    assert (tmp_path / "out" / "data").is_dir()


def test_a_part_of_a_data_set_is_named_in_every_row(tmp_path):
    line = {
        "kind": "cell", "status": "missing", "data": "cub200", "method": "start", "seed": 0,
        "subset": "50 of 200 classes", "overlap": "birds", "size": 128, "epochs": 0,
    }  # fmt: skip
    table = leaderboard.rows([line])
    assert "| cub200 (50 of 200 classes) |" in leaderboard.as_markdown(table)
    assert "cub200 (50 of 200 classes) &" in leaderboard.as_latex(table)
    assert "50 of 200 classes" in leaderboard.as_csv(table)


def test_leaks_and_what_the_start_saw_are_told_below_the_table():
    line = {
        "kind": "cell", "status": "done", "data": "dogs", "method": "start", "seed": 0, "subset": None,
        "overlap": "weights saw the answers", "size": 128, "epochs": 0, "trained": {"map": 50.0},
        "seconds": 3.0, "start_saw": "ImageNet-1k", "network": "n", "test_photos_in_train": 7,
        "pictures_in_several_classes": 2, "test_photos": 1_000,
    }  # fmt: skip
    below = leaderboard.as_markdown(leaderboard.rows([line]))
    assert "7 of 1,000 test photos show a picture that is in train too, and 2 pictures" in below
    assert "The start saw labels of ImageNet-1k. dogs: weights saw the answers." in below
    clean = {**line, "test_photos_in_train": 0, "pictures_in_several_classes": 0}
    assert "WARNING" not in leaderboard.as_markdown(leaderboard.rows([clean]))


def test_bad_requests_are_refused_before_anything_is_written(sample, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    with pytest.raises(CatalogError, match="there is no folder"):
        bench({"cub200": tmp_path / "nowhere"}, out)
    with pytest.raises(ConfigError, match="unknown recipe 'smok'"):
        run(sample, out, methods=["smok"])
    with pytest.raises(ConfigError, match="needs a data set and a seed"):
        bench({}, out)
    root = LAYOUTS["aircraft"](tmp_path / "a")
    with pytest.raises(ConfigError, match="two data sets are called 'aircraft'"):
        bench({"aircraft": root, "aircraft:variant": root}, out, methods=["smoke"], extra=EXTRA)
    assert not out.exists()
    monkeypatch.setattr(sys, "argv", ["fieldmark", "bench", "--data", "cub200", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert "--data is NAME=PATH" in " ".join(capsys.readouterr().err.split())
