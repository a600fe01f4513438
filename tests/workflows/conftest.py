"""A small folder of drawn photos, shared by the tests of whole jobs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.data.catalog import Catalog
from fieldmark.workflows.photos import Photos, find_split, prepare
from fieldmark.workflows.recipe import Recipe


class Sample(NamedTuple):
    photos: Path
    probe: Path


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("aviary")
    write(draw(AviaryConfig(species=4, per_species=16, size=32)), folder)
    return Sample(folder / "images", folder / "split.csv")


@pytest.fixture(scope="session")
def prepared() -> Callable[..., Photos]:
    """Photos as a run gets them, by source and probe table."""

    def made(
        source: Path, recipe: Recipe, folder: Path, probe: Path | None = None, **more: Any
    ) -> Photos:
        catalog = Catalog.open(source)
        return prepare(catalog, find_split(catalog, probe), recipe, folder, **more)

    return made
