"""MoCo v2 on real photos from a pretrained start: the paper's settings beside gentle ones.

Every run is an ordinary ``fieldmark train``; the start is measured in each. Interrupted, it goes
on with the runs that are missing.

    python benchmarks/first_results.py --data DIR --work DIR [--seeds 3]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from _record import record
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import train

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
        },
    ),
    "gentle": ("gentle", {}),
}
PHOTOS = {"birds200": "birds200", "cub50": "cub50", "cars196": "cars196"}
WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--photos", nargs="+", default=["birds200", "cub50"], choices=PHOTOS)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    runs = []
    for seed in range(options.seeds):
        for photos in options.photos:
            for setting in options.settings:
                runs.append(one_run(options, photos, setting, seed))
                summary = {"runs": runs, "weights": WEIGHTS, "size": options.size}
                print(record("first_results", summary))


def one_run(options: argparse.Namespace, photos: str, setting: str, seed: int) -> dict[str, Any]:
    name, changes = SETTINGS[setting]
    folder = options.data / PHOTOS[photos]
    changes = {
        **changes,
        "size": options.size,
        "backbone": {**changes.get("backbone", {}), "weights": str(options.data / WEIGHTS)},
        "train": {**changes.get("train", {}), "seed": seed},
    }
    recipe = load_recipe(name, extra=changes)
    result = train(
        folder / "images",
        options.work / f"{photos}-{setting}-{seed}",
        recipe,
        probe=folder / "split.csv",
        say=print,
    )
    assert result is not None
    kept = ("verdict", "start", "trained", "gain", "interval", "shipped", "grid", "candidates")
    print(photos, setting, seed, json.dumps({key: result.get(key) for key in kept}), flush=True)
    return {
        "photos": photos,
        "setting": setting,
        "recipe": name,
        "epochs": recipe.train.epochs,
        "seed": seed,
        **{key: result.get(key) for key in kept},
    }


if __name__ == "__main__":
    main()
