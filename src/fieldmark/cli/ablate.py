"""``fieldmark ablate``: a method with and without its parts."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit, progress_bars
from fieldmark.cli.train import Device, Epochs, Photos, Probe, Sets, Size, Weights, overrides


def command(
    method: Annotated[
        str, typer.Argument(help="Method, as fieldmark methods lists it, or its recipe.")
    ],
    photos: Photos,
    out: Annotated[Path, typer.Option(help="Folder for runs and tables; again to continue.")],
    probe: Probe = None,
    study: Annotated[
        list[str] | None, typer.Option(help="Only this study (may be given again); else all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds that each variant is trained with.")] = 1,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="What variants differ from; by default the recipe that trains the method."
        ),
    ] = None,
    weights: Weights = None,
    epochs: Epochs = None,
    size: Size = None,
    sets: Sets = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a method with and without its parts, and put the measures side by side.

    Each method declares its studies (fieldmark methods lists them). Every variant is a run of its
    own in OUT/STUDY/VARIANT/seed-N, judged against the start as by fieldmark train. The table is
    written to OUT as JSON, CSV and Markdown after each variant; the same command continues.

    Examples:

      fieldmark ablate mocov2 photos/ --probe split.csv --out ablation --epochs 20

      fieldmark ablate mocov2 photos/ --probe split.csv --out ablation --study queue --seeds 3
    """
    from fieldmark.workflows.ablate import ablate, as_markdown

    with progress_bars() as bars:
        table = ablate(
            method,
            photos,
            out,
            recipe=recipe,
            sets=sets or (),
            extra=overrides(weights, epochs, size),
            studies=study or (),
            probe=probe,
            seeds=seeds,
            device=device,
            progress=bars,
            say=bars.say,
        )
    if table is not None:
        emit(json, table, as_markdown(table) + f"\nWritten: {out / 'ablation.md'}")
