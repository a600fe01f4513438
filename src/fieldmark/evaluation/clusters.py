"""Do clusters found without labels agree with the classes? NMI, ARI, accuracy of the best match."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from fieldmark.errors import InputError
from fieldmark.evaluation.retrieval import Matrix, unit_rows


class Agreement(NamedTuple):
    """How far clusters and classes agree, percent."""

    nmi: float
    """Normalised mutual information (arithmetic mean of the entropies)."""
    ari: float
    """Adjusted Rand index; 0 is chance."""
    accuracy: float
    """Share of photos whose cluster is matched with their class, clusters and classes matched one to
    one so that it is largest."""


class Clustering(NamedTuple):
    """What k-means found."""

    measures: dict[str, float]
    """``nmi``, ``ari`` and ``cluster_accuracy``: mean over seeds, percent."""
    spread: dict[str, float]
    """Standard deviation over seeds, points."""
    clusters: Int[np.ndarray, "S N"]
    """Cluster of each photo, by seed."""


def cluster(
    embeddings: Matrix,
    labels: Int[np.ndarray, " N"],
    *,
    clusters: int = 0,
    seeds: Iterable[int] = range(3),
    starts: int = 10,
) -> Clustering:
    """K-means of L2-normalised embeddings, compared with the classes.

    Args:
        embeddings: One row a photo.
        labels: Classes; used for comparing, never for clustering.
        clusters: How many; 0 for as many as there are classes, as is usual.
        seeds: Of k-means; measures are averaged over them.
        starts: Starts of each, of which the tightest counts.

    Raises:
        InputError: If there are fewer photos than clusters, or an embedding is zero or not finite.
    """
    x = unit_rows(embeddings, "embeddings to cluster")
    clusters = clusters or len(np.unique(labels))
    if not 1 <= clusters <= len(x):
        raise InputError(
            f"{len(x)} photos cannot make {clusters} clusters; give at most as many as photos."
        )
    # The mean does not move clusters, and without it single precision holds more.
    x = x - x.mean(axis=0)
    found = np.stack(
        [
            KMeans(clusters, n_init=starts, random_state=seed).fit_predict(x).astype(np.int64)
            for seed in seeds
        ]
    )
    agreements = np.array([agreement(assigned, labels) for assigned in found])
    names = ("nmi", "ari", "cluster_accuracy")
    return Clustering(
        dict(zip(names, agreements.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, agreements.std(axis=0).tolist(), strict=True)),
        found,
    )


def agreement(clusters: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"]) -> Agreement:
    """Compare a grouping with classes; names of clusters do not matter.

    Source:
        Hungarian matching: Kuhn 1955; ARI: Hubert and Arabie 1985.

    Example:
        >>> agreement(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])).accuracy
        100.0
    """
    if len(clusters) != len(labels) or not len(labels):
        raise InputError(
            f"{len(clusters)} clustered photos and {len(labels)} labels; there must be one label for "
            "each and at least one."
        )
    groups, group = np.unique(clusters, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(groups), len(classes)), np.int64)
    np.add.at(counts, (group, label), 1)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return Agreement(
        float(100 * normalized_mutual_info_score(labels, clusters)),
        float(100 * adjusted_rand_score(labels, clusters)),
        float(100 * matched / len(labels)),
    )
