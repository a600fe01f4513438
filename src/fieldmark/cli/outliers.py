"""``fieldmark outliers``: photos that do not belong."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import IndexPlace, Json, emit


def command(
    index: IndexPlace,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many of the worst.")] = 50,
    by_label: Annotated[
        bool,
        typer.Option("--by-label", help="Photos unlike their own label's: wrong labels, maybe."),
    ] = False,
    where: Annotated[
        str | None, typer.Option(help="Only photos for which this holds, as for search.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV of them; never overwritten.")] = None,
    json: Json = False,
) -> None:
    """List the photos of an index that are least like the rest: other things, failed shots, wrong folders.

    The score is the distance (1 - cosine) within which a twentieth of all photos lie. With --by-label
    it is how much nearer the photos of another label are than those of its own; above 0 the label is
    doubtful. Nothing is changed.

    Examples:

      fieldmark outliers birds.index -n 20

      fieldmark outliers birds.index --by-label --out doubtful.csv
    """
    from fieldmark.workflows.outliers import find_outliers

    told = find_outliers(index, count=count, by_label=by_label, where=where, out=out)
    lines = [f"{told['photos']:,} photos; usual score {told['usual']}."]
    if by_label:
        lines = [f"{told['photos']:,} photos; {told['doubted']:,} are nearer to another label."]
    for row in told["outliers"]:
        label = f"  {row['label']}" if row["label"] else ""
        other = f" or {row['nearest']}" if row["nearest"] else ""
        lines.append(f"  {row['score']:6.3f}  {row['path']}{label}{other}")
    emit(json, told, "\n".join(lines))
