"""The field's data sets, read as they are downloaded, with their official splits and annotations."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fieldmark.config import suggest
from fieldmark.data.benchmarks import birds, folders, inaturalist, nature, pets, vehicles
from fieldmark.data.benchmarks.benchmark import (
    Attributes,
    Benchmark,
    Facts,
    Masks,
    Parts,
    verify,
)
from fieldmark.errors import CatalogError

__all__ = [
    "BENCHMARKS",
    "Attributes",
    "Benchmark",
    "Facts",
    "Masks",
    "Parts",
    "Reader",
    "open_benchmark",
]


class Reader(NamedTuple):
    """A data set that can be opened."""

    facts: Facts
    read: Callable[[Path], Benchmark]


_READERS = (
    Reader(birds.CUB200, birds.read_cub200),
    Reader(vehicles.CARS196, vehicles.read_cars196),
    Reader(vehicles.AIRCRAFT, vehicles.read_aircraft),
    Reader(birds.NABIRDS, birds.read_nabirds),
    Reader(nature.FLOWERS102, nature.read_flowers102),
    Reader(nature.BUTTERFLY200, nature.read_butterfly200),
    Reader(pets.DOGS, pets.read_dogs),
    Reader(pets.PETS, pets.read_pets),
    Reader(folders.FOOD101, folders.read_food101),
    Reader(inaturalist.INATURALIST, inaturalist.read_inaturalist),
    Reader(folders.IMAGENET, folders.read_imagenet),
    Reader(folders.TINY_IMAGENET, folders.read_tiny_imagenet),
    Reader(nature.LEEDS, nature.read_leedsbutterfly),
    Reader(folders.FOLDER, folders.read_folder),
)
BENCHMARKS: dict[str, Reader] = {reader.facts.name: reader for reader in _READERS}
"""By the name that ``--data NAME=PATH`` uses."""


def open_benchmark(name: str, path: Path) -> Benchmark:
    """Open and check a data set as it was downloaded.

    Args:
        name: One of ``BENCHMARKS``, with ``:LEVEL`` for the labels of a coarser level
            (``aircraft:manufacturer``).
        path: Its folder, or the folder that its archive was unpacked in.

    Raises:
        CatalogError: If there is no such data set, or the folder is not it: says which file is
            missing and what the layout should be.

    Example:
        >>> open_benchmark("cub200", Path("CUB_200_2011")).subset  # doctest: +SKIP
    """
    known, _, level = name.partition(":")
    if known not in BENCHMARKS:
        raise CatalogError(suggest(known, BENCHMARKS, "data set"))
    found = verify(BENCHMARKS[known].read(Path(path)))
    return found.at(level) if level else found
