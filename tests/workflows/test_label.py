"""``fieldmark label`` and ``fieldmark classify`` on an index of made-up vectors and of drawn birds."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest

from fieldmark.errors import (
    ArtifactError,
    CatalogError,
    ConflictError,
    InputError,
    LabelError,
    OutputError,
)
from fieldmark.index.index import Stamp
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.label.classifier import FieldClassifier
from fieldmark.workflows.classify import classify, read_taxonomy
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.label import export_labels, next_photos, set_labels, suspect_labels
from tiny import save_encoder

KINDS = ["wren", "robin", "blue tit", "coal tit"]
TREE = "family,genus,species\nTroglodytidae,Troglodytes,wren\nMuscicapidae,Erithacus,robin\nParidae,Cyanistes,blue tit\nParidae,Periparus,coal tit\n"


def birds(count=160, seed=0):
    """Unit vectors of four kinds, the tits near each other, and their names."""
    draw = np.random.default_rng(seed)
    centres = np.eye(4, 8, dtype=np.float32)
    centres[3, 2] = 1.5
    kind = np.arange(count) % 4
    x = centres[kind] + 0.25 * draw.normal(size=(count, 8)).astype(np.float32)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), kind


@pytest.fixture
def index(tmp_path):
    """160 photos in all, none labelled."""
    x, _ = birds()
    keys = [f"a/{row:03}.jpg" for row in range(160)]
    with SqliteIndex(tmp_path / "i", create=True) as made:
        made.add_space("e" * 64, 8, {"network": "test"})
        stamps = [Stamp(9, 9, f"{row:064x}") for row in range(160)]
        made.add(keys, x, stamps=stamps, metas=[{"year": 2000 + r % 3} for r in range(160)])
    return tmp_path / "i"


def write(path, rows, header="path,label", encoding="utf-8"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


def label(index, rows, tmp_path):
    names = [f"a/{row:03}.jpg,{KINDS[row % 4]}" for row in rows]
    return set_labels(index, write(tmp_path / "labels.csv", names), by="Ida")


def test_labels_of_a_table_are_set_with_who_said_so(index, tmp_path):
    table = write(
        tmp_path / "l.csv", ["a\\000.jpg;wren", "./a/001.jpg;Robin", "a/002.jpg;"], "path;label"
    )
    told = set_labels(index, table, by="Ida", dry_run=True)
    with SqliteIndex(index) as opened:
        assert opened.stats().labelled == 0
    told = set_labels(index, table, by="Ida")
    assert (told["set"], told["unchanged"], told["empty"]) == (2, 0, 1)
    assert told["new"] == ["Robin", "wren"]
    with SqliteIndex(index) as opened:
        assert [item.label for item in opened.get(["a/000.jpg", "a/001.jpg"])] == ["wren", "Robin"]
        assert {change.by for change in opened.history()} == {"Ida"}
    again = set_labels(index, table)
    assert (again["set"], again["unchanged"]) == (0, 2)
    slip = set_labels(index, write(tmp_path / "m.csv", ["a/003.jpg,robin", "a/004.jpg,wrenn"]))
    assert slip["alike"] == {"robin": "Robin", "wrenn": "wren"}


def test_tables_that_are_wrong_set_nothing(index, tmp_path):
    label(index, [0], tmp_path)
    table = tmp_path / "t.csv"
    for rows, words in (
        (
            ["a/001.jpg,robin", "a/001.jpg,wren"],
            r"a/001.jpg two labels: 'robin' \(photo 1\) and 'wren'",
        ),
        (["a/001.jpg,robin", "a/0O2.jpg,wren"], r"1 photo of .* not in the index, .* Is it a/"),
        (["a/000.jpg,robin"], r"another label already, such as a/000.jpg \('wren', now 'robin'\)"),
        ([f"a/001.jpg,{'x' * 501}"], "photo 1: 'xxx.*1 to 500"),
    ):
        with pytest.raises(LabelError, match=words):
            set_labels(index, write(table, rows))
    with pytest.raises(LabelError, match=r"does not know: 'wrenn' \(is it 'wren'\?\)"):
        set_labels(index, write(table, ["a/001.jpg,wrenn"]), known_only=True)
    with pytest.raises(CatalogError, match="not UTF-8 text; save it again"):
        set_labels(index, write(table, ["a/001.jpg,Zaunkönig"], encoding="utf-16"))
    with pytest.raises(CatalogError, match="not UTF-8 text"):
        set_labels(index, write(table, ["a/001.jpg,Zaunkönig"], encoding="latin-1"))
    with pytest.raises(CatalogError, match="lacks a column: label or class"):
        set_labels(index, write(table, ["a/001.jpg"], "path"))
    with SqliteIndex(index) as opened:
        assert opened.stats().labelled == 1
    assert set_labels(index, write(table, ["a/000.jpg,robin"]), replace=True)["set"] == 1


def test_what_to_label_next_reaches_every_kind_and_comes_back_as_labels(index, tmp_path):
    out = tmp_path / "next.csv"
    told = next_photos(index, count=4, out=out)
    rows = [int(row["path"][2:5]) for row in told["photos"]]
    assert {row % 4 for row in rows} == {0, 1, 2, 3}
    assert (told["labelled"], told["covered"]) == (0, 0)
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["path", "label", "guess", "probability", "gain"]
    assert set_labels(index, out)["empty"] == 4
    filled = [f"{line['path']},{KINDS[int(line['path'][2:5]) % 4]}" for line in lines]
    set_labels(index, write(tmp_path / "filled.csv", filled))
    told = next_photos(index, count=8, where="year = 2001")
    assert all((int(row["path"][2:5])) % 3 == 1 for row in told["photos"])
    guesses = [row["guess"] == KINDS[int(row["path"][2:5]) % 4] for row in told["photos"]]
    assert sum(guesses) >= 6
    with pytest.raises(OutputError, match="there already"):
        next_photos(index, out=out)
    with pytest.raises(InputError, match="no photo without a label that the filter leaves"):
        next_photos(index, where="year = 1900")


def test_photos_that_are_gone_are_not_asked_for(index):
    with SqliteIndex(index) as opened:
        opened.update([f"a/{row:03}.jpg" for row in range(0, 160, 2)], missing=True)
    rows = next_photos(index, count=40)["photos"]
    assert all(int(row["path"][2:5]) % 2 for row in rows)


def test_labels_that_someone_else_changes_meanwhile_stay(index, tmp_path, monkeypatch):
    table = write(tmp_path / "l.csv", ["a/000.jpg,wren", "a/001.jpg,robin"])
    setting = SqliteIndex.set_labels

    def late(self, labels, **more):
        monkeypatch.setattr(SqliteIndex, "set_labels", setting)
        with SqliteIndex(index) as other:
            other.set_labels({"a/001.jpg": "dunnock"}, by="someone else")
        return setting(self, labels, **more)

    monkeypatch.setattr(SqliteIndex, "set_labels", late)
    with pytest.raises(ConflictError, match=r"a/001.jpg changed since you looked"):
        set_labels(index, table)
    with SqliteIndex(index) as opened:
        found = [item.label for item in opened.get(["a/000.jpg", "a/001.jpg"])]
    assert found == [None, "dunnock"]


def test_wrong_labels_are_suspected_first(index, tmp_path):
    label(index, range(100), tmp_path)
    set_labels(
        index, write(tmp_path / "w.csv", ["a/000.jpg,robin", "a/005.jpg,wren"]), replace=True
    )
    told = suspect_labels(index, count=2, out=tmp_path / "s.csv")
    assert {(row["path"], row["suggested"]) for row in told["photos"]} == {
        ("a/000.jpg", "wren"),
        ("a/005.jpg", "robin"),
    }
    assert told["judged"] == 100
    out = tmp_path / "all.csv"
    assert export_labels(index, out, where='label = "wren"')["labels"] == 25
    assert out.read_text().startswith("path,label\na/004.jpg,wren\n")


def test_the_rest_is_named_with_sets_and_taxa(index, tmp_path):
    with pytest.raises(InputError, match="has none as a label"):
        classify(index, None, tmp_path / "c.csv")
    label(index, range(100), tmp_path)
    tree = tmp_path / "tree.csv"
    tree.write_text(TREE)
    out = tmp_path / "c.csv"
    told = classify(index, None, out, taxonomy=tree, least=0.95, save=tmp_path / "saved")
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"a/{row:03}.jpg" for row in range(100, 160)]
    truth = [KINDS[row % 4] for row in range(100, 160)]
    right = np.mean([row["label"] == name for row, name in zip(rows, truth)])
    covered = np.mean([name in row["set"].split("|") for row, name in zip(rows, truth)])
    assert right > 0.85
    assert covered > 0.8
    assert told["accuracy"] == pytest.approx(right, abs=0.12)
    family = [name for row, name in zip(rows, truth) if row["name"] == "Paridae"]
    assert family, "tits that are not told apart are still tits"
    assert {"blue tit", "coal tit"} >= set(family)
    assert told["levels"]["family"] == len(family)
    assert sum(told["levels"].values()) + told["unknown"] == 60
    with pytest.raises(OutputError, match="add --overwrite"):
        classify(index, None, out)
    again = classify(index, None, out, classifier=tmp_path / "saved", overwrite=True)
    assert again["accuracy"] == told["accuracy"]
    FieldClassifier.load(tmp_path / "saved").save(tmp_path / "other", about={"encoder": "f" * 64})
    with pytest.raises(ArtifactError, match=r"encoder ffffffffffff…, and .* holds those of eeee"):
        classify(index, None, out, classifier=tmp_path / "other", overwrite=True)


def test_darwin_core_and_parquet(index, tmp_path):
    label(index, range(100), tmp_path)
    tree = tmp_path / "tree.csv"
    tree.write_text(TREE)
    out = tmp_path / "c.parquet"
    classify(index, None, out, taxonomy=tree, darwin_core=True, where='key < "a/104.jpg"')
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert len(rows) == 104, "where chooses among all, labelled ones too"
    wren = rows[0]
    assert wren["occurrenceID"] == f"urn:sha256:{0:064x}"
    assert wren["basisOfRecord"] == "MachineObservation"
    assert (wren["scientificName"], wren["taxonRank"], wren["genus"], wren["family"]) == (
        "wren",
        "species",
        "Troglodytes",
        "Troglodytidae",
    )
    tits = [row for row in rows if row["taxonRank"] == "family"]
    assert tits
    for row in tits:
        assert (row["scientificName"], row["family"], row["genus"]) == ("Paridae", "Paridae", None)


def test_taxonomies_that_are_none_are_refused(tmp_path):
    table = tmp_path / "t.csv"
    for text, words in (
        ("genus,bird\nA,a\n", "no taxonomy: it has the columns genus, bird"),
        ("label\na\n", "give 'label' and one column"),
        ("genus,label\nA,\n", "line 1: the column 'label' is empty"),
        ("genus,label\nA,a\nB,a\n", "two lines for 'a' that differ"),
    ):
        table.write_text(text)
        with pytest.raises(LabelError, match=words):
            read_taxonomy(table)
    table.write_text("Order,Species\nPasseriformes,wren\n")
    tree = read_taxonomy(table)
    assert (tree.levels, tree.finest) == (("order",), "species")


def test_new_photos_are_embedded_and_named_by_the_command_line(run, sample, tmp_path):
    encoder = save_encoder(tmp_path / "encoder")
    index_photos(encoder, sample.photos, tmp_path / "i", device="cpu")
    out = tmp_path / "new.csv"
    code, text, _ = run("classify", tmp_path / "i", sample.photos, "--out", out, "--json")
    assert code == 0
    told = json.loads(text)
    assert (told["photos"], told["labels"], told["refused"]) == (64, 4, 0)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    with SqliteIndex(tmp_path / "i") as opened:
        paths = [item.key for item in opened.items()]
        vectors, labels = opened.vectors(paths), [path.split("/")[0] for path in paths]
    wanted = dict(zip(paths, FieldClassifier().fit(vectors, labels).predict(vectors)))
    assert np.mean([row["label"] == wanted[row["path"]] for row in rows]) > 0.95
    assert not list(tmp_path.glob(".new.csv*")), "nothing is left over"
    code, text, _ = run("label", "export", tmp_path / "i", tmp_path / "l.csv")
    assert (code, "64 labels" in text) == (0, True)
    code, text, _ = run("label", "set", tmp_path / "i", tmp_path / "l.csv", "--dry-run")
    assert "0 labels would be set, 64 were so already" in text
    code, text, _ = run("label", "mistakes", tmp_path / "i", "-n", 3)
    assert (code, "of 64 labels" in text) == (0, True)
    code, _, error = run("label", "next", tmp_path / "i")
    assert (code, "nothing to label next" in error.replace("\n", " ")) == (2, True)
    code, _, error = run("classify", tmp_path / "i", "--out", tmp_path / "x.txt")
    assert (code, ".csv or .parquet" in error) == (2, True)
