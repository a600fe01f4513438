"""Nearest neighbours for picture sheets, and the classes that are most taken for each other."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark.evaluation.knn import nearest_columns
from fieldmark.evaluation.retrieval import Matrix, score_blocks, unit_rows
from fieldmark.rng import mix


class Confusion(NamedTuple):
    """Two classes that are taken for each other."""

    first: int
    second: int
    share: float
    """Percent of the two classes' photos that are taken for the other."""
    photos_first: Int[np.ndarray, " A"]
    """Photos of the first class, those taken for the second before the rest."""
    photos_second: Int[np.ndarray, " B"]


class SheetRow(NamedTuple):
    """A query and what both encoders find for it, nearest first."""

    query: int
    start: Int[np.ndarray, " K"]
    trained: Int[np.ndarray, " K"]


def neighbours(
    embeddings: Matrix, k: int, *, queries: Int[np.ndarray, " Q"] | None = None
) -> Int[np.ndarray, "M K"]:
    """Rows of the ``k`` nearest other photos, nearest first, ties by row.

    Args:
        embeddings: Photos to search among.
        k: Neighbours wanted; fewer come when there are fewer photos.
        queries: Rows that ask; all when None.
    """
    unit = unit_rows(embeddings, "embeddings")
    rows = np.arange(len(unit)) if queries is None else np.asarray(queries)
    k = min(k, len(unit) - 1)
    found = np.empty((len(rows), max(0, k)), np.int64)
    if k < 1:
        return found
    for start, block in score_blocks(unit[rows], unit, 64 * 2**20):
        part = rows[start : start + len(block)]
        block[np.arange(len(block)), part] = -np.inf
        found[start : start + len(block)] = nearest_columns(torch.from_numpy(block), k)
    return found


def confusable_pairs(
    predicted: Int[np.ndarray, " N"],
    labels: Int[np.ndarray, " N"],
    *,
    limit: int = 12,
    examples: int = 4,
) -> list[Confusion]:
    """Pairs of classes most often taken for each other, worst first.

    Args:
        predicted: Class given to each photo, by the nearest neighbour, kNN or a probe.
        labels: True classes.
        limit: Most pairs.
        examples: Photos of each class to name.
    """
    sizes = np.bincount(labels)
    wrong = np.flatnonzero(predicted != labels)
    pairs = np.sort(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    ranked = []
    for (first, second), count in zip(unique.tolist(), counts.tolist()):
        both = sum(int(sizes[c]) for c in (first, second) if c < len(sizes))
        ranked.append((-100 * count / both, first, second))
    result = []
    for negative, first, second in sorted(ranked)[:limit]:
        shown = []
        for one, other in ((first, second), (second, first)):
            members = np.flatnonzero(labels == one)
            taken = predicted[members] == other
            shown.append(np.concatenate([members[taken], members[~taken]])[:examples])
        result.append(Confusion(first, second, -negative, shown[0], shown[1]))
    return result


def choose_queries(
    start: Float[np.ndarray, " Q"], trained: Float[np.ndarray, " Q"], count: int, *, seed: int = 0
) -> Int[np.ndarray, " K"]:
    """Queries for a sheet that shows both sides: a third gained most, a third lost most, rest random.

    Args:
        start: Average precision of each query under the start; NaN for lone queries.
        trained: The same of the other encoder.
        count: Queries wanted.
        seed: Chooses the random third.
    """
    known = np.flatnonzero(~np.isnan(start) & ~np.isnan(trained))
    gain = (trained - start)[known]
    order = known[np.argsort(-gain, kind="stable")]
    moved = [int(row) for row in order if trained[row] != start[row]]
    third = min(count // 3, len(moved) // 2)
    chosen = moved[:third] + moved[len(moved) - third :]
    shuffled = known[np.argsort(mix("sheet", seed, known), kind="stable")]
    chosen += [int(row) for row in shuffled if row not in set(chosen)][: count - len(chosen)]
    return np.array(chosen, np.int64)


def neighbour_sheet(
    start: Matrix, trained: Matrix, queries: Int[np.ndarray, " Q"], *, k: int = 6
) -> list[SheetRow]:
    """What both encoders find for some of the photos."""
    before, after = neighbours(start, k, queries=queries), neighbours(trained, k, queries=queries)
    return [SheetRow(int(q), a, b) for q, a, b in zip(queries, before, after)]
