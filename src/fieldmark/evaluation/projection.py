"""A map of the embedding: photos placed in the plane so that look-alikes lie together."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from scipy.linalg import orthogonal_procrustes

from fieldmark.evaluation.retrieval import unit_rows
from fieldmark.rng import mix

_COMPONENTS = 50
"""t-SNE starts from this many principal components, as its authors advise."""


class Projection(NamedTuple):
    """Photos in the plane."""

    rows: Int[np.ndarray, " M"]
    """Which of the given photos are shown, ascending."""
    places: list[Float[np.ndarray, "M 2"]]
    """One map for each set of embeddings, in [-1, 1]; later ones are turned towards the first."""
    how: str
    """How they were made, for a caption."""


def project(
    *embeddings: Float[np.ndarray, "N _"],
    limit: int = 3_000,
    method: Literal["tsne", "pca"] = "tsne",
    seed: int = 0,
) -> Projection:
    """Lay photos out in the plane, alike for each encoder.

    Args:
        embeddings: The same photos under one or more encoders.
        limit: Most photos to place; more are thinned out by ``seed``. t-SNE of 3,000 takes about
            ten seconds for each encoder.
        method: ``tsne`` keeps neighbours together; ``pca`` is instant and linear.
        seed: Same seed, same map.

    Source:
        van der Maaten and Hinton 2008, JMLR 9, with PCA initialisation (Kobak and Berens 2019).
    """
    count = len(embeddings[0])
    order = np.argsort(mix("projection", seed, np.arange(count)), kind="stable")
    rows = np.sort(order[:limit])
    if len(rows) < 10:  # t-SNE has no meaning for a handful
        method = "pca"
    places: list[npt.NDArray[np.float64]] = []
    for matrix in embeddings:
        placed = _place(unit_rows(matrix[rows], "embeddings"), method, seed)
        if places:
            placed = placed @ orthogonal_procrustes(placed, places[0])[0]
        placed -= placed.mean(axis=0)
        places.append(placed / max(float(np.abs(placed).max(initial=0)), 1e-12))
    name = "t-SNE of the cosine distances" if method == "tsne" else "first two principal components"
    thinned = f", {len(rows):,} of {count:,} photos" if len(rows) < count else ""
    return Projection(rows, places, name + thinned)


def _place(unit: npt.NDArray[np.float32], method: str, seed: int) -> npt.NDArray[np.float64]:
    components = principal(unit.astype(np.float64))
    if method == "pca":
        return np.pad(components, ((0, 0), (0, 2)))[:, :2]
    from sklearn.manifold import TSNE

    flat = np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))
    start = flat[:, :2] / max(flat[:, 0].std(), 1e-12) * 1e-4
    perplexity = min(30.0, (len(unit) - 1) / 3)
    # Euclidean distances between unit vectors order photos as their cosines do.
    tsne = TSNE(2, perplexity=perplexity, init=start, max_iter=500, random_state=seed, n_jobs=1)
    return tsne.fit_transform(flat.astype(np.float32)).astype(np.float64)


def principal(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The first fifty principal components of rows, each turned the same way every time."""
    centred = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis = vectors[:, ::-1][:, :_COMPONENTS]
    # An eigenvector's sign is arbitrary; the largest entry is made positive.
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return centred @ (basis * np.where(signs == 0, 1, signs))
