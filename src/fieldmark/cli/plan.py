from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from fieldmark.cli.console import Json, emit, messages
from fieldmark.cli.train import (
    Device,
    Epochs,
    Photos,
    Probe,
    Sets,
    Size,
    Weights,
    overrides,
)

if TYPE_CHECKING:
    from fieldmark.workflows.recipe import Recipe


def command(
    photos: Photos,
    recipe: Annotated[
        Optional[str],  # noqa: UP045 - typer reads it
        typer.Option(
            "--recipe",
            help="Shipped recipe or TOML file; by default the one that suits so many photos.",
        ),
    ] = None,
    weights: Weights = None,
    probe: Probe = None,
    epochs: Epochs = None,
    size: Size = None,
    sets: Sets = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Say which recipe suits these photos, and what a run would cost: images, steps, time from a
    10-second trial, memory, disk.

    Example: `fieldmark plan photos/ --weights start.safetensors`
    """
    from fieldmark.workflows.advice import advise_for
    from fieldmark.workflows.recipe import load_recipe

    extra = overrides(weights, epochs, size)
    settings = load_recipe(recipe or "fieldmark", sets or (), extra=extra)
    why = ""
    # Settings given by hand are of a recipe that is already chosen.
    if recipe is None and not sets:
        advice = advise_for(photos, settings, probe)
        why = advice.why
        if advice.recipe != settings.name:
            settings = load_recipe(advice.recipe, extra=extra)
    show(photos, settings, probe, device, json, why)


def show(
    photos: Path,
    settings: "Recipe",
    probe: Path | None,
    device: str,
    json: bool,
    why: str = "",
) -> None:
    """Make a plan and print it; ``train --dry-run`` is the same.

    Args:
        photos: Folder, table or shards.
        settings: The recipe.
        probe: Table whose test photos will not be trained on.
        device: Where to compute.
        json: Print one JSON object.
        why: Reason for this recipe, where it was chosen for the user.
    """
    from fieldmark.workflows.plan import plan

    with messages().status("decoding some photos and trying a few steps …"):
        result = plan(photos, settings, probe=probe, device=device)
    if why:
        result["why"] = why
    emit(json, result, _text(result))


def _text(result: dict[str, Any]) -> str:
    told = {name: value for name, value in result.items() if name not in {"notes", "why"}}
    lines = [f"{name.replace('_', ' '):<20}{value}" for name, value in told.items()]
    if "why" in result:
        lines.insert(1, f"{'why':<20}{result['why']}")
    return "\n".join([*lines, *(f"NOTE: {note}" for note in result["notes"])])
