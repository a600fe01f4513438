"""Geometry of the embedding map: where each photo stands, which classes are coloured."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from fieldmark.evaluation.report.data import ConfusablePair, EmbeddingMap

SIDE = 460
_PAD = 16

SHAPES = (
    "M0-5A5 5 0 1 1 0 5 5 5 0 1 1 0-5Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6L5.6 4.2H-5.6Z",
    "M0-6.2 5.2 0 0 6.2-5.2 0Z",
    "M0 6L5.6-4.2H-5.6Z",
    "M-1.8-5.5H1.8V-1.8H5.5V1.8H1.8V5.5H-1.8V1.8H-5.5V-1.8H-1.8Z",
    "M-4.9-2.8 0-5.6 4.9-2.8V2.8L0 5.6-4.9 2.8Z",
    "M-3.9-6 0-2.1 3.9-6 6-3.9 2.1 0 6 3.9 3.9 6 0 2.1-3.9 6-6 3.9-2.1 0-6-3.9Z",
)
"""One shape per coloured class: colour is never the only mark."""


@dataclass(frozen=True)
class Point:
    """One photo of the map, ready to draw."""

    index: int
    kind: int | None
    """Which of the coloured classes, or None."""
    start: tuple[float, float]
    trained: tuple[float, float] | None


@dataclass(frozen=True)
class MapDrawing:
    """The map's points, legend, and what the script needs."""

    points: tuple[Point, ...]
    legend: tuple[str, ...]
    names: tuple[str, ...]
    script: dict[str, Any]


def draw_map(
    data: EmbeddingMap, pairs: Sequence[ConfusablePair], photo_index: dict[str, int]
) -> MapDrawing | None:
    """Lay the map out in a square of ``SIDE`` units.

    The trained map is turned and mirrored onto the start's (orthogonal Procrustes): a plane made
    by t-SNE or PCA has no up, and without this every photo would jump for no reason.
    """
    count = len(data.photos)
    if count < 3 or len(data.start) != count or len(data.labels) != count:
        return None
    start = _unit(np.asarray(data.start, dtype=np.float64))
    trained = None
    if len(data.trained) == count:
        moved = _unit(np.asarray(data.trained, dtype=np.float64))
        left, _, right = np.linalg.svd(moved.T @ start)
        trained = _fit(moved @ (left @ right))
    start = _fit(start)
    legend = coloured_classes(data.labels, pairs)
    kinds = {name: index for index, name in enumerate(legend)}
    names = sorted({label for label in data.labels if label is not None})
    of_name = {name: index for index, name in enumerate(names)}
    points = tuple(
        Point(
            index,
            kinds.get(label) if label is not None else None,
            (round(start[index, 0], 1), round(start[index, 1], 1)),
            None if trained is None else (round(trained[index, 0], 1), round(trained[index, 1], 1)),
        )
        for index, label in enumerate(data.labels)
    )
    script = {
        "photos": [photo_index.get(photo, -1) for photo in data.photos],
        "ids": list(data.photos),
        "classes": [of_name[label] if label is not None else -1 for label in data.labels],
        "names": names,
        "legend": [of_name[name] for name in legend],
        "start": [list(point.start) for point in points],
        "trained": [list(point.trained) for point in points if point.trained is not None],
        "side": SIDE,
    }
    # Grey points first, so that coloured ones lie on top.
    ordered = tuple(sorted(points, key=lambda point: point.kind is not None))
    return MapDrawing(ordered, legend, tuple(names), script)


def coloured_classes(
    labels: Sequence[str | None], pairs: Sequence[ConfusablePair]
) -> tuple[str, ...]:
    """Up to eight classes worth telling apart: the most confusable first, then the largest."""
    sizes = Counter(label for label in labels if label is not None)
    wanted = [name for pair in pairs for name in (pair.first, pair.second)]
    wanted += [name for name, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    return tuple(dict.fromkeys(name for name in wanted if name in sizes))[: len(SHAPES)]


def _unit(xy: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    centred = np.nan_to_num(xy) - np.nan_to_num(xy).mean(axis=0)
    return centred / (np.sqrt((centred**2).sum(axis=1).mean()) or 1.0)


def _fit(xy: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    low, high = xy.min(axis=0), xy.max(axis=0)
    scale = (SIDE - 2 * _PAD) / max(float((high - low).max()), 1e-9)
    return (xy - (low + high) / 2) * scale + SIDE / 2
