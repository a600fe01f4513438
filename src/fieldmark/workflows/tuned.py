"""Fine-tuning as a column of a benchmark: each cell's encoder, taught with labels, beside the cell.

``seed-0/`` is the cell, ``seed-0.finetuned/`` what ``fieldmark finetune`` makes of its encoder: resumable by
itself, and never made again.
"""

import csv
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.catalog import Catalog
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import BatchSource
from fieldmark.evaluation.significance import Gain, combine_seeds
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.finetune import FinetuneConfig, SupervisedObjective, build_classifier
from fieldmark.training.loop import trial
from fieldmark.workflows.finetune import finetune
from fieldmark.workflows.photos import Say, ShowProgress, affordable_batch, sharp_side
from fieldmark.workflows.recipe import Recipe
from fieldmark.workflows.run import RunFolder

NAME = "finetuned"
_TRIAL_PHOTOS = 64


class Tuned(NamedTuple):
    """What a cell's encoder reached with labels."""

    epochs: int
    top1: float
    """Percent of the test photos, last epoch."""
    right: Float[np.ndarray, " Q"]
    """1 where a test photo was given its class, in the table's order."""
    labels: Int[np.ndarray, " Q"]


def tuned_folder(cell: Path) -> Path:
    """Beside the run folder, which must hold nothing but a run."""
    return cell.with_name(f"{cell.name}.{NAME}")


def settings(epochs: int, seed: int = 0) -> FinetuneConfig:
    """The defaults of ``fieldmark finetune`` for so many epochs."""
    usual = FinetuneConfig()
    warmup = min(usual.train.warmup_epochs, epochs / 2)
    told = {"epochs": epochs, "seed": seed, "warmup_epochs": warmup}
    return usual.model_copy(update={"train": usual.train.model_copy(update=told)})


def tune(
    cell: Path,
    photos: Path,
    labels: Path,
    store: Path,
    config: FinetuneConfig,
    *,
    device: str,
    progress: ShowProgress,
    say: Say,
) -> None:
    """Fine-tune the encoder of a finished cell; goes on where it stopped.

    Args:
        cell: Its run folder.
        photos: What it was trained on.
        labels: Table ``path,class,split``.
        store: The decoded photos that all cells share.
        config: From :func:`settings`.
        device: ``auto`` or a torch device.
        progress: Told how far it is.
        say: Told what the user should know.
    """
    finetune(
        RunFolder(cell).candidate,
        photos,
        tuned_folder(cell),
        labels=labels,
        config=config,
        store=store,
        device=device,
        progress=progress,
        say=say,
    )


def read_tuned(cell: Path) -> Tuned | None:
    """What is known of a cell; None where it was not fine-tuned to the end."""
    folder = tuned_folder(cell)
    with suppress(OSError, ValueError, KeyError):
        told: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        with (folder / "photos.csv").open(encoding="utf-8", newline="") as lines:
            rows = [(row["class"], row["predicted"]) for row in csv.DictReader(lines)]
        _, labels = np.unique([name for name, _ in rows], return_inverse=True)
        right = np.array([name == guess for name, guess in rows], np.float64)
        epochs = int(told["settings"]["train"]["epochs"])
        return Tuned(epochs, float(told["measures"]["top1"]), right, labels.astype(np.int64))
    return None


def gain_of_tuned(start: Tuned, trained: Sequence[Tuned]) -> Gain:
    """Top-1 after fine-tuning the trained encoders over that after fine-tuning the start; points."""
    after = np.stack([each.right for each in trained])
    return combine_seeds(start.right[None], after, start.labels).scaled(100.0)


def minutes_a_photo(
    photos: Path, recipe: Recipe, classes: int, *, device: str, seconds: float
) -> float:
    """Minutes that one photo takes in one epoch of fine-tuning, from a short trial on some.

    Args:
        photos: Folder, table or shards.
        recipe: Its network and input size.
        classes: Number of classes.
        device: ``auto`` or a torch device.
        seconds: Length of the trial.
    """
    config, where = settings(1), runtime.pick_device(device)
    catalog = Catalog.open(photos)
    spec = EncoderSpec(Backbone.build(recipe.backbone, size=recipe.size))
    chosen = range(0, len(catalog), max(1, len(catalog) // _TRIAL_PHOTOS))[:_TRIAL_PHOTOS]
    with tempfile.TemporaryDirectory() as scratch:
        side = sharp_side(recipe.size, config.smallest_crop, len(catalog))
        store = PhotoStore.build(catalog, Path(scratch), short_side=side, rows=chosen)
        # What a step costs does not depend on whose labels are right.
        labels = torch.zeros(len(catalog), dtype=torch.long)
        classifier = build_classifier(spec, classes, config, seed=0)
        objective = SupervisedObjective(config, classifier, labels)
        train, _ = affordable_batch(config.train, len(store.usable))
        source = BatchSource(
            store,
            store.usable,
            objective.views(config, recipe.size),
            batch_size=train.batch_size,
            seed=0,
            device=where,
        )
        tried = trial(objective, source, train, seconds=seconds, device=where)
    return 1 / (60 * tried.images_per_second)
