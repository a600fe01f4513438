"""``fieldmark outliers``: photos that are least like the rest, or least like their own label's."""

from pathlib import Path
from typing import Any

import numpy as np

from fieldmark import storage
from fieldmark.data.tables import csv_text
from fieldmark.errors import InputError, OutputError
from fieldmark.index.alike import doubt_labels, read_items, unlikeness
from fieldmark.index.places import Place, open_index, shown


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
    names = sorted({item.label for item in items if item.label is not None})
    nearest = np.full(len(items), -1)
    if by_label:
        if len(names) < 2:
            raise InputError(
                f"{shown(index)} has {len(names)} labels; to find photos unlike their own label's there "
                "must be two or more. Leave out --by-label."
            )
        number = {name: i for i, name in enumerate(names)}
        labels = np.array([-1 if item.label is None else number[item.label] for item in items])
        scores, nearest = doubt_labels(x, labels)
    else:
        scores = unlikeness(x)
    judged = np.flatnonzero(~np.isnan(scores))
    worst = judged[np.argsort(-scores[judged], kind="stable")][:count]
    rows = [
        {
            "path": items[row].key,
            "score": round(float(scores[row]), 4),
            "label": items[row].label,
            "nearest": names[nearest[row]] if nearest[row] >= 0 else None,
        }
        for row in worst.tolist()
    ]
    if out is not None:
        header = ["path", "score", "label", "nearest"]
        storage.write_text(out, csv_text(header, (row.values() for row in rows)))
    return {
        "index": shown(index),
        "photos": len(judged),
        "by_label": by_label,
        "doubted": int((scores[judged] > 0).sum()) if by_label else None,
        "usual": round(float(np.median(scores[judged])), 4) if len(judged) else None,
        "out": str(out) if out else None,
        "outliers": rows,
    }
