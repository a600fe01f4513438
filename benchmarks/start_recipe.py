"""Which post-processing should the recipe ``start`` ship? Chosen on train photos, told on test photos.

Nothing is trained. Whitening is fitted on the unlabelled train photos; the labels of the train photos
(development) say which settings to take; the test photos are read for all settings but choose nothing.

    python benchmarks/start_recipe.py --data DIR [--photos birds200 cub50 cars196]
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import Split, match_split
from fieldmark.data.store import PhotoStore, choose_short_side
from fieldmark.encoder import Encoder
from fieldmark.evaluation.retrieval import evaluate_retrieval
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import Whitening, fit_instance_lda, fit_whitening, normalise
from fieldmark.workflows.post import LOOKS, take_looks

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
READOUTS: dict[str, dict[str, Any]] = {
    "network": {},
    "gem": {"pooling": "gem"},
    "gem, mirrored": {"pooling": "gem", "flip": True},
}
DIMS = (256, 512)
POWERS = (0.25, 0.5)
LOOKED_AT = 1_000
"""Train photos that instance LDA compares looks of, at most."""


def measures(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    scores = evaluate_retrieval(embeddings, labels)
    return {name: round(scores.summary()[name], 2) for name in ("rank1", "map")}


def whitenings(raw: np.ndarray, looks: torch.Tensor) -> dict[str, Whitening | None]:
    found: dict[str, Whitening | None] = {"none": None}
    for dim, power in itertools.product(DIMS, POWERS):
        found[f"pca {dim} {power}"] = fit_whitening(torch.from_numpy(raw), dim, power)
        found[f"instance-lda {dim} {power}"] = fit_instance_lda(looks, dim, power)
    return found


def study(backbone: Backbone, store: PhotoStore, split: Split) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for readout, settings in READOUTS.items():
        encoder = Encoder(EncoderSpec(backbone, PostConfig(**settings)))
        train = encoder.embed_store(store, split.train_rows)
        test = encoder.embed_store(store, split.test_rows)
        looked_at = split.train_rows[:: -(-len(split.train_rows) // LOOKED_AT)]
        looks = take_looks(encoder, store, looked_at, seed=0)
        for name, whitening in whitenings(train, looks).items():

            def finish(raw: np.ndarray, whitening: Whitening | None = whitening) -> np.ndarray:
                if whitening is None:
                    return raw
                return normalise(whitening(torch.from_numpy(raw))).numpy()

            result[f"{readout}; {name}"] = {
                "development": measures(finish(train), split.train_labels),
                "test": measures(finish(test), split.test_labels),
            }
            print(f"{readout}; {name}", result[f"{readout}; {name}"], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", nargs="+", default=["cub50", "birds200", "cars196"])
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    config = BackboneConfig(weights=str(options.data / WEIGHTS))
    backbone = Backbone.build(config, size=options.size).eval()
    found: dict[str, Any] = {}
    for photos in options.photos:
        folder = options.data / photos
        catalog = Catalog.open(folder / "images")
        split = match_split(catalog, folder / "split.csv")
        with tempfile.TemporaryDirectory() as place:
            side = choose_short_side(options.size, LOOKS.scale[0], len(catalog))
            store = PhotoStore.build(catalog, Path(place), short_side=side)
            print(photos, flush=True)
            found[photos] = study(backbone, store, split)
        gains = mean_gains(found)
        best = sorted(gains, key=lambda name: -gains[name]["development"]["map"])
        for name in best[:8]:
            print(name, gains[name])
        print(
            record(
                "start_recipe",
                {"size": options.size, "weights": WEIGHTS, "mean_gains": gains, "photos": found},
            )
        )


def mean_gains(found: dict[str, Any]) -> dict[str, Any]:
    """Mean over photo sets of the points gained over the plain network."""
    plain = "network; none"
    names = next(iter(found.values()))
    return {
        name: {
            half: {
                measure: round(
                    float(
                        np.mean(
                            [
                                one[name][half][measure] - one[plain][half][measure]
                                for one in found.values()
                            ]
                        )
                    ),
                    2,
                )
                for measure in ("rank1", "map")
            }
            for half in ("development", "test")
        }
        for name in names
    }


if __name__ == "__main__":
    main()
