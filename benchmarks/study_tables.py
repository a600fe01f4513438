"""The tables of docs/results.md from the benchmark's results (``study.py --tables``)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldmark.workflows import leaderboard

SETS = ("birds200", "cub50", "cars196", "objects100", "aviary")
FRACTIONS = ("linear@1", "linear@5", "linear@10", "linear@20", "linear@50", "linear")
TROUBLE = ("knn", "knn:blur", "knn:jpeg", "knn:cover", "knn:swap")
PLACES = ("pointing", "energy", "lift", "iou")
Rows = dict[str, list[dict[str, Any]]]


def page(results: Path) -> str:
    """Every table, with a heading that says what it is."""
    sets: Rows = {}
    for folder in sorted(results.iterdir()):
        file = folder / "results.jsonl"
        if file.is_file():
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            sets[folder.name] = [row for row in leaderboard.rows(lines) if row["seeds"]]
    parts = {
        "Gains": gains(sets),
        "Label fractions": grid(sets, FRACTIONS, few=True),
        "Trouble": grid(sets, TROUBLE, few=True),
        "Places": grid(sets, PLACES),
        "Granularity": granularity(sets),
        "Fewer photos": fewer(sets),
        "Random start": gains({n: sets[n] for n in sets if n.endswith("-random")}, own=False),
    }
    return "\n\n".join(f"### {name}\n\n{text}" for name, text in parts.items() if text)


def fine(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the finest level."""
    return [row for row in rows if not row["level_of"]]


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; nothing where there is no line."""
    if not lines:
        return ""
    rule = "|---" * len(heads) + "|"
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(x)} |" for x in lines)])


def gains(sets: Rows, own: bool = True) -> str:
    """What each method reached, and what it gained over its start."""
    lines = []
    for name in [n for n in SETS if n in sets] if own else sets:
        for row in fine(sets[name]):
            lines.append([name, f"`{row['method']}`", str(row["seeds"]), *reached(row)])
    heads = ["photos", "method", "seeds", "rank-1", "gain", "mAP", "gain", "linear", "gain"]
    return table(heads, lines)


def reached(row: dict[str, Any]) -> list[str]:
    """Rank-1, mAP and linear accuracy, each with its gain over the start."""
    measures = ("rank1", "map", "linear")
    return [x for m in measures for x in (f"{row['measures'][m]:.1f}", leaderboard.gain_of(row, m))]


def grid(sets: Rows, measures: Sequence[str], few: bool = False) -> str:
    """Some measures of every method; of the published methods only the best by mAP where few."""
    lines = []
    for name in (n for n in SETS if n in sets):
        rows = fine(sets[name])
        if few:
            others = [r for r in rows if r["method"] not in {"start", "fieldmark"}]
            best = max(others, key=lambda r: r["measures"]["map"], default=None)
            rows = [r for r in rows if r["method"] in {"start", "fieldmark"} or r is best]
        for row in rows:
            found = [row["measures"].get(measure) for measure in measures]
            if any(value is not None for value in found[:2]):
                digits = [2 if measure == "lift" else 1 for measure in measures]
                shown = [
                    "–" if value is None else f"{value:.{d}f}"
                    for value, d in zip(found, digits, strict=True)
                ]
                lines.append([name, f"`{row['method']}`", *shown])
    return table(["photos", "method", *(leaderboard.SHOWN[m] for m in measures)], lines)


def granularity(sets: Rows) -> str:
    """Gains of the same encoders at each level of labels."""
    lines = []
    for name in (n for n in SETS if n in sets):
        levels = dict.fromkeys(row["data"] for row in sets[name])
        if len(levels) < 2:
            continue
        for level in levels:
            rows = [row for row in sets[name] if row["data"] == level]
            start = next((row for row in rows if row["method"] == "start"), None)
            for row in rows:
                if row["method"] in {"start"} or start is None:
                    continue
                told = [level.partition(":")[2] or "finest", f"`{row['method']}`"]
                told += [f"{start['measures'][m]:.1f}" for m in ("map",)]
                lines.append(
                    [
                        name,
                        *told,
                        *(leaderboard.gain_of(row, m) for m in ("rank1", "map", "linear")),
                    ]
                )
    heads = ["photos", "level", "method", "start's mAP", "rank-1 gain", "mAP gain", "linear gain"]
    return table(heads, lines)


def fewer(sets: Rows) -> str:
    """The same test photos after training on fewer."""
    lines = []
    wanted = [n for n in sets if n.rpartition("-")[2].isdigit()]
    for name in sorted(wanted, key=lambda n: (n.rpartition("-")[0], int(n.rpartition("-")[2]))):
        for row in fine(sets[name]):
            lines.append([*name.rpartition("-")[::2], f"`{row['method']}`", *reached(row)])
    heads = ["photos", "trained on", "method", "rank-1", "gain", "mAP", "gain", "linear", "gain"]
    return table(heads, lines)
