"""What to label next: the photos that stand for most of what no label stands for yet."""

import heapq
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from fieldmark.errors import InputError
from fieldmark.evaluation.knn import nearest_columns
from fieldmark.evaluation.retrieval import CHUNK_BYTES, score_blocks, unit_rows
from fieldmark.label.heads import HeadSpec

Vectors = Float[np.ndarray, "N D"]

WIDTH = 0.15
"""Distance in cosine at which one photo stands for another by 1/e, the mean photo taken out."""
NEIGHBOURS = 64
"""Others, at most, for which a photo stands."""
BALANCE = 0.5
"""How much photos of classes that seem rare count more, as a power of 1 / (expected photos)."""

GUESSES, GUESS_TEMPERATURE = HeadSpec("logistic", 10.0), 0.7
"""Head that guesses at classes for the balance; which one matters little, so none is looked for."""


class Picked(NamedTuple):
    """Photos to label, most useful first."""

    rows: Int[np.ndarray, " K"]
    gains: Float[np.ndarray, " K"]
    """What each adds, as a share of all that there is to stand for, in [0, 1]."""


class Likeness(NamedTuple):
    """How well photos stand for each other, in [0, 1], as a sparse symmetric matrix."""

    of: csr_matrix

    def best(self, labelled: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """How well the best of the labelled photos stands for each photo."""
        if not labelled.any():
            return np.zeros(len(labelled))
        return self.of[:, np.flatnonzero(labelled)].max(axis=1).toarray().ravel()

    def covered(self, labelled: Bool[np.ndarray, " N"]) -> float:
        """Share of all photos that labelled ones stand for, in [0, 1]."""
        return float(self.best(labelled).mean()) if len(labelled) else 0.0


def fit_likeness(
    embeddings: Vectors, *, width: float = WIDTH, neighbours: int = NEIGHBOURS
) -> Likeness:
    """Compare photos with their nearest; once for a pool, whatever is labelled later.

    Args:
        embeddings: Of the pool, labelled photos too.
        width: Above 0, in cosine.
        neighbours: >= 1.

    Raises:
        InputError: If a number is out of range.
    """
    if width <= 0 or neighbours < 1:
        raise InputError(
            f"width must be above 0 and neighbours at least 1, got {width:g} and {neighbours}; "
            f"{WIDTH} and {NEIGHBOURS} are usual."
        )
    x = unit_rows(embeddings, "embeddings")
    # Without whitening all photos share a large mean, and cosines crowd near 1.
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    count = min(neighbours + 1, len(x))
    columns = np.empty((len(x), count), np.int32)
    values = np.empty((len(x), count), np.float32)
    for first, block in score_blocks(x, x, CHUNK_BYTES):
        near = nearest_columns(torch.from_numpy(block), count)
        columns[first : first + len(block)] = near
        values[first : first + len(block)] = np.exp(
            (np.take_along_axis(block, near, axis=1) - 1) / width
        )
    starts = np.arange(0, len(x) * count + 1, count)
    one_way = csr_matrix((values.ravel(), columns.ravel(), starts), shape=(len(x), len(x)))
    both = one_way.maximum(one_way.T).tocsr()
    both.setdiag(1.0)
    return Likeness(both)


def pick_next(
    likeness: Likeness,
    labelled: Bool[np.ndarray, " N"],
    count: int,
    *,
    probabilities: Float[np.ndarray, "N C"] | None = None,
    balance: float = BALANCE,
    allowed: Bool[np.ndarray, " N"] | None = None,
) -> Picked:
    """Choose photos so that every photo has one with a label that stands for it.

    The gain of a photo is by how much better the pool is stood for with it than without, where photos
    of classes that seem rare count more. So crowded places that no label reaches come first (density,
    and what the labels have not seen), never twins of each other (diversity), and the tail is not
    drowned by the head (balance). The greedy choice is within 1 - 1/e of the best (the sum of maxima is
    submodular); most gains need not be computed anew, for they only shrink.

    Args:
        likeness: Of the pool.
        labelled: Which photos have a label.
        count: How many to choose, >= 1.
        probabilities: Of classes for each photo by a head fitted on the labels; without, all photos
            count alike.
        balance: 0 for none; 1 counts each class alike.
        allowed: Which may be chosen; all without a label by default.

    Raises:
        InputError: If ``count`` is not positive.

    Source:
        Facility location: Wei, Iyer and Bilmes 2015, ICML; lazy greedy: Minoux 1978.
    """
    if count < 1:
        raise InputError(f"how many to label must be at least 1, got {count}.")
    stands = likeness.of
    weight = np.ones(len(labelled))
    if probabilities is not None and probabilities.shape[1] > 1:
        # A photo counts by the inverse of how many there seem to be of what it may be.
        weight = (probabilities @ (1 / probabilities.sum(axis=0))) ** balance
    weight = weight / weight.sum()
    covered = likeness.best(labelled)
    free = ~labelled if allowed is None else allowed & ~labelled

    def gain(row: int) -> float:
        start, end = stands.indptr[row], stands.indptr[row + 1]
        near = stands.indices[start:end]
        return float(weight[near] @ np.maximum(stands.data[start:end] - covered[near], 0))

    queue = [(-gain(int(row)), int(row)) for row in np.flatnonzero(free)]
    heapq.heapify(queue)
    rows: list[int] = []
    gains: list[float] = []
    while queue and len(rows) < count:
        _, row = heapq.heappop(queue)
        now = gain(row)
        if queue and -now > queue[0][0]:
            heapq.heappush(queue, (-now, row))
            continue
        rows.append(row)
        gains.append(now)
        start, end = stands.indptr[row], stands.indptr[row + 1]
        near = stands.indices[start:end]
        covered[near] = np.maximum(covered[near], stands.data[start:end])
    return Picked(np.array(rows, np.int64), np.array(gains))
