"""``fieldmark report``: the page is written again from what the run kept."""

import dataclasses
import json
import os

import pytest
import typer
from typer.testing import CliRunner

from fieldmark.cli import report as cli
from fieldmark.errors import ArtifactError, OutputError
from fieldmark.evaluation.report import Facts, Measure, Outcome, ReportData
from fieldmark.workflows.report import read_report, rebuild_report, write_report

DATA = ReportData(
    title="wrens",
    outcome=Outcome("hurt", "mAP fell by 3 points.", "start"),
    facts=Facts(10),
    measures=(Measure("map", 20.0, 17.0, -3.0, -4.0, -2.0),),
)


def app():
    made = typer.Typer()
    made.command()(cli.command)
    return made


def test_page_comes_back_identical_without_the_photos(tmp_path):
    first = write_report(tmp_path / "run", DATA)
    text = first.page.read_text(encoding="utf-8")
    first.page.unlink()
    again = rebuild_report(tmp_path / "run")
    assert again == first
    assert again.page.read_text(encoding="utf-8") == text
    assert read_report(tmp_path / "run") == DATA


def test_page_can_go_elsewhere_and_data_be_named_itself(tmp_path):
    write_report(tmp_path, DATA)
    out = tmp_path / "mail" / "wrens.html"
    assert rebuild_report(tmp_path / "report.json", out).page == out
    assert out.is_file()


@pytest.mark.parametrize("content", [None, "", "{}", "\udcff"])
def test_folder_without_usable_data_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=r"report\.json"):
        rebuild_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="fieldmark train"):
        rebuild_report(tmp_path / "absent")


def test_interrupted_writing_keeps_the_old_page(tmp_path, monkeypatch):
    write_report(tmp_path, DATA)
    before = (tmp_path / "report.html").read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    changed = dataclasses.replace(DATA, title="other")
    with pytest.raises(Exception, match="no space left"):
        write_report(tmp_path, changed)
    assert (tmp_path / "report.html").read_bytes() == before
    assert read_report(tmp_path) == DATA


def test_page_where_a_folder_is_needed_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        write_report(tmp_path / "file", DATA)


def test_json_line(tmp_path):
    write_report(tmp_path, DATA)
    result = CliRunner().invoke(app(), [str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout.splitlines()[-1])
    assert line["verdict"] == "hurt"
    assert line["shipped"] == "start"
    assert line["report"] == str(tmp_path / "report.html")
    assert line["bytes"] == (tmp_path / "report.html").stat().st_size


def test_open_shows_the_page(tmp_path, monkeypatch):
    import webbrowser

    shown = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    write_report(tmp_path, DATA)
    assert CliRunner().invoke(app(), [str(tmp_path)]).exit_code == 0
    assert shown == []
    assert CliRunner().invoke(app(), [str(tmp_path), "--open"]).exit_code == 0
    assert shown == [(tmp_path / "report.html").resolve().as_uri()]
