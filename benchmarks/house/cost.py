"""What the house recipe costs as a whole: ``fieldmark train`` from photos to report, by the clock.

birds200: 6,033 photos to decode, 3,000 to train on, 3,033 labelled test photos for the verdict. Needs a
quiet machine; takes all its cores.

    python benchmarks/house/cost.py --data DIR --work DIR
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from final import WEIGHTS

from _record import record
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import train

TARGET = 1_200
"""Seconds on two cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a new folder for the run")
    parser.add_argument("--photos", default="birds200")
    options = parser.parse_args()
    recipe = load_recipe(
        "fieldmark", extra={"size": 128, "backbone": {"weights": str(options.data / WEIGHTS)}}
    )
    folder, began = options.data / options.photos, time.time()
    train(folder / "images", options.work, recipe, probe=folder / "split.csv", say=print)
    print(keep(options.work, options.photos, began, time.time()))


def keep(run: Path, photos: str, began: float, ended: float) -> Path:
    """Write how long the parts of a run took."""
    lines = (run / "timing.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    last = epochs[-1]["unix_time"]
    # The first epoch's own length is not on record; the others' mean stands in for it.
    first = epochs[0]["unix_time"] - (last - epochs[0]["unix_time"]) / (len(epochs) - 1)
    summary: dict[str, Any] = {
        "photos": photos,
        "epochs": len(epochs),
        "photos_per_second": epochs[-1]["images_per_second"],
        "seconds": {
            "all": round(ended - began),
            "decoding and the teacher's looks": round(first - began),
            "training": round(last - first),
            "evaluation and report": round(ended - last),
        },
        "target": TARGET,
    }
    return record("house_cost", summary)


if __name__ == "__main__":
    main()
