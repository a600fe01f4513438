"""What the untouched start reaches when it looks at larger inputs, as it is and post-processed.

One forward pass at 128 px is what the house recipe ships; this is what the same network says at the
inputs that its teacher looks at, three times the arithmetic at 224 px. Nothing is chosen here.

    python benchmarks/house/start_sizes.py --data DIR [--photos birds200 cub50 cars196]
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from final import WEIGHTS

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.data.store import PhotoStore
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.workflows.post import fit_post
from fieldmark.workflows.recipe import load_recipe
from start_recipe import measures

SIZES = (128, 192, 224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", nargs="+", default=["birds200", "cub50", "cars196"])
    options = parser.parse_args()
    weights = BackboneConfig(weights=str(options.data / WEIGHTS))
    wanted = load_recipe("fieldmark").post
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for photos in options.photos:
        folder = options.data / photos
        catalog = Catalog.open(folder / "images")
        split = match_split(catalog, folder / "split.csv")
        with tempfile.TemporaryDirectory() as aside:
            store = PhotoStore.build(catalog, Path(aside), short_side=288)
            for size in SIZES:
                spec = EncoderSpec(Backbone.build(weights, size=size))
                plain = spec.with_post(PostConfig(crop=wanted.crop))
                fitted = fit_post(spec, store, split.train_rows, wanted)
                found.setdefault(photos, {})[str(size)] = {
                    name: measures(
                        Encoder(each).embed_store(store, split.test_rows), split.test_labels
                    )
                    for name, each in (("plain", plain), ("post-processed", fitted))
                }
                print(photos, size, found[photos][str(size)], flush=True)
    print(record("start_sizes", {"weights": WEIGHTS, "test": found}))


if __name__ == "__main__":
    main()
