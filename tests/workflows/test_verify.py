"""``fieldmark verify``: the same numbers again, and every way in which they may not be the same."""

import json
import shutil

import pytest

from fieldmark import storage
from fieldmark.data.catalog import Catalog
from fieldmark.data.store import PhotoStore
from fieldmark.errors import ArtifactError, InputError
from fieldmark.workflows import bench as bench_module
from fieldmark.workflows.bench import bench
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import train
from fieldmark.workflows.verify import verify

SETS = ("train.epochs=1", "health.photos=16", "backbone.name=test_resnet", "size=32")


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    train(sample.photos, out, load_recipe("smoke", SETS), probe=sample.probe)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A run that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "run")


def candidate(run):
    return run / "encoders" / json.loads((run / "result.json").read_text())["candidate"]


def test_a_run_is_reproduced_from_its_folder_or_any_result_file(finished):
    for given in (finished, finished / "result.json", finished / "evaluation.json"):
        found = verify(given)
        (only,) = found["runs"]
        assert found["verified"], only
        assert only["status"] == "reproduced"
        assert only["largest"] == 0
        assert set(only["measures"]) == {"encoder", "against"}
        assert {"rank1", "map", "knn", "linear", "linear@10"} <= set(only["measures"]["encoder"])


def test_photos_are_seen_as_large_as_the_run_kept_them(sample, tmp_path):
    # In a benchmark all runs share one store, of whatever size the one that looks closest wants.
    store = tmp_path / "store"
    PhotoStore.build(Catalog.open(sample.photos), store, short_side=24)
    out = tmp_path / "run"
    train(sample.photos, out, load_recipe("smoke", SETS), probe=sample.probe, store=store)
    (only,) = verify(out)["runs"]
    assert (only["status"], only["largest"]) == ("reproduced", 0)


def test_a_number_that_was_changed_is_found(copied, run):
    file = copied / "evaluation.json"
    data = json.loads(file.read_text())
    data["results"]["encoder"]["measures"]["map"] += 3
    file.write_text(json.dumps(data))
    code, out, _ = run("verify", copied)
    assert code == 1
    assert "DIFFERS" in out
    assert "encoder: map was" in out
    tests = len(data["results"]["encoder"]["labels"])
    assert f"more than 0.1 points; one test photo is {100 / tests:.2g}" in out
    assert verify(copied, tolerance=3.5)["verified"]


def test_changed_weights_are_refused(copied):
    weights = candidate(copied) / "encoder.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="is damaged or belongs to another encoder"):
        verify(copied)


def test_another_encoder_in_its_place_gives_other_numbers(copied):
    place = candidate(copied)
    shutil.rmtree(place)
    shutil.copytree(copied / "encoders" / "start", place)
    (only,) = verify(copied)["runs"]
    assert only["status"] == "differs"
    assert only["largest"] > 0.1
    assert all(m["difference"] == 0 for m in only["measures"]["against"].values())


def test_other_labels_or_another_table_are_named(copied, sample, tmp_path):
    lines = sample.probe.read_text().splitlines()
    tests = [i for i, line in enumerate(lines) if line.endswith(",test")]
    first, last = (lines[i].split(",") for i in (tests[0], tests[-1]))
    first[1], last[1] = last[1], first[1]
    lines[tests[0]], lines[tests[-1]] = ",".join(first), ",".join(last)
    table = sample.probe.with_name("other.csv")
    table.write_text("\n".join(lines) + "\n")
    try:
        (only,) = verify(copied, probe=table)["runs"]
        assert only["why"] == f"the table {table} is not the one that the run was given"
        # Said to be the one that was given: what was measured still were other photos.
        made_of = json.loads((copied / "run.json").read_text())
        made_of["probe_sha256"] = storage.sha256_of(table)
        (copied / "run.json").write_text(json.dumps(made_of))
        (only,) = verify(copied, probe=table)["runs"]
        assert only["why"].startswith("the test photos or their labels are not those")
    finally:
        table.unlink()


def test_photos_that_moved_are_found_where_they_are_now(copied, sample, tmp_path):
    moved = shutil.copytree(sample.photos.parent, tmp_path / "elsewhere")
    made_of = json.loads((copied / "run.json").read_text())
    made_of |= {"photos": str(tmp_path / "gone"), "probe": str(tmp_path / "gone.csv")}
    (copied / "run.json").write_text(json.dumps(made_of))
    assert verify(copied, photos=moved / "images", probe=moved / "split.csv")["verified"]


def test_what_is_no_finished_run_is_refused(tmp_path, finished):
    with pytest.raises(ArtifactError, match="no encoder beside it to measure again"):
        verify(tmp_path)
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds no finished cell"):
        verify(tmp_path)


def test_every_cell_of_a_benchmark_is_verified_and_its_table_too(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "_TRIAL_SECONDS", 0.05)
    out = tmp_path / "bench"
    bench({"folder": sample.photos.parent}, out, methods=["smoke"], seeds=1, sets=SETS)
    found = verify(out / "results.jsonl")
    assert found["verified"]
    assert len(found["runs"]) == 2
    file = out / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    trained = next(line for line in lines if line["kind"] == "cell" and line["method"] == "smoke")
    trained["trained"]["map"] += 0.01
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    statuses = {run["run"].split("/")[-2]: run["status"] for run in verify(out)["runs"]}
    assert statuses == {"smoke": "differs", "start": "reproduced"}
    # One cell that cannot be read does not keep the others from being verified.
    shutil.rmtree(candidate(out / "cells" / sample.photos.parent.name / "smoke/seed-0"))
    statuses = [each["status"] for each in verify(out)["runs"]]
    assert statuses == ["cannot be verified", "reproduced"]
    with pytest.raises(InputError, match="are for one run"):
        verify(out, photos=sample.photos)
