"""``fieldmark verify``: measure again what a run or a benchmark says, and compare."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark import storage
from fieldmark.data.catalog import Catalog
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, FieldmarkError, InputError
from fieldmark.evaluation.evaluate import EvalResult, evaluate_encoder, evaluation_file
from fieldmark.workflows.photos import ShowProgress, find_split, prepare, quiet
from fieldmark.workflows.recipe import Recipe
from fieldmark.workflows.run import RunFolder

TOLERANCE = 0.1
"""Points by which a measure may differ: other processors round otherwise, and a photo on the edge
changes sides. On the machine that measured, nothing differs."""

_SAME = 1e-6


def verify(
    result: Path,
    *,
    photos: Path | None = None,
    probe: Path | None = None,
    tolerance: float = TOLERANCE,
    device: str = "auto",
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Load the encoders of a finished run, embed the photos again, measure, compare.

    Nothing of the run is changed.

    Args:
        result: Run folder of ``fieldmark train``, folder of ``fieldmark bench`` (all finished cells), or
            a ``results.jsonl``, ``result.json`` or ``evaluation.json`` in one.
        photos: Where the photos are now, if not where the run found them.
        probe: The same of the table with their labels.
        tolerance: Points by which a measure may differ.
        device: Where to compute.
        progress: Told how far it is.

    Returns:
        ``verified``, and ``runs``: ``run``, ``status`` (``reproduced``, ``differs`` or
        ``cannot be verified``), ``why``, ``largest`` (points) and ``measures``: for each encoder and
        measure ``recorded``, ``now`` and ``difference``.

    Raises:
        ArtifactError: If there is no finished run.
    """
    folders = list(_runs(Path(result)))
    if (photos or probe) and len(folders) > 1:
        raise InputError("--photos and --probe are for one run; a benchmark knows its own.")
    runs = []
    told = _told(Path(result))
    for done, folder in enumerate(folders):
        progress("verifying", done, len(folders), folder.name)
        try:
            found = _verify(folder, photos, probe, tolerance, device, progress)
            if found["status"] == "reproduced":
                found |= _as_told(folder, told)
        except FieldmarkError as error:
            if len(folders) == 1:
                raise
            found = {"status": "cannot be verified", "why": str(error)}
        runs.append({"run": str(folder), **found})
    progress("verifying", len(folders), len(folders))
    return {"verified": all(run["status"] == "reproduced" for run in runs), "runs": runs}


def _runs(result: Path) -> Iterator[Path]:
    folder = result.parent if result.is_file() else result
    if (folder / "bench.json").is_file():
        cells = sorted((folder / "cells").glob("*/*/seed-*/cell.json"))
        if not cells:
            raise ArtifactError(f"{folder} holds no finished cell, so there is nothing to verify.")
        yield from (cell.parent for cell in cells)
        return
    run = RunFolder(folder)
    if not run.evaluation.is_file() or not (folder / "run.json").is_file():
        raise ArtifactError(
            f"{result} is no finished run of fieldmark train with labelled test photos, and no benchmark: "
            "there is no encoder beside it to measure again. Give such a folder, or one of its files."
        )
    yield folder


def _told(result: Path) -> list[dict[str, Any]]:
    """Lines of a benchmark's results.jsonl, whose numbers must be those of its cells."""
    folder = result.parent if result.is_file() else result
    file = result if result.suffix == ".jsonl" else folder / "results.jsonl"
    if not (folder / "bench.json").is_file() or not file.is_file():
        return []
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ArtifactError(
            f"{file} is damaged ({error}); fieldmark bench writes it anew."
        ) from None


def _as_told(folder: Path, told: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table says of a cell, against what its run measured."""
    if not told or not (folder / "cell.json").is_file():
        return {}
    cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    measured = json.loads(RunFolder(folder).evaluation.read_text(encoding="utf-8"))
    known = measured["results"]["encoder"]["measures"]
    address = ("data", "method", "seed")
    for line in told:
        if line.get("kind") != "cell" or any(line.get(key) != cell[key] for key in address):
            continue
        for name, value in known.items():
            said = line.get("trained", {}).get(name)
            if value is not None and (said is None or abs(said - value) > _SAME):
                return _differs(f"the table says {name} {said}, its run measured {value}")
    return {}


def _verify(
    folder: Path,
    photos: Path | None,
    probe: Path | None,
    tolerance: float,
    device: str,
    progress: ShowProgress,
) -> dict[str, Any]:
    run = RunFolder(folder)
    recorded, made_of, summary = map(_read, (run.evaluation, folder / "run.json", run.result))
    recipe = run.recipe()
    catalog = Catalog.open(photos or Path(made_of["photos"]))
    table = probe or (Path(made_of["probe"]) if "probe" in made_of else None)
    if table and table.is_file() and storage.sha256_of(table) != made_of.get("probe_sha256"):
        return _differs(f"the table {table} is not the one that the run was given")
    encoders = {
        side: Encoder.load(place, device=device)
        for side, place in _encoders(run, recipe, summary).items()
        if side in recorded["results"]
    }
    labels = find_split(catalog, table)
    with tempfile.TemporaryDirectory() as scratch:
        start = next(iter(encoders.values())).spec.backbone
        seen = _as_large_as(recorded.get("short_side"), recipe)
        data = prepare(catalog, labels, seen, Path(scratch), start=start, progress=progress)
        split = data.split
        if split is None or not len(split.test_rows):
            return _differs("none of the labelled test photos is there")
        tests = [data.store.paths[row] for row in split.test_rows]
        now: dict[str, EvalResult] = {}
        for done, (side, encoder) in enumerate(encoders.items()):
            progress("embedding again", done, len(encoders), side)
            train, test = (
                encoder.embed_store(data.store, rows)
                for rows in (split.train_rows, split.test_rows)
            )
            now[side] = evaluate_encoder(
                train, split.train_labels, test, split.test_labels, split.classes
            )
    if evaluation_file(now, tests)["photos_sha256"] != recorded["photos_sha256"]:
        return _differs("the test photos or their labels are not those that were measured")
    return _compared(recorded["results"], now, tolerance)


def _as_large_as(short_side: int | None, recipe: Recipe) -> Recipe:
    """The recipe with photos kept as the run had them, which may have shared larger ones."""
    kept = recipe.photos.model_copy(update={"short_side": short_side or recipe.photos.short_side})
    return recipe.model_copy(update={"photos": kept})


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); run the same fieldmark train again to finish the run."
        ) from None
    return found


def _encoders(run: RunFolder, recipe: Recipe, summary: dict[str, Any]) -> dict[str, Path]:
    """Which kept encoder each recorded side is; the plain start of a run without training is not kept."""
    if not recipe.trains:
        ships_plain = summary["verdict"] == "hurt" and summary["shipped"] == "start"
        return {"against" if ships_plain else "encoder": run.encoder_of("start")}
    candidate = run.encoder_of(summary.get("candidate", "student"))
    return {"encoder": candidate, "against": run.encoder_of("start")}


def _compared(
    recorded: dict[str, Any], now: dict[str, EvalResult], tolerance: float
) -> dict[str, Any]:
    measures: dict[str, dict[str, Any]] = {}
    largest = 0.0
    for side, found in now.items():
        before = EvalResult.from_dict(recorded[side])
        for name, value in before.measures.items():
            other = found.measures.get(name, float("nan"))
            difference = abs(other - value)
            if np.isnan(value) and np.isnan(other):
                continue
            largest = max(largest, float("inf") if np.isnan(difference) else difference)
            measures.setdefault(side, {})[name] = {
                "recorded": value,
                "now": None if np.isnan(other) else other,
                "difference": None if np.isnan(difference) else difference,
            }
    same = largest <= tolerance
    told = {"largest": largest if np.isfinite(largest) else None, "measures": measures}
    if same:
        return {"status": "reproduced", "why": "", **told}
    one = 100 / len(next(iter(now.values())).labels)
    why = f"a measure differs by more than {tolerance:g} points; one test photo is {one:.2g}"
    return {**_differs(why), **told}


def _differs(why: str) -> dict[str, Any]:
    return {"status": "differs", "why": why}
