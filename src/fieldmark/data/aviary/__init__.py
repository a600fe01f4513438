"""Aviary: look-alike birds that fieldmark draws itself, for the demo, the tests and the docs.

Species differ in five small marks (wing, eye, bill, crown, tail). Pose, size, plumage, light,
background and leaves before the bird vary freely and are the same for all species.
"""

from fieldmark.data.aviary.drawing import VERSION, Aviary, AviaryConfig, draw, swapped_places
from fieldmark.data.aviary.files import write
from fieldmark.data.aviary.paint import PARTS
from fieldmark.data.aviary.species import FORMS, MARKS, SPECIES_LIMIT, Species, species

__all__ = [
    "FORMS",
    "MARKS",
    "PARTS",
    "SPECIES_LIMIT",
    "VERSION",
    "Aviary",
    "AviaryConfig",
    "Species",
    "draw",
    "species",
    "swapped_places",
    "write",
]
