"""``fieldmark verify``: does measuring again give the same numbers?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import Json, emit, progress_bars
from fieldmark.cli.train import Device


def command(
    result: Annotated[
        Path,
        typer.Argument(help="Run folder, benchmark folder, or a result file in one of them."),
    ],
    photos: Annotated[
        Path | None, typer.Option(help="Where the photos are now, if they were moved.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Where the table with their labels is now.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Points by which a measure may differ.")
    ] = 0.1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Load a run's encoders, embed its photos again, measure, and compare with what it says.

    Exits with code 1 if a number is not found again, or photos, labels or weights were changed.
    Changes nothing.

    Examples:

      fieldmark verify run

      fieldmark verify bench/results.jsonl

      fieldmark verify run --photos elsewhere/photos --probe elsewhere/split.csv
    """
    from fieldmark.workflows.verify import verify

    with progress_bars() as bars:
        found = verify(
            result, photos=photos, probe=probe, tolerance=tolerance, device=device, progress=bars
        )
    emit(json, found, _text(found))
    if not found["verified"]:
        raise typer.Exit(1)


def _text(found: dict[str, Any]) -> str:
    lines = []
    for run in found["runs"]:
        line = f"{run['status'].upper() if run['why'] else run['status']}: {run['run']}"
        if run["why"]:
            line += f" ({run['why']})"
        if run.get("largest") is not None:
            count = sum(len(side) for side in run["measures"].values())
            line += f", {count} measures, largest difference {run['largest']:.3g} points"
        lines.append(line)
        lines += [
            f"  {side}: {name} was {told['recorded']:.2f}, is now {_number(told['now'])}"
            for side, measures in run.get("measures", {}).items()
            for name, told in measures.items()
            if run["why"] and (told["difference"] is None or told["difference"] > 0)
        ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.2f}"
