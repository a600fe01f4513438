"""Why two photos are a match, and what separates two classes: maps, parts, and whether to believe them."""

from fieldmark.explain.cells import Cells, read_cells
from fieldmark.explain.classes import ClassPair, Decision, Mark, explain_classes, fit_decision
from fieldmark.explain.faithfulness import Faithfulness, measure_faithfulness
from fieldmark.explain.maps import (
    PhotoMaps,
    Toward,
    attention_map,
    gradient_maps,
    photo_maps,
    toward,
)
from fieldmark.explain.pair import Match, Pair, explain_pair

__all__ = [
    "Cells",
    "ClassPair",
    "Decision",
    "Faithfulness",
    "Mark",
    "Match",
    "Pair",
    "PhotoMaps",
    "Toward",
    "attention_map",
    "explain_classes",
    "explain_pair",
    "fit_decision",
    "gradient_maps",
    "measure_faithfulness",
    "photo_maps",
    "read_cells",
    "toward",
]
