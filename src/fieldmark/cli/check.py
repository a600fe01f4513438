"""``fieldmark check``: what is in a folder of photos, and what is wrong with it."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit, progress_bars


def command(
    photos: Annotated[
        Path, typer.Argument(help="Folder, table (CSV, JSONL, Parquet) or tar shard.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and the full lists as CSV.")
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(help="Table with path, class, split to look for leakage between splits."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes; one per processor by default.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if any photo is damaged or refused.")
    ] = False,
    json: Json = False,
) -> None:
    """Find damaged and refused photos, duplicates, bursts, and leakage between splits.

    Every photo is decoded in a process of its own that may crash or hang without harm. Nothing is
    changed or deleted.

    Examples:

      fieldmark check photos

      fieldmark check photos --out findings --split labels/split.csv

      fieldmark check photos --json | tail -1 | python -m json.tool
    """
    from fieldmark.workflows.check import check

    with progress_bars() as bars:
        result = check(
            photos,
            out,
            split=split,
            workers=workers,
            progress=lambda done, total: bars("checking photos", done, total),
        )
    emit(json, result.summary, result.text)
    if strict and result.summary["damaged"] + result.summary["refused"]:
        raise typer.Exit(1)
