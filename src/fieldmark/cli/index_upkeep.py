"""``fieldmark index verify``, ``compact``, ``backup`` and ``stats``."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import IndexPlace, Json, emit


def verify(index: IndexPlace, json: Json = False) -> None:
    """Read all of an index and its encoders, and list what is damaged; exit code 1 if anything is.

    Example:

      fieldmark index verify birds.index
    """
    from fieldmark.workflows.upkeep import verify_index

    told = verify_index(index)
    lines = [f"{told['index']}: {told['items']:,} photos, nothing wrong."]
    if not told["sound"]:
        lines = [f"{told['index']}: {len(told['problems']):,} wrong.", *told["problems"]]
    emit(json, told, "\n".join(lines))
    if not told["sound"]:
        raise typer.Exit(1)


def compact(index: IndexPlace, json: Json = False) -> None:
    """Give back the room of what was removed, and make the search index anew.

    Example:

      fieldmark index compact birds.index
    """
    from fieldmark.workflows.upkeep import compact_index

    told = compact_index(index)
    text = (
        f"{told['index']} is compact; neighbours are found by {told['search'].get('kind')} search"
    )
    if "recall" in told["search"]:
        text += f" (recall {told['search']['recall']:.3f})"
    if "bytes" in told:
        text += f"; {told['bytes_before'] / 1e6:,.1f} MB are {told['bytes'] / 1e6:,.1f} MB now"
    emit(json, told, text + ".")


def backup(
    index: IndexPlace,
    out: Annotated[Path, typer.Argument(help="A new folder; it is an index then.")],
    json: Json = False,
) -> None:
    """Copy an index and its encoders as they are now, while others go on using it.

    Example:

      fieldmark index backup birds.index backups/birds-monday.index
    """
    from fieldmark.workflows.upkeep import back_up_index

    told = back_up_index(index, out)
    emit(
        json,
        told,
        f"{told['out']} is a copy of {told['index']}: {told['items']:,} photos, "
        f"{told['encoders']} encoder{'s' * (told['encoders'] != 1)}.",
    )


def stats(index: IndexPlace, json: Json = False) -> None:
    """Tell what an index holds: photos, labels, encoders, and how neighbours are found.

    Example:

      fieldmark index stats birds.index
    """
    from fieldmark.workflows.upkeep import index_stats

    told = index_stats(index)
    lines = [
        f"{told['index']} ({told['engine']}): {told['items']:,} photos, {told['missing']:,} missing, "
        f"{told['labelled']:,} with one of {len(told['labels']):,} labels."
    ]
    for space in told["spaces"]:
        lines.append(
            f"  encoder {space['identity'][:12]}: {space['vectors']:,} vectors of {space['dim']}"
            + (f", {space['lacking']:,} photos lack one" if space["lacking"] else "")
            + (", in use" if space["identity"] == told["current"] else "")
            + f" ({space['about'].get('network', 'unknown network')})"
        )
    if told["search"]:
        recall = told["search"].get("recall")
        lines.append(
            f"  neighbours: {told['search']['kind']}" + (f", recall {recall:.3f}" if recall else "")
        )
    emit(json, told, "\n".join(lines))
