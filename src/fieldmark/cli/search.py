"""``fieldmark search``: what looks like this photo?"""

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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    json: Json = False,
) -> None:
    """Find the photos of an index that look most like others.

    A filter compares key, label, missing, or a field of the metadata: = != < <= > >=, in (…), contains,
    is null, not, and, or.

    Examples:

      fieldmark search birds.index new.jpg -k 5

      fieldmark search birds.index wren/0012.jpg --where 'label != "wren" and missing = false'
    """
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
