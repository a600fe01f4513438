"""``fieldmark index``: photos that can be searched, and the upkeep of what was made."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fieldmark.cli import index_migrate, index_upkeep
from fieldmark.cli.console import Json, emit, progress_bars

_BUILD = "build"


class _BuildsByDefault(TyperGroup):
    """``fieldmark index ENCODER PHOTOS`` builds; only a first word that is a command is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_BUILD, *args]
        return super().parse_args(ctx, args)


def command(
    encoder: Annotated[Path, typer.Argument(help="Encoder folder, or the run folder it lies in.")],
    photos: Annotated[
        Path, typer.Argument(help="Folder, table (CSV, JSONL, Parquet) or tar shard.")
    ],
    out: Annotated[
        str,
        typer.Option(help="The index: folder or postgresql:// URL; again to bring it up to date."),
    ],
    batch_size: Annotated[int, typer.Option(min=1, help="Photos per forward pass.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; one per processor by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    forget_missing: Annotated[
        bool,
        typer.Option("--forget-missing", help="Remove photos that are gone, with their labels."),
    ] = False,
    problems: Annotated[
        Path | None,
        typer.Option(
            help="CSV of photos that cannot be read; problems.csv in the index's folder by default."
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts", help="Keep places of photos too, for search --region; once is enough."
        ),
    ] = False,
    facts: Annotated[
        Path | None,
        typer.Option(
            help="Table with path and any columns, for search --where; again to change them."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make photos searchable, or bring an index up to date.

    Only what is new or changed is embedded. Photos that are gone are marked and kept, so that a disk
    that is not mounted loses nothing. Labels of folders and tables are taken over. Stopped at any
    moment, the same command goes on.

    Examples:

      fieldmark index run photos --out birds.index

      fieldmark index run photos --out birds.index --forget-missing

      fieldmark index run photos --out postgresql://ida@birds.example/photos
      fieldmark index run photos --out birds.index --parts
    """
    from fieldmark.workflows.index import index_photos

    with progress_bars() as bars:
        told = index_photos(
            encoder,
            photos,
            out,
            batch_size=batch_size,
            workers=workers,
            device=device,
            forget_missing=forget_missing,
            problems_file=problems,
            parts=parts,
            facts=facts,
            progress=bars,
        )
    emit(json, told, _text(told))


def _text(told: dict[str, Any]) -> str:
    parts = [
        f"{told[name]:,} {word}"
        for name, word in (
            ("added", "added"),
            ("changed", "changed"),
            ("back", "there again"),
            ("unchanged", "unchanged"),
            ("forgotten", "forgotten"),
            ("missing", "missing (kept and marked)"),
            ("refused", "refused"),
        )
        if told[name]
    ]
    text = f"{told['index']} holds {told['items']:,} photos: {', '.join(parts) or 'none'}."
    if found := told["parts"]:
        text += (
            f" Parts of {found['photos']:,} photos are kept ({found['made']:,} new, "
            f"{found['bytes'] / 2**20:,.1f} MiB)."
        )
    if told["facts"]:
        unknown = told["facts"]["unknown"]
        text += f" The table told something new of {told['facts']['told']:,} photos"
        text += f"; {unknown:,} of its photos are not here." if unknown else "."
    return text + (f" Why not: {told['problems']}." if told["problems"] else "")


app = typer.Typer(cls=_BuildsByDefault, no_args_is_help=True, rich_markup_mode="markdown")
app.command(_BUILD)(command)
app.command("migrate")(index_migrate.command)
app.command("verify")(index_upkeep.verify)
app.command("compact")(index_upkeep.compact)
app.command("backup")(index_upkeep.backup)
app.command("stats")(index_upkeep.stats)


@app.callback()
def group() -> None:
    """Make photos searchable, and look after the index.

    The first word may be left out when it is build (a folder that is called as a command is ./migrate).
    Every command has --json. INDEX is a folder, or the URL of a PostgreSQL server with pgvector; the
    password is better in ~/.pgpass or PGPASSWORD than in the URL, where other users of the machine
    can see it.

    Examples:

      fieldmark index run photos --out birds.index

      fieldmark index migrate birds.index new-run photos
    """
