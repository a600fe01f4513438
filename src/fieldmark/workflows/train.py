"""The main job: unlabelled photos in, an encoder and an honest verdict out."""

import copy
import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fieldmark import rng, runtime, storage
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.catalog import Catalog
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import BatchSource, ViewMaker
from fieldmark.methods import METHODS
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.health import HealthProbe
from fieldmark.training.lock import hold_run
from fieldmark.training.log import Observer, RunPlan, StepReport
from fieldmark.training.loop import FitResult, fit
from fieldmark.workflows import judgement
from fieldmark.workflows.photos import (
    Photos,
    Say,
    ShowProgress,
    affordable_batch,
    find_split,
    note_on_mirroring,
    note_on_small_photos,
    prepare,
    quiet,
    say_nothing,
)
from fieldmark.workflows.recipe import Recipe
from fieldmark.workflows.run import RunFolder
from fieldmark.workflows.sides import Witness

_log = logging.getLogger("fieldmark")


def train(
    photos: Path,
    out: Path,
    recipe: Recipe,
    *,
    probe: Path | None = None,
    transductive: bool = False,
    device: str = "auto",
    store: Path | None = None,
    kept: Path | None = None,
    witness: Witness | None = None,
    every_epoch: bool = False,
    progress: ShowProgress = quiet,
    say: Say = _log.info,
) -> dict[str, Any] | None:
    """Train, evaluate the start beside the result, decide what ships, write the report.

    Called again with the same arguments it continues where it stopped.

    Args:
        photos: Folder, table or shards.
        out: Run folder.
        recipe: Every setting.
        probe: Table ``path,class,split``; turns on the supervised measures and the verdict.
        transductive: Also train on the probe's test photos, without labels.
        device: ``auto`` or a torch device.
        store: Folder of decoded photos that several runs share; by default the run's own.
        kept: Folder where several runs share what they measure of the same start.
        witness: Told what the judgement rests on, by the first process.
        every_epoch: Also measure the candidate on the test photos after every epoch
            (``epochs.jsonl``), as the literature does to report the best; nothing is chosen by it.
        progress: Told how far each part is.
        say: Told what the user should know, a sentence at a time.

    Returns:
        The contract of ``--json``; None in all processes but the first.

    Raises:
        FieldmarkError: One paragraph on what is wrong; nothing computed so far is lost.
    """
    began = time.time()
    recipe.check()
    # Before anything is written: a slip in a path leaves no run folder behind.
    catalog = Catalog.open(Path(photos))
    labels = find_split(catalog, probe)
    where = runtime.pick_device(device)
    with runtime.processes(device=where), ExitStack() as stack:
        run = RunFolder(Path(out))
        if runtime.rank() == 0:
            run.claim(recipe, _made_of(photos, probe, transductive))
            # Not only while it trains: decoding before and evaluation after write here for minutes.
            stack.enter_context(hold_run(run.path))
        else:
            say, progress = say_nothing, quiet
        runtime.barrier()
        start = Backbone.build(recipe.backbone, size=recipe.size)
        say(f"start: {start.config.name}, {start.provenance.sentence()}")
        data = prepare(
            catalog,
            labels,
            recipe,
            store or run.store,
            start=start,
            transductive=transductive,
            progress=progress,
            say=say,
        )
        for record in data.store.records[:3]:
            say(f"not used: {record.path} ({record.code}: {record.detail})")
        if len(data.store.records) > 3:
            say(f"… and {len(data.store.records) - 3} more; the report lists all.")
        candidates: dict[str, EncoderSpec] = {}
        fitted: FitResult | None = None
        if recipe.trains:
            candidates, fitted = _fit(run, recipe, data, start, where, progress, say, every_epoch)
        if runtime.rank() != 0:
            return None
        return judgement.judge(
            run,
            recipe,
            data,
            EncoderSpec(start),
            candidates,
            fitted,
            where,
            began,
            progress,
            kept=kept,
            witness=witness,
        )


def _made_of(photos: Path, probe: Path | None, transductive: bool) -> dict[str, Any]:
    made_of: dict[str, Any] = {"photos": str(Path(photos).resolve()), "transductive": transductive}
    if probe is not None:
        path = Path(probe)
        made_of["probe"] = str(path.resolve())
        made_of["probe_sha256"] = storage.sha256_of(path) if path.is_file() else ""
    return made_of


def _fit(
    run: RunFolder,
    recipe: Recipe,
    data: Photos,
    start: Backbone,
    device: torch.device,
    progress: ShowProgress,
    say: Say,
    every_epoch: bool,
) -> tuple[dict[str, EncoderSpec], FitResult]:
    assert recipe.method is not None
    config, lowered = affordable_batch(recipe.train, len(data.train_rows))
    notes = [
        lowered[:1].upper() + lowered[1:],
        note_on_small_photos(recipe, start, data),
        note_on_mirroring(recipe),
    ]
    notes = [text for text in notes if text]
    for text in notes:
        say(text)
    torch.manual_seed(rng.seed_of("heads", recipe.train.seed))
    method = METHODS[recipe.method_name](recipe.method, copy.deepcopy(start))
    views = recipe.multi_view()
    store = on_device(data.store, device)
    source = BatchSource(
        store,
        data.train_rows,
        views,
        batch_size=config.batch_size,
        seed=recipe.train.seed,
        device=device,
    )
    health = HealthProbe.build(
        EncoderSpec(start).to(device),
        store,
        data.train_rows,
        views,
        size=recipe.size,
        seed=recipe.train.seed,
        photos=recipe.health.photos,
        neighbours_kept=recipe.health.neighbours,
        every_epochs=recipe.health.every_epochs,
        device=device,
    )

    def finish(exports: dict[str, EncoderSpec]) -> dict[str, EncoderSpec]:
        for backbone in dict.fromkeys(spec.backbone for spec in exports.values()):
            if recipe.backbone.blend < 1:
                backbone.blend_with(start, recipe.backbone.blend)
            if recipe.backbone.reestimate:
                seed = rng.seed_of("re-estimate", recipe.train.seed)
                maker = ViewMaker(store, views, seed=seed, device=device)
                backbone.reestimate_statistics(_looks(maker, data.train_rows))
        return exports

    def measure_epoch(epoch: int) -> None:
        exports = finish(copy.deepcopy(method.exports()))
        measured = judgement.measure_candidate(recipe, data, exports, device)
        _note_epoch(run.path / "epochs.jsonl", epoch, measured)

    fitted = fit(
        method,
        source,
        config,
        run.path,
        observer=narrator(progress, say),
        health=health,
        identity={**_identity(recipe, data), **method.identity()},
        after_epoch=measure_epoch if every_epoch else None,
        device=device,
    )
    fitted.notes[:0] = notes
    return finish(method.exports()), fitted


def _note_epoch(file: Path, epoch: int, measures: dict[str, float]) -> None:
    """One line an epoch; an epoch that is trained again after a kill replaces its line."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [line for line in text.splitlines() if json.loads(line)["epoch"] < epoch]
    lines.append(json.dumps({"epoch": epoch, **{k: round(v, 6) for k, v in measures.items()}}))
    storage.write_text(file, "\n".join([*lines, ""]))


def on_device(store: PhotoStore, device: torch.device) -> Any:
    """The store's pixels on the GPU where they fit, else the memory map."""
    return store.to(device) if device.type == "cuda" and store.fits(device) else store


def _looks(maker: ViewMaker, rows: Int[np.ndarray, " N"]) -> Iterator[Tensor]:
    for begin in range(0, min(len(rows), 2048), 64):
        yield maker.make(rows[begin : begin + 64], 0)[0].images


def _identity(recipe: Recipe, data: Photos) -> dict[str, Any]:
    settings = recipe.dump()
    return {
        "photos": {"count": len(data.train_rows), "fingerprint": data.catalog.fingerprint()},
        **{key: settings[key] for key in ("method", "backbone", "views", "size")},
    }


def narrator(progress: ShowProgress, say: Say) -> Observer:
    """Tells people what the loop does, by a progress bar and sentences."""
    return _Observer(progress, say)


class _Observer(Observer):
    """Turns what the loop tells into a progress bar and sentences."""

    def __init__(self, progress: ShowProgress, say: Say) -> None:
        self._progress, self._say = progress, say

    def begin(self, plan: RunPlan) -> None:
        if plan.precision_seconds:
            timed = ", ".join(f"{k} {v:.2f} s" for k, v in plan.precision_seconds.items())
            self._say(f"arithmetic: {plan.precision} (a small step took {timed})")
        self._say(
            f"training {plan.epochs} epochs of {plan.steps_per_epoch} steps"
            + (f", going on after step {plan.step}" if plan.step else "")
        )

    def preparing(self, what: str, done: int, total: int) -> None:
        self._progress(what, done, total)

    def step(self, report: StepReport) -> None:
        self._progress(
            "training",
            report.step,
            report.total,
            f"{report.images_per_second:.0f} images/s, loss {report.values['loss']:.3f}",
        )

    def health(self, epoch: float, measures: dict[str, float]) -> None:
        self._say(
            f"epoch {epoch:g}: view recall {measures['view_recall']:.2f}, "
            f"effective rank {measures['effective_rank']:.0f}, "
            f"start's neighbours kept {measures['start_neighbours']:.2f}"
        )

    def note(self, text: str) -> None:
        self._say(text)


def read_result(run: Path) -> dict[str, Any] | None:
    """What a finished run printed as JSON, if it is finished."""
    path = RunFolder(run).result
    result: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return result
