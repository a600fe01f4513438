"""``fieldmark bench``: methods on data sets, as a table that can be trusted."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import Json, emit, progress_bars
from fieldmark.cli.train import Device, Epochs, Sets, Size, Weights, overrides


def command(
    out: Annotated[
        Path, typer.Option(help="Folder for cells and tables; again to continue, also elsewhere.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:LEVEL]=PATH",
            help="A data set (see fieldmark datasets), or folder=PATH; may be given again.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Recipes or TOML files, separated by commas; by default all methods."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method on each data set.")] = 3,
    weights: Weights = None,
    epochs: Epochs = None,
    size: Size = None,
    sets: Sets = None,
    device: Device = "auto",
    published: Annotated[
        Path | None,
        typer.Option(help="Figures that others published, as TOML; by default those shipped."),
    ] = None,
    best_on_test: Annotated[
        bool,
        typer.Option(
            "--best-on-test",
            help="Add columns with the best epoch on test, as the literature reports; marked.",
        ),
    ] = False,
    finetune: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="EPOCHS",
            help="Also teach each encoder with all train labels, and give its top-1 in a column.",
        ),
    ] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would cost.")] = False,
    redraw: Annotated[
        Path | None,
        typer.Option("--from", help="Make the tables from this results.jsonl, computing nothing."),
    ] = None,
    json: Json = False,
) -> None:
    """Train and measure methods on data sets; ends in a table whose every number says what it is.

    Says first what it will cost. What is done is not done again, a cell that fails is marked and does
    not lose the table, and any number of processes may work on the same folder.

    Examples:

      fieldmark bench --data cub200=CUB_200_2011 --data cars196=stanford_cars --out bench --plan

      fieldmark bench --data folder=photos --methods gentle,fieldmark --seeds 3 --size 128 --out bench

      fieldmark bench --from bench/results.jsonl --out redrawn
    """
    from fieldmark.errors import ConfigError
    from fieldmark.workflows.bench import METHODS, bench
    from fieldmark.workflows.bench import redraw as draw_again
    from fieldmark.workflows.leaderboard import as_markdown

    if redraw is not None:
        rows = draw_again(redraw, out)
        emit(json, {"out": str(out), "rows": rows}, as_markdown(rows))
        return
    folders: dict[str, Path] = {}
    for each in data or []:
        name, equals, path = each.partition("=")
        if not equals or not path or name in folders:
            raise ConfigError(
                f"--data is NAME=PATH, each NAME once, such as cub200=CUB_200_2011, got '{each}'; "
                "fieldmark datasets lists the names."
            )
        folders[name] = Path(path)
    names = [name.strip() for name in methods.split(",")] if methods else list(METHODS)
    with progress_bars() as bars:
        found = bench(
            folders,
            out,
            methods=names,
            seeds=seeds,
            sets=sets or (),
            extra=overrides(weights, epochs, size),
            only_plan=plan,
            published=published,
            best_on_test=best_on_test,
            finetune=finetune,
            device=device,
            progress=bars,
            say=bars.say,
        )
    emit(json, found, _text(found))
    if any(cell["status"] == "failed" for cell in found["cells"]):
        raise typer.Exit(1)


def _text(found: dict[str, Any]) -> str:
    from fieldmark.workflows.leaderboard import as_markdown

    counts: dict[str, int] = {}
    for cell in found["cells"]:
        counts[cell["status"]] = counts.get(cell["status"], 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    table = as_markdown(found["rows"]) if "rows" in found else ""
    return f"{table}\n{len(found['cells'])} cells: {told}. {found['out']}".strip()
