"""Which recipe for so many photos and such a start: what the benchmark came to (docs/results.md)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fieldmark.backbones.backbone import Backbone
from fieldmark.data.catalog import Catalog
from fieldmark.workflows.photos import find_split
from fieldmark.workflows.recipe import Recipe

FITTED, TRAINED = 50, 60
"""Photos from which post-processing, and then training, were shown to gain something."""


class Advice(NamedTuple):
    """A recipe's name, and the reason in a sentence or two."""

    recipe: str
    why: str


def advise(photos: int, start: str) -> Advice:
    """What to do with so many photos that nobody labelled.

    Args:
        photos: To train on.
        start: How the starting weights came to be: ``random``, ``supervised`` and so on.
    """
    if start == "random":
        return Advice(
            "simclr",
            "the start is random, so there is nothing to teach from: contrast from nothing is what is "
            "left, for far more epochs than these. Weights that were trained on any photos are worth "
            "more than all of it; give --weights.",
        )
    if photos < FITTED:
        return Advice(
            "start",
            f"{photos} photos are too few to learn or fit anything from; the start ships as it is.",
        )
    if photos < TRAINED:
        return Advice(
            "start",
            f"{photos} photos are enough for post-processing, which takes a minute; training was "
            f"tried with {TRAINED} and more.",
        )
    return Advice(
        "fieldmark",
        "the start can teach itself to see small what it sees large. On photos of 50 birds that gained "
        "1.5 points of mAP with 60 photos to train on (barely clear of zero), 5 with 150, 8 with 400 "
        "and 11 with 1,500, beyond post-processing; it helped on every set of photos that it was tried on, and every run tells "
        "whether it did on these.",
    )


def advise_for(photos: Path, recipe: Recipe, probe: Path | None) -> Advice:
    """The same for photos on disk and the weights that a recipe names.

    Raises:
        FieldmarkError: If photos, table or weights cannot be read.
    """
    catalog = Catalog.open(Path(photos))
    rows = np.arange(len(catalog), dtype=np.int64)
    split, _ = find_split(catalog, probe)
    if split is not None:
        rows = np.setdiff1d(rows, split.test_rows)
    start = Backbone.build(recipe.backbone, size=recipe.size)
    return advise(len(rows), start.provenance.how)
