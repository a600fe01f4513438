"""Who is unusually near to whom in an index, and who is far from everyone.

Plain functions on unit vectors. Nothing here holds an N × N matrix: neighbours come from FAISS, distances
to everyone from a sample.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fieldmark import rng
from fieldmark.errors import InputError
from fieldmark.index.index import Index, Item
from fieldmark.index.nearest import Nearest
from fieldmark.index.where import Where

NEIGHBOURS = 20
"""Of each photo, for finding pairs."""
_USUAL = 5
"""The neighbour that tells how near photos usually are: beyond a few copies of one photo."""
_CHUNK = 4096
_SAMPLE = 2000
_SHARE = 0.05
"""Of all photos, within the distance that tells how unlike the rest a photo is."""
_VOTERS = 3

Unit = Float[np.ndarray, "N D"]


class Around(NamedTuple):
    """Neighbours of every photo, itself left out, nearest first; -1 where there are fewer."""

    rows: Int[np.ndarray, "N K"]
    cosines: Float[np.ndarray, "N K"]


class Pairs(NamedTuple):
    """Two photos each, the first with the lower row."""

    rows: Int[np.ndarray, "P 2"]
    cosines: Float[np.ndarray, " P"]


class Held(NamedTuple):
    """Items of an index and their vectors, row by row."""

    items: list[Item]
    vectors: Unit


def read_items(
    index: Index, where: str | Where | None = None, *, identity: str | None = None
) -> Held:
    """Items with their vectors, by key; those without one in this space are left out.

    Args:
        index: Open.
        where: Only these.
        identity: Encoder; the current one by default.

    Raises:
        InputError: Nothing was ever added.
    """
    told = index.stats()
    identity = identity or told.current
    dims = [space.dim for space in told.spaces if space.identity == identity]
    if identity is None or not dims:
        raise InputError("the index is empty; add photos with fieldmark index first.")
    lacking = set(index.pending(identity))
    items = [item for item in index.items(where) if item.key not in lacking]
    vectors = np.empty((len(items), dims[0]), np.float32)
    for begin in range(0, len(items), _CHUNK):
        part = [item.key for item in items[begin : begin + _CHUNK]]
        vectors[begin : begin + len(part)] = index.vectors(part, identity=identity)
    return Held(items, vectors)


def neighbours(x: Unit, k: int = NEIGHBOURS) -> Around:
    """Nearest others of each row.

    Args:
        x: Unit vectors.
        k: How many.
    """
    k = max(1, min(k, len(x) - 1))
    rows = np.full((len(x), k), -1, np.int64)
    cosines = np.full((len(x), k), -np.inf, np.float32)
    if len(x) < 2:
        return Around(rows, cosines)
    nearest = Nearest.build(np.arange(len(x)), x)
    for begin in range(0, len(x), _CHUNK):
        own = np.arange(begin, min(begin + _CHUNK, len(x)))
        found = nearest.search(x[own], k + 1)
        # Of several that are the same the photo itself need not come first, or at all.
        last = np.argsort(found.ids == own[:, None], axis=1, kind="stable")[:, :k]
        rows[own] = np.take_along_axis(found.ids, last, axis=1)
        cosines[own] = np.take_along_axis(found.scores, last, axis=1)
    return Around(rows, cosines)


def usual_distance(around: Around) -> float:
    """How far photos of this index usually are from those that are like them.

    The median of 1 − cosine to the fifth nearest: a measure of this encoder and these photos, which a
    few copies of each photo do not change.
    """
    place = min(_USUAL, around.cosines.shape[1]) - 1
    known = around.cosines[:, place][around.rows[:, place] >= 0]
    return float(np.median(1 - known)) if len(known) else 0.0


def close_pairs(around: Around, cosine: float) -> Pairs:
    """Pairs at least this much alike, each once, the nearest first."""
    first, place = np.nonzero((around.rows >= 0) & (around.cosines >= cosine))
    rows = np.sort(np.stack([first, around.rows[first, place]], axis=1), axis=1)
    rows, chosen = np.unique(rows, axis=0, return_index=True)
    found = around.cosines[first, place][chosen]
    order = np.argsort(-found, kind="stable")
    return Pairs(rows[order], found[order])


def connected(pairs: Int[np.ndarray, "P 2"], count: int) -> list[list[int]]:
    """Groups of rows that pairs connect, of two or more."""
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if count else []
    return sorted(part.tolist() for part in parts if len(part) > 1)


def unlikeness(x: Unit) -> Float[np.ndarray, " N"]:
    """How far each photo is from the nearest twentieth of all: what belongs to none of them is far.

    The nearest few say little: foreign photos are near each other, for the encoder never learned to
    tell *them* apart. Among a twentieth of all photos there must be others than their own kind, so
    that foreign kinds are found up to about that share (measured in benchmarks/duplicates.py).

    Args:
        x: Unit vectors.

    Returns:
        1 − cosine, in [0, 2].
    """
    rows = np.arange(len(x))
    sample = x[np.sort(np.argsort(rng.mix("unlike", rows), kind="stable")[:_SAMPLE])]
    found = np.zeros(len(x), np.float32)
    for begin in range(0, len(x), _CHUNK):
        found[begin : begin + _CHUNK] = np.quantile(
            1 - x[begin : begin + _CHUNK] @ sample.T, _SHARE, axis=1
        )
    return found


class Doubt(NamedTuple):
    """How much each photo's label is doubted."""

    score: Float[np.ndarray, " N"]
    """Cosine of the nearest photos of other labels minus that of the nearest of its own, in [-2, 2];
    NaN where there is no label or no other photo of it."""
    nearest: Int[np.ndarray, " N"]
    """Label of the nearest photo of another label; -1 where there is none."""


def doubt_labels(x: Unit, labels: Int[np.ndarray, " N"]) -> Doubt:
    """Photos that are less like their own label's than like others'.

    Args:
        x: Unit vectors.
        labels: Numbers from 0; -1 for none.
    """
    score = np.full(len(x), np.nan, np.float32)
    nearest = np.full(len(x), -1, np.int64)
    kinds = [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
    known = np.flatnonzero(labels >= 0)
    if sum(len(rows) > 0 for rows in kinds) < 2:
        return Doubt(score, nearest)
    everyone = Nearest.build(known, x[known])
    for rows in kinds:
        if len(rows) < 2:
            continue
        others = np.setdiff1d(known, rows, assume_unique=True)
        own = neighbours(x[rows], _VOTERS).cosines.mean(axis=1)
        for part in _split(len(rows)):
            found = everyone.search(x[rows[part]], min(_VOTERS, len(others)), among=others)
            score[rows[part]] = found.scores.mean(axis=1) - own[part]
            nearest[rows[part]] = labels[found.ids[:, 0]]
    return Doubt(score, nearest)


def _split(count: int) -> Iterator[slice]:
    for begin in range(0, count, _CHUNK):
        yield slice(begin, begin + _CHUNK)
