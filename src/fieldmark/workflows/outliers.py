"""``fieldmark outliers``: photos that are least like the rest, or least like their own label's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark import storage
from fieldmark.data.tables import csv_text
from fieldmark.errors import InputError, OutputError
from fieldmark.index.alike import doubt_labels, read_items, unlikeness
from fieldmark.index.places import Place, open_index, shown


class Ranked(NamedTuple):
    """Photos that can be judged, the oddest first."""

    rows: Int[np.ndarray, " M"]
    scores: Float[np.ndarray, " M"]
    nearest: list[str | None]
    """The other label that each is nearest to; None where labels are not asked for."""
    usual: float | None
    """Median score, to four digits; None where nothing can be judged."""


def rank_outliers(
    labels: Sequence[str | None], x: Float[np.ndarray, "N D"], *, by_label: bool = False
) -> Ranked | None:
    """Rank photos that are held in memory; see :func:`find_outliers`.

    Args:
        labels: Of each photo.
        x: Unit vectors.
        by_label: Compare with the photo's own label.

    Returns:
        None where fewer than two labels are known and they are asked for.
    """
    names = sorted({label for label in labels if label is not None})
    nearest = np.full(len(labels), -1)
    if by_label:
        if len(names) < 2:
            return None
        number = {name: i for i, name in enumerate(names)}
        scores, nearest = doubt_labels(
            x, np.array([-1 if label is None else number[label] for label in labels])
        )
    else:
        scores = unlikeness(x)
    judged = np.flatnonzero(~np.isnan(scores))
    worst = judged[np.argsort(-scores[judged], kind="stable")]
    told = [names[near] if near >= 0 else None for near in nearest[worst].tolist()]
    usual = round(float(np.median(scores[judged])), 4) if len(judged) else None
    return Ranked(worst, scores[worst], told, usual)


def find_outliers(
    index: Place,
    *,
    count: int = 50,
    by_label: bool = False,
    where: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Rank photos by how little they belong.

    Args:
        index: Folder, or a server's URL.
        count: How many of the worst.
        by_label: Compare with the photo's own label instead of with all photos.
        where: Only these photos.
        out: CSV to write: ``path,score,label,nearest``.

    Returns:
        ``index``, ``photos`` (judged), ``by_label``, ``doubted`` (of labels: photos nearer to
        another, score above 0; else None), ``usual`` (median score), and ``outliers``: ``path``,
        ``score`` (:func:`fieldmark.index.alike.unlikeness`, or of
        :func:`fieldmark.index.alike.doubt_labels`), ``label``, and ``nearest`` (the other label, or
        None).

    Raises:
        InputError: ``by_label`` where fewer than two labels are known.
        OutputError: The table is there already.
    """
    if out is not None and out.exists():
        raise OutputError(f"{out} is there already; nothing is overwritten. Give another name.")
    with open_index(index) as opened:
        items, x = read_items(opened, where)
    ranked = rank_outliers([item.label for item in items], x, by_label=by_label)
    if ranked is None:
        names = {item.label for item in items} - {None}
        raise InputError(
            f"{shown(index)} has {len(names)} labels; to find photos unlike their own label's there must be "
            "two or more. Leave out --by-label."
        )
    judged, scores, worst = ranked.rows, ranked.scores, ranked.rows[:count]
    rows = [
        {
            "path": items[row].key,
            "score": round(float(score), 4),
            "label": items[row].label,
            "nearest": nearest,
        }
        for row, score, nearest in zip(worst.tolist(), scores, ranked.nearest, strict=False)
    ]
    if out is not None:
        header = ["path", "score", "label", "nearest"]
        storage.write_text(out, csv_text(header, (row.values() for row in rows)))
    return {
        "index": shown(index),
        "photos": len(judged),
        "by_label": by_label,
        "doubted": int((scores > 0).sum()) if by_label else None,
        "usual": ranked.usual,
        "out": str(out) if out else None,
        "outliers": rows,
    }
