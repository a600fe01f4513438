"""The house recipe where nothing is fine-grained: general objects at 64 px.

Forty train photos of each of objects100's classes, as many of its validation photos as there are; the
shards are unpacked into class folders first, so that the run is an ordinary ``fieldmark train`` of a
folder. Nothing was chosen on these photos.

    python benchmarks/house/objects.py --data DIR --work DIR [--seeds 1]
"""

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from final import KEPT, WEIGHTS

from _record import record
from fieldmark.data.catalog import Catalog
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import train

SIZE = 64
PER_CLASS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where photos and runs are kept")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    photos, probe = options.work / "images", options.work / "split.csv"
    if not probe.is_file():
        unpack(options.data / "objects100", photos, probe)
    runs = []
    for seed in range(options.seeds):
        recipe = load_recipe(
            "fieldmark",
            extra={
                "size": SIZE,
                "backbone": {"weights": str(options.data / WEIGHTS)},
                "train": {"seed": seed},
            },
        )
        found = train(photos, options.work / f"seed-{seed}", recipe, probe=probe, say=print)
        assert found is not None
        runs.append({"seed": seed, **{key: found.get(key) for key in KEPT}})
        summary = {"photos": "objects100, part", "per_class": PER_CLASS, "size": SIZE}
        print(record("house_objects", {**summary, "weights": WEIGHTS, "runs": runs}), flush=True)


def unpack(shards: Path, photos: Path, probe: Path) -> None:
    """Class folders and a table of some train photos and all validation photos."""
    catalog, taken, table = Catalog.open(shards), Counter[str](), []
    for row in catalog.rows:
        label, split = str(row.label), "train" if row.split == "train" else "test"
        taken[label] += split == "train"
        if split == "train" and taken[label] > PER_CLASS:
            continue
        path = photos / label / Path(row.path).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(catalog.read(row.row))
        table.append((f"{label}/{path.name}", label, split))
    with probe.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split"))
        writer.writerows(table)


if __name__ == "__main__":
    main()
