"""Leave-one-out and query/gallery retrieval: rank-k, mAP, mAP@R (docs/protocols.md, P-RET).

Average precision needs the ranks of the positives only, and a rank is one plus the number of
gallery scores that are greater. So each row of scores is sorted *by value* (numpy does that with
vector instructions, an argsort cannot) and the few positives are looked up by binary search. The
whole costs about a tenth more than the matrix product that makes the scores.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmark.errors import InputError
from fieldmark.runtime import processor_count

Matrix = Float[np.ndarray, "N D"] | Float[Tensor, "N D"]
"""Embeddings, one row each."""

CHUNK_BYTES = 256 * 2**20
"""Most bytes of one block of scores, unless said otherwise."""
_TILE = 256
"""Queries per matrix product. Constant, because the last bit of a product depends on its shape."""
_SLICE = 32
"""Rows sorted at a time by one thread: about 3 MB at 25,000 gallery photos."""


class RetrievalScores(NamedTuple):
    """What retrieval gave for each query.

    A query without another photo of its class in the gallery (a *lone* query) has rank 0 and NaN
    elsewhere; summaries skip and count it.
    """

    rank: Int[np.ndarray, " Q"]
    """Rank of the first hit, from 1; 0 for a lone query."""
    average_precision: Float[np.ndarray, " Q"]
    """Average precision over the full ranking, in (0, 1]."""
    ap_at_r: Float[np.ndarray, " Q"]
    """Average precision at R, R being the number of photos to find, in [0, 1]."""

    @property
    def lone(self) -> int:
        """Number of queries that have nothing to find."""
        return int((self.rank == 0).sum())

    def hits(self, k: int) -> Float[np.ndarray, " Q"]:
        """Whether each query has a hit among its first ``k``: 1, 0, or NaN for a lone query.

        Raises:
            InputError: If ``k`` is not positive.
        """
        if k < 1:
            raise InputError(
                f"k of rank-k must be at least 1, got {k}; usual values are 1, 5 and 10."
            )
        return np.where(self.rank == 0, np.nan, (self.rank <= k).astype(np.float64))

    def rank_k(self, k: int) -> float:
        """Rank-k (also written R@k) in percent; NaN when every query is lone."""
        return percent(self.hits(k))

    def summary(self) -> dict[str, float]:
        """``rank1``, ``rank5``, ``rank10``, ``map`` and ``map_at_r`` in percent."""
        return {
            "rank1": self.rank_k(1),
            "rank5": self.rank_k(5),
            "rank10": self.rank_k(10),
            "map": percent(self.average_precision),
            "map_at_r": percent(self.ap_at_r),
        }


def percent(values: Float[np.ndarray, " Q"]) -> float:
    """Mean of the entries that are not NaN, times 100; NaN when there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean() * 100) if len(known) else float("nan")


def evaluate_retrieval(
    embeddings: Matrix,
    labels: Int[np.ndarray, " N"],
    *,
    gallery: Float[np.ndarray, "G D"] | Float[Tensor, "G D"] | None = None,
    gallery_labels: Int[np.ndarray, " G"] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> RetrievalScores:
    """Rank a gallery for every query by cosine similarity and score the ranking.

    Without ``gallery`` every photo queries all others (leave-one-out).

    Ties: of equal scores the smaller gallery index comes first. Gallery photos with identical
    embeddings tie exactly, whatever the chunk size.

    Args:
        embeddings: Queries; any length but zero, normalised here when they are not.
        labels: Class of each query.
        gallery: Photos to search in; None for leave-one-out.
        gallery_labels: Class of each gallery photo.
        chunk_bytes: Most bytes that one block of scores may take, > 0. Results do not depend on it
            while 256 rows fit; below that the last bit of a score may differ.

    Returns:
        One entry per query.

    Raises:
        InputError: If an embedding is zero, NaN or infinite, or numbers of rows do not agree.

    Source:
        Protocol of Wei et al. 2023 (LCR), ``AP = 1/R sum_j j / rank_j``; mAP@R: Musgrave, Belongie
        and Lim 2020, arXiv:2003.08505, section 3.2.

    Example:
        >>> angles = np.radians([0, 10, 25, 90])
        >>> x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        >>> scores = evaluate_retrieval(x, np.array([0, 1, 0, 1]))
        >>> scores.rank_k(2), round(scores.summary()["map"], 4)
        (75.0, 45.8333)
    """
    if (gallery is None) != (gallery_labels is None):
        raise InputError(
            "gallery and gallery_labels belong together; give both, or none for leave-one-out."
        )
    queries = unit_rows(embeddings, "query embeddings")
    leave_one_out = gallery is None or gallery_labels is None
    if gallery is None or gallery_labels is None:
        targets, target_labels = queries, labels
    else:
        targets, target_labels = unit_rows(gallery, "gallery embeddings"), gallery_labels
    _check(queries, labels, targets, target_labels)
    scores = RetrievalScores(
        np.zeros(len(queries), np.int64),
        np.full(len(queries), np.nan),
        np.full(len(queries), np.nan),
    )
    if not len(queries) or not len(targets):
        return scores
    positives = _Positives(target_labels)
    with ThreadPoolExecutor(processor_count()) as pool:
        for start, block in score_blocks(queries, targets, chunk_bytes):
            if leave_one_out:
                own = np.arange(len(block))
                block[own, start + own] = -np.inf  # never found by itself

            def work(
                first: int, block: npt.NDArray[np.float32] = block, start: int = start
            ) -> None:
                part = slice(start + first, start + min(first + _SLICE, len(block)))
                rows = np.arange(part.start, part.stop) if leave_one_out else None
                wanted = positives.of(labels[part], exclude=rows)
                ranks = _ranks(block[first : first + _SLICE], wanted)
                for field, values in zip(scores, _score(ranks, (wanted >= 0).sum(axis=1))):
                    field[part] = values

            # list() raises what a thread raised.
            list(pool.map(work, range(0, len(block), _SLICE)))
    return scores


def evaluate_cmd_retrieval(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "Q D"] | Float[Tensor, "Q D"],
    test_labels: Int[np.ndarray, " Q"],
    *,
    every: int = 9,
    depth: int = 100,
) -> RetrievalScores:
    """Retrieval as the CMD paper measures it, which is not comparable with leave-one-out.

    Every ninth test photo asks; the gallery is all train photos and the other test photos. Average
    precision looks at the first 100 alone and is divided by the hits *among them*, so that an encoder
    that finds one of fifty photos, but first, has 1.

    Args:
        train: Embeddings of the train photos.
        train_labels: Their classes.
        test: Embeddings of the test photos, in the order of the official list.
        test_labels: Their classes.
        every: Which test photos ask.
        depth: Neighbours that are looked at.

    Returns:
        One entry per query. Where there is something to find and none of it among the first ``depth``,
        ``rank`` is one more than the gallery has photos, and ``average_precision`` 0. ``ap_at_r`` is
        NaN throughout.

    Source:
        Bi, Ji, Yi, Zhan and Xia 2025, arXiv:2401.08860, its released retrieval script.
    """
    queries = unit_rows(test, "test embeddings")
    asking = np.arange(len(queries)) % every == 0
    gallery = np.concatenate([unit_rows(train, "train embeddings"), queries[~asking]])
    gallery_labels = np.concatenate([train_labels, test_labels[~asking]])
    queries, labels = queries[asking], np.asarray(test_labels)[asking]
    _check(queries, labels, gallery, gallery_labels)
    depth = min(depth, len(gallery))
    ranks = np.zeros(len(queries), np.int64)
    precision = np.zeros(len(queries))
    for start, block in score_blocks(queries, gallery, CHUNK_BYTES):
        near = np.argsort(-block, axis=1, kind="stable")[:, :depth]
        part = slice(start, start + len(block))
        hits = gallery_labels[near] == labels[part, None]
        found = hits.sum(axis=1)
        ranks[part] = np.where(found > 0, hits.argmax(axis=1) + 1, len(gallery) + 1)
        share = hits.cumsum(axis=1) / np.arange(1, depth + 1) * hits
        precision[part] = share.sum(axis=1) / np.maximum(found, 1)
    lone = ~np.isin(labels, gallery_labels)
    ranks[lone], precision[lone] = 0, np.nan
    return RetrievalScores(ranks, precision, np.full(len(queries), np.nan))


def score_blocks(
    queries: Float[np.ndarray, "Q D"], targets: Float[np.ndarray, "G D"], chunk_bytes: int
) -> Iterator[tuple[int, Float[np.ndarray, "B G"]]]:
    """Cosine similarities of unit vectors, some rows of queries at a time.

    Yields:
        First row and a block that the next step overwrites.
    """
    if chunk_bytes < 1:
        raise InputError(f"chunk_bytes must be at least 1, got {chunk_bytes}; typical are 256 MiB.")
    tile = _TILE
    while tile > 1 and tile * len(targets) * 4 > chunk_bytes:
        tile //= 2
    first_seen = _duplicates(targets)
    left, right = torch.from_numpy(queries), torch.from_numpy(targets)
    padded = torch.zeros(tile, queries.shape[1])
    scores = torch.empty(tile, len(targets))
    for start in range(0, len(queries), tile):
        part = left[start : start + tile]
        if len(part) < tile:
            # The last tile is filled up so that its product has the shape of all others.
            padded[: len(part)] = part
            padded[len(part) :] = 0
            part = padded
        torch.mm(part, right.T, out=scores)
        block = scores.numpy()[: min(tile, len(queries) - start)]
        if len(first_seen):
            # Equal embeddings may differ in the last bit of a product by where they stand in it.
            block[:, first_seen[:, 0]] = block[:, first_seen[:, 1]]
        yield start, block


def unit_rows(embeddings: Matrix, what: str) -> Float[np.ndarray, "N D"]:
    """Embeddings as contiguous float32 unit vectors; the array itself when it is that already.

    Args:
        embeddings: Real vectors of any length but zero.
        what: What they are, for the error text.

    Raises:
        InputError: Naming the first row that is zero, NaN or infinite.
    """
    array = (
        embeddings.detach().cpu().float().numpy() if isinstance(embeddings, Tensor) else embeddings
    )
    lengths = np.empty(len(array), np.float64)
    for start in range(0, len(array), 1024):  # in pieces: float64 of everything would be large
        piece = array[start : start + 1024].astype(np.float64)
        largest = np.abs(piece).max(axis=1, initial=0.0)
        safe = np.where(largest > 0, largest, 1.0)[:, None]
        with np.errstate(invalid="ignore"):
            lengths[start : start + 1024] = np.sqrt(((piece / safe) ** 2).sum(axis=1)) * largest
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        kind = "zero" if lengths[bad[0]] == 0 else "not finite (NaN or infinity)"
        raise InputError(
            f"{what}: row {bad[0]} is {kind}, and {len(bad)} of {len(array)} rows are so; cosine "
            "similarity needs finite vectors that are not zero. The encoder has diverged or "
            "collapsed, or the photo was not embedded: leave such rows out or embed again."
        )
    if array.dtype == np.float32 and np.all(np.abs(lengths - 1) <= 1e-6):
        return np.ascontiguousarray(array)
    unit = np.empty(array.shape, np.float32)
    for start in range(0, len(array), 1024):
        piece = array[start : start + 1024].astype(np.float64)
        unit[start : start + 1024] = piece / lengths[start : start + 1024, None]
    return unit


def _duplicates(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Rows equal to an earlier one, beside the first such row, [N, 2]."""
    seen: dict[int, int] = {}
    pairs = []
    for row, vector in enumerate(vectors):
        first = seen.setdefault(hash(vector.tobytes()), row)
        # The comparison makes the result independent of the hash, which differs between processes.
        if first != row and np.array_equal(vector, vectors[first]):
            pairs.append((row, first))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _check(
    queries: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    targets: npt.NDArray[np.float32],
    target_labels: npt.NDArray[np.integer],
) -> None:
    for what, vectors, given in (
        ("query embeddings", queries, labels),
        ("gallery embeddings", targets, target_labels),
    ):
        if len(given) != len(vectors):
            raise InputError(
                f"{len(vectors)} {what} and {len(given)} labels; there must be one label for each."
            )
    if targets.shape[1] != queries.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} numbers each and the gallery has {targets.shape[1]}; "
            "both must come from the same encoder."
        )


class _Positives:
    """Gallery indices of each class, ascending."""

    def __init__(self, labels: npt.NDArray[np.integer]) -> None:
        self.order = np.argsort(labels, kind="stable")
        self.sorted = np.asarray(labels)[self.order]

    def of(
        self, labels: npt.NDArray[np.integer], exclude: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.int64]:
        """Indices to find for each query, filled up with -1 to the longest, [Q, R]."""
        first = np.searchsorted(self.sorted, labels, side="left")
        count = np.searchsorted(self.sorted, labels, side="right") - first
        place = first[:, None] + np.arange(max(1, count.max(initial=0)))
        wanted = self.order[np.minimum(place, len(self.order) - 1)]
        wanted[place >= (first + count)[:, None]] = -1
        if exclude is not None:
            wanted[wanted == exclude[:, None]] = -1
        return wanted


def _ranks(scores: npt.NDArray[np.float32], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rank of each wanted gallery index, from 1; ascending, fillers last as the largest integer."""
    rows = np.arange(len(scores))[:, None]
    ordered = np.sort(scores, axis=1)
    values = scores[rows, wanted]
    # Number of scores <= value; the wanted one is the last of them unless others tie with it.
    below = torch.searchsorted(
        torch.from_numpy(ordered), torch.from_numpy(values), right=True
    ).numpy()
    ranks = scores.shape[1] - below + 1
    tied = (ordered[rows, np.maximum(below - 2, 0)] == values) & (below > 1) & (wanted >= 0)
    for row in np.flatnonzero(tied.any(axis=1)):
        place = np.empty(scores.shape[1], np.int64)
        place[np.argsort(-scores[row], kind="stable")] = np.arange(1, scores.shape[1] + 1)
        ranks[row] = place[wanted[row]]
    ranks[wanted < 0] = np.iinfo(np.int64).max
    ranks.sort(axis=1)
    return ranks


def _score(
    ranks: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """First rank, AP and AP@R of each query from the ranks of its positives."""
    lone = count == 0
    share = np.arange(1, ranks.shape[1] + 1) / ranks
    share[np.arange(ranks.shape[1]) >= count[:, None]] = 0
    divisor = np.where(lone, 1, count)
    full = share.sum(axis=1) / divisor
    at_r = np.where(ranks <= count[:, None], share, 0).sum(axis=1) / divisor
    full[lone] = at_r[lone] = np.nan
    return np.where(lone, 0, ranks[:, 0]), full, at_r
