import json

import pytest
from typer.testing import CliRunner

from fieldmark.cli import sample as command
from fieldmark.data.aviary import AviaryConfig
from fieldmark.errors import ConfigError, OutputError
from fieldmark.workflows.sample import sample


def _app():
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command.command)
    return app


def test_sample_writes_photos_and_says_what(tmp_path):
    result = sample(tmp_path / "birds", AviaryConfig(species=2, per_species=4, size=16))
    assert (result.train, result.test) == (6, 2)
    assert len(list(result.photos.glob("*/*.jpg"))) == 8
    assert result.split.is_file()
    assert result.parts.is_file()
    assert len(result.species) == len(result.marks) == 2


def test_command_prints_one_json_object(tmp_path):
    arguments = [str(tmp_path / "birds"), "--species", "2", "--per-species", "4", "--size", "16"]
    result = CliRunner().invoke(_app(), [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.strip().splitlines()[-1])
    assert (told["train"], told["test"]) == (6, 2)
    assert told["split"] == str(tmp_path / "birds" / "split.csv")


def test_command_tells_a_person_what_to_do_next(tmp_path):
    arguments = [str(tmp_path / "birds"), "--species", "2", "--per-species", "4", "--size", "16"]
    result = CliRunner().invoke(_app(), arguments)
    assert result.exit_code == 0, result.output
    assert "fieldmark train" in result.stdout
    assert f"--probe {tmp_path / 'birds' / 'split.csv'}" in result.stdout


def test_command_refuses_impossible_options(tmp_path):
    result = CliRunner().invoke(_app(), [str(tmp_path / "birds"), "--species", "1"])
    assert isinstance(result.exception, ConfigError)
    assert "species" in str(result.exception)
    assert not (tmp_path / "birds").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="something else"):
        sample(tmp_path, AviaryConfig(species=2, per_species=2, size=16))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
