"""``fieldmark bench``: every method on every data set, each number with where it comes from.

OUT/
├── bench.json                        what was asked
├── data/NAME.csv  NAME.leaks.json    photos, labels and split of each data set; what leaks
├── cells/NAME/METHOD/seed-0/         a run folder of fieldmark train, with cell.json
├── cells/NAME/METHOD/seed-0.finetuned/  its encoder taught with labels, where that was asked for
├── store/NAME/288px/                 decoded photos, the same for all cells
├── starts/NAME/                      what cells with the same start share of it
├── trials.json                       minutes a photo of each method, from short trials
├── locks/                            which cell is being worked on, by which process
└── results.jsonl  table.csv  table.md  table.tex  report.html
"""

import contextlib
import hashlib
import json
import logging
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldmark import __version__, runtime, storage
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.benchmarks import BENCHMARKS, Benchmark, open_benchmark
from fieldmark.data.catalog import Catalog
from fieldmark.data.leakage import find_leaks
from fieldmark.data.splits import Split
from fieldmark.data.store import PhotoStore
from fieldmark.errors import (
    BusyError,
    CatalogError,
    ConfigError,
    FieldmarkError,
    InputError,
    Interrupted,
    OutputError,
)
from fieldmark.evaluation.evaluate import EvalResult, evaluation_file, gain_over_seeds
from fieldmark.evaluation.report.benchmark import render_benchmark
from fieldmark.evaluation.significance import Gain
from fieldmark.training.lock import hold_run
from fieldmark.workflows import leaderboard
from fieldmark.workflows.doctor import code_hash, versions
from fieldmark.workflows.photos import (
    Say,
    ShowProgress,
    further_looks,
    quiet,
    short_side,
)
from fieldmark.workflows.plan import plan
from fieldmark.workflows.protocols import measure_levels, measure_photos, measure_vectors
from fieldmark.workflows.published import beside, read_published
from fieldmark.workflows.recipe import Recipe, load_recipe, seeded
from fieldmark.workflows.run import RunFolder, claim_folder, file_name, flatten, processor
from fieldmark.workflows.sides import Judged
from fieldmark.workflows.train import train
from fieldmark.workflows.tuned import NAME as TUNED
from fieldmark.workflows.tuned import (
    Tuned,
    gain_of_tuned,
    minutes_a_photo,
    read_tuned,
    settings,
    tune,
    tuned_folder,
)

_log = logging.getLogger("fieldmark")
START = "start"
METHODS = (
    START, "mocov2", "mocov3", "simclr", "lcr", "msam", "ppssl", "lodisc", "fieldmark",
)  # fmt: skip
"""Recipes that are compared unless others are named."""
COMPARED = ("rank1", "rank5", "map", "knn", "linear", "linear@50", "linear@20", "linear@10")
"""Measures whose gain over the start has an interval over photos and seeds."""
_TRIAL_SECONDS = 5.0
_WAIT_SECONDS = 2.0
_KEPT = ("verdict", "sentence", "shipped", "gain", "interval", "grid")
"""What a cell repeats of its run's result."""


class Cell(NamedTuple):
    """One data set, one method, one seed."""

    data: str
    method: str
    seed: int

    @property
    def place(self) -> str:
        """Where it lies below OUT/cells."""
        return "/".join((*map(file_name, self[:2]), f"seed-{self.seed}"))


class _Bench(NamedTuple):
    """What one call works with."""

    out: Path
    opened: dict[str, Benchmark]
    recipes: dict[str, Recipe]
    cells: list[Cell]
    device: str
    progress: ShowProgress
    say: Say
    published: list[dict[str, Any]]
    best_on_test: bool
    tune_epochs: int
    """Epochs of fine-tuning with labels; 0: none."""
    short_sides: dict[str, int]
    """Short side at which the photos of each data set are kept."""
    looked_at: dict[str, dict[str, Any]]
    """What was found by reading all photos of each data set, once for each process."""

    def folder(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.place

    def lock(self, cell: Cell) -> Path:
        """A folder of its own: train wants the run folder to hold nothing but a run."""
        return self.out / "locks" / cell.place.replace("/", "--")

    def table(self, data: str) -> Path:
        return self.out / "data" / f"{file_name(data)}.csv"

    def photos(self, data: str) -> Path:
        """What training is given: the table, or the shards that it is about."""
        found = self.opened[data]
        return found.root if found.shards is not None else self.table(data)

    def store(self, data: str) -> Path:
        """Decoded photos, the same for all cells: as large as any of the methods looks at them."""
        return self.out / "store" / file_name(data) / f"{self.short_sides[data]}px"


def bench(
    data: Mapping[str, Path],
    out: Path,
    *,
    methods: Sequence[str] = METHODS,
    seeds: int = 3,
    sets: Iterable[str] = (),
    extra: dict[str, Any] | None = None,
    only_plan: bool = False,
    published: Path | None = None,
    best_on_test: bool = False,
    finetune: int = 0,
    device: str = "auto",
    progress: ShowProgress = quiet,
    say: Say = _log.info,
) -> dict[str, Any]:
    """Train and measure every method on every data set; what is done already is not done again.

    Any number of processes may be given the same folder, also from several machines that share it:
    each takes cells that no other works on. A cell that fails is marked and tried again by the next
    call; the others go on.

    Args:
        data: Folder of each data set, by name as :func:`open_benchmark` takes it.
        out: Folder for cells and tables.
        methods: Recipes, by name or as TOML files; ``start`` (no training) is always among them.
        seeds: Runs of each method on each data set; the start has one, for nothing of it is drawn but
            the looks that whitening is fitted on.
        sets: ``a.b=c`` overrides for all methods.
        extra: Further settings for all, as for :func:`load_recipe`.
        only_plan: Say what it would cost and train nothing.
        best_on_test: Also measure after every epoch and give the best of each measure in columns of
            their own, as the literature reports it; nothing else changes.
        finetune: Epochs for which each cell's encoder is also taught with all train labels, as by
            ``fieldmark finetune``; its top-1 is a column of its own. 0: not at all.
        published: TOML file of figures that others published; by default the shipped one.
        device: ``auto`` or a torch device.
        progress: Told how far each part is.
        say: Told what the user should know.

    Returns:
        ``cells`` (``data``, ``method``, ``seed``, ``status``: done, failed, busy or missing),
        ``minutes`` (predicted for what was missing, by method and for ``finetuned``), ``out``, and after training ``rows``, the table.

    Raises:
        CatalogError: A data set cannot be opened; nothing was trained.
        ConfigError: No such recipe, or settings that do not fit one.
        OutputError: ``out`` holds something else.
    """
    if finetune < 0:
        raise ConfigError(f"finetune counts epochs, 0 or more, got {finetune}.")
    if seeds < 1 or not data:
        raise ConfigError(
            f"a benchmark needs a data set and a seed, got {len(data)} and {seeds}; as --data "
            "cub200=CUB_200_2011 --seeds 3."
        )
    out = Path(out)
    sets = list(sets)
    figures = read_published(published)
    recipes: dict[str, Recipe] = {}
    for name in dict.fromkeys((START, *methods)):
        recipe = _recipe(name, sets, extra)
        if recipes.setdefault(recipe.name, recipe) != recipe:
            raise ConfigError(f"two recipes are called '{recipe.name}'; give one another name.")
    names = list(recipes)
    opened = {}
    for name, path in data.items():
        found = open_benchmark(name, path)
        kind, _, level = name.partition(":")
        coarser = level and level != BENCHMARKS[kind].facts.level
        key = found.facts.name + (f":{level}" if coarser else "")
        if key in opened:
            raise ConfigError(
                f"two data sets are called '{key}'; give the folder of one of them another name."
            )
        opened[key] = found
        say(f"{key}: {found.subset or 'complete'}, {found.facts.split}")
    cells = [
        Cell(key, name, seed)
        for seed in range(seeds)
        for key in opened
        for name in names
        if name != START or seed == 0
    ]
    claim_folder(out, "bench.json", "a benchmark")
    short_sides = _short_sides(out, opened, recipes)
    work = _Bench(
        out=out,
        opened=opened,
        recipes=recipes,
        cells=cells,
        device=device,
        progress=progress,
        say=say,
        published=figures,
        best_on_test=best_on_test,
        tune_epochs=finetune,
        short_sides=short_sides,
        looked_at={},
    )
    for key, found in opened.items():
        place = storage.make_folder(work.table(key).parent)
        storage.write_text(work.table(key), found.table(place, parts=("train", "test")))
    asked = {
        "data": {key: str(found.root) for key, found in opened.items()},
        "methods": names,
        "seeds": seeds,
        "short_side": short_sides,
    }
    storage.write_json(out / "bench.json", {"fieldmark": __version__, **asked})
    _refuse_mixtures(work)
    missing = [cell for cell in cells if _is_missing(work, cell) or _is_untuned(work, cell)]
    minutes = _predict(work, missing) if missing else {}
    if not only_plan:
        try:
            _run_all(work, missing)
        finally:
            # Stopped in the middle, what is done still has its table.
            rows = write_tables(out, leaderboard_lines(work))
    states = [_state(work, cell) for cell in cells]
    result: dict[str, Any] = {"out": str(out), "cells": states, "minutes": minutes}
    if not only_plan:
        result["rows"] = rows
    return result


def _short_sides(
    out: Path, opened: dict[str, Benchmark], recipes: dict[str, Recipe]
) -> dict[str, int]:
    """What an earlier call kept photos at, else what the method that looks closest wants."""
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((out / "bench.json").read_text(encoding="utf-8"))
        known = told.get("short_side", {})
    new = [key for key in opened if key not in known]
    for recipe in recipes.values() if new else ():
        start = Backbone.build(recipe.backbone, size=recipe.size)
        looks = further_looks(recipe, start, labelled=True)
        for key in new:
            wanted = short_side(recipe, len(opened[key]), looks=looks, folder=out)
            known[key] = max(wanted, known.get(key, 0))
    return known


def _is_missing(work: _Bench, cell: Cell) -> bool:
    return read_cell(work.folder(cell)).get("status") != "done"


def _is_untuned(work: _Bench, cell: Cell) -> bool:
    return work.tune_epochs > 0 and read_tuned(work.folder(cell)) is None


def _recipe(name: str, sets: list[str], extra: dict[str, Any] | None) -> Recipe:
    recipe = load_recipe(name, sets if name != START else _without_training(sets), extra=extra)
    recipe.check()
    return recipe


def _without_training(sets: list[str]) -> list[str]:
    """Overrides that mean something to a recipe that trains nothing; one pass a photo, as others."""
    kept = [each for each in sets if not each.startswith(("train.", "method.", "views."))]
    return ["post.flip=false", *kept]


def _predict(work: _Bench, missing: list[Cell]) -> dict[str, float]:
    """Minutes of training by method, over all missing cells, from a short trial of each."""
    minutes: dict[str, float] = {}
    trained = [cell for cell in missing if cell.method != START and _is_missing(work, cell)]
    wanted = list(dict.fromkeys(cell.method for cell in trained))
    for done, name in enumerate(wanted):
        work.progress("trying methods", done, len(wanted), name)
        cells = [cell for cell in trained if cell.method == name]
        try:
            each = _minutes_a_photo(work, cells[0].data, name)
        except FieldmarkError as error:
            work.say(f"{name} cannot be tried and will be marked: {error}")
            continue
        # The same work for each photo, on whichever data set.
        photos = [len(work.opened[cell.data].rows("train")) for cell in cells]
        minutes[name] = round(each * sum(photos), 1)
        work.say(f"{name}: about {_time(minutes[name])} of training for {len(cells)} runs")
    work.progress("trying methods", len(wanted), len(wanted))
    untuned = [cell for cell in missing if _is_untuned(work, cell)]
    if untuned:
        data = untuned[0].data
        each = minutes_a_photo(
            work.photos(data),
            work.recipes[START],
            len(work.opened[data].classes),
            device=work.device,
            seconds=_TRIAL_SECONDS,
        )
        photos = [len(work.opened[cell.data].rows("train")) for cell in untuned]
        minutes[TUNED] = round(work.tune_epochs * each * sum(photos), 1)
        work.say(f"fine-tuning: about {_time(minutes[TUNED])} for {len(untuned)} encoders")
    if minutes:
        total = sum(minutes.values())
        work.say(f"in all about {_time(total)} of training; decoding and evaluation come on top.")
    return minutes


def _minutes_a_photo(work: _Bench, data: str, method: str) -> float:
    """From a short trial, or from one that was made on this kind of machine before."""
    machine = f"{processor()} {runtime.pick_device(work.device)} {runtime.processor_count()}"
    key = f"{_recipe_hash(work.recipes[method])} {machine}"
    file = work.out / "trials.json"
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8"))
    if key not in known:
        told = plan(
            work.photos(data),
            work.recipes[method],
            probe=work.table(data),
            device=work.device,
            seconds=_TRIAL_SECONDS,
        )
        known[key] = told["minutes"] / told["train_photos"]
        storage.write_json(file, known)
    return known[key]


def _time(minutes: float) -> str:
    if minutes < 1.5:
        return "a minute" if minutes >= 0.5 else "less than a minute"
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def _run_all(work: _Bench, missing: list[Cell]) -> None:
    """All cells that nobody else works on; then those again that were busy, once."""
    busy: list[Cell] = []
    for attempt in (missing, busy):
        for done, cell in enumerate(list(attempt), 1):
            work.say(f"{cell.data}, {cell.method}, seed {cell.seed} ({done} of {len(attempt)})")
            try:
                with hold_run(work.lock(cell)):
                    if _is_missing(work, cell):
                        _run(work, cell)
                    if _is_untuned(work, cell) and not _is_missing(work, cell):
                        _tune(work, cell)
            except BusyError as error:
                work.say(f"left to another process: {error}")
                if attempt is missing:
                    busy.append(cell)


def _run(work: _Bench, cell: Cell) -> None:
    """Train and measure one cell; whatever goes wrong is written down instead."""
    folder, began = work.folder(cell), time.time()
    facts = _facts(work, cell)
    try:
        found: dict[str, Any] = {}
        result = train(
            work.photos(cell.data),
            folder,
            seeded(work.recipes[cell.method], cell.seed),
            probe=work.table(cell.data),
            device=work.device,
            store=_decode(work, cell.data),
            kept=work.out / "starts" / file_name(cell.data),
            witness=lambda judged: found.update(_measure(work, cell, judged)),
            every_epoch=work.best_on_test,
            progress=work.progress,
            say=work.say,
        )
        if result is not None:
            found["seconds"] = round(time.time() - began + _spent(folder), 1)
            found["trained"] |= _best_on_test(folder)
            told = {key: result.get(key) for key in _KEPT}
            storage.write_json(folder / "cell.json", {"status": "done", **facts, **told, **found})
            _failure(folder).unlink(missing_ok=True)
            _time_file(folder).unlink(missing_ok=True)
    except (BusyError, Interrupted, KeyboardInterrupt):
        with contextlib.suppress(FieldmarkError):
            storage.make_folder(folder.parent)
            storage.write_json(_time_file(folder), _spent(folder) + time.time() - began)
        raise
    except Exception as error:  # one cell must not lose the table
        work.say(f"FAILED: {cell.data}, {cell.method}, seed {cell.seed}: {error}")
        told = {"error": str(error) or type(error).__name__, "traceback": traceback.format_exc()}
        with contextlib.suppress(FieldmarkError):
            storage.make_folder(folder.parent)
            storage.write_json(_failure(folder), {"status": "failed", **facts, **told})


def _tune(work: _Bench, cell: Cell) -> None:
    """Teach a finished cell's encoder with labels; whatever goes wrong is written down instead."""
    folder = work.folder(cell)
    work.say(f"{cell.data}, {cell.method}, seed {cell.seed}: fine-tuning with labels")
    try:
        tune(
            folder,
            work.photos(cell.data),
            work.table(cell.data),
            _decode(work, cell.data),
            settings(work.tune_epochs, cell.seed),
            device=work.device,
            progress=work.progress,
            say=work.say,
        )
        _failure(tuned_folder(folder)).unlink(missing_ok=True)
    except (BusyError, Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:  # what training gave must not be lost
        work.say(f"FAILED: fine-tuning of {cell.data}, {cell.method}, seed {cell.seed}: {error}")
        told = {"error": str(error) or type(error).__name__, "traceback": traceback.format_exc()}
        with contextlib.suppress(FieldmarkError):
            storage.write_json(_failure(tuned_folder(folder)), told)


def _decode(work: _Bench, data: str) -> Path:
    """The photos of a data set, decoded once for all cells; waits where another process does it."""
    store, told = work.store(data), False
    while True:
        try:
            PhotoStore.build(
                Catalog.open(work.photos(data)),
                store,
                short_side=work.short_sides[data],
                progress=partial(work.progress, "decoding photos"),
            )
        except BusyError:
            if not told:
                work.say(f"another process is decoding the photos of {data}; waiting for it")
            told = True
            time.sleep(_WAIT_SECONDS)
        else:
            return store


def _best_on_test(run: Path) -> dict[str, float]:
    """The best of each measure over all epochs, each by itself, as the literature reports it."""
    file = run / "epochs.jsonl"
    if not file.is_file():
        return {}
    epochs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {
        f"{leaderboard.BEST}{name}": max(epoch[name] for epoch in epochs)
        for name in leaderboard.EACH_EPOCH
    }


def _time_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".seconds.json")


def _spent(folder: Path) -> float:
    """Seconds of earlier calls that were stopped in the middle."""
    with contextlib.suppress(OSError, ValueError):
        return float(json.loads(_time_file(folder).read_text(encoding="utf-8")))
    return 0.0


def _failure(folder: Path) -> Path:
    """Beside the run folder, which must hold nothing but a run."""
    return folder.with_name(folder.name + ".failed.json")


def _facts(work: _Bench, cell: Cell) -> dict[str, Any]:
    """Where a number comes from."""
    found, recipe = work.opened[cell.data], work.recipes[cell.method]
    return {
        **cell._asdict(),
        "title": found.facts.title,
        "subset": found.subset,
        "level": found.facts.level,
        "classes": len(found.classes),
        "train_photos": len(found.rows("train")),
        "test_photos": len(found.rows("test")),
        "split": found.facts.split,
        "split_sha256": found.split_hash(),
        "overlap": found.facts.overlap,
        "extra_data": recipe.extra_data,
        "recipe_sha256": _recipe_hash(recipe),
        "size": recipe.size,
        "epochs": recipe.train.epochs if recipe.trains else 0,
        "fieldmark": __version__,
        "code_sha256": code_hash(),
        "versions": {name: version for name, version in versions().items() if version},
        "machine": {"processor": processor(), "device": str(runtime.pick_device(work.device))},
    }


def _recipe_hash(recipe: Recipe) -> str:
    """Of every setting but the seed; weights count by their content, wherever they lie."""
    settings = flatten(recipe.dump())
    settings.pop("train.seed", None)
    weights = Path(str(settings.get("backbone.weights")))
    if weights.is_file():
        settings["backbone.weights"] = storage.sha256_of(weights)
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _refuse_mixtures(work: _Bench) -> None:
    """What is done must have been done with these settings on these photos."""
    for cell in work.cells:
        known, now = read_cell(work.folder(cell)), _facts(work, cell)
        for key, what in (("recipe_sha256", "other settings"), ("split_sha256", "another split")):
            if known.get("status") == "done" and known[key] != now[key]:
                raise OutputError(
                    f"--out {work.out} holds {cell.data}, {cell.method}, seed {cell.seed} with {what}; "
                    "a table must not mix them. Give a new folder, or what that benchmark was given."
                )
        tuned = read_tuned(work.folder(cell)) if work.tune_epochs else None
        if tuned is not None and tuned.epochs != work.tune_epochs:
            raise OutputError(
                f"--out {work.out} holds {cell.data}, {cell.method}, seed {cell.seed} fine-tuned for "
                f"{tuned.epochs} epochs, not {work.tune_epochs}; a table must not mix them. Give "
                f"--finetune {tuned.epochs}, or a new folder."
            )


def _measure(work: _Bench, cell: Cell, judged: Judged) -> dict[str, Any]:
    """What only a benchmark asks for."""
    data, before, after = judged
    split, encoder = data.split, after.encoder
    if split is None or before.result is None or after.result is None:
        raise CatalogError(f"{cell.data}: none of the labelled test photos can be read.")
    found = work.opened[cell.data]
    about = _about_photos(work, cell.data, data.catalog, data.store, split)
    measured = {
        side: {**kept.measures, "ece": kept.classification.get("ece")}
        for side, kept in ((START, before.result), ("trained", after.result))
    }
    work.progress("measuring", 0, 3, "few labels, clusters, unknown classes")
    measured["trained"] |= measure_vectors(found, split, after)
    work.progress("measuring", 1, 3, "photos in trouble")
    measured["trained"] |= measure_photos(found, data, after)
    work.progress("measuring", 2, 3, "coarser levels")
    levels = measure_levels(found, split, before, after)
    tests = [data.store.paths[row] for row in split.test_rows]
    for level, results in levels.items():
        both = {"encoder": results.after, "against": results.before}
        storage.write_json(_level_file(work.folder(cell), level), evaluation_file(both, tests))
    work.progress("measuring", 3, 3)
    provenance = encoder.provenance
    return {
        **about,
        "network": encoder.spec.backbone.config.name,
        "start_saw": provenance.labels_seen,
        "start_how": provenance.how,
        "start_sha256": provenance.sha256,
        START: _plain(measured[START]),
        "trained": _plain(measured["trained"]),
        "levels": {
            level: {
                "classes": results.classes,
                START: _plain(results.before.measures),
                "trained": _plain(results.after.measures),
            }
            for level, results in levels.items()
        },
    }


def _level_file(folder: Path, level: str) -> Path:
    return folder / f"evaluation-{file_name(level)}.json"


def _about_photos(
    work: _Bench, data: str, catalog: Catalog, store: PhotoStore, split: Split
) -> dict[str, Any]:
    """Hash of the photos, and how many pictures stand where they should not."""
    if data not in work.looked_at:
        leaks = find_leaks(store, split, progress=partial(work.progress, "looking for leaks"))
        work.looked_at[data] = {
            "data_sha256": catalog.fingerprint(),
            "test_photos_in_train": leaks.test_photos,
            "pictures_in_several_classes": len(leaks.across),
        }
        shown = {
            name: [[catalog[row].path for row in group] for group in groups]
            for name, groups in (("train_and_test", leaks.between), ("classes", leaks.across))
        }
        storage.write_json(work.table(data).with_suffix(".leaks.json"), shown)
    return work.looked_at[data]


def _plain(values: dict[str, Any]) -> dict[str, float | None]:
    return {k: float(v) if v is not None and np.isfinite(v) else None for k, v in values.items()}


def read_cell(folder: Path) -> dict[str, Any]:
    """What is known of a cell; empty where nothing is."""
    for path in (folder / "cell.json", _failure(folder)):
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found
    return {}


def _state(work: _Bench, cell: Cell) -> dict[str, Any]:
    known = read_cell(work.folder(cell))
    status = known.get("status", "missing")
    if status == "missing":
        lock = work.lock(cell)
        try:
            with hold_run(lock) if lock.is_dir() else contextlib.nullcontext():
                pass
        except BusyError:
            status = "busy"
    told = {"error": known["error"]} if status == "failed" else {}
    return {**cell._asdict(), "status": status, **told}


def leaderboard_lines(work: _Bench) -> list[dict[str, Any]]:
    """All that tables are made of: a line a cell, and a line a method on a data set."""
    lines: list[dict[str, Any]] = []
    done: dict[tuple[str, str], list[Path]] = {}
    tuned: dict[tuple[str, str], list[Tuned]] = {}
    for cell in work.cells:
        known = read_cell(work.folder(cell)) or {"status": "missing", **_facts(work, cell)}
        known.pop("traceback", None)
        levels = known.pop("levels", {})
        own = dict(known)
        told = read_cell(tuned_folder(work.folder(cell))).get("error")
        if told is not None:
            own["finetune_error"] = told
        reached = read_tuned(work.folder(cell)) if known["status"] == "done" else None
        if reached is not None:
            own["trained"] = {**known["trained"], TUNED: reached.top1}
            own["finetune_epochs"] = reached.epochs
            tuned.setdefault((cell.data, cell.method), []).append(reached)
        lines.append({"kind": "cell", **own})
        for level, told in levels.items():
            # The same run, asked coarser questions: a data set of its own in the table.
            name = f"{cell.data}:{level}"
            about = {"data": name, "level": level, "level_of": cell.data}
            lines.append({"kind": "cell", **known, **about, **told})
        if known["status"] == "done":
            folder = work.folder(cell)
            done.setdefault((cell.data, cell.method), []).append(RunFolder(folder).evaluation)
            for level in levels:
                place = _level_file(folder, level)
                done.setdefault((f"{cell.data}:{level}", cell.method), []).append(place)
    for (key, name), evaluations in done.items():
        gains = _gains(evaluations)
        start = tuned.get((key, START))
        if start and name != START and (key, name) in tuned:
            gains[TUNED] = _told(gain_of_tuned(start[0], tuned[key, name]))
        lines.append({"kind": "gain", "data": key, "method": name, "measures": gains})
    lines += [{"kind": "published", **row} for row in work.published if row["data"] in work.opened]
    return lines


def _gains(evaluations: list[Path]) -> dict[str, dict[str, float | None]]:
    """Gain over the start by measure, over photos and seeds; points."""
    read = [json.loads(place.read_text(encoding="utf-8")) for place in evaluations]
    start, trained = (
        [EvalResult.from_dict(data["results"][side]) for data in read]
        for side in ("against", "encoder")
    )
    found = {}
    for name in COMPARED:
        if all(name in side.per_query for side in (*start, *trained)):
            found[name] = _told(gain_over_seeds(start, trained, name))
    return found


def _told(gain: Gain) -> dict[str, float | None]:
    told = {"gain": gain.value, "low": gain.low, "high": gain.high, "p": gain.p}
    return _plain({**told, "seed_spread": gain.seed_spread})


def write_tables(out: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write results.jsonl and every form of the table; returns its rows."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    storage.write_text(out / "results.jsonl", text)
    rows = leaderboard.rows(lines)
    published = beside((line for line in lines if line["kind"] == "published"), rows)
    storage.write_text(out / "table.csv", leaderboard.as_csv(rows))
    storage.write_text(out / "table.md", leaderboard.as_markdown(rows, published))
    storage.write_text(out / "table.tex", leaderboard.as_latex(rows))
    render_benchmark(
        rows,
        out / "report.html",
        labels=leaderboard.SHOWN,
        remarks=leaderboard.remarks(rows),
        published=[{**row, "told": leaderboard.figures(row)} for row in published],
    )
    return rows


def redraw(results: Path, out: Path) -> list[dict[str, Any]]:
    """Make the tables again from a results.jsonl, computing nothing.

    Raises:
        InputError: If it is not one.
    """
    lines: list[dict[str, Any]] = []
    try:
        for line in results.read_text(encoding="utf-8").splitlines():
            lines.append(json.loads(line))
            if lines[-1]["kind"] not in {"cell", "gain", "published"}:
                raise ValueError(f"unknown kind {lines[-1]['kind']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{results}, line {len(lines) + 1}, is not of the results.jsonl of a benchmark ({error}); "
            "give the file that fieldmark bench wrote to its --out."
        ) from None
    storage.make_folder(out)
    return write_tables(out, lines)
