"""One self-contained page that tells whether training helped, with pictures."""

from fieldmark.evaluation.report.data import (
    BadPhoto,
    ConfusablePair,
    EmbeddingMap,
    Facts,
    Grid,
    Measure,
    Neighbour,
    NeighbourSheet,
    Outcome,
    ReportData,
    WeightsFacts,
)
from fieldmark.evaluation.report.render import page_of, render
from fieldmark.evaluation.report.sheets import (
    choose_points,
    confusable_pairs,
    encode_photos,
    neighbour_sheets,
    photo_ids_of,
)

__all__ = [
    "BadPhoto",
    "ConfusablePair",
    "EmbeddingMap",
    "Facts",
    "Grid",
    "Measure",
    "Neighbour",
    "NeighbourSheet",
    "Outcome",
    "ReportData",
    "WeightsFacts",
    "choose_points",
    "confusable_pairs",
    "encode_photos",
    "neighbour_sheets",
    "page_of",
    "photo_ids_of",
    "render",
]
