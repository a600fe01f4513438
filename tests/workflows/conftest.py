"""A small folder of drawn photos, shared by the tests of whole jobs."""

from pathlib import Path
from typing import NamedTuple

import pytest

from fieldmark.data.aviary import AviaryConfig, draw, write


class Sample(NamedTuple):
    photos: Path
    probe: Path


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("aviary")
    write(draw(AviaryConfig(species=4, per_species=16, size=32)), folder)
    return Sample(folder / "images", folder / "split.csv")
