"""``fieldmark compare``: finished runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, the one that others are held against first; or folders of fieldmark "
            "eval --out."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare.json, compare.csv and compare.md.")
    ] = None,
    json: Json = False,
) -> None:
    """Say which of several finished runs is better, on the same labelled test photos.

    Runs with the same settings but for the seed are taken together; the interval then reaches over
    other seeds too. What is called better or worse is so after correction for everything shown.

    Examples:

      fieldmark compare runs/birds-gentle runs/birds-fieldmark

      fieldmark compare runs/moco-seed* runs/house-seed* --out comparison
    """
    from fieldmark import storage
    from fieldmark.workflows.compare import as_csv, as_markdown, compare_runs

    found = compare_runs(runs)
    if out is not None:
        storage.make_folder(out)
        storage.write_json(out / "compare.json", found)
        storage.write_text(out / "compare.csv", as_csv(found))
        storage.write_text(out / "compare.md", as_markdown(found))
    emit(json, found, as_markdown(found))
