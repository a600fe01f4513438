"""Weighted nearest-neighbour classification (docs/protocols.md)."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark.errors import InputError
from fieldmark.evaluation.retrieval import CHUNK_BYTES, Matrix, score_blocks, unit_rows


def weighted_knn(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "Q D"] | Float[torch.Tensor, "Q D"],
    *,
    classes: int,
    k: int = 200,
    temperature: float = 0.1,
    chunk_bytes: int = CHUNK_BYTES,
) -> Int[np.ndarray, " Q"]:
    """Classify each test photo by the votes of its nearest train photos.

    A neighbour votes for its class with weight ``exp(cosine / temperature)``. Ties: of equally near
    photos the smaller train index votes; of equal vote counts the smaller class wins.

    Args:
        train: Embeddings of labelled photos (the memory).
        train_labels: Their classes, 0 to ``classes - 1``.
        test: Embeddings to classify.
        classes: Number of classes.
        k: Neighbours that vote, >= 1; the whole memory when it is smaller.
        temperature: Above 0; smaller trusts the nearest more.
        chunk_bytes: Most bytes of one block of similarities.

    Returns:
        Predicted class of each test photo.

    Raises:
        InputError: If a value is out of range or an embedding is zero or not finite.

    Source:
        Wu et al. 2018, arXiv:1805.01978, section 3.4.
    """
    predicted = [
        votes.argmax(axis=1)
        for votes in neighbour_votes(
            train,
            train_labels,
            test,
            classes=classes,
            k=k,
            temperature=temperature,
            chunk_bytes=chunk_bytes,
        )
    ]
    return np.concatenate(predicted) if predicted else np.empty(0, np.int64)


def neighbour_votes(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "Q D"] | Float[torch.Tensor, "Q D"],
    *,
    classes: int,
    k: int,
    temperature: float = 0.1,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Float[np.ndarray, "B C"]]:
    """What the nearest train photos say of each test photo, block by block.

    Args:
        train: As for :func:`weighted_knn`, with the rest.
        train_labels: Classes of the memory.
        test: Embeddings to classify.
        classes: Number of classes.
        k: Neighbours that vote, >= 1.
        temperature: Above 0.
        chunk_bytes: Most bytes of one block of similarities.

    Yields:
        Votes of each class; the nearest photo's vote is 1.

    Raises:
        InputError: If a value is out of range or an embedding is zero or not finite.
    """
    if k < 1 or temperature <= 0:
        raise InputError(
            f"kNN needs k >= 1 and temperature > 0, got k={k} and temperature={temperature}; "
            "usual values are 200 and 0.1."
        )
    if len(train_labels) != len(train) or len(train) == 0:
        raise InputError(
            f"kNN got {len(train)} train embeddings and {len(train_labels)} labels; it needs one "
            "label for each and at least one."
        )
    memory, queries = unit_rows(train, "train embeddings"), unit_rows(test, "test embeddings")
    k = min(k, len(memory))
    for _, block in score_blocks(queries, memory, chunk_bytes):
        near = nearest_columns(torch.from_numpy(block), k)
        scores = np.take_along_axis(block, near, axis=1).astype(np.float64)
        # The largest weight is 1, so that a small temperature cannot overflow.
        weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
        cells = np.arange(len(block))[:, None] * classes + train_labels[near]
        votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(block) * classes)
        yield votes.reshape(-1, classes)


def nearest_columns(scores: Float[torch.Tensor, "B G"], k: int) -> Int[np.ndarray, "B K"]:
    """Columns of the k largest of each row, largest first, ties by column."""
    values, columns = torch.topk(scores, k, dim=1)
    near = columns.numpy()
    # topk breaks ties as it likes, inside and at the k-th place.
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1)
    tied |= (scores >= values[:, -1:]).sum(dim=1) > k
    for row in torch.nonzero(tied).flatten().tolist():
        near[row] = np.argsort(-scores[row].numpy(), kind="stable")[:k]
    return near
