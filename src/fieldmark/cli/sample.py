"""``fieldmark sample``: draw look-alike birds to try things on."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit


def command(
    out: Annotated[Path, typer.Argument(help="New or empty folder to write to.")],
    species: Annotated[int, typer.Option(help="Number of species, 2 to 64.")] = 16,
    per_species: Annotated[int, typer.Option(help="Photos of each species.")] = 160,
    size: Annotated[int, typer.Option(help="Side of the photos in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="Another seed draws other photos.")] = 0,
    masks: Annotated[bool, typer.Option("--masks", help="Write the birds' masks too.")] = False,
    json: Json = False,
) -> None:
    """Draw photos of look-alike birds: a data set that needs no download.

    Writes OUT/images/SPECIES/NUMBER.jpg, OUT/split.csv (path, class, split) and OUT/parts.csv
    (boxes of birds and marks). The same options always give the same photos.

    Examples:

      fieldmark sample birds

      fieldmark sample birds --species 12 --per-species 100 --size 96 --seed 7
    """
    from fieldmark.data.aviary import AviaryConfig
    from fieldmark.workflows.sample import sample

    config = AviaryConfig.parse(
        {"species": species, "per_species": per_species, "size": size, "seed": seed},
        "the options of fieldmark sample",
    )
    result = sample(out, config, masks=masks)
    emit(
        json,
        {
            "photos": str(result.photos),
            "split": str(result.split),
            "parts": str(result.parts),
            "train": result.train,
            "test": result.test,
            "species": list(result.species),
        },
        f"{result.train} photos to learn from and {result.test} to test on, "
        f"{len(result.species)} species, in {result.photos}\n"
        "Next:\n"
        f"  fieldmark check {result.photos}\n"
        f"  fieldmark train {result.photos} --recipe demo --probe {result.split} --out run",
    )
