from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import Json, emit, messages


def command(
    encoder: Annotated[Path, typer.Argument(help="Encoder folder, or the run folder it lies in.")],
    photos: Annotated[
        list[Path], typer.Argument(help="One photo, two photos, or a folder with --classes.")
    ],
    out: Annotated[
        Path, typer.Option(help="Sheet to write: .html, or a picture (.png, .jpg, .webp).")
    ] = Path("explain.html"),
    classes: Annotated[
        tuple[str, str] | None, typer.Option(help="Two classes: what separates them?")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Table with path and class; by default folder names are the classes."),
    ] = None,
    count: Annotated[int, typer.Option(min=2, max=200, help="Most photos per class.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Which photos, and which random orders.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    json: Json = False,
) -> None:
    """Say why two photos match, what one is known by, or what separates two classes.

    The sheet tells how far its own maps can be believed.

    Examples:

    `fieldmark explain run a.jpg b.jpg --out pair.html`

    `fieldmark explain run a.jpg --out photo.png`

    `fieldmark explain run photos/ --classes "Herring Gull" "Ring-billed Gull" --out gulls.html`
    """
    from fieldmark.workflows.explain import explain

    with messages().status("hiding places and looking again …"):
        result = explain(
            encoder,
            photos,
            out,
            classes=classes,
            labels=labels,
            count=count,
            seed=seed,
            device=device,
        )
    emit(json, result, _text(result))


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['sheet']}: {result['belief']}"]
    for one in result.get("skipped", ()):
        lines.append(f"  {one['path']} cannot be read ({one['code']}: {one['detail']})")
    return "\n".join(lines)
