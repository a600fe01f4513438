"""The house recipe as it was first: 5 epochs, one input of the teacher, no sharing of targets, no blending.

As it ships it is a row of ``methods_table.py``.

Every run is an ordinary ``fieldmark train``, judged on test photos. Nothing is chosen here; README.md beside this file tells how the settings were found, on train photos.

    python benchmarks/house/final.py --data DIR --work DIR [--photos birds200 ...] [--seeds 3]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from _record import record
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import read_result, train

PHOTOS = ("birds200", "cars196", "cub50")
WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
KEPT = ("verdict", "start", "trained", "gain", "interval", "shipped", "grid", "candidates")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--photos", nargs="+", default=list(PHOTOS), choices=PHOTOS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="fieldmark")
    options = parser.parse_args()
    for seed in range(options.seeds):
        for photos in options.photos:
            out, folder = options.work / f"{photos}-{seed}", options.data / photos
            if read_result(out) is None:
                recipe = load_recipe(
                    options.recipe,
                    extra={
                        "size": 128,
                        "backbone": {"weights": str(options.data / WEIGHTS), "blend": 1.0},
                        "train": {"seed": seed, "epochs": 5},
                        "method": {"teacher_scales": [1.75], "diffusion": 0.0},
                    },
                )
                train(folder / "images", out, recipe, probe=folder / "split.csv", say=print)
            print(record("house", {"runs": finished(options.work), "weights": WEIGHTS}), flush=True)


def finished(work: Path) -> list[dict[str, Any]]:
    """What every run in the folder found."""
    runs = []
    for place in sorted(work.iterdir()):
        result = read_result(place)
        if result is not None:
            photos, seed = place.name.rsplit("-", 1)
            facts = {"photos": photos, "seed": int(seed)}
            runs.append({**facts, **{key: result.get(key) for key in KEPT}})
    return runs


if __name__ == "__main__":
    main()
