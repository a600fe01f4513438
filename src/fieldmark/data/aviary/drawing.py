"""Draw an aviary: which photos there are, and their species."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from pydantic import Field

from fieldmark import rng
from fieldmark.config import Config
from fieldmark.data.aviary.paint import Painted, paint
from fieldmark.data.aviary.species import SPECIES_LIMIT, Species, species
from fieldmark.errors import ConfigError

VERSION = 1
"""Changes when any pixel of any aviary changes; results are comparable within one version only."""

# Small enough for a processor's cache, large enough to hide the cost of calls.
_CHUNK_PIXELS = 16 * 64 * 64
_MOST_THREADS = 8


class AviaryConfig(Config):
    """What to draw."""

    species: int = Field(default=16, ge=2, le=SPECIES_LIMIT)
    """Number of species, 2 to 64; any two of the first 16 differ in four of five marks."""
    per_species: int = Field(default=160, ge=1)
    """Photos of each species."""
    size: int = Field(default=64, ge=16, le=1024)
    """Side of the square photos in pixels."""
    seed: int = Field(default=0, ge=0)
    """Photo i depends on the seed, i, the size and the number of species, and on nothing else."""
    test_every: int = Field(default=4, ge=2)
    """Every so-manieth photo of a species belongs to the test split."""


class Aviary(NamedTuple):
    """Photos of look-alike birds and all that is known of them; N photos of S pixels."""

    config: AviaryConfig
    images: UInt8[np.ndarray, "N S S 3"]
    """RGB photos."""
    backgrounds: UInt8[np.ndarray, "N S S 3"]
    """The same photos without the bird."""
    labels: Int64[np.ndarray, " N"]
    """Index into ``species``."""
    test: Bool[np.ndarray, " N"]
    """Whether the photo belongs to the test split."""
    boxes: Float32[np.ndarray, "N 4"]
    """x0 y0 x1 y1 of the bird in pixels, leaves before it ignored."""
    masks: Bool[np.ndarray, "N S S"]
    """Pixels that show the bird."""
    parts: Float32[np.ndarray, "N 7 2"]
    """x, y in pixels of the points named in ``PARTS``; may lie outside the photo or be hidden."""
    mark_boxes: Float32[np.ndarray, "N 5 4"]
    """x0 y0 x1 y1 of each mark of ``MARKS`` in pixels; zeros where it is not in the photo."""
    mark_visible: Float32[np.ndarray, "N 5"]
    """Share of each mark that no leaf hides, 0 to 1."""
    places: Int64[np.ndarray, " N"]
    """Photo whose surroundings are shown: the photo itself, unless they were swapped."""
    species: tuple[Species, ...]

    @property
    def train_rows(self) -> Int64[np.ndarray, " _"]:
        """Rows of the train split."""
        return np.flatnonzero(~self.test)

    @property
    def test_rows(self) -> Int64[np.ndarray, " _"]:
        """Rows of the test split."""
        return np.flatnonzero(self.test)


def draw(
    config: AviaryConfig | None = None, *, places: Int64[np.ndarray, " N"] | None = None
) -> Aviary:
    """Draw an aviary.

    Photo i shows species ``i % config.species``; everything else about it is drawn from
    (seed, i), so it says nothing about the species.

    Args:
        config: What to draw; the default is 2,560 photos of 64 pixels.
        places: For each photo, the number of the photo whose surroundings it gets; the default is
            its own. See :func:`swapped_places`.

    Raises:
        ConfigError: If ``places`` does not name one photo number, 0 or more, per photo.

    Example:
        >>> draw(AviaryConfig(species=4, per_species=2, size=32)).images.shape
        (8, 32, 32, 3)
    """
    config = config or AviaryConfig()
    kinds = tuple(species(number) for number in range(config.species))
    forms = np.asarray([kind.forms for kind in kinds])
    photos = np.arange(config.species * config.per_species, dtype=np.int64)
    labels = photos % config.species
    if places is None:
        places = photos
    elif places.shape != photos.shape or places.min() < 0:
        raise ConfigError(
            f"places must name one photo number, 0 or more, for each of {len(photos)} photos, got "
            f"{len(places)} numbers; swapped_places(config) makes them."
        )
    chunk = max(1, _CHUNK_PIXELS // config.size**2)

    def part(start: int) -> Painted:
        rows = photos[start : start + chunk]
        return paint(rows, forms[labels[rows]], config.size, config.seed, places[rows])

    # Threads help because numpy lets go of the interpreter while it computes.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        painted = list(pool.map(part, range(0, len(photos), chunk)))
    whole = Painted(*(np.concatenate(field) for field in zip(*painted, strict=True)))
    return Aviary(
        config=config,
        images=whole.images,
        backgrounds=whole.backgrounds,
        labels=labels,
        test=photos // config.species % config.test_every == config.test_every - 1,
        boxes=whole.boxes,
        masks=whole.masks,
        parts=whole.parts,
        mark_boxes=whole.mark_boxes,
        mark_visible=whole.mark_visible,
        places=places,
        species=kinds,
    )


def swapped_places(config: AviaryConfig, seed: int = 0) -> Int64[np.ndarray, " N"]:
    """Give every photo the surroundings of another photo, of another species and the same split.

    Drawn with ``draw(config, places=...)``, every bird keeps its pixels (soft edges aside) and
    stands elsewhere: features that tell a bird by its bird stay, those that lean on surroundings
    move. Each photo's surroundings are used about once.

    Args:
        config: Of the aviary.
        seed: Other seeds swap otherwise.
    """
    photos = np.arange(config.species * config.per_species, dtype=np.int64)
    test = photos // config.species % config.test_every == config.test_every - 1
    places = photos.copy()
    for rows in (photos[test], photos[~test]):
        if len(rows):
            # Rows of a split come species by species in turn: a step that is no multiple of
            # their number leads to another species.
            rounds = len(rows) // config.species
            turn, step = rng.uniform(2, "aviary swap", seed, config.seed)
            shift = int(turn * rounds) * config.species + 1 + int(step * (config.species - 1))
            places[rows] = np.roll(rows, -shift)
    return places
