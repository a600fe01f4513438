"""A benchmark's table as one self-contained page: gains, label fractions, cost, mean ranks.

Takes the plain rows of a benchmark's table, draws, and computes nothing but the mean ranks.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from fieldmark import storage
from fieldmark.errors import InputError
from fieldmark.evaluation.report import charts
from fieldmark.evaluation.report.render import page_text, security_policy
from fieldmark.evaluation.significance import RankComparison, compare_ranks

Row = Mapping[str, Any]
GAINS = {"map": "mAP", "rank1": "rank-1", "linear": "linear, 100 %", "finetuned": "fine-tuned"}
_FRACTIONS = {
    1: "linear@1",
    5: "linear@5",
    10: "linear@10",
    20: "linear@20",
    50: "linear@50",
    100: "linear",
}
_RANKED = "map"
_START = "start"


def render_benchmark(
    rows: Sequence[Row],
    out: Path,
    *,
    labels: Mapping[str, str],
    remarks: Sequence[str],
    published: Sequence[Row] = (),
) -> Path:
    """Write the page.

    Args:
        rows: As :func:`fieldmark.workflows.leaderboard.rows` makes them.
        out: The HTML file; replaced as a whole or not at all.
        labels: What measures are called, in the order of the table's columns.
        remarks: What must be known about the table.
        published: Figures of others: ``data``, ``method``, ``told``, ``source``, ``status``,
            ``protocol`` and ``reasons`` why they cannot stand beside the table's.
    """
    text = benchmark_page(rows, labels=labels, remarks=remarks, published=published)
    storage.write_text(out, text)
    return out


def benchmark_page(
    rows: Sequence[Row],
    *,
    labels: Mapping[str, str],
    remarks: Sequence[str],
    published: Sequence[Row] = (),
) -> str:
    """The page as HTML text."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    # Eight hues can be told apart; further methods share them and keep their direct labels.
    trained = [method for method in methods if method != _START]
    hues = {_START: "kstart", **{method: f"k{i % 8}" for i, method in enumerate(trained)}}
    groups = []
    for data in dict.fromkeys(row["data"] for row in rows):
        same = [row for row in rows if row["data"] == data]
        done = [row for row in same if row["seeds"]]
        groups.append(
            {
                "data": data,
                "part": same[0]["part"],
                "forests": {name: _forest(done, name) for name in GAINS if _has(done, name)},
                "fractions": _fractions(done, hues),
                "level_of": same[0].get("level_of"),
                "cost": None if same[0].get("level_of") else _cost(done, hues),
            }
        )
    # Coarser levels are the same photos again: they would count twice.
    own_rows = [row for row in rows if not row.get("level_of")]
    ranks = _ranks(own_rows)
    style, theme = Markup(page_text("style.css")), Markup(page_text("theme.js"))
    own = Markup(page_text("benchmark.css"))
    policy = security_policy(styles=(style, own), scripts=(theme,))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(page_text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = charts.signed
    shown = [name for name in labels if any(name in row["measures"] for row in rows)]
    return environment.get_template("benchmark.html.j2").render(
        policy=policy,
        style=style,
        own=own,
        theme=theme,
        rows=rows,
        groups=groups,
        gains={name: label for name, label in GAINS.items() if _has(rows, name)},
        labels={name: labels[name] for name in shown},
        best=_best(rows, shown),
        remarks=[_plain(text) for text in remarks],
        published=published,
        methods=methods,
        hues=hues,
        ranks=ranks,
        rank_chart=None if ranks is None else _rank_chart(ranks, hues),
        headline=_headline(own_rows),
    )


def _has(rows: Sequence[Row], name: str) -> bool:
    return any(name in row["gains"] for row in rows)


def _headline(rows: Sequence[Row]) -> str:
    """How many rows gained on their start, in one sentence."""
    told = [
        row["gains"]["map"]["finding"]
        for row in rows
        if row["method"] != _START and "map" in row["gains"]
    ]
    better, worse = told.count("better"), told.count("worse")
    return (
        f"Of {len(told)} {'row' if len(told) == 1 else 'rows'} with training, {better} gained mAP over their start, {worse} lost, and for "
        f"{len(told) - better - worse} no difference is shown."
        if told
        else "No row with training is done yet."
    )


def _best(rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The best value of each measure on each data set, to be set in bold."""
    best: dict[str, dict[str, float]] = {}
    for row in rows:
        here = best.setdefault(row["data"], {})
        for name in names:
            value = row["measures"].get(name)
            # The smaller, the better; all others the other way round.
            sign = -1 if name in {"ece", "severity", "fpr95"} else 1
            if value is not None and (name not in here or sign * value > sign * here[name]):
                here[name] = value
    return best


def _forest(rows: Sequence[Row], name: str) -> dict[str, Any]:
    told = [(row, row["gains"][name]) for row in rows if name in row["gains"]]
    ends = [
        0.0,
        *(g[key] for _, g in told for key in ("gain", "low", "high") if g[key] is not None),
    ]
    scale = charts.scale_over(ends)
    lines = [
        {
            "method": row["method"],
            "seeds": row["seeds"],
            "plot": charts.forest_row(scale, g["gain"], g["low"], g["high"]),
            "direction": charts.direction(g["low"], g["high"]),
            **g,
        }
        for row, g in told
    ]
    return {"lines": lines, "axis": charts.forest_axis(scale)}


def _fractions(rows: Sequence[Row], hues: Mapping[str, str]) -> Markup | None:
    """Linear accuracy against the share of labels, one line a method."""
    series = {
        row["method"]: [(share, row["measures"].get(name)) for share, name in _FRACTIONS.items()]
        for row in rows
    }
    return _lines(
        {m: [(float(x), y) for x, y in points if y is not None] for m, points in series.items()},
        hues,
        joined=True,
        ticks={float(share): f"{share} %" for share in _FRACTIONS},
        axis="labels used",
        name="Linear accuracy against the share of labels; numbers in the table",
    )


def _cost(rows: Sequence[Row], hues: Mapping[str, str]) -> Markup | None:
    """MAP against what a run takes, one point a method."""
    points = {
        row["method"]: [(row["seconds"] / 60, row["measures"]["map"])]
        for row in rows
        if row["seconds"] and "map" in row["measures"]
    }
    minutes = [x for values in points.values() for x, _ in values]
    ticks = [t for t in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0) if minutes]
    low, high = (min(minutes), max(minutes)) if minutes else (1.0, 1.0)
    shown = {t: f"{t:g}" for t in ticks if low / 1.8 <= t <= high * 1.8}
    return _lines(
        points,
        hues,
        joined=False,
        ticks=shown,
        axis="minutes a run",
        name="mAP against minutes a run",
    )


def _lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    hues: Mapping[str, str],
    *,
    joined: bool,
    ticks: Mapping[float, str],
    axis: str,
    name: str,
) -> Markup | None:
    series = {method: points for method, points in series.items() if points}
    if not series:
        return None
    width, height, left, right, top, bottom = 460, 300, 36, 104, 14, 40
    values = [y for points in series.values() for _, y in points]
    y_scale = charts.scale_over(values, count=4)
    xs = [math.log(x) for points in series.values() for x, _ in points] + [
        math.log(t) for t in ticks
    ]
    first, span = min(xs), (max(xs) - min(xs)) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * (math.log(x) - first) / span,
            top + (height - top - bottom) * (1 - y_scale.share(y)),
        )

    parts = [
        Markup('<svg class="curve many" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            width, height, name
        )
    ]
    for tick in y_scale.ticks:
        level = place(math.exp(first), tick)[1]
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(left, width - right, level, left - 6, level + 4, f"{tick:g}")
        )
    for x, text in ticks.items():
        across = place(x, values[0])[0]
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                across, height - bottom + 18, text
            )
        )
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (left + width - right) / 2, height - 4, axis
        )
    )
    ends: list[tuple[float, float, str]] = []
    for method, points in series.items():
        placed = [place(*point) for point in points]
        if joined:
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(Markup('<polyline class="{}" points="{}"/>').format(hues[method], text))
        parts += [
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
                hues[method], x, y, 3 if joined else 5
            )
            for x, y in placed
        ]
        ends.append((*placed[-1], method))
    # Labels stand at the ends of their lines, pushed apart where they would cover one another.
    levels = _apart([y for _, y, _ in ends], 13.0, top + 4.0, float(height - bottom))
    for (x, y, method), level in zip(ends, levels, strict=True):
        across = width - right + 8 if joined else x + 9
        if abs(level - y) > 6:
            parts.append(
                Markup(
                    '<line class="lead" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
                ).format(x + 5, y, across - 2, level)
            )
        parts.append(
            Markup('<text class="name {}" x="{:.1f}" y="{:.1f}">{}</text>').format(
                hues[method], across, level + 4, method
            )
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to the wanted ones as their order, the gap and the ends allow."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    before = low - gap
    for i in order:
        placed[i] = before = max(wanted[i], before + gap)
    after = high + gap
    for i in reversed(order):
        placed[i] = after = min(placed[i], after - gap)
    return placed


def _ranks(rows: Sequence[Row]) -> RankComparison | None:
    """Mean ranks over data sets, of methods that every data set has; None where they say nothing."""
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        if _RANKED in row["measures"]:
            scores.setdefault(row["data"], {})[row["method"]] = float(row["measures"][_RANKED])
    common = set.intersection(*(set(row) for row in scores.values())) if scores else set()
    kept = {data: {m: row[m] for m in row if m in common} for data, row in scores.items()}
    try:
        return compare_ranks(kept)
    except InputError:
        return None


def _rank_chart(ranks: RankComparison, hues: Mapping[str, str]) -> Markup:
    """A critical-difference diagram: best on the left, bars join what is not shown to differ."""
    count = len(ranks.ranks)
    width, left, right, top, step = 760, 130, 130, 64, 22
    half = (count + 1) // 2
    height = top + 14 + 10 * len(ranks.cliques) + step * half + 12

    def place(rank: float) -> float:
        return left + (width - left - right) * (rank - 1) / max(1, count - 1)

    parts = [
        Markup(
            '<svg class="curve ranks" viewBox="0 0 {} {}" role="img" aria-label="Mean ranks over data '
            'sets: {}. Critical difference {}.">'
        ).format(
            width,
            height,
            ", ".join(f"{method} {rank:.2f}" for method, rank in ranks.ranks.items()),
            f"{ranks.critical:.2f}",
        ),
        Markup('<line class="rail" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            left, width - right, top, top
        ),
    ]
    for whole in range(1, count + 1):
        parts.append(
            Markup(
                '<line class="rail" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
            ).format(place(float(whole)), top - 5, top, top - 10, whole)
        )
    reach = min(place(1 + ranks.critical), float(width - 20))
    parts.append(
        Markup(
            '<line class="critical" x1="{0:.1f}" x2="{1:.1f}" y1="24" y2="24"/>'
            '<text class="tick" x="{0:.1f}" y="16">critical difference {2}</text>'
        ).format(place(1.0), reach, f"{ranks.critical:.2f}")
    )
    for number, clique in enumerate(ranks.cliques):
        level = top + 10 + 10 * number
        ends = [ranks.ranks[method] for method in clique]
        parts.append(
            Markup('<line class="clique" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                place(min(ends)) - 4, place(max(ends)) + 4, level, level
            )
        )
    base = top + 14 + 10 * len(ranks.cliques)
    for position, (method, rank) in enumerate(ranks.ranks.items()):
        better = position < half
        level = base + step * (position if better else count - 1 - position) + 8
        side = left - 8 if better else width - right + 8
        parts.append(
            Markup(
                '<polyline class="{0}" points="{1:.1f},{2} {1:.1f},{3} {4},{3}"/>'
                '<text class="name {0}" x="{5}" y="{6}" text-anchor="{7}">{8} {9}</text>'
            ).format(
                hues[method],
                place(rank),
                top,
                level,
                side,
                side - 4 if better else side + 4,
                level + 4,
                "end" if better else "start",
                method,
                f"{rank:.2f}",
            )
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _plain(text: str) -> Markup:
    """Text of a table's remark with its backquotes as code."""
    pieces = str(escape(text)).split("`")
    return Markup("".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces)))
