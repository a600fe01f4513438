"""Draw sample photos into a folder."""

from pathlib import Path
from typing import NamedTuple

from fieldmark.data.aviary import Aviary, AviaryConfig, draw, write


class SampleResult(NamedTuple):
    """What was written."""

    photos: Path
    """Folder of photos, one folder per species."""
    split: Path
    """Table with path, class, split."""
    parts: Path
    """Table with boxes, parts and marks."""
    train: int
    test: int
    species: tuple[str, ...]
    marks: tuple[str, ...]
    """Each species' marks in words."""


def sample(out: Path, config: AviaryConfig | None = None, *, masks: bool = False) -> SampleResult:
    """Draw an aviary and write it.

    Args:
        out: New or empty folder, or one that holds the same aviary already.
        config: What to draw.
        masks: Write the birds' masks too.

    Raises:
        OutputError: If the folder holds something else or cannot be written.
        StorageError: If the disk is full.
    """
    aviary: Aviary = draw(config)
    split = write(aviary, out, masks=masks)
    return SampleResult(
        photos=out / "images",
        split=split,
        parts=out / "parts.csv",
        train=int((~aviary.test).sum()),
        test=int(aviary.test.sum()),
        species=tuple(kind.name for kind in aviary.species),
        marks=tuple(kind.description for kind in aviary.species),
    )
