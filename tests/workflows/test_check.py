"""The check command's job: counts, lists, errors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from fieldmark.cli.check import command
from fieldmark.errors import CatalogError, LabelError, OutputError
from fieldmark.workflows.check import check


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (6, 8, 3), np.uint8))
    small.resize((80, 60), Image.Resampling.BICUBIC).save(path, quality=92)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for i in range(4):
        save(root / "images" / f"{i}.jpg", i)
    save(root / "images" / "twin.jpg", 0)
    (root / "images" / 'bad,"name"\n.jpg').write_bytes(b"not a photo")
    (root / "split.csv").write_text(
        "path,class,split\n"
        + "".join(f"images/{i}.jpg,c{i % 2},{'train' if i < 2 else 'test'}\n" for i in range(4))
        + "images/twin.jpg,c0,test\n"
    )
    return root


def test_a_check_counts_and_writes_lists(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = check(photos, tmp_path / "out", workers=0, progress=lambda *x: seen.append(x))
    summary = result.summary
    assert summary["files"] == 7
    assert (summary["good"], summary["damaged"], summary["refused"], summary["skipped"]) == (
        5,
        0,
        1,
        1,
    )
    assert summary["files"] == sum(summary[k] for k in ("good", "damaged", "refused", "skipped"))
    assert summary["splits"] == {"train": 2, "test": 3}
    assert summary["classes"] == 2
    assert summary["exact_duplicates"] == {"groups": 1, "photos": 2}
    assert summary["leakage"] == {"groups": 1, "photos": 2}
    assert seen[-1] == (6, 6)
    assert json.loads((tmp_path / "out" / "check.json").read_text()) == summary
    with (tmp_path / "out" / "problems.csv").open(newline="") as file:
        problems = list(csv.DictReader(file))
    assert {(p["path"], p["code"]) for p in problems} == {
        ('images/bad,"name"\n.jpg', "format_not_allowed"),
        ("split.csv", "not_a_photo"),
    }
    with (tmp_path / "out" / "leakage.csv").open(newline="") as file:
        assert {line["path"] for line in csv.DictReader(file)} == {
            "images/0.jpg", "images/twin.jpg",
        }  # fmt: skip
    assert "LEAKAGE" in result.text
    assert "\\n.jpg" in result.text  # A newline in a name must not break the page.


def test_a_split_table_may_be_given(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("path,class,split\nphotos/images/0.jpg,a,train\nphotos/images/1.jpg,b,test\n")
    result = check(photos / "images", split=table, workers=0)
    assert result.summary["splits"] == {"train": 1, "test": 1}
    assert result.summary["leakage"]["groups"] == 0
    assert "no picture lies in more than one split" in result.text
    with pytest.raises(LabelError):
        check(photos, split=tmp_path / "absent.csv", workers=0)


def test_what_cannot_be_checked_is_explained(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match="no photo in"):
        check(tmp_path / "empty", workers=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="in the way"):
        check(photos, tmp_path / "file", workers=0)


def test_the_command_prints_one_object_and_can_be_strict(photos: Path) -> None:
    app = Typer()
    app.command()(command)
    runner = CliRunner()
    result = runner.invoke(app, [str(photos), "--json", "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["good"] == 5
    assert runner.invoke(app, [str(photos), "--strict", "--workers", "1"]).exit_code == 1
