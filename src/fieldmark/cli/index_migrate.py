"""``fieldmark index migrate``: from one encoder to another, while the index is used."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import IndexPlace, Json, emit, progress_bars


def command(
    index: IndexPlace,
    encoder: Annotated[Path, typer.Argument(help="The new encoder: its folder, or a run's.")],
    photos: Annotated[Path, typer.Argument(help="The photos of the index, where they are now.")],
    switch: Annotated[
        bool,
        typer.Option(
            "--switch/--no-switch", help="Search with the new encoder once all photos have it."
        ),
    ] = True,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Switch though some have no new vector: not found then."),
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="After switching, forget the old vectors for good.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos per forward pass.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; one per processor by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    problems: Annotated[
        Path | None,
        typer.Option(
            help="CSV of photos without a vector; problems.csv in the index's folder by default."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Move an index to another encoder; searches go on with the old one until all photos have both.

    Stopped at any moment, the same command goes on; run again it catches up with photos that were added
    meanwhile. Photos that are gone or cannot be read are counted, and searches then stay with the old
    encoder (exit code 1): bring them back, or remove them with --forget-missing of fieldmark index, or
    switch without them with --incomplete. To go back, migrate to the old encoder.

    Examples:

      fieldmark index migrate birds.index new-run photos

      fieldmark index migrate birds.index new-run photos --no-switch

      fieldmark search birds.index new.jpg --encoder new-run

      fieldmark index migrate birds.index new-run photos --drop-old
    """
    from fieldmark.workflows.migrate import migrate_index

    with progress_bars() as bars:
        told = migrate_index(
            index,
            encoder,
            photos,
            switch=switch,
            incomplete=incomplete,
            drop_old=drop_old,
            batch_size=batch_size,
            workers=workers,
            device=device,
            problems_file=problems,
            progress=bars,
        )
    emit(json, told, _text(told))
    if switch and told["current"] != told["encoder"]:
        raise typer.Exit(1)


def _text(told: dict[str, Any]) -> str:
    new, old = told["encoder"][:12], told["before"][:12]
    text = f"{told['index']}: {told['embedded']:,} of {told['items']:,} photos were embedded with {new}…"
    if told["lacking"]:
        parts = [
            f"{told[name]:,} {word}"
            for name, word in (
                ("missing", "gone"),
                ("changed", "changed since they were indexed"),
                ("refused", "unreadable"),
            )
            if told[name]
        ]
        text += f"; {told['lacking']:,} have no vector of it ({', '.join(parts)})"
    text += f". Searches use {told['current'][:12]}…"
    text += f" instead of {old}… from now on." if told["switched"] else "."
    if told["dropped"]:
        text += f" {told['dropped'][:12]}… was dropped."
    return text + (f" Why not: {told['problems']}." if told["problems"] else "")
