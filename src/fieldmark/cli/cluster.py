"""``fieldmark cluster``: groups of photos to name, and the names as labels."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fieldmark.cli.console import IndexPlace, Json, emit


def command(
    index: IndexPlace,
    out: Annotated[
        Path | None, typer.Option(help="Table to write, a line a photo; never overwritten.")
    ] = None,
    folders: Annotated[
        Path | None, typer.Option(help="New folder with a folder of links for each cluster.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Where the photos are; needed for --folders.")
    ] = None,
    k: Annotated[
        str, typer.Option("-k", help="Clusters; auto: three for each kind that is estimated.")
    ] = "auto",
    merge_to: Annotated[
        int | None, typer.Option(min=1, help="Groups in the column 'merged'; estimated by default.")
    ] = None,
    links: Annotated[
        Literal["symbolic", "hard", "copy"], typer.Option(help="What the folders hold.")
    ] = "symbolic",
    where: Annotated[
        str | None, typer.Option(help="Only photos for which this holds, as for search.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first centres.")] = 0,
    apply: Annotated[
        Path | None,
        typer.Option(help="Take names back as labels: the edited table, or the sorted folder."),
    ] = None,
    existing: Annotated[
        Literal["refuse", "keep", "replace"],
        typer.Option(help="With --apply, photos that have another label already."),
    ] = "refuse",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --apply, only say what would change.")
    ] = False,
    json: Json = False,
) -> None:
    """Sort the photos of an index into groups, name them as you like, take the names back as labels.

    There are more groups than kinds, so that few hold two kinds. Put folders together and rename them,
    or write names into the table's column 'name' (the same name merges); a second table lists which
    groups may be one. What keeps the name that it was given stays without a label. Photos themselves
    are never touched.

    Examples:

      fieldmark cluster birds.index --folders sorted --photos photos

      fieldmark cluster birds.index --out clusters.csv -k 200

      fieldmark cluster birds.index --apply sorted --dry-run
    """
    from fieldmark.workflows.cluster import apply_names, cluster_photos

    if apply is not None:
        told = apply_names(index, apply, existing=existing, dry_run=dry_run)
        emit(json, told, _applied(told))
        return
    if k != "auto" and not (k.isdecimal() and int(k)):
        raise typer.BadParameter("give a number from 1, or auto.", param_hint="-k")
    told = cluster_photos(
        index,
        out=out,
        folders=folders,
        photos=photos,
        count=None if k == "auto" else int(k),
        merge_to=merge_to,
        links=links,
        where=where,
        seed=seed,
    )
    emit(json, told, _sorted(told))


def _sorted(told: dict[str, Any]) -> str:
    lines = [
        f"{told['photos']:,} photos are in {told['clusters']:,} clusters of {told['smallest']:,} to "
        f"{told['largest']:,}; there may be about {told['kinds']:,} kinds."
    ]
    if told["agreement"] is not None:
        lines.append(
            f"Of the photos with labels {told['agreement']:.1%} have their cluster's commonest."
        )
    lines += [f"Written: {told[place]}." for place in ("out", "folders") if told[place]]
    if told["left_out"]:
        lines.append(f"{told['left_out']:,} photos have no file there and were left out.")
    if told["pairs"]:
        lines.append("Most alike, and maybe one:")
        lines += [f"  {p['cosine']:6.3f}  {p['one']}  {p['other']}" for p in told["pairs"]]
    return "\n".join(lines)


def _applied(told: dict[str, Any]) -> str:
    would = "would get" if told["dry_run"] else "got"
    parts = [
        f"{told[name]:,} {word}"
        for name, word in (
            ("same", "had it"),
            ("kept", "kept another"),
            ("unnamed", "are in groups without a name"),
            ("absent", "were taken out"),
            ("foreign", "files are not of these clusters"),
        )
        if told[name]
    ]
    text = f"{told['labelled']:,} photos {would} a label{''.join(f', {part}' for part in parts)}."
    lines = [f"  {count:6,}  {name}" for name, count in told["names"].items()]
    return "\n".join([text, *lines])
