from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.cli.console import Json, emit, messages
from fieldmark.cli.train import (
    Device,
    Epochs,
    Photos,
    Probe,
    RecipeName,
    Sets,
    Size,
    Weights,
    overrides,
)

if TYPE_CHECKING:
    from fieldmark.workflows.recipe import Recipe


def command(
    photos: Photos,
    recipe: RecipeName = "fieldmark",
    weights: Weights = None,
    probe: Probe = None,
    epochs: Epochs = None,
    size: Size = None,
    sets: Sets = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Say what a run would cost: images, steps, time from a 10-second trial, memory, disk.

    Example: `fieldmark plan photos/ --weights start.safetensors`
    """
    from fieldmark.workflows.recipe import load_recipe

    settings = load_recipe(recipe, sets or (), extra=overrides(weights, epochs, size))
    show(photos, settings, probe, device, json)


def show(photos: Path, settings: "Recipe", probe: Path | None, device: str, json: bool) -> None:
    """Make a plan and print it; ``train --dry-run`` is the same."""
    from fieldmark.workflows.plan import plan

    with messages().status("decoding some photos and trying a few steps …"):
        result = plan(photos, settings, probe=probe, device=device)
    emit(json, result, _text(result))


def _text(result: dict[str, Any]) -> str:
    lines = [
        f"{name.replace('_', ' '):<20}{value}" for name, value in result.items() if name != "notes"
    ]
    return "\n".join([*lines, *(f"NOTE: {note}" for note in result["notes"])])
