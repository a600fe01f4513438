"""What an opened benchmark data set is: photos, classes, official split, and what else is annotated."""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image

from fieldmark.data.catalog import Catalog, Location, Row
from fieldmark.errors import CatalogError, PhotoError

_MASK_PIXELS = 100_000_000


class Facts(NamedTuple):
    """What is known of a data set before its folder is opened."""

    name: str
    """As ``--data NAME=PATH`` calls it."""
    title: str
    photos: dict[str, int]
    """Official number of photos by part, the parts being those that papers use."""
    classes: int
    """Official number of classes at the finest level."""
    level: str
    """What a class is: species, model, variant, breed."""
    split: str
    """Where the split comes from, and what papers make of it."""
    source: str
    """How to get it. Nothing is ever downloaded."""
    licence: str
    citation: str
    layout: str
    """The folder as it is when the official files are unpacked."""
    folder: str = ""
    """Name of that folder in the archive; may be left out."""
    overlap: str = ""
    """Which usual starting weights have seen these classes, or these very photos."""


class Parts(NamedTuple):
    """Named points in each photo."""

    names: tuple[str, ...]
    points: Float[np.ndarray, "N P 2"]
    """x, y in pixels of the upright photo."""
    visible: Bool[np.ndarray, "N P"]


class Attributes(NamedTuple):
    """Named properties of each photo, as people judged them."""

    names: tuple[str, ...]
    present: Bool[np.ndarray, "N A"]


Inside = Callable[[UInt8[np.ndarray, "H W *C"]], Bool[np.ndarray, "H W"]]
"""Which values of a mask file are the object."""


class Masks(NamedTuple):
    """Files that say which pixels are the object."""

    files: tuple[str | None, ...]
    """Path of each photo's mask below the root; None where it has none."""
    inside: Inside


@dataclass(frozen=True)
class Benchmark:
    """A data set as downloaded, opened and checked.

    Rows keep the order of the official lists.
    """

    facts: Facts
    root: Path
    paths: tuple[str, ...]
    """Of each photo, below the root, with ``/``."""
    labels: Int64[np.ndarray, " N"]
    """Indices into ``classes``."""
    splits: tuple[str, ...]
    """``train``, ``val`` or ``test`` of each photo; ``val`` takes no part."""
    classes: tuple[str, ...]
    coarser: dict[str, tuple[str, ...]]
    """Level, such as family, and to which group of it each class belongs."""
    boxes: Float[np.ndarray, "N 4"] | None = None
    """x0 y0 x1 y1 in pixels of the upright photo; NaN where a photo has none."""
    parts: Parts | None = None
    masks: Masks | None = None
    attributes: Callable[[], Attributes] | None = None
    """Read when asked: three million lines for CUB-200-2011."""
    groups: tuple[str, ...] | None = None
    """Who took each photo, or what else photos have in common that a fair split keeps together."""
    shards: Catalog | None = None
    """The photos, where they lie inside tar shards."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def counts(self) -> dict[str, int]:
        """Photos by part."""
        return dict(Counter(self.splits))

    @property
    def subset(self) -> str | None:
        """How much of the data set this is, such as ``50 of 200 classes``; None for all of it.

        Every number measured on a part must say so: it is not the data set's number.
        """
        official = self.facts.photos
        if not official:
            return None
        if len(self.classes) < self.facts.classes:
            return f"{len(self.classes)} of {self.facts.classes} classes"
        found, all_of_it = (
            sum(n.get(part, 0) for part in official) for n in (self.counts, official)
        )
        return f"{found:,} of {all_of_it:,} photos" if found < all_of_it else None

    def at(self, level: str) -> "Benchmark":
        """The same photos with the labels of a coarser level.

        Args:
            level: One of ``coarser``, or the finest level's own name.

        Raises:
            CatalogError: If the data set has no such level.
        """
        if level == self.facts.level:
            return self
        if level not in self.coarser:
            allowed = ", ".join([self.facts.level, *self.coarser])
            raise CatalogError(
                f"{self.facts.name} has no level '{level}'; it has: {allowed}. Levels are written "
                f"NAME:LEVEL, such as {self.facts.name}:{allowed.split(', ')[-1]}."
            )
        groups = self.coarser[level]
        names = tuple(sorted(set(groups)))
        index = np.array([names.index(group) for group in groups], np.int64)
        others = {
            other: _of_groups(names, groups, above)
            for other, above in self.coarser.items()
            if other != level and _is_above(groups, above)
        }
        facts = self.facts._replace(level=level, classes=0)
        return replace(self, facts=facts, labels=index[self.labels], classes=names, coarser=others)

    def rows(self, split: str) -> Int64[np.ndarray, " M"]:
        """Rows of one part."""
        return np.flatnonzero(np.array(self.splits) == split)

    def catalog(self) -> Catalog:
        """The photos as every other part of fieldmark reads them."""
        entries = (
            (
                Row(
                    i,
                    path,
                    self.classes[self.labels[i]],
                    self.splits[i],
                    self.groups[i] if self.groups else None,
                    None,
                ),
                self.shards.location(i) if self.shards else Location(os.fspath(self.root / path)),
            )
            for i, path in enumerate(self.paths)
        )
        return Catalog(self.root, entries)

    def table(self, folder: Path, *, parts: tuple[str, ...] = ("train", "val", "test")) -> str:
        """CSV with ``path,label,split`` that every command takes as photos and as ``--probe``.

        Photos inside shards have their ids for paths: the shards are the photos, the table is the
        ``--probe`` alone.

        Args:
            folder: Where the table will lie; its paths start there.
            parts: Whose photos to list. What trains on a table trains on all that is not in its
                ``test``, without labels; without ``val`` it keeps to the papers' train part.
        """
        root, here = (os.path.abspath(place) for place in (self.root, folder))  # noqa: PTH100
        start = os.path.relpath(root, here)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", "split", *(["group"] if self.groups else [])])
        for i, path in enumerate(self.paths):
            if self.splits[i] not in parts:
                continue
            place = path if self.shards else f"{start}/{path}".replace(os.sep, "/")
            cells = [place, self.classes[self.labels[i]]]
            cells += [self.splits[i], *([self.groups[i]] if self.groups else [])]
            writer.writerow(cells)
        return text.getvalue()

    def split_hash(self) -> str:
        """SHA-256 of which photo has which label in which part, in hex; the order does not matter."""
        lines = sorted(
            f"{path}\0{self.classes[label]}\0{split}\n"
            for path, label, split in zip(self.paths, self.labels, self.splits, strict=True)
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def mask(self, row: int) -> Bool[np.ndarray, "H W"] | None:
        """Which pixels of a photo are the object; None where nobody said.

        Raises:
            PhotoError: If the mask cannot be read.
        """
        file = None if self.masks is None else self.masks.files[row]
        if self.masks is None or file is None:
            return None
        try:
            with Image.open(self.root / file) as image:
                if image.width * image.height > _MASK_PIXELS:
                    raise PhotoError("too_many_pixels", f"{file} has {image.size} pixels")
                # Palette images keep their indices, which is what the rules are about.
                return self.masks.inside(np.asarray(image))
        except FileNotFoundError:
            raise PhotoError("missing", f"there is no mask {file}") from None
        except (OSError, ValueError, SyntaxError) as error:
            raise PhotoError("damaged", f"the mask {file} cannot be read: {error}") from None


def _is_above(groups: tuple[str, ...], above: tuple[str, ...]) -> bool:
    """Whether each group lies in one group of the other level."""
    return len(set(zip(groups, above, strict=True))) == len(set(groups))


def _of_groups(
    names: tuple[str, ...], groups: tuple[str, ...], above: tuple[str, ...]
) -> tuple[str, ...]:
    found = dict(zip(groups, above, strict=True))
    return tuple(found[name] for name in names)


def verify(benchmark: Benchmark) -> Benchmark:
    """Compare an opened data set with what is official, and with what lies on disk.

    Fewer classes or photos than official are a part of the data set, which is said wherever it is
    used; listed photos that are not there are a half-unpacked archive, which is refused.

    Raises:
        CatalogError: Listed photos are missing, there are more photos or classes than there should
            be, or a part has none.
    """
    facts = benchmark.facts
    absent = [] if benchmark.shards else missing_files(benchmark.root, benchmark.paths)
    if absent:
        raise CatalogError(
            f"{benchmark.root}: {len(absent):,} of {len(benchmark):,} photos that {facts.title} lists "
            f"are not there, the first is {absent[0]}. The archive seems to be half unpacked; unpack "
            f"it again. The layout should be:\n{facts.layout}"
        )
    if len(benchmark.classes) > facts.classes > 0:
        raise CatalogError(
            f"{benchmark.root} lists {len(benchmark.classes)} classes; {facts.title} has "
            f"{facts.classes}. Its lists were changed, or it is another data set: open it as "
            f"folder={benchmark.root}."
        )
    for part, official in facts.photos.items():
        found = benchmark.counts.get(part, 0)
        if found > official:
            raise CatalogError(
                f"{benchmark.root} lists {found:,} photos in {part}; {facts.title} has {official:,}. "
                "Its lists were changed; unpack the official archive again."
            )
        if not found:
            raise CatalogError(
                f"{benchmark.root} lists no photo in {part}; {facts.title} has {official:,} there. "
                f"The layout should be:\n{facts.layout}"
            )
    return benchmark


def missing_files(root: Path, paths: Iterable[str]) -> list[str]:
    """Which of the listed files are not there; each folder is read once, however many files it has."""
    listed: dict[str, set[str]] = {}
    absent = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in listed:
            try:
                listed[folder] = {entry.name for entry in (root / folder).iterdir()}
            except OSError:
                listed[folder] = set()
        if name not in listed[folder]:
            absent.append(path)
    return absent
