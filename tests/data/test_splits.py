"""Split tables: matched to photos, or refused with the line at fault."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import SplitRow, match_split, read_split
from fieldmark.errors import LabelError


def folder(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return root


NAMES = ["p/crow1.png", "p/crow2.png", "p/jay1.png", "p/jay2.png", "p/owl1.png", "p/extra.png"]
TABLE = """path,class,split
p/crow1.png,crow,train
p/crow2.png,crow,test
./p/jay1.png,jay,Train
p/jay2.png,jay,testing
p/owl1.png,owl,val
"""


def write(root: Path, text: str) -> Path:
    table = root / "split.csv"
    table.write_text(text)
    return table


def test_a_split_is_matched_to_catalog_rows(tmp_path: Path) -> None:
    folder(tmp_path, NAMES)
    table = write(tmp_path, TABLE)
    catalog = Catalog.open(tmp_path / "p")
    split = match_split(catalog, table)
    assert split.classes == ["crow", "jay", "owl"]
    names = [catalog[int(row)].path for row in (*split.train_rows, *split.test_rows)]
    assert names == ["crow1.png", "jay1.png", "crow2.png", "jay2.png"]
    assert split.train_labels.tolist() == [0, 1]
    assert split.test_labels.tolist() == [0, 1]


def test_label_means_class_and_a_linked_folder_is_found(tmp_path: Path) -> None:
    folder(tmp_path / "real", NAMES)
    table = write(tmp_path / "real", TABLE.replace("class", "label"))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    split = match_split(Catalog.open(tmp_path / "link"), table)
    assert len(split.train_rows) == 2
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # A table kept elsewhere names photos by their id in the catalog.
    moved = write(elsewhere, table.read_text())
    assert len(match_split(Catalog.open(tmp_path / "real"), moved).test_rows) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\na.png,train\n", "class"),
        ("class,split\na,train\n", "path"),
        ("path,class,split\na.png,,train\n", "photo 1.*class=None"),
        ("path,class,split\na.png,x,holdout\n", "unknown split 'holdout'"),
        ("path,class,split\na.png,x,train\na.png,x,test\n", "listed twice"),
        ("path,class,split\na.png,x,train\na.png,y,train\n", "listed twice"),
        ("path,class,split\na.png,x,train\n", "no photo with split 'test'"),
        ("path,class,split\na.png,x,test\n", "no photo with split 'train'"),
        ("path,class,split\n", "lists no photos"),
    ],
)
def test_broken_split_tables_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_split(write(tmp_path, text))


def test_a_missing_table_is_a_label_error(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no such table"):
        read_split(tmp_path / "split.csv")


def test_repeated_lines_that_agree_are_one(tmp_path: Path) -> None:
    rows = read_split(write(tmp_path, TABLE + "p/crow1.png,crow,train\n"))
    assert len(rows) == 5
    assert rows[0] == SplitRow("p/crow1.png", "crow", "train")


def test_absent_photos_are_named(tmp_path: Path) -> None:
    folder(tmp_path, NAMES)
    extra = "".join(f"p/gone{i}.png,crow,train\n" for i in range(5))
    with pytest.raises(LabelError, match=r"5 of 10 photos .*gone0\.png.*gone2\.png, …"):
        match_split(Catalog.open(tmp_path / "p"), write(tmp_path, TABLE + extra))


def test_a_class_with_one_test_photo_is_only_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path, NAMES)
    with caplog.at_level(logging.WARNING):
        match_split(Catalog.open(tmp_path), write(tmp_path, TABLE))
    assert "crow, jay" in caplog.text
