"""Post-processing fitted on few photos: does it help photos that it never saw?

Halves of the train photos of each set, cut per class with seed 0: the first photos of half A fit
what ``fieldmark train`` fits, without labels; half B's labels judge, by leave-one-out retrieval
among B. The start is untouched. Test photos are not read.

    python benchmarks/few_photos.py --data DIR --work DIR
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from _record import record
from fieldmark import rng
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.data.store import PhotoStore
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.workflows.post import affordable, fit_post
from start_recipe import measures

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
PHOTOS = ("birds200", "cub50", "cars196")
POST = PostConfig(whitening="instance-lda", whiten_dim=256, whiten_power=0.25)
COUNTS = (40, 60, 100, 300, 500, 600)
SIZE = 128


def halves(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which photos are in half A, and which in B: every class is cut in two."""
    generator, extra = np.random.default_rng(0), 0
    first = np.zeros(len(rows), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = len(members) // 2
        if len(members) % 2:
            # Odd classes give their odd photo to either half in turn.
            count += extra
            extra ^= 1
        first[members[:count]] = True
    return np.flatnonzero(first), np.flatnonzero(~first)


def judged(spec: EncoderSpec, store: PhotoStore, rows: np.ndarray, labels: np.ndarray) -> list[float]:  # fmt: skip
    """Rank-1 and mAP, percent."""
    return list(measures(Encoder(spec).embed_store(store, rows), labels).values())


def one_set(folder: Path, weights: Path, work: Path) -> list[dict[str, Any]]:
    """The plain start, and the start with what each number of photos fits."""
    catalog = Catalog.open(folder / "images")
    store = PhotoStore.build(catalog, work / f"store-{folder.name}", short_side=288)
    split = match_split(catalog, folder / "split.csv")
    rows, labels = np.asarray(split.train_rows), np.asarray(split.train_labels)
    a, b = halves(rows, labels)
    spec = EncoderSpec(Backbone.build(BackboneConfig(weights=str(weights)), size=SIZE).eval())
    plain = judged(spec, store, rows[b], labels[b])
    order = a[np.argsort(rng.mix("few", rows[a]), kind="stable")]
    results = []
    for count in COUNTS:
        few = np.sort(rows[order[:count]])
        post = affordable(POST, len(few))
        fitted = fit_post(spec, store, few, post) if post.whiten_dim else spec
        row = {"photos": folder.name, "fitted_on": count, "directions": fitted.post.whiten_dim}
        results.append({**row, "plain": plain, "fitted": judged(fitted, store, rows[b], labels[b])})
        print(results[-1], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where decoded photos are kept")
    options = parser.parse_args()
    weights = options.data / WEIGHTS
    found = [row for name in PHOTOS for row in one_set(options.data / name, weights, options.work)]
    summary = {"weights": WEIGHTS, "size": SIZE, "measures": ["rank-1", "mAP"], "rows": found}
    print(record("few_photos", summary))


if __name__ == "__main__":
    main()
