"""What tells one species from another: five small marks in four forms each.

A species is a word of a linear code of length 5 over the field of four elements. Any two of the
first 16 species differ in exactly four of the five marks (the doubly extended Reed-Solomon
code), any two of all 64 in at least three, and every form of every mark is equally common. So no
single mark names a species, and one hidden mark does not make a photo hopeless.
"""

from typing import NamedTuple

MARKS = ("wing", "eye", "bill", "crown", "tail")
"""The five marks, in the order of the code."""

FORMS: dict[str, tuple[str, str, str, str]] = {
    "wing": ("broad wing bar", "two wing bars", "shoulder patch", "pale wing tip"),
    "eye": ("eye ring", "eye stripe", "brow", "cheek spot"),
    "bill": ("stout bill", "long straight bill", "down-curved bill", "up-curved bill"),
    "crown": ("cap", "crest", "hind-crown patch", "forehead blaze"),
    "tail": ("tail band", "tail tip", "two tail bars", "pale tail edges"),
}
"""What each mark can look like, by its form 0 to 3."""

SPECIES_LIMIT = 64
"""Most species there are."""

_FIRST = ("ringed", "striped", "browed", "cheeked")
_SECOND = ("capped", "crested", "naped", "blazed")
_NAMES = ("finch", "needlebill", "sicklebill", "awlbill")
_GENERATORS = ((1, 1, 1, 1, 0), (0, 1, 2, 3, 1), (0, 0, 1, 1, 1))


class Species(NamedTuple):
    """One kind of bird."""

    number: int
    """Also the label of its photos."""
    name: str
    """Also its folder's name; the number in front keeps folders in the order of the labels."""
    forms: tuple[int, ...]
    """Form of each mark, 0 to 3, in the order of ``MARKS``."""

    @property
    def description(self) -> str:
        """The marks in words."""
        return ", ".join(FORMS[mark][form] for mark, form in zip(MARKS, self.forms, strict=True))


def _times(a: int, b: int) -> int:
    # In the field of four elements 1, 2, 3 are the powers 0, 1, 2 of one element; addition is XOR.
    return (a + b - 2) % 3 + 1 if a and b else 0


def species(number: int) -> Species:
    """Describe one species.

    Args:
        number: 0 to ``SPECIES_LIMIT`` - 1. A species does not depend on how many are drawn.
    """
    digits = (number % 4, number // 4 % 4, number // 16)
    forms = [0] * len(MARKS)
    for digit, generator in zip(digits, _GENERATORS, strict=True):
        forms = [form ^ _times(digit, entry) for form, entry in zip(forms, generator, strict=True)]
    # Any three marks fix the word, so names made of three marks are unique.
    name = f"{_FIRST[forms[1]]}-{_SECOND[forms[3]]}-{_NAMES[forms[2]]}"
    return Species(number, f"{number:02d}-{name}", tuple(forms))
