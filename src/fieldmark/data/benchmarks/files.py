"""Reading the lists of official layouts; whatever is missing or malformed is named with its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from fieldmark.data.benchmarks.benchmark import (
    Attributes,
    Benchmark,
    Facts,
    Inside,
    Masks,
    Parts,
)
from fieldmark.errors import CatalogError

NO_BOX = (float("nan"),) * 4
"""Of a photo that has none."""


def white(values: UInt8[np.ndarray, "H W *C"]) -> Bool[np.ndarray, "H W"]:
    """Pixels of a mask that are more white than black, whatever its channels."""
    grey = values if values.ndim == 2 else values[..., 0]
    return grey > 127


class Folder:
    """A data set's folder, with errors that say what it should look like.

    Args:
        path: The folder that the user gave: the data set's own, or the one that its archive was
            unpacked in.
        facts: Of the data set.
        needed: Files or folders without which it cannot be this data set.

    Raises:
        CatalogError: If one of them is missing.
    """

    def __init__(self, path: Path, facts: Facts, needed: tuple[str, ...]) -> None:
        self.facts = facts
        inner = path / facts.folder
        self.root = inner if facts.folder and inner.is_dir() else path
        if not self.root.is_dir():
            raise CatalogError(
                f"{facts.name}: there is no folder {path}. {facts.source}\n"
                f"The layout should be:\n{facts.layout}"
            )
        for name in needed:
            if not (self.root / name).exists():
                raise self.error(f"{name} is missing")

    def error(self, problem: str) -> CatalogError:
        """An error about this folder."""
        return CatalogError(
            f"{self.root} is not {self.facts.title} as it is downloaded: {problem}. "
            f"The layout should be:\n{self.facts.layout}"
        )

    def has(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return (self.root / name).exists()

    def lines(self, name: str) -> list[str]:
        """The lines of a text file that hold something.

        Raises:
            CatalogError: If it is missing or not text.
        """
        try:
            text = (self.root / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise self.error(f"{name} is missing") from None
        except OSError as error:
            raise self.error(f"{name} cannot be read ({error.strerror})") from None
        return [line.rstrip("\r\n") for line in text.splitlines() if line.strip()]

    def fields(self, name: str, count: int, *, last_is_text: bool = False) -> Iterator[list[str]]:
        """Fields of each line, separated by blanks.

        Args:
            name: Of a text file.
            count: How many fields a line has.
            last_is_text: Whether the last field may hold blanks itself, as names do.

        Raises:
            CatalogError: If a line has fewer or more.
        """
        for number, line in enumerate(self.lines(name), 1):
            found = line.split(None, count - 1) if last_is_text else line.split()
            if len(found) != count:
                raise self.error(
                    f"line {number} of {name} has {len(found)} fields instead of {count}: {line[:60]!r}"
                )
            yield [field.strip() for field in found]

    def by_id(self, name: str, *, last_is_text: bool = False) -> dict[str, str]:
        """A file of two fields a line: id and value.

        Raises:
            CatalogError: If an id is listed twice.
        """
        found: dict[str, str] = {}
        for key, value in self.fields(name, 2, last_is_text=last_is_text):
            if key in found:
                raise self.error(f"{name} lists {key} twice")
            found[key] = value
        return found

    def numbers(self, name: str, columns: int) -> dict[str, list[float]]:
        """A file of an id and numbers a line.

        Raises:
            CatalogError: If something is not a number.
        """
        found = {}
        for number, (key, *values) in enumerate(self.fields(name, columns + 1), 1):
            try:
                found[key] = [float(value) for value in values]
            except ValueError:
                raise self.error(f"line {number} of {name} has no numbers: {values}") from None
        return found

    def matlab(self, name: str) -> dict[str, Any]:
        """Variables of a MATLAB file, structures as objects with attributes.

        Raises:
            CatalogError: If it is missing or damaged.
        """
        from scipy import io

        try:
            found: dict[str, Any] = io.loadmat(
                self.root / name, squeeze_me=True, struct_as_record=False
            )
        except FileNotFoundError:
            raise self.error(f"{name} is missing") from None
        except Exception as error:  # scipy raises many kinds for damaged files
            raise self.error(f"{name} cannot be read as a MATLAB file ({error})") from None
        return found

    def boxes(self, name: str, ids: Sequence[str]) -> Float[np.ndarray, "N 4"] | None:
        """Four numbers of each photo, NaN where the file has none; None without the file."""
        if not self.has(name):
            return None
        found = self.numbers(name, 4)
        return np.array([found.get(i, NO_BOX) for i in ids], np.float64)

    def masks(self, files: Sequence[str], inside: Inside) -> Masks:
        """Masks of photos, in their order, those that are there."""
        return Masks(tuple(file if self.has(file) else None for file in files), inside)

    def benchmark(
        self,
        paths: Sequence[str],
        names: Sequence[str],
        splits: Sequence[str],
        *,
        coarser: Mapping[str, Callable[[str], str]] | None = None,
        boxes: Float[np.ndarray, "N 4"] | None = None,
        parts: Parts | None = None,
        masks: Masks | None = None,
        attributes: Callable[[], Attributes] | None = None,
        groups: tuple[str, ...] | None = None,
    ) -> Benchmark:
        """The data set, from what its lists say of each photo.

        Args:
            paths: Below the root.
            names: Of their classes.
            splits: ``train``, ``val`` or ``test``.
            coarser: For each coarser level, to which group of it a class belongs.
            boxes: x0 y0 x1 y1 in pixels; NaN where a photo has none.
            parts: Named points.
            masks: Which pixels are the object.
            attributes: Reads named properties.
            groups: What photos have in common that a fair split keeps together.
        """
        classes, labels = indexed(names)
        return Benchmark(
            facts=self.facts,
            root=self.root,
            paths=tuple(paths),
            labels=labels,
            splits=tuple(splits),
            classes=classes,
            coarser={
                level: tuple(group(name) for name in classes)
                for level, group in (coarser or {}).items()
            },
            boxes=boxes,
            parts=parts,
            masks=masks,
            attributes=attributes,
            groups=groups,
        )

    def need(self, values: dict[str, Any], name: str, file: str) -> Any:
        """A variable of a file that must be there."""
        if name not in values:
            raise self.error(f"{file} has no variable '{name}'")
        return values[name]


def indexed(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray[Any, np.dtype[np.int64]]]:
    """Sorted distinct names, and the index of each."""
    classes, index = np.unique(np.array(list(names), dtype=object), return_inverse=True)
    return tuple(str(name) for name in classes), index.astype(np.int64)
