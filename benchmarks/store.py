"""Store building against bare decoding, on the same photos and the same number of processes.

Bare decoding is the faster of Pillow in draft mode and simplejpeg, both scaling to at least the
stored size while they decode, in as many processes, files read in each; it keeps nothing, orients
nothing, checks nothing and resizes nothing. Ratio = photos/s of the store ÷ photos/s of bare decoding.

    python benchmarks/store.py                        photos drawn here, 1024 × 768
    python benchmarks/store.py FOLDER --short-side 160
"""

import argparse
import io
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from _record import record
from fieldmark.data.catalog import Catalog
from fieldmark.data.sandbox import processor_count
from fieldmark.data.store import PhotoStore


def draw(folder: Path, count: int, height: int, width: int) -> Path:
    """Photos with the detail of real ones: noise at every scale, falling with frequency."""
    random = np.random.default_rng(0)
    for i in range(count):
        total = np.zeros((height, width, 3), np.float32)
        for level in range(1, 8):
            size = (width >> (7 - level) or 1, height >> (7 - level) or 1)
            layer = Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), np.uint8))
            total += (
                np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) / 2.0**level
            )
        Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(
            folder / f"{i:05}.jpg", quality=88
        )
    return folder


def with_pillow(task: tuple[str, int]) -> int:
    path, side = task
    image = Image.open(io.BytesIO(Path(path).read_bytes()))
    image.draft("RGB", (side, side))
    return int(np.asarray(image.convert("RGB")).shape[0])


def with_simplejpeg(task: tuple[str, int]) -> int:
    path, side = task
    data = Path(path).read_bytes()
    return int(simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side).shape[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--short-side", type=int, default=288)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=processor_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="store")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder
        if folder is None:
            folder = Path(place) / "photos"
            folder.mkdir()
            draw(folder, options.count, 768, 1024)
        catalog = Catalog.open(folder)
        rows = [r.row for r in catalog.rows][: options.count]
        tasks = [(catalog.location(row).file, options.short_side) for row in rows]
        rates: dict[str, list[float]] = {"pillow_draft": [], "simplejpeg": [], "store": []}
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            for decoder in (with_pillow, with_simplejpeg):  # Warm the page cache and the processes.
                pool.map(decoder, tasks, chunksize=16)
            for repeat in range(options.repeats):
                for name, decoder in (
                    ("pillow_draft", with_pillow),
                    ("simplejpeg", with_simplejpeg),
                ):
                    begin = time.perf_counter()
                    pool.map(decoder, tasks, chunksize=16)
                    rates[name].append(len(tasks) / (time.perf_counter() - begin))
                begin = time.perf_counter()
                store = PhotoStore.build(
                    catalog,
                    Path(place) / f"store{repeat}",
                    short_side=options.short_side,
                    workers=options.workers,
                    rows=rows,
                )
                rates["store"].append(len(tasks) / (time.perf_counter() - begin))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    bare = max(middle["pillow_draft"], middle["simplejpeg"])
    result = {
        "photos": len(tasks),
        "source": "drawn, 1024 × 768" if options.folder is None else options.folder.name,
        "short_side": options.short_side,
        "workers": options.workers,
        "photos_per_second": middle,
        "all": rates,
        "stored_bytes": store.nbytes,
        "ratio_to_bare_decoding": middle["store"] / bare,
        "target": 0.85,
    }
    print(record(options.name, result))
    print({k: v for k, v in result.items() if k != "all"})


if __name__ == "__main__":
    main()
