"""Say what a run would cost before it is started."""

import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.catalog import Catalog
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import BatchSource
from fieldmark.methods import METHODS
from fieldmark.training.loop import trial
from fieldmark.workflows.photos import (
    affordable_batch,
    find_split,
    further_looks,
    hold_out,
    short_side,
)
from fieldmark.workflows.recipe import Recipe

# Enough photos for a real batch, few enough to decode, and to show to a teacher, in seconds.
SAMPLE, LEAST_SAMPLE = 256, 64
# Checkpoints keep weights, teacher, optimiser state and queue; the last two are kept.
KEPT_CHECKPOINTS = 2


def plan(
    photos: Path,
    recipe: Recipe,
    *,
    probe: Path | None = None,
    device: str = "auto",
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Predict a run from a short trial on some of the photos.

    Args:
        photos: Folder, table or shards.
        recipe: Every setting.
        probe: Table whose test photos will not be trained on.
        device: ``auto`` or a torch device.
        seconds: Length of the trial.

    Returns:
        ``recipe``, ``network``, ``weights``, ``photos``, ``train_photos``, ``steps``,
        ``images_per_second``, ``preparation_minutes`` (before the first step), ``minutes`` (with
        preparation; decoding and evaluation come on top), ``memory_gb``, ``disk_gb``, ``free_gb``, ``notes``.
    """
    recipe.check()
    where = runtime.pick_device(device)
    catalog = Catalog.open(Path(photos))
    rows = np.arange(len(catalog), dtype=np.int64)
    split, _ = find_split(catalog, probe)
    if split is not None:
        rows = np.setdiff1d(rows, split.test_rows)
    elif recipe.trains:
        rows = np.setdiff1d(rows, hold_out(rows, recipe.held_out))
    backbone = Backbone.build(recipe.backbone, size=recipe.size)
    looks = further_looks(recipe, backbone, labelled=split is not None)
    side = short_side(recipe, len(catalog), looks=looks)
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "network": backbone.config.name,
        "weights": backbone.provenance.sentence(),
        "size": recipe.size,
        "device": str(where),
        "photos": len(catalog),
        "train_photos": len(rows),
        "store_short_side": side,
        "notes": _notes(recipe, len(rows), backbone.provenance.how),
    }
    with tempfile.TemporaryDirectory() as scratch:
        sample = min(SAMPLE, max(LEAST_SAMPLE, 2 * recipe.train.batch_size))
        chosen = rows[:: max(1, len(rows) // sample)][:sample]
        store = PhotoStore.build(catalog, Path(scratch), short_side=side, rows=chosen.tolist())
        store_bytes = store.nbytes / max(1, len(store.usable)) * len(catalog)
        weights_bytes = sum(p.numel() * p.element_size() for p in backbone.parameters())
        result["disk_gb"] = store_bytes / 1e9 + 3 * weights_bytes / 1e9
        if recipe.trains and recipe.method is not None:
            method = METHODS[recipe.method_name](recipe.method, backbone)
            batch = min(recipe.train.batch_size, len(store.usable))
            parts = recipe.train.accumulate * runtime.world_size()
            config = recipe.train.model_copy(
                update={"batch_size": max(parts, batch // parts * parts)}
            )
            source = BatchSource(
                store,
                store.usable,
                recipe.multi_view(),
                batch_size=config.batch_size,
                seed=0,
                device=where,
            )
            tried = trial(method, source, config, seconds=seconds, device=where)
            real, _ = affordable_batch(recipe.train, len(rows))
            steps = len(rows) // real.batch_size * recipe.train.epochs
            # Such as the house method's teacher, which is asked about every photo.
            prepared = tried.preparation_seconds * len(rows) / len(store.usable)
            trained = steps * real.batch_size / tried.images_per_second
            result.update(
                steps=steps,
                epochs=recipe.train.epochs,
                images_per_second=round(tried.images_per_second, 1),
                preparation_minutes=round(prepared / 60, 1),
                minutes=round((prepared + trained) / 60, 1),
            )
            state = sum(t.numel() * t.element_size() for t in method.state_dict().values())
            result["disk_gb"] += KEPT_CHECKPOINTS * (state + weights_bytes) / 1e9
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
    unit = 1024 if Path("/proc").is_dir() else 1
    result["memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)
    result["disk_gb"] = round(result["disk_gb"], 3)
    result["free_gb"] = round(shutil.disk_usage(Path.cwd()).free / 1e9, 1)
    return result


def _notes(recipe: Recipe, photos: int, how: str) -> list[str]:
    notes = []
    _, lowered = affordable_batch(recipe.train, photos)
    if recipe.trains and lowered:
        notes.append(lowered)
    if how == "random" and recipe.backbone.normalization == "frozen":
        notes.append(
            "the start is random and batch-norm would be frozen at meaningless statistics; give "
            "--weights, or set backbone.normalization=train and train far longer."
        )
    if recipe.backbone.normalization == "train" and how != "random":
        notes.append(
            "batch-norm in train mode made pretrained starts worse in early trials; "
            "the recipes 'fieldmark' and 'gentle' freeze it."
        )
    return notes
