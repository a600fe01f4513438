"""Grouping the photos of an index for a person to name: more clusters than kinds, then merging.

A cluster that holds one kind is named at a glance; one that holds two must be taken apart photo by photo. So
there are more clusters than kinds, and which of them may be one is suggested.
"""

from typing import Any, NamedTuple

import faiss as typed_faiss
import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import kmeans_plusplus

from fieldmark import rng
from fieldmark.errors import InputError
from fieldmark.index.alike import neighbours

faiss: Any = typed_faiss
"""Its stubs lack half of what it has."""
PER_KIND = 3
"""Clusters for each kind that is estimated."""
MOST = 5000
"""Clusters: more nobody names, and merging compares all pairs of them."""
_ROUNDS = 2
_STEPS = 25
_SEEDED_FROM = 20
"""Photos per cluster among which first centres are chosen."""

Unit = Float[np.ndarray, "N D"]


class Clusters(NamedTuple):
    """What was found; clusters are numbered from 0, the largest first."""

    assigned: Int[np.ndarray, " N"]
    """Cluster of each photo."""
    distances: Float[np.ndarray, " N"]
    """1 − cosine of each photo to its cluster's centre."""
    centres: Float[np.ndarray, "K D"]
    """Unit vectors."""


class Merges(NamedTuple):
    """Which clusters may be one kind."""

    merged: Int[np.ndarray, " K"]
    """Group of each cluster, from 0, the largest first (by photos)."""
    pairs: Int[np.ndarray, "P 2"]
    """Clusters, the pair most alike first. Each joining of two groups is one pair, the two clusters that
    are most alike across it: answered one after the other they never ask what is known already."""
    cosines: Float[np.ndarray, " P"]
    """Of the two clusters' centres."""


def estimate_kinds(x: Unit) -> int:
    """How many kinds there may be: groups after two rounds of joining everyone to their nearest.

    Source:
        Sarfraz, Sharma, Stiefelhagen 2019, CVPR, arXiv:1902.11266 (FINCH): the second partition. With
        fieldmark's encoders it was 0.5 to 2 times the number of classes (benchmarks/clusters.py).
    """
    means = np.ascontiguousarray(x, np.float32)
    group = np.arange(len(x))
    for _ in range(_ROUNDS):
        if len(means) < 3:
            break
        nearest = neighbours(means, 1).rows[:, 0]
        links = (np.ones(len(means)), (np.arange(len(means)), nearest))
        count, joined = connected_components(
            coo_matrix(links, shape=(len(means), len(means))), directed=False
        )
        group = joined[group]
        means = _means(x, group, count)
    return len(means)


def _means(x: Unit, group: Int[np.ndarray, " N"], count: int) -> Float[np.ndarray, "K D"]:
    sums = np.zeros((count, x.shape[1]), np.float32)
    np.add.at(sums, group, x)
    # Photos that point into opposite directions have no mean.
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def find_clusters(x: Unit, count: int, *, seed: int = 0) -> Clusters:
    """Spherical k-means, the same every time.

    Args:
        x: Unit vectors.
        count: Clusters; empty ones are left out.
        seed: Of the first centres.

    Raises:
        InputError: More clusters than photos, or than ``MOST``.

    Source:
        Spherical k-means: Dhillon and Modha 2001; first centres: k-means++, Arthur and Vassilvitskii
        2007, chosen among a sample.
    """
    if not 1 <= count <= min(len(x), MOST):
        raise InputError(
            f"{len(x):,} photos cannot make {count:,} clusters; give 1 to {min(len(x), MOST):,}."
        )
    x = np.ascontiguousarray(x, np.float32)
    order = np.argsort(rng.mix("clusters", np.arange(len(x)), seed), kind="stable")
    sample = x[np.sort(order[: max(_SEEDED_FROM * count, 1000)])]
    first, _ = kmeans_plusplus(sample, count, random_state=seed)
    found = faiss.Kmeans(
        x.shape[1],
        count,
        niter=_STEPS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    found.train(x, init_centroids=np.ascontiguousarray(first))
    _, nearest = found.index.search(x, 1)
    kept, assigned = np.unique(nearest[:, 0], return_inverse=True)
    sizes = np.bincount(assigned)
    place = np.empty(len(kept), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(kept))
    assigned = place[assigned]
    centres = _means(x, assigned, len(kept))
    distances = 1 - np.einsum("nd,nd->n", x, centres[assigned])
    return Clusters(assigned, distances.astype(np.float32), centres)


def suggest_merges(found: Clusters, groups: int) -> Merges:
    """Join clusters step by step.

    Args:
        found: Clusters.
        groups: How many groups to leave.

    Source:
        Ward 1963, on the clusters' centres. Average linkage chains: cut at the same number it left
        groups less pure by 2 to 5 points (cub50, birds200).
    """
    count = len(found.centres)
    if count < 2:
        empty = np.zeros((0, 2), np.int64)
        return Merges(np.zeros(count, np.int64), empty, np.zeros(0, np.float32))
    tree = linkage(found.centres.astype(np.float64), "ward")
    cut = fcluster(tree, max(1, min(groups, count)), "maxclust") - 1
    sizes = np.bincount(cut, weights=np.bincount(found.assigned, minlength=count))
    place = np.empty(len(sizes), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    alike = found.centres @ found.centres.T
    members: list[list[int]] = [[cluster] for cluster in range(count)]
    pairs = np.empty((count - 1, 2), np.int64)
    for step, (one, other, *_) in enumerate(tree):
        a, b = members[int(one)], members[int(other)]
        nearest = np.unravel_index(np.argmax(alike[np.ix_(a, b)]), (len(a), len(b)))
        pairs[step] = sorted((a[nearest[0]], b[nearest[1]]))
        members.append(a + b)
    cosines = alike[pairs[:, 0], pairs[:, 1]]
    order = np.argsort(-cosines, kind="stable")
    return Merges(place[cut], pairs[order], cosines[order])
