from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import Json, emit, messages
from fieldmark.cli.train import Photos, RecipeName, Sets, Size, overrides


def command(
    photos: Photos,
    recipe: RecipeName = "fieldmark",
    out: Annotated[Path, typer.Option(help="Image to write: .png, .jpg or .webp.")] = Path(
        "preview.png"
    ),
    count: Annotated[int, typer.Option(min=1, max=50, help="How many photos.")] = 6,
    views: Annotated[int, typer.Option(min=1, max=20, help="Random views of each photo.")] = 6,
    size: Size = None,
    seed: Annotated[int, typer.Option(min=0, help="Which photos and which views.")] = 0,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Write a sheet of views: what a recipe shows the network of your photos.

    Examples:

    `fieldmark preview photos/ --recipe mocov2 --out sheet.png`

    `fieldmark preview photos/ --set views.preset=plumage`
    """
    from fieldmark.workflows.preview import preview
    from fieldmark.workflows.recipe import load_recipe

    settings = load_recipe(recipe, sets or (), extra=overrides(None, None, size))
    with messages().status("making views …"):
        result = preview(photos, settings, out, photos=count, views=views, seed=seed)
    emit(json, result, _text(result))


def _text(result: dict[str, Any]) -> str:
    shown, skipped = len(result["photos"]), result["skipped"]
    lines = [f"{result['sheet']}: views of {shown} photo{'s' * (shown != 1)}"]
    lines += [f"  {one['path']} cannot be read ({one['code']}: {one['detail']})" for one in skipped]
    return "\n".join(lines)
