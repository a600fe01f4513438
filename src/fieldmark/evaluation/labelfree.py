"""What can be said without labels, and in which words: never more than was measured."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from fieldmark.evaluation.compare import Interval, Verdict, paired_bootstrap
from fieldmark.evaluation.retrieval import Matrix, score_blocks, unit_rows
from fieldmark.nn.measures import effective_rank


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
    return paired_bootstrap(start.found, trained.found, photos, seed=seed).scaled(100.0)


def judge_without_labels(
    start: Mapping[str, float], trained: Mapping[str, float], gain: Interval | None, *, photos: int
) -> Verdict:
    """The verdict where there are no labelled test photos: *not measured*, and what is known.

    Args:
        start: ``view_recall`` (percent) and ``effective_rank`` of the start, where measured.
        trained: The same of the other encoder.
        gain: Interval of view recall in points, where measured.
        photos: Number of photos that were looked at.
    """
    known = []
    if "view_recall" in start and "view_recall" in trained:
        ends = (
            f", 95 % interval of the gain {gain.low:+.1f} to {gain.high:+.1f}"
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
    rest = (
        f" Label-free measures only: {'; '.join(known)}. They show whether training went wrong, not "
        "that look-alikes are told apart better."
        if known
        else ""
    )
    return Verdict(
        "not measured",
        "Not measured: there are no labelled test photos."
        + rest
        + " A table path,class,split with a "
        "few photos of each class turns the verdict on.",
    )
