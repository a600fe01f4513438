"""What can be said without labels, and in which words: never more than was measured."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark.errors import InputError
from fieldmark.evaluation.compare import Interval, Outcome, Verdict, paired_bootstrap
from fieldmark.evaluation.retrieval import Matrix, score_blocks, unit_rows
from fieldmark.nn.measures import effective_rank, neighbours, neighbours_kept

REFERENCE_NEIGHBOURS = 10
"""Neighbours by the reference that an encoder is to find, at most."""
CHANGE_PRICE = 0.05
"""Agreement that each photo must gain to have all its neighbours changed: training that only moves
photos about gains some agreement too."""


class LabelFree(NamedTuple):
    """Measures of an encoder on unlabelled photos."""

    found: Float[np.ndarray, " N"]
    """1 where a photo's first view is nearest to its own second view, else 0."""
    effective_rank: float
    """Number of directions that the embeddings use."""

    @property
    def view_recall(self) -> float:
        """Photos whose views find each other, percent."""
        return float(self.found.mean() * 100) if len(self.found) else float("nan")

    def to_dict(self) -> dict[str, float]:
        """``view_recall`` in percent and ``effective_rank``."""
        return {"view_recall": self.view_recall, "effective_rank": self.effective_rank}


def measure_views(first: Matrix, second: Matrix) -> LabelFree:
    """Label-free measures from two fixed views of each photo.

    Equal similarities count as misses, so an encoder that maps all photos to one point finds none.

    Args:
        first: Embeddings of one view of each photo.
        second: Of another, row by row the same photos.
    """
    one, other = unit_rows(first, "first views"), unit_rows(second, "second views")
    found = np.zeros(len(one))
    for start, block in score_blocks(one, other, 64 * 2**20):
        rows = np.arange(len(block))
        own = block[rows, start + rows].copy()
        block[rows, start + rows] = -np.inf
        found[start : start + len(block)] = own > block.max(axis=1)
    return LabelFree(found, effective_rank(torch.from_numpy(one)))


def gain_of_views(start: LabelFree, trained: LabelFree, *, seed: int = 0) -> Interval:
    """Points of view recall gained, paired over photos."""
    photos = np.arange(len(start.found))
    return paired_bootstrap(start.found, trained.found, photos).scaled(100.0)


def agreement(
    embeddings: Float[np.ndarray, "N D"],
    reference: Float[np.ndarray, "M E"],
    *,
    most: int = REFERENCE_NEIGHBOURS,
) -> Float[np.ndarray, " N"]:
    """How far up each photo's ranking the reference's nearest neighbours stand.

    Average precision of every photo's ranking of the others when the ``k`` photos nearest to it in
    the reference are what is to be found; k is a tenth of the other photos, at most ``most``.
    Photos as similar as one to be found count as ranked before it.

    Args:
        embeddings: Of the encoder, one row per photo; any length.
        reference: Of the same photos, by the yardstick
            (:func:`fieldmark.workflows.reference.reference_embeddings`).
        most: Largest k, >= 1.

    Returns:
        One value in (0, 1] per photo; NaN where there is only one photo.

    Raises:
        InputError: If the two have different numbers of photos.
    """
    one, other = unit_rows(embeddings, "embeddings"), unit_rows(reference, "reference")
    if len(one) != len(other):
        raise InputError(
            f"the encoder embedded {len(one)} photos and the reference {len(other)}; agreement "
            "needs the same photos in both."
        )
    if len(one) < 2:
        return np.full(len(one), np.nan)
    relevant = _nearest(other, most).numpy()
    k, similarity = relevant.shape[1], one @ one.T
    np.fill_diagonal(similarity, -np.inf)
    # Itself is no rival: a photo is not ranked before what it is as similar to as to itself.
    own = -np.sort(-np.take_along_axis(similarity, relevant, axis=1), axis=1)
    ranks = np.stack([(similarity >= own[:, i : i + 1]).sum(axis=1) for i in range(k)], axis=1)
    return (np.arange(1, k + 1) / ranks).mean(axis=1)


def changed_neighbours(
    before: Float[np.ndarray, "N D"],
    after: Float[np.ndarray, "N E"],
    *,
    most: int = REFERENCE_NEIGHBOURS,
) -> Float[np.ndarray, " N"]:
    """Share of each photo's nearest neighbours that are others now, in [0, 1]; 0 of one photo.

    Args:
        before: Embeddings of one encoder.
        after: Of another, row by row the same photos.
        most: As for :func:`agreement`.
    """
    if len(before) < 2:
        return np.zeros(len(before))
    one, other = (
        _nearest(unit_rows(side, name), most)
        for side, name in ((before, "start"), (after, "trained"))
    )
    return 1 - neighbours_kept(one, other).double().numpy()


def _nearest(unit: Float[np.ndarray, "N D"], most: int) -> Int[torch.Tensor, "N K"]:
    return neighbours(torch.from_numpy(unit), int(np.clip((len(unit) - 1) // 10, 1, most)))


def gain_of_agreement(
    start: Float[np.ndarray, " N"],
    trained: Float[np.ndarray, " N"],
    changed: Float[np.ndarray, " N"],
    *,
    seed: int = 0,
) -> Interval:
    """Points of agreement gained, less the price of what changed, paired over photos.

    Args:
        start: Agreement of each photo under the start.
        trained: The same of the other encoder.
        changed: Share of its neighbours that the other encoder replaced.
        seed: Of the bootstrap.
    """
    earned = trained - CHANGE_PRICE * changed
    return paired_bootstrap(start, earned, np.arange(len(start))).scaled(100.0)


def decide_without_labels(learnt: Interval | None) -> Outcome:
    """What the agreement with the reference says; a guess, and never called a verdict.

    *helped* where its interval lies above 0, *hurt* where it lies below. How often that is right
    is in docs/results.md.
    """
    if learnt is None or not np.isfinite(learnt).all():
        return "not measured"
    if learnt.low > 0:
        return "helped"
    return "hurt" if learnt.high < 0 else "no difference shown"


_READINGS: dict[Outcome, str] = {
    "helped": "which speaks for the trained encoder",
    "hurt": "which speaks against the trained encoder",
    "no difference shown": "which speaks for neither",
    "not measured": "of too few photos to say anything",
}


def judge_without_labels(
    start: Mapping[str, float],
    trained: Mapping[str, float],
    gain: Interval | None,
    *,
    photos: int,
    learnt: Interval | None = None,
    held_out: int = 0,
) -> Verdict:
    """The verdict where there are no labelled test photos: *not measured*, and what is known.

    Args:
        start: ``view_recall`` (percent) and ``effective_rank`` of the start, where measured.
        trained: The same of the other encoder.
        gain: Interval of view recall in points, where measured.
        photos: Number of photos that were looked at.
        learnt: Interval of :func:`gain_of_agreement` with the start seen larger, on photos held out
            of training, where measured; then ``start`` and ``trained`` have ``agreement`` and
            ``trained`` has ``neighbours_changed`` (percent).
        held_out: Number of those photos.
    """
    if learnt is not None:
        rest = (
            f" On {held_out:,} photos kept from training, agreement with the start seen larger "
            f"moved from {start['agreement']:.1f} to {trained['agreement']:.1f} %; less "
            f"{CHANGE_PRICE * trained['neighbours_changed']:.1f} for the "
            f"{trained['neighbours_changed']:.0f} % of neighbours that changed it gained "
            f"{learnt.value:+z.1f} points (95 % interval {learnt.low:+z.1f} to {learnt.high:+z.1f}), "
            f"{_READINGS[decide_without_labels(learnt)]}: a hint, no proof."
        )
    else:
        rest = _views_in_words(start, trained, gain, photos)
    return Verdict(
        "not measured",
        "Not measured: there are no labelled test photos."
        + rest
        + " A table path,class,split with a "
        "few photos of each class turns the verdict on.",
    )


def _views_in_words(
    start: Mapping[str, float], trained: Mapping[str, float], gain: Interval | None, photos: int
) -> str:
    known = []
    if "view_recall" in start and "view_recall" in trained:
        ends = (
            f", 95 % interval of the gain {gain.low:+z.1f} to {gain.high:+z.1f}"
            if gain is not None and np.isfinite([gain.low, gain.high]).all()
            else ""
        )
        known.append(
            f"two views of a photo find each other for {trained['view_recall']:.1f} % of {photos:,} photos, "
            f"{start['view_recall']:.1f} % under the start{ends}"
        )
    if "effective_rank" in start and "effective_rank" in trained:
        known.append(
            f"embeddings use {trained['effective_rank']:.0f} directions, "
            f"{start['effective_rank']:.0f} under the start"
        )
    if not known:
        return ""
    return (
        f" Label-free measures only: {'; '.join(known)}. They show whether training went wrong, "
        "and prove nothing about look-alikes."
    )
