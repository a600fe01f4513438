"""A map of very many photos that keeps its places when photos are added.

:mod:`fieldmark.evaluation.projection` lays out some thousand photos under several encoders, for a report.
Here there is one encoder, up to some hundred thousand photos, somebody who watches how far it is, and who
knows the map by heart: what is on it stays where it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import faiss as typed_faiss
import numpy as np
from jaxtyping import Bool, Float, Int

from fieldmark.errors import MissingExtraError
from fieldmark.evaluation.projection import principal

faiss: Any = typed_faiss
"""Its stubs lack half of what it has."""
PERPLEXITY = 10
"""Neighbours that are kept together; on maps that are searched by eye fewer are better than the usual 30
(results/map.json)."""
_NEAR = 3 * PERPLEXITY
_EARLY, _STEPS, _SETTLE = 150, 350, 150
"""Steps while clusters find each other, afterwards, and of a map that is there already."""
FEW = 0.2
"""Share of photos up to which new ones are put among the old without moving these."""
_LEAST = 10
"""Fewer photos than this have no neighbours worth keeping."""
_PLACED_BY = 5
_EVERY = 25
"""Steps between two reports."""
_JITTER = 0.02

Places = Float[np.ndarray, "N 2"]
Show = Callable[[int, int], None]


class Plane(NamedTuple):
    """Photos in the plane."""

    places: Places
    """In [0, 1], the larger side filled."""
    how: str
    """For a caption."""


def flat(x: Float[np.ndarray, "N D"]) -> Plane:
    """The first two principal components: there at once, and linear."""
    parts = np.pad(principal(x.astype(np.float64)), ((0, 0), (0, 2)))[:, :2]
    return Plane(_fitted(parts), "first two principal components")


def lay_out(
    x: Float[np.ndarray, "N D"],
    *,
    start: Places | None = None,
    settle: bool = False,
    seed: int = 0,
    threads: int = 1,
    show: Show = lambda done, total: None,
) -> Plane:
    """Lay photos out so that look-alikes lie together; the same photos make the same map.

    Args:
        x: Unit vectors.
        start: Where photos are already, NaN where they are new. Up to a fifth of new ones are put
            beside those that they are most like, and no other moves; more, and all settle anew from
            where they are.
        settle: Let all settle also where few are new: many were put beside others before.
        seed: Of where photos on one spot are moved to.
        threads: To compute with.
        show: Told steps done and in all; what it raises ends the work.

    Raises:
        MissingExtraError: openTSNE is not installed.

    Source:
        t-SNE: van der Maaten and Hinton 2008; by interpolation: Linderman et al. 2019, Nature Methods
        16; openTSNE: Poličar, Stražar and Zupan 2024, Journal of Statistical Software 109.
    """
    if len(x) < _LEAST:
        return flat(x)
    components = principal(x.astype(np.float64))
    known = np.zeros(len(x), bool) if start is None else ~np.isnan(start).any(axis=1)
    if start is not None and known.all() and not settle:
        return Plane(start, _how(settled=True))
    show(0, _EARLY + _STEPS)
    few = known.sum() >= max((1 - FEW) * len(x), _LEAST)
    if start is not None and few and not settle:
        return Plane(_put_beside(components, start, known, seed), _how(settled=True))
    near, far = _nearest(components, min(_NEAR, len(x) - 1))
    try:
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PerplexityBasedNN
        from openTSNE.nearest_neighbors import PrecomputedNeighbors
    except ImportError:
        raise MissingExtraError("openTSNE", "app", "for the map of all photos") from None
    affinities = PerplexityBasedNN(
        perplexity=min(PERPLEXITY, (len(x) - 1) / 3),
        knn_index=PrecomputedNeighbors(near, far),
        n_jobs=threads,
    )
    settle = start is not None and bool(known.sum() >= len(x) / 2)
    if settle and start is not None:
        middle = np.nanmean(start, axis=0)
        # openTSNE begins to treat a map as settled where it is about this wide.
        begin = _put_beside(components, start, known, seed) - middle
        begin = begin * 2 * _usual_radius(len(x))
    else:
        begin = np.pad(components, ((0, 0), (0, 2)))[:, :2]
        begin = begin / max(begin[:, 0].std(), 1e-12) * 1e-4
    embedding = TSNEEmbedding(
        begin,
        affinities,
        negative_gradient_method="bh" if len(x) < 10_000 else "fft",
        random_state=seed,
        n_jobs=threads,
    )
    total = _SETTLE if settle else _EARLY + _STEPS
    done = 0

    def told(step: int, *_: object) -> bool:
        show(min(total, done + step), total)
        return False

    more = {"callbacks": [told], "callbacks_every_iters": _EVERY}
    if not settle:
        embedding = embedding.optimize(_EARLY, exaggeration=12, momentum=0.5, **more)
        done = _EARLY
    embedding = embedding.optimize(total - done, momentum=0.8, **more)
    return Plane(_fitted(np.asarray(embedding, np.float64)), _how(settled=settle))


def _how(*, settled: bool) -> str:
    return "t-SNE, from an earlier map" if settled else "t-SNE"


def _usual_radius(count: int) -> float:
    """Of a t-SNE map: its area grows with the number of photos."""
    return 1.2 * float(np.sqrt(count))


def _nearest(
    x: Float[np.ndarray, "N E"], k: int, among: Float[np.ndarray, "M E"] | None = None
) -> tuple[Int[np.ndarray, "N K"], Float[np.ndarray, "N K"]]:
    """Nearest others of each row, or nearest of ``among``, and how far they are."""
    points = np.ascontiguousarray(x, np.float32)
    found = faiss.IndexFlatL2(points.shape[1])
    found.add(points if among is None else np.ascontiguousarray(among, np.float32))
    own = among is None
    squares, rows = found.search(points, k + own)
    if own:
        # Of several that are the same the photo itself need not come first, or at all.
        last = np.argsort(rows == np.arange(len(x))[:, None], axis=1, kind="stable")[:, :k]
        rows, squares = (np.take_along_axis(a, last, axis=1) for a in (rows, squares))
    return rows.astype(np.int64), np.sqrt(np.maximum(squares, 0)).astype(np.float64)


def _put_beside(
    components: Float[np.ndarray, "N E"], start: Places, known: Bool[np.ndarray, " N"], seed: int
) -> Places:
    """New photos at the mean of those that they are most like; the others stay."""
    places = start.copy()
    new = np.flatnonzero(~known)
    if not len(new):
        return places
    k = min(_PLACED_BY, int(known.sum()))
    near, far = _nearest(components[new], k, components[known])
    spots = start[known][near]
    # The nearest decides: a photo between two clusters belongs to one of them, not to the gap.
    weight = np.exp(-((far / np.maximum(far[:, :1], 1e-9)) ** 4))
    weight /= weight.sum(axis=1, keepdims=True)
    spread = np.linalg.norm(spots - spots[:, :1], axis=2)
    weight = np.where(spread <= np.median(spread, axis=1, keepdims=True) + 1e-9, weight, 0)
    places[new] = (spots * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    reach = np.partition(spread, min(1, k - 1), axis=1)[:, min(1, k - 1)]
    turn = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(new))
    around = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    places[new] += around * np.maximum(reach, 1e-4)[:, None] * _JITTER
    return np.clip(places, 0, 1)


def _fitted(places: Float[np.ndarray, "N 2"]) -> Places:
    """Into the unit square, without stretching."""
    low, high = places.min(axis=0, initial=np.inf), places.max(axis=0, initial=-np.inf)
    side = max(float((high - low).max(initial=0)), 1e-12)
    middle = (low + high) / 2
    found = (places - middle) / side + 0.5
    return np.where(np.isfinite(found), found, 0.5)
