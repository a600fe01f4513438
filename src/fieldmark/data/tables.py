"""Tables of photos: CSV, TSV, JSON lines and Parquet as plain dictionaries.

Column names follow OML, wildlife-datasets and Hugging Face, so tables made for those work here.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fieldmark.errors import CatalogError, MissingExtraError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

ALIASES: dict[str, tuple[str, ...]] = {
    "path": ("path", "image_path", "filename", "file_name"),
    "label": ("label", "class"),
    "split": ("split",),
    "group": ("group",),
    "x_1": ("x_1",),
    "y_1": ("y_1",),
    "x_2": ("x_2",),
    "y_2": ("y_2",),
}
"""fieldmark's name of a column and the names it may have in a table, first match wins."""

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of splits that are recognised, in tables and as folder names."""

_BOX = ("x_1", "y_1", "x_2", "y_2")


def _column(names: list[str], wanted: str) -> str | None:
    known = {name.strip().lower(): name for name in names}
    return next((known[alias] for alias in ALIASES[wanted] if alias in known), None)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Parquet and JSON turn integer labels with gaps into floats.
    text = str(value).strip()
    return text or None


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        tabs = path.suffix.lower() == ".tsv"
        delimiter = "\t" if tabs else delimiter_of(file.readline())
        file.seek(0)
        yield from csv.DictReader(file, delimiter=delimiter)


def delimiter_of(header: str) -> str:
    """What stands between the columns of a text table: comma, semicolon or tab.

    Where commas are decimal points, spreadsheets put semicolons.

    Args:
        header: Its first line.
    """
    return max(",;\t", key=header.count)


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            item = json.loads(line)
            if not isinstance(item, dict):
                raise CatalogError(
                    f"{path}, line {number}: each line must be a JSON object such as "
                    f'{{"path": "a.jpg"}}, got {line.strip()[:60]!r}.'
                )
            yield item


def _read_parquet(path: Path, *, known_only: bool) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "to read Parquet tables") from None
    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            chosen = [name for name in names if _is_known(name)] if known_only else names
            for batch in table.iter_batches(columns=chosen):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise CatalogError(f"{path} cannot be read as Parquet: {error}.") from None


def _is_known(name: str) -> bool:
    return any(name.strip().lower() in names for names in ALIASES.values())


class TableRow(dict[str, str | None]):
    """Known columns of one line, by fieldmark's names, as text; empty cells are None."""

    line: int
    """Number of the line in the table, the first photo being 1."""


def read_table(path: Path, required: tuple[str, ...] = ("path",)) -> list[TableRow]:
    """Read the columns that fieldmark knows.

    Args:
        path: A ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet`` file.
        required: Columns that must be there, by fieldmark's names.

    Raises:
        CatalogError: If the file is missing, unreadable, empty, or lacks a required column.
        MissingExtraError: For Parquet without pyarrow.
    """
    rows: list[TableRow] = []
    columns: dict[str, str | None] | None = None
    ragged = path.suffix.lower() in (".jsonl", ".ndjson")
    for number, item in enumerate(_read(path), 1):
        names = [name for name in item if isinstance(name, str)]
        # JSON lines may leave out columns that are empty, so look again on every line.
        if columns is None or ragged:
            columns = {name: _column(names, name) for name in ALIASES}
            _require(path, columns, required, names)
        row = TableRow(
            {k: _text(item.get(column)) if column else None for k, column in columns.items()}
        )
        row.line = number
        rows.append(row)
    if not rows:
        raise CatalogError(
            f"{path} lists no photos; it needs a header with 'path' and one line a photo."
        )
    return rows


def read_columns(path: Path) -> list[dict[str, str | None]]:
    """Read every column as text, by the names that the table gives them; empty cells are None.

    Args:
        path: As for :func:`read_table`.

    Raises:
        CatalogError: If the file is missing, unreadable or empty.
        MissingExtraError: For Parquet without pyarrow.
    """
    rows = [
        {name.strip(): _text(value) for name, value in item.items() if isinstance(name, str)}
        for item in _read(path, known_only=False)
    ]
    if not rows:
        raise CatalogError(f"{path} has no lines; it needs a header and a line each.")
    return rows


def _read(path: Path, *, known_only: bool = True) -> Iterator[dict[str, Any]]:
    """Lines of any kind of table, with one kind of error."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CatalogError(
            f"{path} is not a table of photos; allowed are {', '.join(SUFFIXES)} with a column 'path'."
        )
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path, known_only=known_only)
        elif suffix in (".jsonl", ".ndjson"):
            yield from _read_jsonl(path)
        else:
            yield from _read_csv(path)
    except FileNotFoundError:
        raise CatalogError(f"no such table: {path}.") from None
    except UnicodeError:
        raise CatalogError(
            f"{path} is not UTF-8 text; save it again as UTF-8 (in spreadsheets: CSV UTF-8)."
        ) from None
    except (OSError, csv.Error, json.JSONDecodeError) as error:
        raise CatalogError(f"{path} cannot be read as a table: {error}.") from None


def _require(
    path: Path, columns: dict[str, str | None], required: tuple[str, ...], names: list[str]
) -> None:
    missing = [name for name in required if columns[name] is None]
    if missing:
        wanted = "; ".join(" or ".join(ALIASES[name]) for name in missing)
        raise CatalogError(
            f"{path} lacks a column: {wanted}. It has: {', '.join(names) or 'none'}. Add the column "
            "or rename one."
        )


def box_of(row: TableRow, path: Path) -> tuple[float, float, float, float] | None:
    """The photo's box in pixels (x0, y0, x1, y1) of the upright photo, or None.

    Raises:
        CatalogError: If the numbers do not make a box.
    """
    values = [row[name] for name in _BOX]
    if all(value is None for value in values):
        return None
    try:
        x0, y0, x1, y1 = (float(value or "") for value in values)
    except ValueError:
        x0 = y0 = x1 = y1 = 0.0
    if not (x1 > x0 and y1 > y0):
        raise CatalogError(
            f"{path}, photo {row.line}: x_1,y_1,x_2,y_2 must be pixels with x_2 > x_1 and "
            f"y_2 > y_1, got {values}."
        )
    return (x0, y0, x1, y1)


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as the text of a CSV file.

    Args:
        header: Names of the columns.
        rows: Values of each line; None is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
