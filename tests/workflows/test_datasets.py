"""``fieldmark datasets``: listed, described, opened, written as a table."""

import json

import pytest

from fieldmark.data.benchmarks import BENCHMARKS
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.errors import CatalogError
from fieldmark.workflows.datasets import describe_dataset, list_datasets, open_dataset
from layouts import LAYOUTS


def test_all_data_sets_are_listed_with_their_size(run):
    assert [found["name"] for found in list_datasets()] == list(BENCHMARKS)
    code, out, _ = run("datasets")
    assert code == 0
    assert "nabirds         NABirds              555 classes, 23,929 train, 24,633 test" in out
    assert len(json.loads(run("datasets", "--json")[1])["datasets"]) == len(BENCHMARKS)


def test_one_data_set_says_how_to_get_it_and_what_it_looks_like(run):
    code, out, _ = run("datasets", "flowers102")
    assert code == 0
    for part in ("get it    Download 102flowers.tgz", "licence   research", "jpg/image_00001.jpg"):
        assert part in out
    assert describe_dataset("dogs")["overlap"].startswith("these photos ARE of ImageNet")
    with pytest.raises(CatalogError, match="did you mean 'flowers102'"):
        describe_dataset("flower102")


def test_a_part_that_is_opened_says_so_in_words_and_in_json(run, tmp_path):
    root = LAYOUTS["cub200"](tmp_path)
    code, out, _ = run("datasets", f"cub200={root}")
    assert code == 0
    assert "A PART: 3 of 200 classes" in out
    assert "annotated  boxes, parts, masks, attributes" in out
    found = json.loads(run("datasets", f"cub200:kind={root}", "--json")[1])
    assert (found["subset"], found["classes"], found["level"]) == ("6 of 11,788 photos", 2, "kind")


def test_the_table_that_is_written_serves_as_photos_and_as_probe(run, tmp_path):
    root = LAYOUTS["aircraft"](tmp_path)
    table = tmp_path / "new" / "makers.csv"
    assert run("datasets", f"aircraft:manufacturer={root}", "--table", table)[0] == 0
    split = match_split(Catalog.open(table), table)
    assert split.classes == ["Airbus", "Boeing"]
    assert (len(split.train_rows), len(split.test_rows)) == (9, 3)
    assert open_dataset("aircraft", root)["table"] is None


def test_bad_input_is_one_paragraph_with_exit_code_two(run, tmp_path):
    for arguments, complaint in (
        ((f"cub200={tmp_path}",), "images.txt is missing"),
        (("cub200", "--table", tmp_path / "t.csv"), "--table needs a data set that is opened"),
        (("cubs",), "did you mean 'cub200'"),
    ):
        code, out, err = run("datasets", *arguments)
        assert (code, out) == (2, "")
        assert complaint in " ".join(err.split())
        assert "Traceback" not in err
