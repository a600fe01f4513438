"""Split tables: which labelled photos are for training and which for testing."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from fieldmark.data.catalog import Catalog
from fieldmark.data.tables import SPLITS, read_table
from fieldmark.errors import CatalogError, LabelError

_log = logging.getLogger(__name__)


class SplitRow(NamedTuple):
    """One line of a split table."""

    path: str
    label: str
    split: str
    """``train``, ``val`` or ``test``."""


class Split(NamedTuple):
    """A split table matched to a catalog. Photos in ``val`` are in neither half."""

    train_rows: Int64[np.ndarray, " n"]
    train_labels: Int64[np.ndarray, " n"]
    test_rows: Int64[np.ndarray, " m"]
    test_labels: Int64[np.ndarray, " m"]
    classes: list[str]
    """Sorted; labels index it."""


def read_split(path: Path) -> list[SplitRow]:
    """Read a table with ``path``, ``class`` (or ``label``) and ``split``.

    Raises:
        LabelError: If the table cannot be read, lacks a column or a cell, names an unknown split,
            contradicts itself, or has no photo in ``train`` or in ``test``.
    """
    path = Path(path)
    try:
        items = read_table(path, required=("path", "label", "split"))
    except CatalogError as error:
        raise LabelError(str(error)) from None
    rows: dict[str, SplitRow] = {}
    for item in items:
        name, label, split = item["path"], item["label"], item["split"]
        if name is None or label is None or split is None:
            raise LabelError(
                f"{path}, photo {item.line}: path, class and split must all be filled in, got "
                f"path={name!r}, class={label!r}, split={split!r}. Fill in the cell or delete the line."
            )
        if split.lower() not in SPLITS:
            raise LabelError(
                f"{path}, photo {item.line}: unknown split '{split}'; allowed: train, val, test."
            )
        row = SplitRow(name, label, SPLITS[split.lower()])
        if rows.setdefault(name, row) != row:
            before = rows[name]
            raise LabelError(
                f"{path}, photo {item.line}: '{name}' is listed twice and differently "
                f"({before.label}, {before.split}; then {row.label}, {row.split}). Keep one line."
            )
    found = Counter(row.split for row in rows.values())
    for half in ("train", "test"):
        if not found[half]:
            raise LabelError(
                f"{path} has no photo with split '{half}' (it has: {dict(found)}); measuring needs both "
                "'train' and 'test'."
            )
    return list(rows.values())


def match_split(catalog: Catalog, table: Path) -> Split:
    """Find a split table's photos in a catalog.

    Paths are relative to the table; photos inside shards are matched by their id.

    Args:
        catalog: Where to look.
        table: CSV, TSV, JSON lines or Parquet with ``path``, ``class`` (or ``label``), ``split``.

    Raises:
        LabelError: As :func:`read_split`, and when the table names photos that the catalog lacks.
    """
    table = Path(table)
    lines = read_split(table)
    by_file: dict[str, int] = {}
    for row in catalog.rows:
        file = catalog.file(row.row)
        if file is not None:
            by_file.setdefault(os.path.abspath(file), row.row)  # noqa: PTH100 - keeps links
    by_id = {row.path: row.row for row in reversed(catalog.rows)}
    real: dict[str, int] | None = None
    matched: list[int] = []
    absent: list[str] = []
    for line in lines:
        wanted = os.path.abspath(table.parent / line.path)  # noqa: PTH100 - keeps links
        found = by_file.get(wanted)
        if found is None and real is None:
            # The same folder reached through a link; asked for only when the plain path fails.
            real = {os.path.realpath(file): row for file, row in by_file.items()}
        if found is None and real is not None:
            found = real.get(os.path.realpath(wanted))
        if found is None:
            found = by_id.get(line.path.removeprefix("./"))
        if found is None:
            absent.append(line.path)
        else:
            matched.append(found)
    if absent:
        shown = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
        raise LabelError(
            f"{table} names {len(absent)} of {len(lines)} photos that are not in {catalog.source}: "
            f"{shown}. Paths are relative to the table's folder ({table.parent}); correct them, or give "
            "the folder of photos that the table describes."
        )
    classes = sorted({line.label for line in lines})
    index = {name: i for i, name in enumerate(classes)}
    _warn_lone(lines, table)
    return Split(
        *_half(lines, matched, index, "train"), *_half(lines, matched, index, "test"), classes
    )


def _half(
    lines: list[SplitRow], matched: list[int], index: dict[str, int], split: str
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    chosen = [i for i, line in enumerate(lines) if line.split == split]
    rows = np.array([matched[i] for i in chosen], np.int64)
    return rows, np.array([index[lines[i].label] for i in chosen], np.int64)


def _warn_lone(lines: list[SplitRow], table: Path) -> None:
    counts = Counter(line.label for line in lines if line.split == "test")
    lone = sorted(label for label, count in counts.items() if count == 1)
    if lone:
        shown = ", ".join(lone[:3]) + (", …" if len(lone) > 3 else "")
        _log.warning(
            "%s: %d classes have only one test photo (%s); such photos have nothing to retrieve and are "
            "left out of the retrieval measures.",
            table,
            len(lone),
            shown,
        )
