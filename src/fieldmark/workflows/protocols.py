"""What a benchmark measures of a judged run beyond the measures of every run (docs/protocols.md)."""

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from fieldmark import rng
from fieldmark.data.benchmarks import Benchmark
from fieldmark.data.splits import Split
from fieldmark.data.views import center_views
from fieldmark.encoder import Encoder
from fieldmark.errors import InputError
from fieldmark.evaluation.clusters import cluster
from fieldmark.evaluation.evaluate import EvalResult, evaluate_encoder, probe_fraction
from fieldmark.evaluation.fewshot import few_shot
from fieldmark.evaluation.knn import weighted_knn
from fieldmark.evaluation.localisation import (
    cover_by_boxes,
    cover_by_masks,
    measure_localisation,
)
from fieldmark.evaluation.openset import open_set
from fieldmark.evaluation.retrieval import evaluate_cmd_retrieval, percent
from fieldmark.evaluation.robustness import KINDS, corrupt, swap_backgrounds
from fieldmark.evaluation.taxonomy import measure_mistakes
from fieldmark.nn.contributions import contributions
from fieldmark.types import View
from fieldmark.workflows.photos import Photos
from fieldmark.workflows.sides import Side

FEW_LABELS = (0.05, 0.01)
"""Label fractions that a benchmark measures beyond those of every run."""
_BATCH = 64
_LEAST_MASKED = 16


def measure_vectors(found: Benchmark, split: Split, after: Side) -> dict[str, float]:
    """Few labels, few shots, clusters, unknown classes, how far off mistakes are; percent.

    What a data set has too few photos for is left out.

    Args:
        found: The data set.
        split: Its labelled photos, as far as they can be used.
        after: The encoder with their embeddings and what every run measures of it.
    """
    train_x, test_x = after.train, after.test
    measures: dict[str, float] = {}
    classes = len(split.classes)
    for fraction in FEW_LABELS if len(train_x) else ():
        right = probe_fraction(
            train_x, split.train_labels, test_x, split.test_labels, classes, fraction
        )
        measures[f"linear@{fraction * 100:g}"] = float(100 * right.mean())
    for shots in (1, 5):
        with contextlib.suppress(InputError):
            measures[f"few-shot@{shots}"] = few_shot(
                test_x, split.test_labels, shots=shots
            ).accuracy
    with contextlib.suppress(InputError):
        measures |= cluster(test_x, split.test_labels, seeds=range(1)).measures
    with contextlib.suppress(InputError):
        measures |= open_set(train_x, split.train_labels, test_x, split.test_labels).measures
    with contextlib.suppress(InputError):
        asked = evaluate_cmd_retrieval(train_x, split.train_labels, test_x, split.test_labels)
        measures["map_cmd"] = percent(asked.average_precision)
    levels = coarser(found, split.classes)
    known = after.result
    if levels and known is not None and "linear" in known.predictions:
        wrong = measure_mistakes(known.labels, known.predictions["linear"], levels)
        measures |= {name: wrong[name] for name in wrong if name != "mistakes"}
    return measures


class Level(NamedTuple):
    """The same embeddings with the labels of a coarser level."""

    classes: int
    before: EvalResult
    after: EvalResult


def measure_levels(found: Benchmark, split: Split, before: Side, after: Side) -> dict[str, Level]:
    """Both sides under each coarser level's labels: where does training stop helping?"""
    told = {}
    for level, of_class in coarser(found, split.classes).items():
        groups = sorted(set(of_class))
        if len(groups) < 2:
            continue
        index = np.array([groups.index(group) for group in of_class], np.int64)
        train, test = index[split.train_labels], index[split.test_labels]
        results = (
            evaluate_encoder(side.train, train, side.test, test, groups) for side in (before, after)
        )
        told[level] = Level(len(groups), *results)
    return told


def coarser(found: Benchmark, classes: Sequence[str]) -> dict[str, list[str]]:
    """To which group of each coarser level every class belongs, in the order of a split's classes."""
    order = [found.classes.index(name) for name in classes]
    return {level: [groups[i] for i in order] for level, groups in found.coarser.items()}


def measure_photos(found: Benchmark, data: Photos, after: Side) -> dict[str, float]:
    """What needs the photos again: trouble, other surroundings, where the encoder looks.

    Args:
        found: The data set; its masks and boxes where it has them.
        data: The photos. Where they have masks or boxes, their catalog lists the train and test photos
            of ``found`` in its order.
        after: The encoder with embeddings of the clean photos.
    """
    split = data.split
    assert split is not None
    encoder, truth = after.encoder, _Truth(found, data)
    measures = _localisation(encoder, data, truth)
    if not len(after.train):
        return measures

    def right(rows: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], show: _Show) -> float:
        parts = (rows[begin : begin + _BATCH] for begin in range(0, len(rows), _BATCH))
        embedded = np.concatenate([encoder.encode(show(part)).cpu().numpy() for part in parts])
        classes = len(split.classes)
        said = weighted_knn(after.train, split.train_labels, embedded, classes=classes)
        return float(100 * (said == labels).mean())

    def troubled(kind: str) -> _Show:
        return lambda rows: corrupt(_see(encoder, data, rows).images, kind, rows)

    for kind in KINDS:
        measures[f"knn:{kind}"] = right(split.test_rows, split.test_labels, troubled(kind))
    masked = truth.masked(split.test_rows)
    if masked.sum() >= _LEAST_MASKED:
        rows, labels = split.test_rows[masked], split.test_labels[masked]
        donor = dict(zip(rows.tolist(), _donors(rows, labels).tolist(), strict=True))

        def moved(part: Int[np.ndarray, " B"]) -> Float[Tensor, "B 3 H W"]:
            others = np.array([donor[row] for row in part.tolist()], np.int64)
            view, around = (_see(encoder, data, each) for each in (part, others))
            masks = truth.alpha(part, view), truth.alpha(others, around)
            return swap_backgrounds(view.images, masks[0], around.images, masks[1])

        measures["knn:swap"] = right(rows, labels, moved)
    return measures


_Show = Callable[[Int[np.ndarray, " B"]], Float[Tensor, "B 3 H W"]]
"""Makes what an encoder is shown of some photos."""


def _see(encoder: Encoder, data: Photos, rows: Int[np.ndarray, " B"]) -> View:
    return center_views(data.store, rows, encoder.size, encoder.spec.crop, device=encoder.device)


def _donors(rows: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """For each photo another of another class, the same in every run."""
    order = np.argsort(rng.mix("swap", rows), kind="stable")
    donors = np.empty_like(rows)
    for place, i in enumerate(order):
        others = np.roll(order, -place - 1)[:-1]
        different = others[labels[others] != labels[i]]
        donors[i] = rows[different[0] if len(different) else others[0]]
    return donors


class _Truth:
    """Where objects are in what an encoder sees."""

    def __init__(self, found: Benchmark, data: Photos) -> None:
        self._found, self._originals = found, data.store.originals
        listed = np.flatnonzero(np.isin(np.array(found.splits), ("train", "test")))
        # Rows of the catalog, which holds what the data set's table lists, in that order.
        self._row = listed if len(listed) == len(data.catalog) else np.arange(0)

    def masked(self, rows: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Which photos have a mask."""
        masks = self._found.masks
        if masks is None or not len(self._row):
            return np.zeros(len(rows), bool)
        return np.array([masks.files[self._row[row]] is not None for row in rows], bool)

    def boxed(self, rows: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Which photos have a box."""
        boxes = self._found.boxes
        if boxes is None or not len(self._row):
            return np.zeros(len(rows), bool)
        return ~np.isnan(boxes[self._row[rows]]).any(axis=1)

    def alpha(self, rows: Int[np.ndarray, " B"], view: View) -> Float[Tensor, "B H W"]:
        """Masks as the encoder sees the photos."""
        size = view.images.shape[-1]
        parts = []
        for row, window in zip(rows, view.boxes.cpu().numpy(), strict=True):
            mask = self._found.mask(int(self._row[row]))
            assert mask is not None
            high, wide = mask.shape
            scale = np.array([wide, high, wide, high])
            seen = Image.fromarray(mask.astype(np.uint8) * 255).resize(
                (size, size), Image.Resampling.BILINEAR, box=tuple(window * scale)
            )
            parts.append(torch.from_numpy(np.asarray(seen, np.float32) / 255))
        return torch.stack(parts).to(view.images.device)

    def box(self, rows: Int[np.ndarray, " B"], view: View) -> Float[np.ndarray, "B 4"]:
        """Boxes as fractions of what the encoder sees."""
        assert self._found.boxes is not None
        high, wide = self._originals[rows].T.astype(np.float64)
        whole = self._found.boxes[self._row[rows]] / np.stack([wide, high, wide, high], axis=1)
        window = view.boxes.cpu().numpy().astype(np.float64)
        low, span = window[:, :2], window[:, 2:] - window[:, :2]
        return np.concatenate([(whole[:, :2] - low) / span, (whole[:, 2:] - low) / span], axis=1)


def _localisation(encoder: Encoder, data: Photos, truth: _Truth) -> dict[str, float]:
    """Does the feature come from where the object is? Masks where there are some, else boxes."""
    assert data.split is not None
    rows = data.split.test_rows
    by_masks = truth.masked(rows)
    chosen = rows[by_masks] if by_masks.sum() >= _LEAST_MASKED else rows[truth.boxed(rows)]
    if len(chosen) < _LEAST_MASKED:
        return {}
    maps, objects = [], []
    spec = encoder.spec.to(encoder.device)
    for begin in range(0, len(chosen), _BATCH):
        part = chosen[begin : begin + _BATCH]
        view = _see(encoder, data, part)
        seen = contributions(spec, view.images).cpu().double().numpy()
        shape = (seen.shape[1], seen.shape[2])
        maps.append(seen)
        if by_masks.sum() >= _LEAST_MASKED:
            shares = truth.alpha(part, view).cpu().numpy() > 0.5
            objects.append(cover_by_masks(list(shares), shape))
        else:
            objects.append(cover_by_boxes(truth.box(part, view), shape))
    covered = np.concatenate(objects)
    # An object may lie outside of the centre that the encoder sees.
    there = covered.sum(axis=(1, 2)) > 0
    found = measure_localisation(np.concatenate(maps)[there], covered[there])
    return {
        "pointing": found.pointing,
        "energy": found.energy,
        "lift": found.lift,
        "iou": found.iou,
    }
