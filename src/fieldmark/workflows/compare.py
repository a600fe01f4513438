"""``fieldmark compare``: finished runs on the same photos, side by side, with what may be said."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldmark.errors import ArtifactError, InputError
from fieldmark.evaluation.evaluate import EvalResult, gain_over_seeds
from fieldmark.evaluation.significance import Gain, correct, find
from fieldmark.workflows.run import RunFolder, flatten

MEASURES = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "map": "mAP",
    "knn": "kNN",
    "linear": "linear, 100 %",
}
"""What is compared, where all runs have it, and how it is called."""


class Entry(NamedTuple):
    """Runs that differ in their seed alone."""

    name: str
    folders: tuple[Path, ...]
    results: tuple[EvalResult, ...]
    """What was measured of the trained encoder, post-processed, by seed."""
    starts: tuple[EvalResult, ...]
    """The same of the start; empty where nothing was held against."""


def compare_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """Put finished runs side by side; runs of the same settings but for the seed are one entry.

    Every entry is compared with the first one, and with the start that it was measured beside. An
    entry's interval reaches over other photos and, where there are several, other seeds; what is
    called better or worse is so after Holm's correction for all entries and measures shown.

    Args:
        runs: Run folders of ``fieldmark train``, or folders of ``fieldmark eval --out``.

    Returns:
        ``photos``, ``classes``, ``measures`` and ``entries``: ``name``, ``runs``, ``seeds``, and by
        measure ``value`` and ``spread`` (percent), ``over_first`` and ``over_start`` (``gain``,
        ``low``, ``high`` in points, ``p``, ``corrected``, ``finding``; None where there is nothing to
        compare with).

    Raises:
        ArtifactError: If a folder holds no evaluation with labels.
        InputError: If there are fewer than two runs, or they were measured on different photos.
    """
    if len(runs) < 2:
        raise InputError(
            f"a comparison needs two runs or more, got {len(runs)}; give their folders one after the "
            "other, the one that others are held against first."
        )
    entries = _entries([Path(run) for run in runs])
    first = entries[0]
    measures = [
        name
        for name in MEASURES
        if all(name in result.per_query for entry in entries for result in entry.results)
    ]
    comparisons: dict[str, Gain] = {}
    for place, entry in enumerate(entries):
        for name in measures:
            for against, sides in (("over_first", first.results), ("over_start", entry.starts)):
                if sides and not (against == "over_first" and place == 0):
                    key = f"{place}/{against}/{name}"
                    comparisons[key] = gain_over_seeds(sides, entry.results, name)
    corrected = correct({key: gain.p for key, gain in comparisons.items()})
    rows = []
    for place, entry in enumerate(entries):
        row: dict[str, Any] = {
            "name": entry.name,
            "runs": [str(folder) for folder in entry.folders],
            "seeds": len(entry.folders),
            "measures": {},
        }
        for name in measures:
            values = [result.measures[name] for result in entry.results]
            row["measures"][name] = {
                "value": float(np.mean(values)),
                "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                **{
                    against: _said(comparisons, corrected, f"{place}/{against}/{name}")
                    for against in ("over_first", "over_start")
                },
            }
        rows.append(row)
    return {
        "photos": len(first.results[0].labels),
        "classes": len(first.results[0].classes),
        "measures": measures,
        "entries": rows,
    }


def _said(
    comparisons: dict[str, Gain], corrected: dict[str, float], key: str
) -> dict[str, Any] | None:
    if key not in comparisons:
        return None
    gain = comparisons[key]
    numbers = {
        "gain": gain.value,
        "low": gain.low,
        "high": gain.high,
        "p": gain.p,
        "corrected": corrected[key],
    }
    plain = {name: float(v) if np.isfinite(v) else None for name, v in numbers.items()}
    return {**plain, "finding": find(gain.value, corrected[key])}


def _entries(runs: list[Path]) -> list[Entry]:
    """Runs grouped by settings, in the order in which they were named."""
    photos: dict[str, Path] = {}
    groups: dict[str, list[tuple[Path, EvalResult, EvalResult | None]]] = {}
    for run in runs:
        data = _read(run)
        results = data["results"]
        photos.setdefault(data["photos_sha256"], run)
        start = EvalResult.from_dict(results["against"]) if "against" in results else None
        made = (run, EvalResult.from_dict(results["encoder"]), start)
        groups.setdefault(_settings(run), []).append(made)
    if len(photos) > 1:
        one, other = list(photos.values())[:2]
        raise InputError(
            f"{one} and {other} were measured on different photos or classes; compare runs with the "
            "same --probe, or measure their encoders again with fieldmark eval."
        )
    taken: dict[str, int] = {}
    entries = []
    for members in groups.values():
        name = _name(members[0][0])
        taken[name] = taken.get(name, 0) + 1
        starts = tuple(start for _, _, start in members if start is not None)
        entries.append(
            Entry(
                name if taken[name] == 1 else f"{name} ({taken[name]})",
                tuple(folder for folder, _, _ in members),
                tuple(result for _, result, _ in members),
                starts if len(starts) == len(members) else (),
            )
        )
    return entries


def _read(run: Path) -> dict[str, Any]:
    path = RunFolder(run).evaluation
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{run} holds no evaluation.json: it is no finished run with labelled test photos. Train "
            "with --probe, or measure its encoder with fieldmark eval RUN PHOTOS --labels SPLIT --out "
            "FOLDER and give that folder."
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from None
    if "encoder" not in data.get("results", {}) or "photos_sha256" not in data:
        raise ArtifactError(
            f"{path} holds no measures of labelled photos, or is of an older fieldmark; measure again "
            "with labels."
        )
    return data


def _settings(run: Path) -> str:
    """What must be alike for two runs to be seeds of one another; the folder itself where unknown."""
    if not (run / "config.resolved.toml").is_file():
        return str(run.resolve())
    settings = flatten(RunFolder(run).recipe().dump())
    settings.pop("train.seed", None)
    return json.dumps(settings, sort_keys=True)


def _name(run: Path) -> str:
    known = (run / "config.resolved.toml").is_file()
    return RunFolder(run).recipe().name if known else run.resolve().name


def as_markdown(found: dict[str, Any]) -> str:
    """The comparison as a table to read."""
    names = [MEASURES[name] for name in found["measures"]]
    first = found["entries"][0]["name"]
    lines = [
        f"{found['photos']:,} test photos of {found['classes']:,} classes. Percent, mean over seeds, "
        f"± their standard deviation; in brackets points over {first} and the 95 % interval over "
        "photos and seeds. Better and worse hold after Holm's correction for everything shown.",
        "",
        f"| run | seeds | {' | '.join(names)} | over {first} | over its start |",
        "|---" * (len(names) + 4) + "|",
    ]
    for entry in found["entries"]:
        cells = [_cell(entry["measures"][name]) for name in found["measures"]]
        said = [_sentence(entry, found["measures"], a) for a in ("over_first", "over_start")]
        lines.append(f"| {' | '.join([entry['name'], str(entry['seeds']), *cells, *said])} |")
    return "\n".join(lines) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    text = f"{cell['value']:.1f}"
    if cell["spread"] is not None:
        text += f" ± {cell['spread']:.1f}"
    over = cell["over_first"]
    if over is not None:
        text += f" ({over['gain']:+z.1f}"
        if over["low"] is not None:
            text += f" [{over['low']:+z.1f}, {over['high']:+z.1f}]"
        text += ")"
    return text


def _sentence(entry: dict[str, Any], measures: list[str], against: str) -> str:
    """``better in mAP, worse in kNN``, or ``not shown``."""
    told: dict[str, list[str]] = {"better": [], "worse": []}
    compared = False
    for name in measures:
        said = entry["measures"][name][against]
        if said is not None:
            compared = True
            told.get(said["finding"], []).append(MEASURES[name])
    parts = [f"{word} in {', '.join(names)}" for word, names in told.items() if names]
    return "; ".join(parts) or ("not shown" if compared else "–")


def as_csv(found: dict[str, Any]) -> str:
    """One line an entry and measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("gain", "low", "high", "p", "corrected", "finding")
    sides = ("over_first", "over_start")
    header = [f"{number} {side.replace('_', ' ')}" for side in sides for number in numbers]
    writer.writerow(["run", "seeds", "measure", "value", "spread", *header])
    for entry in found["entries"]:
        for name in found["measures"]:
            cell = entry["measures"][name]
            said = [(cell[side] or {}).get(number) for side in sides for number in numbers]
            writer.writerow(
                [entry["name"], entry["seeds"], name, cell["value"], cell["spread"], *said]
            )
    return text.getvalue()
