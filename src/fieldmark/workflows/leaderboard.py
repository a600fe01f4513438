"""The table of a benchmark: rows from its results, as CSV, Markdown and LaTeX."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from fieldmark.evaluation.significance import correct, find

SHOWN = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "map": "mAP",
    "map_cmd": "mAP (CMD's)",
    "knn": "kNN",
    "linear": "linear",
    "linear@50": "50 %",
    "linear@20": "20 %",
    "linear@10": "10 %",
    "linear@5": "5 %",
    "linear@1": "1 %",
    "finetuned": "fine-tuned",
    "knn:blur": "kNN, blurred",
    "knn:jpeg": "kNN, JPEG",
    "knn:cover": "kNN, covered",
    "knn:swap": "kNN, other surroundings",
    "few-shot@1": "1-shot",
    "few-shot@5": "5-shot",
    "nmi": "NMI",
    "ari": "ARI",
    "cluster_accuracy": "cluster acc.",
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "ece": "ECE",
    "severity": "severity",
    "pointing": "pointing",
    "energy": "on the object",
    "lift": "lift",
    "iou": "IoU",
}
"""Measures in the order of the columns; those that no row has are left out."""
EACH_EPOCH = {"rank1": "rank-1", "map": "mAP", "linear": "linear"}
"""Measures that are also taken after every epoch, where that is asked for."""
GAINS = {**EACH_EPOCH, "finetuned": "fine-tuned"}
"""Measures whose gain over the start is a column of its own, where any row has it."""
BEST = "best:"
SHOWN |= {f"{BEST}{name}": f"{label} best on test †" for name, label in EACH_EPOCH.items()}


def rows(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each method on each data set, from the lines of results.jsonl.

    Returns:
        Plain data: ``data``, ``method``, ``seeds`` (done), ``wanted``, ``failed`` (errors),
        ``finetune_epochs``, ``untuned`` (errors of fine-tuning), ``part`` (how much of the data set it is), ``level_of`` (the data set whose photos these are,
        where the row asks them for a coarser level), ``extra_data`` (beyond photos and start), ``leaks`` (test photos whose picture is in train,
        pictures in several classes, test photos), ``start_saw``, ``network``, ``size``, ``epochs``,
        ``measures`` (mean over seeds, percent) and ``spread``, ``gains`` (by measure ``gain``,
        ``low``, ``high``, ``p``, ``corrected``, ``finding``), ``seconds``.
    """
    cells = [line for line in lines if line["kind"] == "cell"]
    gains = {
        (line["data"], line["method"]): line["measures"] for line in lines if line["kind"] == "gain"
    }
    p_values = {
        f"{data}/{method}/{name}": told[name]["p"] if told[name]["p"] is not None else float("nan")
        for (data, method), told in gains.items()
        for name in GAINS
        if name in told
    }
    corrected = correct(p_values)
    found = []
    pairs = dict.fromkeys((cell["data"], cell["method"]) for cell in cells)
    order = list(dict.fromkeys(data for data, _ in pairs))
    for data, method in sorted(pairs, key=lambda pair: order.index(pair[0])):
        same = [cell for cell in cells if (cell["data"], cell["method"]) == (data, method)]
        done = [cell for cell in same if cell["status"] == "done"]
        about = (done or same)[0]
        row: dict[str, Any] = {
            "data": data,
            "method": method,
            "wanted": len(same),
            "seeds": len(done),
            "failed": [cell["error"] for cell in same if cell["status"] == "failed"],
            "part": about["subset"],
            "level_of": about.get("level_of"),
            "start_saw": about.get("start_saw"),
            "start_how": about.get("start_how"),
            "extra_data": about.get("extra_data", "none"),
            "network": about.get("network"),
            "overlap": about["overlap"],
            "leaks": (
                about.get("test_photos_in_train", 0),
                about.get("pictures_in_several_classes", 0),
                about.get("test_photos", 0),
            ),
            "size": about["size"],
            "epochs": about["epochs"],
            "finetune_epochs": about.get("finetune_epochs"),
            "untuned": [cell["finetune_error"] for cell in same if "finetune_error" in cell],
            "measures": {},
            "spread": {},
            "gains": {},
            "seconds": statistics.median([c["seconds"] for c in done]) if done else None,
        }
        for name in SHOWN:
            values = [cell["trained"].get(name) for cell in done]
            known = [value for value in values if value is not None]
            if known:
                row["measures"][name] = statistics.mean(known)
                row["spread"][name] = statistics.stdev(known) if len(known) > 1 else None
        for name in GAINS:
            told = gains.get((data, method), {}).get(name)
            if told is not None:
                p = corrected[f"{data}/{method}/{name}"]
                shown = {
                    "corrected": None if math.isnan(p) else p,
                    "finding": find(told["gain"], p),
                }
                row["gains"][name] = {**told, **shown}
        found.append(row)
    return found


_LONGEST = 300
"""Characters of an error that a table repeats; all of it is in the cell's file."""


def _saw(labels: str | None) -> str:
    if labels is None:
        return "–"
    return "no labels" if labels == "none" else f"labels of {labels}"


def _columns(table: Sequence[dict[str, Any]]) -> list[str]:
    return [name for name in SHOWN if any(name in row["measures"] for row in table)]


def _gain_columns(table: Sequence[dict[str, Any]]) -> list[str]:
    return [name for name in GAINS if any(name in row["gains"] for row in table)]


def _state(row: dict[str, Any]) -> str:
    """Seeds done, and what is missing."""
    text = str(row["seeds"])
    if row["failed"]:
        text += f" ({len(row['failed'])} FAILED)"
    missing = row["wanted"] - row["seeds"] - len(row["failed"])
    return text + (f" ({missing} missing)" if missing else "")


def _value(row: dict[str, Any], name: str) -> str:
    if name not in row["measures"]:
        return "–"
    spread = row["spread"][name]
    digits = 2 if name in {"severity", "lift"} else 1
    text = f"{row['measures'][name]:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


_MARKS = {"better": "↑", "worse": "↓", "not shown": ""}


def gain_of(row: dict[str, Any], name: str) -> str:
    """A gain with its interval and, where it holds after correction, an arrow."""
    told = row["gains"].get(name)
    if told is None:
        return "–"
    text = f"{told['gain']:+z.1f}"
    if told["low"] is not None:
        text += f" [{told['low']:+z.1f}, {told['high']:+z.1f}]"
    return f"{text.replace('-', '−')} {_MARKS[told['finding']]}".strip()


def _name(row: dict[str, Any]) -> str:
    return row["data"] + (f" ({row['part']})" if row["part"] else "")


def remarks(table: Sequence[dict[str, Any]]) -> list[str]:
    """What must stand below the table."""
    lines = [
        "Measures are of the trained encoder (of the post-processed start in rows `start`), last epoch, "
        "mean ± standard deviation over seeds; post-processing is each recipe's own. Gains are over the start under the same post-processing "
        "(rows `start`: over the plain start), points, with the 95 % interval over photos and seeds; ↑ "
        "and ↓ hold after Holm's correction for all gains shown."
    ]
    if any(name.startswith(BEST) for row in table for name in row["measures"]):
        lines.append(
            "† Literature protocol: the best of each measure over all epochs, chosen on the test photos "
            "themselves, and therefore too high; never to be compared with the other columns."
        )
    for epochs in dict.fromkeys(row["finetune_epochs"] for row in table):
        if epochs:
            lines.append(
                f"Fine-tuned: top-1 of the whole network taught with all train labels (epochs: {epochs}; "
                "fieldmark finetune), last epoch; its gain is over the start taught likewise."
            )
    for saw in dict.fromkeys(row["start_saw"] for row in table if row["start_saw"]):
        overlaps = {
            row["data"]: row["overlap"]
            for row in table
            if row["start_saw"] == saw and not row["level_of"]
        }
        told = "; ".join(f"{data}: {text}" for data, text in overlaps.items() if text)
        lines.append(
            f"The start saw {_saw(saw)}." + (f" {told}." if told and saw != "none" else "")
        )
    for row in {row["data"]: row for row in table if row["seeds"]}.values():
        if row["level_of"]:
            continue  # the same photos
        in_train, in_classes, tests = row["leaks"]
        if in_train or in_classes:
            lines.append(
                f"WARNING: in {_name(row)} {in_train:,} of {tests:,} test photos show a picture that is "
                f"in train too, and {in_classes:,} pictures stand in several classes "
                f"(data/{row['data']}.leaks.json)."
            )
    for row in table:
        lines += [
            f"FAILED: {_name(row)}, {row['method']}: {shorten(error, _LONGEST, placeholder=' …')}"
            for error in row["failed"]
        ]
        lines += [
            f"FAILED: fine-tuning of {_name(row)}, {row['method']}: "
            f"{shorten(error, _LONGEST, placeholder=' …')}"
            for error in row["untuned"]
        ]
    return lines


def as_markdown(table: Sequence[dict[str, Any]], published: Sequence[dict[str, Any]] = ()) -> str:
    """The table to read, with what must be known below it, and what others published.

    Args:
        table: Rows.
        published: From :func:`fieldmark.workflows.published.beside`.
    """
    columns, gained = _columns(table), _gain_columns(table)
    heads = ["data", "method", "network", "size", "epochs", "start saw", "extra data", "seeds"]
    heads += [SHOWN[name] for name in columns] + [f"{GAINS[name]} gain" for name in gained]
    lines = [f"| {' | '.join(heads)} | s a run |", "|---" * (len(heads) + 1) + "|"]
    for row in table:
        cells = [_name(row), f"`{row['method']}`", str(row["network"] or "–"), str(row["size"])]
        cells += [str(row["epochs"]), _saw(row["start_saw"]), row["extra_data"], _state(row)]
        cells += [_value(row, name) for name in columns] + [gain_of(row, name) for name in gained]
        cells.append(f"{row['seconds']:.0f}" if row["seconds"] else "–")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"{text}\n" for text in remarks(table))]
    if published:
        lines += ["What others published (percent), and why it is no row of this table:", ""]
        lines += [
            "| data | method | figures | source | not comparable because |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['data']} | {row['method']} | {figures(row)} | {row['source']} ({row['status']}) "
            f"| {'; '.join(row['reasons']) or '**comparable**'} |"
            for row in published
        ]
    return "\n".join([*lines, ""])


def figures(row: dict[str, Any]) -> str:
    """Published figures in one line; several of one measure are a range or a series."""
    return ", ".join(
        f"{SHOWN.get(name, name.replace('_', ' '))} "
        + ("/".join(f"{v:g}" for v in value) if isinstance(value, list) else f"{value:g}")
        for name, value in row["figures"].items()
    )


def as_csv(table: Sequence[dict[str, Any]]) -> str:
    """One line a row, numbers with all their digits."""
    columns, gained = _columns(table), _gain_columns(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = (
        "data", "part", "method", "network", "size", "epochs", "start_saw", "extra_data", "seeds",
        "wanted",
    )  # fmt: skip
    numbers = ("gain", "low", "high", "p", "corrected", "finding")
    header = [*facts, *columns, *(f"{name} spread" for name in columns)]
    header += [f"{name} {number}" for name in gained for number in numbers]
    writer.writerow([*header, "seconds", "failed"])
    for row in table:
        cells = [row[fact] for fact in facts]
        cells += [row["measures"].get(name) for name in columns]
        cells += [row["spread"].get(name) for name in columns]
        cells += [row["gains"].get(name, {}).get(number) for name in gained for number in numbers]
        writer.writerow([*cells, row["seconds"], "; ".join(row["failed"])])
    return text.getvalue()


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
_SPECIAL |= {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "−": "$-$"}


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def as_latex(table: Sequence[dict[str, Any]]) -> str:
    """The table for a paper; needs booktabs."""
    columns, gained = _columns(table), _gain_columns(table)
    heads = ["data", "method", "seeds", *(SHOWN[name] for name in columns)]
    heads += [f"{GAINS[name]} gain" for name in gained]
    lines = [rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", r"\toprule"]
    lines += [" & ".join(map(_latex, heads)) + r" \\", r"\midrule"]
    before = None
    for row in table:
        if before not in (None, row["data"]):
            lines.append(r"\midrule")
        before = row["data"]
        cells = [_name(row), row["method"], _state(row), *(_value(row, name) for name in columns)]
        cells += [gain_of(row, name) for name in gained]
        lines.append(" & ".join(map(_latex, cells)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {text}" for text in remarks(table))]) + "\n"
