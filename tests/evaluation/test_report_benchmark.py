"""The page of a benchmark: complete in itself, safe, and saying what the rows say."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.evaluation.report.benchmark import _apart, benchmark_page

LABELS = {"map": "mAP", "linear": "linear", "ece": "ECE", "nmi": "NMI"}


def row(data, method, value, *, gain=None, **more):
    gains = {}
    if gain is not None:
        finding = "better" if gain > 1 else "worse" if gain < -1 else "not shown"
        gains = {"map": {"gain": gain, "low": gain - 1.0, "high": gain + 1.0, "finding": finding}}
    return {
        "data": data, "method": method, "seeds": 2, "wanted": 3, "failed": [], "part": None,
        "start_saw": "ImageNet-1k", "measures": {"map": value, "linear": value + 20, "ece": value / 10},
        "spread": {"map": 0.5, "linear": None, "ece": None}, "gains": gains, "seconds": 100.0 * value,
        **more,
    }  # fmt: skip


def page(rows, remarks=()):
    return benchmark_page(rows, labels=LABELS, remarks=remarks)


ROWS = [
    row("birds", "start", 15.0),
    row("birds", "mocov2", 14.0, gain=-2.5),
    row("birds", "house", 20.0, gain=5.0),
    row("cars", "start", 5.0),
    row("cars", "mocov2", 5.2, gain=0.2),
    row("cars", "house", 7.0, gain=1.8),
]


def test_the_page_says_what_the_rows_say():
    text = page(ROWS, ["rows `start` train nothing"])
    assert "Of 4 rows with training, 2 gained mAP over their start, 1 lost, and for 1 no" in text
    assert text.count('<tr class="first">') == 2
    assert "20.0" in text
    assert "± 0.5" in text
    assert "−2.5" in text
    assert "rows <code>start</code> train nothing" in text
    assert ">NMI<" not in text  # no row has it
    # Bold is the best of each data set; of the calibration error the smallest.
    bold = re.findall(r'class="num best">([\d.]+)', text)
    assert bold == ["1.4", "20.0", "40.0", "0.5", "7.0", "27.0"]


def test_coarser_levels_are_shown_but_do_not_count_twice():
    coarse = [
        row(f"{each['data']}:kind", each["method"], 50.0, gain=9.0, level_of=each["data"])
        for each in ROWS
    ]
    text, alone = page([*ROWS, *coarse]), page(ROWS)
    assert "Of 4 rows with training, 2 gained" in text
    assert "The photos and encoders of birds, asked for a coarser level." in text
    assert text.count("mAP against the time of a run") == 2
    ranks = [
        re.findall(r'class="curve ranks".*?aria-label="([^"]*)"', t, re.S) for t in (text, alone)
    ]
    assert ranks[0] == ranks[1] != []


def test_published_figures_are_grey_with_the_reason_or_black():
    told = {
        "data": "birds", "method": "theirs", "told": "mAP 24.2", "source": "A & B", "status": "printed",
        "protocol": "", "reasons": ["224 px, ours 128 px", "start: x; ours: y"],
    }  # fmt: skip
    same = {**told, "method": "alike", "reasons": []}
    text = benchmark_page(ROWS, labels=LABELS, remarks=(), published=[told, same])
    assert '<tr class="grey">' in text
    assert "224 px, ours 128 px; start: x; ours: y" in text
    assert "A &amp; B <small>(printed)</small>" in text
    assert re.search(r'<tr class="black">\s*<th scope="row">birds</th><td>alike</td>', text)
    assert "What others published" not in page(ROWS)


def test_the_page_loads_nothing_and_runs_nothing_foreign():
    text = page([row("<script>alert(1)</script>", "a&b", 3.0, gain=2.0)], ["<img src=x>"])
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r'(src|href)="https?:', text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy.group(1).startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy.group(1)


def test_ranks_are_drawn_where_they_can_be():
    text = page(ROWS)
    ranks = "Mean ranks over data sets: house 1.00, start 2.50, mocov2 2.50. Critical difference"
    assert ranks in text
    assert "Mean ranks" not in page(ROWS[:3])
    # A method that one data set lacks has no rank; the others have.
    assert ranks in page([*ROWS, row("cars", "lcr", 6.0)])


def test_failed_missing_and_empty_rows_are_shown():
    failed = row(
        "birds", "lcr", 1.0, failed=["no | teacher"], seeds=0, measures={}, spread={}, seconds=None
    )
    text = page(
        [
            *ROWS,
            failed,
            row("empty", "start", 1.0, seeds=0, measures={}, spread={}, part="2 of 9 classes"),
        ]
    )
    assert "1 failed" in text
    assert "of 3" in text
    assert "A part of the data set: 2 of 9 classes." in text
    assert "No row with training is done yet." in page([row("birds", "start", 2.0)])


@given(st.lists(st.floats(0, 200), min_size=1, max_size=12))
def test_labels_keep_their_order_and_distance(wanted):
    placed = _apart(wanted, 13.0, 0.0, 200.0)
    order = np.argsort(wanted, kind="stable")
    gaps = np.diff(np.array(placed)[order])
    assert (gaps >= 13 - 1e-9).all()
    assert max(placed) <= 200 + 1e-9
