"""Does an encoder notice what it has never been told of? AUROC and FPR95 of unknown classes."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fieldmark.errors import InputError
from fieldmark.evaluation.retrieval import CHUNK_BYTES, Matrix, score_blocks, unit_rows
from fieldmark.rng import seed_of


class OpenSet(NamedTuple):
    """How well known and unknown classes are told apart."""

    measures: dict[str, float]
    """``auroc`` and ``fpr95``: mean over draws of the known classes, percent."""
    spread: dict[str, float]
    """Standard deviation over draws, points."""


def open_set(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "Q D"] | Float[Tensor, "Q D"],
    test_labels: Int[np.ndarray, " Q"],
    *,
    known: float = 0.5,
    k: int = 5,
    seeds: Iterable[int] = range(5),
) -> OpenSet:
    """Draw some classes as known, and ask test photos of all classes whether they are of those.

    A photo is as known as the mean cosine with its ``k`` nearest train photos of known classes.
    The encoder may have seen photos of the unknown classes, for it trained without labels; only their
    labels are new.

    Args:
        train: Embeddings of the labelled train photos.
        train_labels: Their classes.
        test: Embeddings of the test photos.
        test_labels: Their classes.
        known: Share of classes that are known, in (0, 1).
        k: Neighbours, >= 1.
        seeds: Of the draws.

    Raises:
        InputError: If a number is out of range, or there are fewer than two classes with train photos.

    Source:
        Vaze, Han, Vedaldi and Zisserman 2022, arXiv:2110.06207 (task); Sun et al. 2022,
        arXiv:2204.06507 (nearest neighbours as score).
    """
    if not 0 < known < 1 or k < 1:
        raise InputError(
            f"an open set needs a share of known classes between 0 and 1 and k >= 1, got {known} and "
            f"{k}; usual are 0.5 and 5."
        )
    classes = np.unique(train_labels)
    if len(classes) < 2 or not len(test):
        raise InputError(
            f"an open set needs two classes with train photos and some test photos, got {len(classes)} "
            f"and {len(test)}."
        )
    memory = unit_rows(train, "train embeddings")
    queries = unit_rows(test, "test embeddings")
    draws = []
    for seed in seeds:
        order = np.random.default_rng(seed_of("open-set", seed)).permutation(classes)
        chosen = order[: min(max(1, round(known * len(classes))), len(classes) - 1)]
        of_known = np.isin(test_labels, chosen)
        if of_known.all() or not of_known.any():
            continue
        scores = _nearness(queries, memory[np.isin(train_labels, chosen)], k)
        draws.append((auroc(scores, of_known), fpr95(scores, of_known)))
    if not draws:
        raise InputError(
            "no draw had test photos of known and of unknown classes; add test photos."
        )
    found = np.array(draws) * 100
    names = ("auroc", "fpr95")
    return OpenSet(
        dict(zip(names, found.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, found.std(axis=0).tolist(), strict=True)),
    )


def _nearness(
    queries: Float[np.ndarray, "Q D"], memory: Float[np.ndarray, "M D"], k: int
) -> Float[np.ndarray, " Q"]:
    scores = np.empty(len(queries), np.float64)
    k = min(k, len(memory))
    for start, block in score_blocks(queries, memory, CHUNK_BYTES):
        near = np.partition(block, len(memory) - k, axis=1)[:, len(memory) - k :]
        scores[start : start + len(block)] = near.mean(axis=1)
    return scores


def auroc(scores: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Chance that a positive has the larger score of a random pair; ties count half. In [0, 1]."""
    return float(roc_auc_score(positive, scores))


def fpr95(scores: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Share of negatives that are taken for positives where 95 % of the positives are found.

    Example:
        >>> fpr95(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False]))
        0.0
    """
    # The largest threshold that at least 95 % of the positives reach.
    ordered = np.sort(scores[positive])[::-1]
    threshold = ordered[int(np.ceil(0.95 * len(ordered))) - 1]
    return float((scores[~positive] >= threshold).mean())
