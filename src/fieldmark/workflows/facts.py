"""``fieldmark index --facts``: what a table tells of each photo, for filters."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

from fieldmark.data.tables import ALIASES, read_columns
from fieldmark.errors import LabelError
from fieldmark.index.index import Index, meta_text
from fieldmark.index.where import RESERVED

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d+)?")
"""A leading zero makes a code of it, not a number, and so do more digits than a number keeps."""
_WORDS = {"true": True, "false": False}
_COMMIT = 1_000


def read_facts(table: Path) -> dict[str, dict[str, Any]]:
    """Every column but path and label, by path; empty cells are left out.

    Args:
        table: CSV, JSON lines or Parquet with ``path`` (or another name of it). Cells that look like
            numbers, true or false become such; codes with leading zeros stay texts.

    Raises:
        CatalogError: The table cannot be read.
        LabelError: It has no column of paths, no other, or two lines of one photo that differ.
    """
    rows = read_columns(table)
    columns = {name.lower(): name for row in rows for name in row}
    path = next((columns[name] for name in ALIASES["path"] if name in columns), None)
    passed = {path, *(columns.get(name) for name in (*ALIASES["label"], *RESERVED))}
    if path is None or not set(columns.values()) - passed:
        raise LabelError(
            f"{table} tells nothing of photos: it has the columns {', '.join(columns.values())}; give 'path' "
            "and others, as year or site."
        )
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        key = row.get(path)
        if key is None:
            raise LabelError(f"{table}, line {number}: the column '{path}' is empty.")
        told = {
            name: _value(text)
            for name, text in row.items()
            if text is not None and name not in passed
        }
        if found.setdefault(key, told) != told:
            raise LabelError(f"{table} has two lines for {key} that differ; leave one.")
        meta_text(told)
    return found


def keep_facts(index: Index, facts: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Take them into the index, beside what it knows already.

    Returns:
        ``told`` (photos that changed by it), ``unknown`` (of the table's, not in the index).
    """
    changed: list[tuple[str, dict[str, Any]]] = []
    there = 0
    for item in index.items():
        new = facts.get(item.key)
        if new is None:
            continue
        there += 1
        meta = {**item.meta, **new}
        if meta != item.meta:
            changed.append((item.key, meta))
    todo = iter(changed)
    while part := list(islice(todo, _COMMIT)):
        index.update([key for key, _ in part], metas=[meta for _, meta in part])
    return {"told": len(changed), "unknown": len(facts) - there}


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)
