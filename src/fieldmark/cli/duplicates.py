"""``fieldmark duplicates``: photos that are there more than once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import IndexPlace, Json, emit, progress_bars

_SHOWN = 20


def command(
    index: IndexPlace,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Where the photos are, to compare pixels; without, near pairs are only candidates."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="Cosine from which on pairs are looked at; by default from the index.",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Only photos for which this holds, as for search.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV of all groups; never overwritten.")] = None,
    json: Json = False,
) -> None:
    """Find photos of an index that are there more than once: exact copies, the same picture, bursts.

    With --photos pairs that are near for the encoder are compared pixel by pixel, laid over each
    other, so that what merely looks alike is not called a duplicate. Smaller, recompressed, mirrored,
    brighter and slightly cropped copies are found; rotated ones are not. Nothing is changed.

    Examples:

      fieldmark duplicates birds.index --photos photos

      fieldmark duplicates birds.index --photos photos --out duplicates.csv --json
    """
    from fieldmark.workflows.duplicates import find_duplicates

    with progress_bars() as bars:
        told = find_duplicates(
            index, photos=photos, threshold=threshold, where=where, out=out, progress=bars
        )
    emit(json, told, _text(told))


def _text(told: dict[str, Any]) -> str:
    kinds = [
        f"{told[kind]:,} {word}"
        for kind, word in (
            ("exact", "of the same bytes"),
            ("near", "of the same picture"),
            ("burst", "of one burst"),
            ("candidate", "that may be the same picture"),
        )
        if told[kind]
    ]
    lines = [
        f"{told['photos']:,} photos; groups: {', '.join(kinds) or 'none'}. {told['spare']:,} photos could go."
    ]
    if told["checked"]:
        lines.append(
            f"{told['pairs']:,} pairs were compared (cosine {told['threshold']:.3f} and more); "
            f"{told['alike']:,} merely look alike."
        )
    else:
        lines.append("Pixels were not compared: give --photos to be sure.")
    if told["unreadable"]:
        lines.append(f"{told['unreadable']:,} photos could not be read.")
    if told["across"]:
        lines.append(
            f"{told['across']:,} groups have more than one label: at least one label is wrong."
        )
    for group in told["groups"][:_SHOWN]:
        lines.append(group["kind"])
        for photo in group["photos"]:
            label = f"  {photo['label']}" if photo["label"] else ""
            lines.append(f"  {photo['cosine']:6.3f}  {photo['path']}{label}")
    if len(told["groups"]) > _SHOWN:
        rest = f" {told['out']} has all." if told["out"] else " --out FILE.csv lists all."
        lines.append(f"… and {len(told['groups']) - _SHOWN:,} more groups.{rest}")
    return "\n".join(lines)
