"""What others published, beside a benchmark's rows only where it can be compared (docs/protocols.md)."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark import shipped
from fieldmark.errors import InputError

FACTS = ("data", "method", "network", "start", "size", "protocol", "source", "status")
"""Keys of a row that are no figures."""
_OURS = {
    "linear, last epoch",
    "leave-one-out retrieval, last epoch",
    "linear and leave-one-out retrieval, last epoch",
}
_UNSURE = {
    "remembered": "the figure is from memory and not checked",
    "claimed": "only a difference or a claim is known",
}


def read_published(file: Path | None = None) -> list[dict[str, Any]]:
    """Published figures with their sources in words.

    Args:
        file: A TOML file with tables ``sources`` and ``row``; by default the shipped one.

    Raises:
        InputError: If a row lacks a fact or names an unknown source.
    """
    file = file or shipped.published()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = [
            {**row, "source": data["sources"][row["source"]]} for row in data["row"]
        ]
        for row in rows:
            absent = [key for key in FACTS if key not in row and key != "size"]
            if absent:
                raise KeyError(absent[0])
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read as published figures: {error}.") from None
    except KeyError as error:
        raise InputError(
            f"{file} lacks {error}: it needs a table [sources] and rows [[row]] with "
            f"{', '.join(FACTS)} (size may be left out) and figures."
        ) from None
    return rows


def beside(
    published: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Figures for the data sets of a table, each with why it cannot stand beside ours.

    Args:
        published: From :func:`read_published`.
        rows: Of the table, as ``leaderboard.rows`` makes them.

    Returns:
        Facts and ``figures`` by measure, and ``reasons``: empty where data, protocol, network, input
        and start agree with the row of the table that it comes closest to.
    """
    found = []
    for row in published:
        ours = [each for each in rows if each["data"] == row["data"] and each["seeds"]]
        if not ours:
            continue
        figures = {key: value for key, value in row.items() if key not in {*FACTS, "kind"}}
        reasons = min((_reasons(row, each) for each in ours), key=len)
        facts = {key: row.get(key) for key in FACTS}
        found.append({**facts, "figures": figures, "reasons": reasons})
    return found


def _reasons(row: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    reasons = []
    if ours["part"]:
        reasons.append(f"ours is of {ours['part']}")
    if row["network"] != ours["network"]:
        reasons.append(f"network {row['network']}, ours {ours['network']}")
    start = _start(ours)
    if row["start"] != start:
        reasons.append(f"start: {row['start']}; ours: {start}")
    if row.get("size") != ours["size"]:
        told = f"{row['size']} px" if row.get("size") else "an input that is not told"
        reasons.append(f"{told}, ours {ours['size']} px")
    if row["protocol"] not in _OURS:
        reasons.append(f"protocol: {row['protocol']}")
    if row["status"] in _UNSURE:
        reasons.append(_UNSURE[row["status"]])
    return reasons


def _start(ours: Mapping[str, Any]) -> str:
    """A start as the published rows tell theirs."""
    how, saw = ours.get("start_how"), ours.get("start_saw")
    if how == "random" or saw is None:
        return "random" if how == "random" else "unknown"
    return f"{saw}, supervised" if saw != "none" else f"no labels ({how})"
