"""``fieldmark label``: labels in and out of an index, what to label next, and which are wrong."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import IndexPlace, Json, emit

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
Table = Annotated[Path | None, typer.Option(help="CSV of them; never overwritten.")]
Where = Annotated[str | None, typer.Option(help="Only photos for which this holds, as for search.")]


@app.callback()
def group() -> None:
    """Label a few photos, so that the rest can be classified. Every command has --json.

    Examples:

      fieldmark label next birds.index -n 30 --out next.csv

      fieldmark label set birds.index next.csv
    """


@app.command("set")
def set_command(
    index: IndexPlace,
    table: Annotated[Path, typer.Argument(help="CSV, JSONL or Parquet with path and label.")],
    by: Annotated[str, typer.Option(help="Who says so, for the history.")] = "",
    known_only: Annotated[
        bool, typer.Option("--known-only", help="Refuse labels that the index does not have yet.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where a photo has another label.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    json: Json = False,
) -> None:
    """Take labels from a table: all of them or, where anything is wrong, none.

    Lines without a label are passed over. A new label that looks like another one is told.

    Example:

      fieldmark label set birds.index mine.csv --by Ida
    """
    from fieldmark.workflows.label import set_labels

    told = set_labels(index, table, by=by, known_only=known_only, replace=replace, dry_run=dry_run)
    would = "would be set" if dry_run else "set"
    lines = [f"{told['set']:,} labels {would}, {told['unchanged']:,} were so already."]
    if told["new"]:
        shown = [
            f"{name} (is it {told['alike'][name]}?)" if name in told["alike"] else name
            for name in told["new"][:20]
        ]
        more = f" and {len(told['new']) - 20} more" if len(told["new"]) > 20 else ""
        lines.append(f"New: {', '.join(shown)}{more}.")
    if told["empty"]:
        lines.append(f"{told['empty']:,} lines have no label.")
    emit(json, told, "\n".join(lines))


@app.command("next")
def next_command(
    index: IndexPlace,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 20,
    where: Where = None,
    out: Table = None,
    json: Json = False,
) -> None:
    """List the photos whose labels would help most, the best first.

    Photos that stand for many which no label stands for yet, never twins of each other; those of labels
    that seem rare count more. Fill in the column label of OUT and give it to fieldmark label set.

    Example:

      fieldmark label next birds.index -n 30 --out next.csv
    """
    from fieldmark.workflows.label import next_photos

    told = next_photos(index, count=count, where=where, out=out)
    lines = ["No photo has a label yet. Next:"]
    if told["labelled"]:
        lines = [
            f"{told['labelled']:,} photos have one of {told['labels']} labels and stand for "
            f"{told['covered']:.0%} of all. Next:"
        ]
    for row in told["photos"]:
        guess = "" if row["guess"] is None else f"  {row['guess']}? ({row['probability']:.2f})"
        lines.append(f"  {row['path']}{guess}")
    if out is not None:
        lines.append(f"{out} written: fill in its column label, then fieldmark label set.")
    emit(json, told, "\n".join(lines))


@app.command("mistakes")
def mistakes_command(
    index: IndexPlace,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many to tell.")] = 50,
    out: Table = None,
    json: Json = False,
) -> None:
    """List labels that are probably wrong, surest first; nothing is changed.

    Example:

      fieldmark label mistakes birds.index --out look.csv
    """
    from fieldmark.workflows.label import suspect_labels

    told = suspect_labels(index, count=count, out=out)
    lines = [
        f"{told['suspected']:,} of {told['judged']:,} labels that could be held out look wrong to a "
        "classifier that has not seen them; the first are wrong most often."
    ]
    for row in told["photos"]:
        lines.append(
            f"  {row['score']:6.2f}  {row['path']}  {row['label']}, not {row['suggested']}?"
        )
    emit(json, told, "\n".join(lines))


@app.command("export")
def export_command(
    index: IndexPlace,
    out: Annotated[Path, typer.Argument(help="CSV to write; never overwritten.")],
    where: Where = None,
    json: Json = False,
) -> None:
    """Write path and label of every labelled photo.

    Example:

      fieldmark label export birds.index labels.csv
    """
    from fieldmark.workflows.label import export_labels

    told = export_labels(index, out, where=where)
    emit(json, told, f"{told['out']} holds {told['labels']:,} labels.")
