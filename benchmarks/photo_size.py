"""What the size at which photos are kept does to retrieval: the same network, input and test photos.

python benchmarks/photo_size.py --data DIR [--photos cub50]
"""

import argparse
import tempfile
from pathlib import Path

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.data.store import PhotoStore
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec
from start_recipe import WEIGHTS, measures

SIDES = (152, 176, 208, 240, 288, 336)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", default="cub50")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    folder = options.data / options.photos
    catalog = Catalog.open(folder / "images")
    split = match_split(catalog, folder / "split.csv")
    config = BackboneConfig(weights=str(options.data / WEIGHTS))
    encoder = Encoder(EncoderSpec(Backbone.build(config, size=options.size)), device="cpu")
    files = [catalog.file(int(row)) for row in split.test_rows]
    found = {"files": measures(encoder.embed(files), split.test_labels)}
    for side in SIDES:
        with tempfile.TemporaryDirectory() as place:
            rows = split.test_rows.tolist()
            store = PhotoStore.build(catalog, Path(place), short_side=side, rows=rows)
            embeddings = encoder.embed_store(store, split.test_rows)
        found[str(side)] = measures(embeddings, split.test_labels)
        print(side, found[str(side)], flush=True)
    facts = {"photos": options.photos, "size": options.size, "weights": WEIGHTS}
    print(record("photo_size", {**facts, "test": found}))


if __name__ == "__main__":
    main()
