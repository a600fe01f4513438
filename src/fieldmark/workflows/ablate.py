"""``fieldmark ablate``: the comparisons that a method declares, each a run like any other.

OUT/
├── STUDY/VARIANT/seed-0/   a run folder of fieldmark train
├── ablation.json  ablation.csv  ablation.md
└── store/                  decoded photos, shared by all runs
"""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldmark import __version__, runtime, storage
from fieldmark import config as settings
from fieldmark.config import suggest
from fieldmark.errors import ConfigError, InputError
from fieldmark.methods import METHODS
from fieldmark.workflows import recipe as recipes
from fieldmark.workflows.methods import list_methods
from fieldmark.workflows.photos import Say, ShowProgress, quiet, short_side
from fieldmark.workflows.recipe import Recipe, load_recipe, seeded
from fieldmark.workflows.run import claim_folder, file_name
from fieldmark.workflows.train import read_result, train

_log = logging.getLogger("fieldmark")
MEASURES = {"rank1": "rank-1", "map": "mAP", "linear": "linear, 100 %"}
"""Columns of the table with labels, and how they are called."""
VIEW_RECALL = "view_recall"
"""The column without labels."""
_RUN = "ablation.json"


class Variant(NamedTuple):
    """One line of a study."""

    study: str
    name: str
    recipe: Recipe


def ablate(
    method: str,
    photos: Path,
    out: Path,
    *,
    recipe: str | None = None,
    sets: Iterable[str] = (),
    extra: dict[str, Any] | None = None,
    studies: Sequence[str] = (),
    probe: Path | None = None,
    seeds: int = 1,
    device: str = "auto",
    progress: ShowProgress = quiet,
    say: Say = _log.info,
) -> dict[str, Any] | None:
    """Train every variant of a method's studies and put them side by side.

    Called again with the same arguments it continues where it stopped; variants that are done are
    not trained again.

    Args:
        method: Key of the method table, or name of a recipe that trains it.
        photos: Folder, table or shards.
        out: Folder for runs and tables.
        recipe: What variants differ from; by default the first that trains the method.
        sets: ``a.b=c`` overrides for all variants; what a variant changes wins.
        extra: Further settings for all variants, as for :func:`load_recipe`.
        studies: Which studies; by default all that the method declares.
        probe: Table ``path,class,split``; without it only view recall is compared.
        seeds: How many seeds each variant is trained with, from ``train.seed`` up.
        device: ``auto`` or a torch device.
        progress: Told how far each part is.
        say: Told what the user should know.

    Returns:
        ``method``, ``recipe``, ``epochs``, ``size``, ``probe``, ``seeds``, ``start`` (the start's
        value of each measure) and ``rows``: ``study``, ``variant``, ``same_as``, ``seeds``,
        ``verdicts`` and ``measures`` (each with ``value``, ``spread``, ``start``, ``gain`` and
        ``interval``; percent and points), and ``refused`` (``study``, ``variant``, ``reason``): what
        this network or these texts cannot do. None in all processes but the first.

    Raises:
        ConfigError: No such method or study, a recipe of another method, or no variant that can be
            trained.
        OutputError: ``out`` holds something else.
    """
    if seeds < 1:
        raise ConfigError(
            f"--seeds must be at least 1, got {seeds}; 3 shows how much luck there is."
        )
    method, recipe = _chosen(method, recipe)
    wanted, refused = _resolved(method, recipe, sets, extra, studies)
    out = Path(out)
    with runtime.processes(device=runtime.pick_device(device)):
        first = runtime.rank() == 0
        if first:
            claim_folder(out, _RUN, "an ablation")
            if not (out / _RUN).is_file():
                storage.write_json(out / _RUN, {"fieldmark": __version__, "rows": []})
        rows: list[dict[str, Any]] = []
        for left in refused:
            say(f"left out: {left['study']}, {left['variant']}: {left['reason']}")
        for done, variant in enumerate(wanted):
            twin = next(v for v in wanted if v.recipe == variant.recipe)
            results = []
            for seed in range(seeds):
                say(f"{variant.study}, {variant.name}, seed {seed} ({done + 1} of {len(wanted)})")
                made = seeded(variant.recipe, seed)
                # The same settings under two names are trained once.
                folder = _folder(out, twin) / f"seed-{seed}"
                # All processes agree on what is done: the first is still judging when others go on.
                runtime.barrier()
                kept = read_result(folder) if twin is not variant else None
                runtime.barrier()
                try:
                    result = kept or _run(made, folder, photos, out, probe, device, progress, say)
                except (ConfigError, InputError) as error:
                    # This network or bank of texts cannot do it; the other variants can.
                    say(f"left out: {error}")
                    refused.append(_left_out(variant.study, variant.name, error))
                    break
                if result is not None:
                    results.append(result)
            if first and results:
                rows.append(_row(variant, twin, results))
            if rows:
                table = _table(wanted[0], method, rows, refused, seeds, probe)
                _write(out, table)
        if {(left["study"], left["variant"]) for left in refused} >= {v[:2] for v in wanted}:
            raise ConfigError(f"no variant can be trained here; {refused[0]['reason']}")
        return table if first else None


def variants(
    method: str,
    *,
    recipe: str | None = None,
    sets: Iterable[str] = (),
    extra: dict[str, Any] | None = None,
    studies: Sequence[str] = (),
) -> list[Variant]:
    """What :func:`ablate` would train, in order; without what these settings do not allow.

    Raises:
        ConfigError: As :func:`ablate`.
    """
    return _resolved(*_chosen(method, recipe), sets, extra, studies)[0]


def _resolved(
    name: str,
    recipe: str,
    sets: Iterable[str],
    extra: dict[str, Any] | None,
    studies: Sequence[str],
) -> tuple[list[Variant], list[dict[str, str]]]:
    """Variants whose settings fit together, and those left out because theirs do not."""
    declared = METHODS[name].ablations
    if not declared:
        able = ", ".join(key for key, kind in METHODS.items() if kind.ablations)
        raise ConfigError(
            f"method '{name}' declares no ablations; these do: {able}. Compare settings of your own "
            "with fieldmark train and --set."
        )
    for study in studies:
        if study not in declared:
            raise ConfigError(suggest(study, declared, f"study of {name}"))
    base = load_recipe(recipe, sets, extra=extra)
    if base.method_name != name:
        raise ConfigError(
            f"recipe '{base.name}' trains '{base.method_name}', not '{name}'; give a recipe of that "
            "method with --recipe."
        )
    fitting: list[Variant] = []
    refused: list[dict[str, str]] = []
    for study in studies or declared:
        for variant, tables in declared[study].items():
            try:
                made = _changed(base, tables, f"{study}, {variant}")
            except ConfigError as error:
                # Such as texts without a text-image teacher.
                refused.append(_left_out(study, variant, error))
            else:
                fitting.append(Variant(study, variant, made))
    return fitting, refused


def _left_out(study: str, variant: str, error: Exception) -> dict[str, str]:
    return {"study": study, "variant": variant, "reason": str(error)}


def _chosen(method: str, recipe: str | None) -> tuple[str, str]:
    """Method and recipe that are meant; either may be called by the name of a recipe."""
    name = recipes.ALIASES.get(method, method)
    using = {each["name"]: each["recipes"] for each in list_methods()}
    if name in recipes.available():
        recipe = recipe or name
        name = load_recipe(name).method_name
    if name not in METHODS:
        known = dict.fromkeys([*METHODS, *(r for names in using.values() for r in names)])
        raise ConfigError(suggest(method, known, "method"))
    return name, recipe or using[name][0]


def _changed(base: Recipe, tables: dict[str, Any], source: str) -> Recipe:
    data = base.dump()
    other = tables.get("method", {}).get("name", base.method_name)
    if other != base.method_name:
        # Settings of one method mean nothing to another.
        data["method"] = {}
    return Recipe.parse(settings.merge(data, tables), source)


def _folder(out: Path, variant: Variant) -> Path:
    study, name = map(file_name, (variant.study, variant.name))
    return out / study / name


def _run(
    recipe: Recipe,
    folder: Path,
    photos: Path,
    out: Path,
    probe: Path | None,
    device: str,
    progress: ShowProgress,
    say: Say,
) -> dict[str, Any] | None:
    # Photos are kept at the size that a variant asks for: one store for each.
    store = out / "store" / str(short_side(recipe, 1))
    return train(
        photos,
        folder,
        recipe,
        probe=probe,
        device=device,
        store=store,
        progress=progress,
        say=say,
    )


def _row(variant: Variant, twin: Variant, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; with several seeds the interval reaches over those of all."""
    values: dict[str, Any] = {}
    for name in (VIEW_RECALL,) if "label_free" in results[0] else MEASURES:
        cells = [_cell(result, name, variant.recipe.trains) for result in results]
        known = [cell for cell in cells if cell["value"] is not None]
        values[name] = {
            "value": _mean([cell["value"] for cell in known]),
            "spread": float(np.std([c["value"] for c in known])) if len(known) > 1 else None,
            "start": cells[0]["start"],
            "gain": _mean([cell["gain"] for cell in known if cell["gain"] is not None]),
            "interval": _hull([cell["interval"] for cell in known]),
        }
    return {
        "study": variant.study,
        "variant": variant.name,
        "same_as": None if twin is variant else f"{twin.study}, {twin.name}",
        "seeds": len(results),
        "measures": values,
        "verdicts": [result["verdict"] for result in results],
    }


def _cell(result: dict[str, Any], name: str, trains: bool) -> dict[str, Any]:
    if name == VIEW_RECALL:
        told = result["label_free"]
        gain, interval = told["gain"], told["interval"]
    else:
        told = result
        gain, interval = told["gain"].get(name), told["interval"].get(name)
    value = told["trained"].get(name)
    if not trains:
        # What such a run gains is of its post-processing, which every other row's start has too.
        return {"value": value, "start": value, "gain": None, "interval": None}
    return {"value": value, "start": told["start"].get(name), "gain": gain, "interval": interval}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _hull(intervals: list[list[float] | None]) -> list[float] | None:
    ends = [interval for interval in intervals if interval]
    return [min(low for low, _ in ends), max(high for _, high in ends)] if ends else None


def _table(
    base: Variant,
    method: str,
    rows: list[dict[str, Any]],
    refused: list[dict[str, str]],
    seeds: int,
    probe: Path | None,
) -> dict[str, Any]:
    return {
        "fieldmark": __version__,
        "method": method,
        "recipe": base.recipe.name,
        "epochs": base.recipe.train.epochs,
        "size": base.recipe.size,
        "probe": None if probe is None else str(probe),
        "seeds": seeds,
        "start": {name: cell["start"] for name, cell in rows[0]["measures"].items()},
        "rows": rows,
        "refused": refused,
    }


def _write(out: Path, table: dict[str, Any]) -> None:
    storage.write_json(out / _RUN, table)
    storage.write_text(out / "ablation.csv", as_csv(table))
    storage.write_text(out / "ablation.md", as_markdown(table))


def as_csv(table: dict[str, Any]) -> str:
    """One line a variant, the start first; percent and points."""
    columns = list(table["start"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("", " spread", " gain", " low", " high")
    header = [f"{name}{part}" for name in columns for part in parts]
    writer.writerow(["study", "variant", "seeds", *header, "verdicts"])
    first: list[Any] = []
    for name in columns:
        first += [_number(table["start"][name]), "", "", "", ""]
    writer.writerow(["", "start", "", *first, ""])
    for row in table["rows"]:
        cells: list[Any] = []
        for name in columns:
            cell = row["measures"][name]
            low, high = cell["interval"] or (None, None)
            cells += [_number(v) for v in (cell["value"], cell["spread"], cell["gain"], low, high)]
        writer.writerow(
            [row["study"], row["variant"], row["seeds"], *cells, "; ".join(row["verdicts"])]
        )
    return text.getvalue()


def as_markdown(table: dict[str, Any]) -> str:
    """The same as a table to read, one for each study."""
    columns = list(table["start"])
    labels = [MEASURES.get(name, "view recall") for name in columns]
    lines = [
        f"# Ablations of {table['method']}",
        "",
        f"Recipe {table['recipe']}, {table['epochs']} epochs, {table['size']} px, {table['seeds']} "
        "seed" + ("s" if table["seeds"] > 1 else "") + ". Percent; in brackets the gain over the "
        "start in points and its 95 % interval"
        + (
            ", which reaches from the lowest to the highest end over the seeds; ± is the standard "
            "deviation over seeds."
            if table["seeds"] > 1
            else "."
        ),
    ]
    for study in dict.fromkeys(row["study"] for row in table["rows"]):
        lines += ["", f"## {study}", "", f"| variant | {' | '.join(labels)} |"]
        lines.append("|---" * (len(labels) + 1) + "|")
        shown = [_number(table["start"][name]) or "-" for name in columns]
        lines.append(f"| start | {' | '.join(shown)} |")
        for row in table["rows"]:
            if row["study"] == study:
                cells = [_in_words(row["measures"][name]) for name in columns]
                name = row["variant"] + (f" (= {row['same_as']})" if row["same_as"] else "")
                lines.append(f"| {name} | {' | '.join(cells)} |")
    if table["refused"]:
        lines += ["", "## Left out", ""]
        lines += [
            f"- {row['study']}, {row['variant']}: {row['reason']}" for row in table["refused"]
        ]
    return "\n".join(lines) + "\n"


def _in_words(cell: dict[str, Any]) -> str:
    if cell["value"] is None:
        return "-"
    text = f"{cell['value']:.2f}"
    if cell["spread"] is not None:
        text += f" ± {cell['spread']:.2f}"
    if cell["gain"] is not None:
        text += f" ({cell['gain']:+z.2f}"
        if cell["interval"]:
            text += f" [{cell['interval'][0]:+z.2f}, {cell['interval'][1]:+z.2f}]"
        text += ")"
    return text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
