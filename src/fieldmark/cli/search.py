"""``fieldmark search``: what looks like this photo?"""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import IndexPlace, Json, emit


def command(
    index: IndexPlace,
    photos: Annotated[
        list[str], typer.Argument(help="Photo files, or paths of photos in the index.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many for each.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help="Only photos for which this holds, as 'label = \"wren\"'."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Whose vectors: the beginning of an identity (fieldmark index stats lists them), or the "
            "encoder's folder; by default those that the index uses."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Find this part of the photo in others: fractions of its width and height.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="With --region: also a page (.html) or picture (.png) of what was found."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    json: Json = False,
) -> None:
    """Find the photos of an index that look most like others.

    With --region: the photos that show the part under the region, and where. The index needs parts
    (fieldmark index … --parts).

    A filter compares key, label, missing, or a field of the metadata: = != < <= > >=, in (…), contains,
    is null, not, and, or.

    Examples:

      fieldmark search birds.index new.jpg -k 5

      fieldmark search birds.index wren/0012.jpg --where 'label != "wren" and missing = false'

      fieldmark search birds.index wren/0012.jpg --region 0.55,0.2,0.75,0.35 --sheet found.html
    """
    if region is not None or sheet is not None:
        _parts(index, photos, region, sheet, k, where, encoder, device, json)
        return
    from fieldmark.index.places import shown
    from fieldmark.workflows.index import search_photos

    answers = search_photos(index, photos, k=k, where=where, encoder=encoder, device=device)
    found = [
        {
            "query": answer.query,
            "hits": [
                {
                    "path": hit.key,
                    "score": round(hit.score, 6),
                    "label": hit.item.label,
                    "missing": hit.item.missing,
                    "meta": hit.item.meta,
                }
                for hit in answer.hits
            ],
        }
        for answer in answers
    ]
    lines: list[str] = []
    for answer in answers:
        lines.append(answer.query)
        for hit in answer.hits:
            told = f"  {hit.item.label}" if hit.item.label else ""
            lines.append(f"  {hit.score:6.3f}  {hit.key}{told}{'  (missing)' * hit.item.missing}")
        if not answer.hits:
            lines.append("  nothing (the filter leaves no photo)" if where else "  nothing")
    emit(json, {"index": shown(index), "answers": found}, "\n".join(lines))


def _parts(
    index: str,
    photos: list[str],
    region: str | None,
    sheet: Path | None,
    k: int,
    where: str | None,
    encoder: str | None,
    device: str,
    json: bool,
) -> None:
    from fieldmark.errors import InputError
    from fieldmark.workflows.region import search_parts

    if region is None:
        raise InputError(
            f"a sheet ({sheet}) shows where a part was found; say which part with --region x0,y0,x1,y1, or "
            "leave --sheet out."
        )
    if len(photos) != 1:
        raise InputError(
            f"a region is a part of one photo, got {len(photos)} photos; search them one after another, "
            "each with its own --region."
        )
    answer = search_parts(
        index, photos[0], region, k=k, where=where, encoder=encoder, device=device, sheet=sheet
    )
    data = {
        "index": str(index),
        "query": answer.query,
        "region": list(answer.region),
        "searched": answer.searched,
        "without_parts": answer.without,
        "sheet": str(sheet) if sheet else None,
        "hits": [
            {
                "path": hit.item.key,
                "score": round(hit.score, 6),
                "box": [round(edge, 4) for edge in hit.box],
                "label": hit.item.label,
                "missing": hit.item.missing,
                "meta": hit.item.meta,
            }
            for hit in answer.hits
        ],
    }
    lines = [f"{answer.query}  {','.join(f'{edge:g}' for edge in answer.region)}"]
    for hit in answer.hits:
        told = f"  {hit.item.label}" if hit.item.label else ""
        box = ",".join(f"{edge:.3f}" for edge in hit.box)
        lines.append(
            f"  {hit.score:6.3f}  {hit.item.key}{told}  {box}{'  (missing)' * hit.item.missing}"
        )
    if not answer.hits:
        lines.append("  nothing (the filter leaves no other photo)" if where else "  nothing")
    if answer.without:
        lines.append(
            f"{answer.without:,} photos have no parts that can be believed and were not searched; "
            f"fieldmark index ENCODER PHOTOS --out {index} --parts adds them."
        )
    if sheet:
        lines.append(f"Shown in {sheet}.")
    emit(json, data, "\n".join(lines))
