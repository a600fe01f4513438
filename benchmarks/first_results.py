"""MoCo v2 on real photos from a pretrained start: the paper's settings beside gentle ones.

Every run is an ordinary ``fieldmark train``; the start is measured in each. Interrupted, it goes
on with the runs that are missing.

    python benchmarks/first_results.py --data DIR --work DIR [--seeds 3]
    python benchmarks/first_results.py --table        docs/results.md's table from the JSON
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from _record import record
from fieldmark.workflows.recipe import Recipe, load_recipe
from fieldmark.workflows.train import read_result, train

# Fewer epochs than the paper's 100: what a two-core machine can do in an afternoon. The schedule
# is the paper's over this length, so the learning rate does fall to zero.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("mocov2", {"train": {"epochs": 15}}),
    # A low rate and frozen batch-norm alone: the whole network trains, and on the paper's views.
    "slow": (
        "gentle",
        {
            "train": {"epochs": 4},
            "backbone": {"train_from_stage": 0},
            "views": {"override": {"hue": 0.1, "gray": 0.2, "saturation": 0.4}},
            "post": {"whiten_dim": 0},
        },
    ),
    "gentle": ("gentle", {}),
    # No training; one seed is enough.
    "start": ("start", {}),
}
PHOTOS = {"birds200": "birds200", "cub50": "cub50", "cars196": "cars196"}
WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="where runs are kept")
    parser.add_argument("--table", action="store_true", help="print what was recorded")
    parser.add_argument("--photos", nargs="+", default=["birds200", "cub50"], choices=PHOTOS)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    if options.table:
        recorded = Path(__file__).parent / "results" / "first_results.json"
        print(table(json.loads(recorded.read_text())["runs"]))
        return
    if options.data is None or options.work is None:
        parser.error("--data and --work are needed to train")
    for seed in range(options.seeds):
        for photos in options.photos:
            for setting in options.settings:
                one_run(options, photos, setting, seed)
                summary = {"runs": finished(options), "weights": WEIGHTS, "size": options.size}
                print(record("first_results", summary), flush=True)


def place(options: argparse.Namespace, photos: str, setting: str, seed: int) -> Path:
    return Path(options.work) / f"{photos}-{setting}-{seed}"


def recipe_of(options: argparse.Namespace, setting: str, seed: int) -> Recipe:
    name, changes = SETTINGS[setting]
    changes = {
        **changes,
        "size": options.size,
        "backbone": {**changes.get("backbone", {}), "weights": str(options.data / WEIGHTS)},
        "train": {**changes.get("train", {}), "seed": seed},
    }
    return load_recipe(name, extra=changes)


def one_run(options: argparse.Namespace, photos: str, setting: str, seed: int) -> None:
    folder, out = options.data / PHOTOS[photos], place(options, photos, setting, seed)
    if read_result(out) is None:
        recipe = recipe_of(options, setting, seed)
        train(folder / "images", out, recipe, probe=folder / "split.csv", say=print)


def finished(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What every run in the folder found, also those of earlier calls."""
    kept = ("verdict", "start", "trained", "gain", "interval", "shipped", "grid", "candidates")
    runs = []
    for photos, setting, seed in itertools.product(PHOTOS, SETTINGS, range(10)):
        result = read_result(place(options, photos, setting, seed))
        if result is not None:
            recipe = recipe_of(options, setting, seed)
            facts = {"photos": photos, "setting": setting, "recipe": recipe.name, "seed": seed}
            facts["epochs"] = recipe.train.epochs if recipe.trains else 0
            runs.append({**facts, **{key: result.get(key) for key in kept}})
    return runs


def table(runs: list[dict[str, Any]]) -> str:
    """Means over seeds, and each seed's verdict.

    Where a recipe trains and has post-processing, the plain start comes before the start with it.
    """
    lines = [
        "| photos | setting | epochs | seeds | rank-1: start → result (gain of each seed) "
        "| mAP | linear | verdicts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for photos, setting in dict.fromkeys((run["photos"], run["setting"]) for run in runs):
        same = [run for run in runs if (run["photos"], run["setting"]) == (photos, setting)]
        cells = [photos, f"`{setting}`", str(same[0]["epochs"]), str(len(same))]
        for measure in ("rank1", "map", "linear"):
            start, trained = (
                statistics.mean(run[side][measure] for run in same) for side in ("start", "trained")
            )
            plain = statistics.mean(run["grid"][measure]["start"]["plain"] for run in same)
            before = f"{plain:.1f} → " if abs(plain - start) > 1e-6 else ""
            gains = ", ".join(f"{run['gain'][measure]:+.1f}" for run in same).replace("-", "−")
            cells.append(f"{before}{start:.1f} → {trained:.1f} ({gains})")
        verdicts = [run["verdict"] for run in same]
        cells.append(
            ", ".join(f"{word} × {verdicts.count(word)}" for word in sorted(set(verdicts)))
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
