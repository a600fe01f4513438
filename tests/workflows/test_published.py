"""Published figures stand beside ours only where everything agrees."""

import json

import pytest

from fieldmark.errors import InputError
from fieldmark.workflows import leaderboard
from fieldmark.workflows.bench import redraw
from fieldmark.workflows.published import beside, read_published

OURS = {
    "data": "cub200", "method": "mocov2", "seeds": 3, "part": None, "network": "resnet50",
    "size": 224, "start_saw": "ImageNet-1k", "start_how": "supervised",
}  # fmt: skip
THEIRS = {
    "data": "cub200", "method": "lcr", "network": "resnet50", "start": "ImageNet-1k, supervised",
    "size": 224, "protocol": "leave-one-out retrieval, last epoch", "rank1": 40.0, "map": [20.0, 21.5],
    "source": "A paper", "status": "printed",
}  # fmt: skip


def reasons(ours=None, **theirs):
    (row,) = beside([{**THEIRS, **theirs}], [{**OURS, **(ours or {})}])
    return row["reasons"]


def test_a_figure_that_agrees_in_everything_is_comparable():
    (row,) = beside([THEIRS], [OURS])
    assert row["reasons"] == []
    assert row["figures"] == {"rank1": 40.0, "map": [20.0, 21.5]}
    assert leaderboard.figures(row) == "rank-1 40, mAP 20/21.5"


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"part": "50 of 200 classes"}, {}, "ours is of 50 of 200 classes"),
        ({}, {"network": "ViT-g/14"}, "network ViT-g/14, ours resnet50"),
        ({"start_saw": "none", "start_how": "random"}, {}, "ours: random"),
        ({"start_saw": "none", "start_how": "self-supervised"}, {}, "ours: no labels"),
        ({}, {"start": "unknown"}, "start: unknown; ours: ImageNet-1k, supervised"),
        ({"size": 128}, {}, "224 px, ours 128 px"),
        ({}, {"size": None}, "an input that is not told, ours 224 px"),
        ({}, {"protocol": "linear, SGD, best on test"}, "protocol: linear, SGD, best on test"),
        ({}, {"status": "remembered"}, "from memory"),
        ({}, {"status": "claimed"}, "a claim"),
    ],
)
def test_whatever_differs_is_the_reason(ours, theirs, told):
    (reason,) = reasons(ours, **theirs)
    assert told in reason


def test_only_data_sets_of_the_table_with_finished_rows_are_shown():
    assert beside([THEIRS], [{**OURS, "data": "aircraft"}]) == []
    assert beside([THEIRS], [{**OURS, "seeds": 0}]) == []
    # The closest of several rows counts.
    (row,) = beside([THEIRS], [{**OURS, "size": 128, "network": "vit"}, {**OURS, "size": 128}])
    assert row["reasons"] == ["224 px, ours 128 px"]


def test_all_shipped_figures_of_a_small_part_are_grey_with_reasons():
    ours = {**OURS, "network": "mobilenetv2_100", "size": 128, "part": "50 of 200 classes"}
    rows = beside(read_published(), [ours])
    assert len(rows) > 10
    assert all(len(row["reasons"]) >= 2 for row in rows)


def test_lines_of_results_are_drawn_again_with_them(tmp_path):
    cell = {
        "kind": "cell", "status": "done", "data": "cub200", "method": "start", "seed": 0, "level": "species",
        "subset": "50 of 200 classes", "overlap": "", "size": 128, "epochs": 0, "seconds": 3.0,
        "trained": {"map": 50.0, "rank1": 40.0}, "start_saw": "ImageNet-1k",
        "start_how": "supervised", "network": "mobilenetv2_100",
    }  # fmt: skip
    lines = [cell, *({"kind": "published", **row} for row in read_published())]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    redraw(tmp_path / "results.jsonl", tmp_path / "again")
    table = (tmp_path / "again" / "table.md").read_text()
    assert "| cub200 | lcr | linear 71.31 |" in table
    assert "ours is of 50 of 200 classes; network resnet50" in table
    page = (tmp_path / "again" / "report.html").read_text()
    assert page.count('<tr class="grey">') == sum(
        row["data"] == "cub200" for row in read_published()
    )
    assert '<tr class="black">' not in page


def test_a_file_of_the_user_s_own_is_read_or_refused(tmp_path):
    file = tmp_path / "own.toml"
    facts = "".join(f'{k} = "{v}"\n' for k, v in THEIRS.items() if isinstance(v, str))
    facts = facts.replace('source = "A paper"', 'source = "own"')
    file.write_text(f'[sources]\nown = "Ours, 2026"\n[[row]]\n{facts}rank1 = 12.5\n')
    (row,) = read_published(file)
    assert row["source"] == "Ours, 2026"
    file.write_text(file.read_text().replace('status = "printed"\n', ""))
    with pytest.raises(InputError, match=r"own\.toml lacks 'status'"):
        read_published(file)
    file.write_text("[sources\n")
    with pytest.raises(InputError, match="cannot be read as published figures"):
        read_published(file)
