"""Labels as the finest level of a tree: when the species is unsure, the genus may not be."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fieldmark.errors import InputError, LabelError

LEAST = 0.9
"""Probability from which on a name is given."""


class Name(NamedTuple):
    """What a photo can be called."""

    level: str | None
    """Of the taxonomy; None where not even the coarsest is sure."""
    name: str | None
    probability: float
    """Of the name; where there is none, of the most likely name of the coarsest level."""


class Taxonomy:
    """A name at each level for each label.

    Args:
        levels: Coarsest first; labels are not one of them.
        names: For each label its name at each level; None where the tree has none.
        finest: What labels are called, as a level.

    Raises:
        LabelError: If a label has another number of names than there are levels, or a name stands under
            two parents.
    """

    def __init__(
        self,
        levels: Sequence[str],
        names: Mapping[str, Sequence[str | None]],
        *,
        finest: str = "label",
    ) -> None:
        self.levels = tuple(levels)
        self.names = {label: tuple(row) for label, row in names.items()}
        self.finest = finest
        self._check()

    def _check(self) -> None:
        above: dict[tuple[int, str], tuple[str | None, str]] = {}
        for label, row in self.names.items():
            if len(row) != len(self.levels):
                raise LabelError(
                    f"'{label}' has {len(row)} names; the taxonomy has {len(self.levels)} levels: "
                    f"{', '.join(self.levels)}."
                )
            for place, name in enumerate(row):
                if name is None or place == 0:
                    continue
                parent = row[place - 1]
                known, of = above.setdefault((place, name), (parent, label))
                if known != parent:
                    raise LabelError(
                        f"the {self.levels[place]} '{name}' stands under '{known}' for '{of}' and under "
                        f"'{parent}' for '{label}'; give it one parent, or two names."
                    )

    def require(self, labels: Sequence[str]) -> None:
        """Whether every label has its names.

        Raises:
            LabelError: Naming labels without.
        """
        absent = sorted(set(labels) - set(self.names))
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            raise LabelError(
                f"the taxonomy does not know {', '.join(absent[:5])}{more}; add a line for each label."
            )

    def roll_up(
        self,
        probabilities: Float[np.ndarray, "N C"],
        labels: Sequence[str],
        *,
        least: float = LEAST,
    ) -> list[Name]:
        """The deepest name of each photo that is likely enough.

        The probability of a name is the sum over the labels below it, so that a photo torn between two
        species of a genus is still named by its genus.

        Args:
            probabilities: Of each label for each photo.
            labels: Of the columns.
            least: Probability that a name must reach, in (0, 1].

        Raises:
            LabelError: If a label is not in the taxonomy.
            InputError: If ``least`` is out of range.
        """
        if not 0 < least <= 1:
            raise InputError(f"a name's least probability must lie in (0, 1], got {least:g}.")
        self.require(labels)
        best = probabilities.argmax(axis=1)
        found = [
            Name(self.finest, labels[column], float(chance)) if chance >= least else None
            for column, chance in zip(best, probabilities.max(axis=1), strict=True)
        ]
        last = np.zeros(len(found))
        for place in reversed(range(len(self.levels))):
            sums, names = self._sums(probabilities, labels, place)
            if not names:
                continue
            column, chance = sums.argmax(axis=1), sums.max(axis=1)
            last = chance
            for row in np.flatnonzero(chance >= least):
                if found[row] is None:
                    found[row] = Name(
                        self.levels[place], names[column[row]], float(min(chance[row], 1.0))
                    )
        if not self.levels:
            last = probabilities.max(axis=1)
        return [
            name or Name(None, None, float(min(chance, 1.0)))
            for name, chance in zip(found, last, strict=True)
        ]

    def _sums(
        self, probabilities: Float[np.ndarray, "N C"], labels: Sequence[str], place: int
    ) -> tuple[Float[np.ndarray, "N G"], list[str]]:
        of = [self.names[label][place] for label in labels]
        names = sorted({name for name in of if name is not None})
        at = {name: column for column, name in enumerate(names)}
        member = np.zeros((len(labels), len(names)))
        for row, name in enumerate(of):
            if name is not None:
                member[row, at[name]] = 1
        return probabilities @ member, names
