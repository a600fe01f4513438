import csv
import json
from pathlib import Path

import pytest

from fieldmark.cli import app
from fieldmark.config import merge
from fieldmark.errors import ConfigError, InputError, OutputError
from fieldmark.methods import METHODS
from fieldmark.methods.mocov2 import MoCoV2
from fieldmark.training.log import read_metrics
from fieldmark.workflows import ablate as ablation
from fieldmark.workflows.ablate import ablate, as_markdown, variants
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.run import RunFolder
from fieldmark.workflows.train import read_result

SETS = ("train.epochs=1", "health.photos=16", "train.tensorboard=false")
STUDIES = {
    "temperature": {
        "cold": {"method": {"temperature": 0.05}},
        "warm": {"method": {"temperature": 0.2}},
    },
    "contrast": {
        "with": {"method": {"temperature": 0.2}},
        "without": {"method": {"name": "none"}},
    },
}


def test_a_method_may_be_called_by_its_recipe():
    by_recipe, by_method = variants("fieldmark"), variants("house")
    assert by_recipe == by_method
    assert {v.recipe.method_name for v in by_recipe} == {"house"}
    assert {v.recipe.name for v in by_recipe} == {"fieldmark"}
    assert by_recipe[0].recipe == load_recipe("fieldmark")
    assert variants("mocov2", recipe="gentle")[0].recipe.name == "gentle"
    with pytest.raises(ConfigError, match="fieldmark"):
        variants("feildmark")


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation") / "out"
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MoCoV2, "ablations", STUDIES)
        table = ablate(
            "moco",
            sample.photos,
            out,
            recipe="smoke",
            sets=SETS,
            probe=sample.probe,
            say=said.append,
        )
    return out, table, said


def test_every_variant_is_a_run_with_its_own_settings(finished):
    out, table, _ = finished
    assert [(row["study"], row["variant"]) for row in table["rows"]] == [
        (study, name) for study, names in STUDIES.items() for name in names
    ]
    base = load_recipe("smoke", SETS).dump()
    for name, tables in STUDIES["temperature"].items():
        kept = RunFolder(out / "temperature" / name / "seed-0").recipe().dump()
        assert kept == merge(base, tables)
    assert RunFolder(out / "contrast" / "without" / "seed-0").recipe().method_name == "none"


def test_values_are_those_of_the_runs(finished):
    out, table, _ = finished
    cold, warm, *_ = table["rows"]
    result = read_result(out / "temperature" / "cold" / "seed-0")
    for name in ("rank1", "map", "linear"):
        cell = cold["measures"][name]
        assert cell["value"] == result["trained"][name]
        assert cell["gain"] == result["gain"][name]
        assert cell["interval"] == result["interval"][name]
        assert table["start"][name] == result["start"][name] == warm["measures"][name]["start"]
        assert cell["spread"] is None
    losses = [
        read_metrics(out / "temperature" / name / "seed-0", "train")[-1]["loss"]
        for name in ("cold", "warm")
    ]
    assert losses[0] != losses[1]


def test_the_untrained_variant_is_the_start_and_gains_nothing(finished):
    _, table, _ = finished
    *_, without = table["rows"]
    for name, cell in without["measures"].items():
        assert cell["value"] == pytest.approx(table["start"][name])
        assert cell["gain"] is None


def test_the_same_settings_under_two_names_are_trained_once(finished):
    out, table, _ = finished
    _, warm, again, _ = table["rows"]
    assert again["same_as"] == "temperature, warm"
    assert again["measures"] == warm["measures"]
    assert not (out / "contrast" / "with").exists()


def test_photos_are_decoded_once(finished):
    out, _, _ = finished
    assert len(list(out.rglob("pixels.bin"))) == 1


def test_tables(finished):
    out, table, said = finished
    assert json.loads((out / "ablation.json").read_text()) == table
    lines = list(csv.DictReader((out / "ablation.csv").read_text().splitlines()))
    assert [line["variant"] for line in lines] == ["start", "cold", "warm", "with", "without"]
    cold = table["rows"][0]["measures"]["map"]
    assert float(lines[1]["map"]) == pytest.approx(cold["value"], abs=0.005)
    assert float(lines[1]["map low"]) == pytest.approx(cold["interval"][0], abs=0.005)
    assert lines[4]["map gain"] == ""
    text = (out / "ablation.md").read_text()
    assert text == as_markdown(table)
    assert f"| cold | {table['rows'][0]['measures']['rank1']['value']:.2f} (" in text
    assert "| with (= temperature, warm) |" in text
    assert any("temperature, cold, seed 0 (1 of 4)" in line for line in said)


@pytest.mark.slow
def test_again_trains_nothing_and_says_the_same(finished, sample, monkeypatch):
    out, table, _ = finished
    monkeypatch.setattr(MoCoV2, "ablations", STUDIES)
    logs = {path: path.read_bytes() for path in out.rglob("metrics.jsonl")}
    assert len(logs) == 2
    settings = {"recipe": "smoke", "sets": SETS, "probe": sample.probe}
    assert ablate("moco", sample.photos, out, **settings) == table
    assert {path: path.read_bytes() for path in out.rglob("metrics.jsonl")} == logs


def test_folders_are_named_for_every_shell():
    found = [str(ablation._folder(Path("out"), v)) for v in variants("mocov2", studies=["queue"])]
    assert found == [f"out/queue/{k}" for k in (64, 1024, 4096, 65536)]
    variant = variants("mocov2")[0]._replace(study="kind of/texts", name="image + 4: -0.5")
    assert ablation._folder(Path("out"), variant) == Path("out/kind-of-texts/image-+-4--0.5")


TEXTS = ("method.teacher=fieldmark:folder", "method.texts=birds")
STUDIED = [name for name, kind in METHODS.items() if kind.ablations]


def resolved(recipe):
    """All that a variant's name may speak of; how long it trains is a matter of cost."""
    config = recipe.method
    config = config.resolved() if hasattr(config, "resolved") else config
    return recipe.model_copy(update={"method": config, "train": None})


@pytest.mark.parametrize("name", STUDIED)
def test_a_variant_is_what_its_name_says_whatever_is_set_beside_it(name):
    """With any variant's settings as the base, a study's rows are as without, and all different."""
    studies = METHODS[name].ablations
    plain = load_recipe(ablation._chosen(name, None)[1], TEXTS if name == "ppssl" else ())
    for base_study, bases in studies.items():
        for base_name, tables in bases.items():
            base = ablation._changed(plain, tables, base_name)
            for study, names in studies.items():
                rows = [resolved(ablation._changed(base, t, v)) for v, t in names.items()]
                where = f"{study}, beside {base_study} = {base_name}"
                for index, row in enumerate(rows):
                    assert row not in rows[:index], f"{where}: {list(names)[index]} is there twice"
                if study == base_study:
                    alone = [resolved(ablation._changed(plain, t, v)) for v, t in names.items()]
                    assert rows == alone, where


def labelled(photos, out, recipe, **settings):
    seed = recipe.train.seed
    return {
        "verdict": "helped",
        "start": dict.fromkeys(ablation.MEASURES, 10.0),
        "trained": dict.fromkeys(ablation.MEASURES, 12.0 + 2 * seed),
        "gain": dict.fromkeys(ablation.MEASURES, 2.0 + 2 * seed),
        "interval": {name: [1.0 + seed, 3.0 + 3 * seed] for name in ablation.MEASURES},
    }


def unlabelled(photos, out, recipe, **settings):
    sides = {"start": {"view_recall": 60.0}, "trained": {"view_recall": 70.0}}
    nothing = dict.fromkeys(ablation.MEASURES)
    return {
        "verdict": "not measured",
        "label_free": {**sides, "gain": 10.0, "interval": [8.0, 12.0]},
        "start": nothing,
        "trained": nothing,
        "gain": {},
        "interval": {},
    }


def test_seeds_are_averaged_and_the_interval_reaches_over_all(monkeypatch, tmp_path):
    monkeypatch.setattr(ablation, "train", labelled)
    settings = {"recipe": "smoke", "studies": ["own-keys"], "seeds": 2}
    table = ablate("mocov2", tmp_path, tmp_path / "out", **settings)
    assert len(table["rows"]) == 2
    for row in table["rows"]:
        assert row["seeds"] == 2
        cell = {"value": 13, "spread": 1, "start": 10, "gain": 3, "interval": [1, 6]}
        assert row["measures"]["map"] == cell
        assert row["verdicts"] == ["helped", "helped"]
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "13.00 ± 1.00 (+3.00 [+1.00, +6.00])" in text
    assert "standard deviation over seeds" in text


def test_a_variant_that_a_network_refuses_is_left_out_and_said(monkeypatch, tmp_path):
    def some(photos, out, recipe, **settings):
        if "kept" in str(out):
            raise InputError("this network has no stage 9")
        return labelled(photos, out, recipe, **settings)

    monkeypatch.setattr(ablation, "train", some)
    said = []
    settings = {"recipe": "smoke", "studies": ["own-keys"]}
    table = ablate("mocov2", tmp_path, tmp_path / "out", say=said.append, **settings)
    assert [row["variant"] for row in table["rows"]] == ["masked"]
    (refused,) = table["refused"]
    assert refused["variant"] == "kept"
    assert "left out: this network has no stage 9" in said
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "- own-keys, kept: this network has no stage 9" in text
    monkeypatch.setattr(ablation, "train", lambda *a, **k: some(a[0], "kept", a[2]))
    with pytest.raises(ConfigError, match="no variant can be trained here; this network has"):
        ablate("mocov2", tmp_path, tmp_path / "other", **settings)


def test_variants_whose_settings_do_not_fit_are_left_out_and_the_rest_runs(monkeypatch, tmp_path):
    """PP-SSL without a teacher: what needs texts cannot be, every other row can."""
    monkeypatch.setattr(ablation, "train", labelled)
    said = []
    settings = {"studies": ["parts", "AIS weight", "form"]}
    table = ablate("ppssl", tmp_path, tmp_path / "out", say=said.append, **settings)
    trained = [row["variant"] for row in table["rows"] if row["study"] == "parts"]
    assert "neither" in trained
    assert "IADM" in trained
    refused = [(left["study"], left["variant"]) for left in table["refused"]]
    assert refused[:2] == [("parts", "AIS"), ("parts", "both")]
    assert {study for study, _ in refused} == {"parts", "AIS weight"}
    assert all("needs a text-image teacher" in left["reason"] for left in table["refused"])
    assert any("left out: parts, both: " in text for text in said)
    assert "- parts, both: " in (tmp_path / "out" / "ablation.md").read_text()
    with pytest.raises(ConfigError, match=r"no variant can be trained here; .*text-image teacher"):
        ablate("ppssl", tmp_path, tmp_path / "other", studies=["AIS weight"])


def test_without_labels_view_recall_is_compared(monkeypatch, tmp_path):
    monkeypatch.setattr(ablation, "train", unlabelled)
    table = ablate("mocov2", tmp_path, tmp_path / "out", recipe="smoke", studies=["own-keys"])
    assert table["start"] == {"view_recall": 60}
    cell = table["rows"][0]["measures"]["view_recall"]
    assert (cell["value"], cell["gain"], cell["interval"]) == (70, 10, [8, 12])
    text = as_markdown(table)
    assert "| variant | view recall |" in text
    assert "| kept | 70.00 (+10.00 [+8.00, +12.00]) |" in text


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'mocov2'"):
        variants("mocov22")
    with pytest.raises(ConfigError, match=r"declares no ablations; these do: .*mocov2"):
        variants("mocov3")
    with pytest.raises(ConfigError, match=r"unknown study of mocov2 'queues'.*'queue'"):
        variants("mocov2", studies=["queues"])
    with pytest.raises(ConfigError, match="recipe 'simclr' trains 'simclr', not 'mocov2'"):
        variants("mocov2", recipe="simclr")
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(OutputError, match="not empty"):
        ablate("mocov2", tmp_path, tmp_path, recipe="smoke")
    with pytest.raises(ConfigError, match="seeds must be at least 1"):
        ablate("mocov2", tmp_path, tmp_path / "out", seeds=0)


def test_what_a_variant_changes_wins_over_overrides():
    found = variants("mocov2", recipe="smoke", sets=["method.queue_size=7"], studies=["queue"])
    assert [v.recipe.method.queue_size for v in found] == [64, 1024, 4096, 65536]
    assert {v.recipe.train.epochs for v in variants("mocov2", extra={"train": {"epochs": 3}})} == {
        3
    }


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "train", labelled)
    arguments = ["ablate", "mocov2", tmp_path, "--out", tmp_path / "out", "--recipe", "smoke"]
    arguments += ["--study", "own-keys", "--epochs", 1, "--set", "method.dim=8"]
    monkeypatch.setattr("sys.argv", ["fieldmark", *map(str, arguments), "--json"])
    app.app(standalone_mode=False)
    table = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [row["variant"] for row in table["rows"]] == ["kept", "masked"]
    assert table["epochs"] == 1
    monkeypatch.setattr("sys.argv", ["fieldmark", *map(str, arguments)])
    app.app(standalone_mode=False)
    assert "| masked | 12.00 (+2.00 [+1.00, +3.00]) |" in capsys.readouterr().out
