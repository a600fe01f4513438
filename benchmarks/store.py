"""Store building against bare decoding, on the same photos and the same number of processes.

Bare decoding is the faster of Pillow in draft mode and simplejpeg, both scaling to at least the
stored size while they decode, in as many processes, files read in each; it keeps nothing, orients
nothing, checks nothing and resizes nothing. Ratio = photos/s of the store ÷ photos/s of bare decoding.

Photos drawn here get as much grain as it takes for 1.5 bits a pixel, which is what real JPEGs of
birds have (CUB-200: 1.4 to 1.5): decoding time follows the bytes. Each store is deleted before the
next is built, so that a virtual machine need not ask its host for memory while the clock runs.

    python benchmarks/store.py                                      photos drawn here, 4000 × 3000
    python benchmarks/store.py --grain 0 --name store_smooth        the same without grain
    python benchmarks/store.py --width 1024 --height 768 --count 6000 --name store_1024
    python benchmarks/store.py FOLDER --short-side 160 --count 6000 --name store_small
"""

import argparse
import io
import multiprocessing
import shutil
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

DRAWN = 12
"""Different pictures; more photos are these with another comment, so with another content."""


def draw(folder: Path, count: int, height: int, width: int, grain: float) -> Path:
    """Photos with the detail of real ones: noise at every scale, falling with frequency, and grain."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(min(DRAWN, count)):
        total = np.zeros((height, width, 3), np.float32)
        for level in range(1, 10):
            size = (width >> (9 - level) or 1, height >> (9 - level) or 1)
            layer = Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), np.uint8))
            total += (
                np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) / 2.0**level
            )
        total += random.standard_normal((height, width, 1), np.float32) * grain
        buffer = io.BytesIO()
        Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
        pictures.append(buffer.getvalue())
    for i in range(count):
        comment = f"photo {i}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        data = pictures[i % len(pictures)]
        (folder / f"{i:05}.jpg").write_bytes(data[:2] + segment + data[2:])
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
    parser.add_argument("--width", type=int, default=4000, help="of drawn photos")
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--grain", type=float, default=4.0, help="of drawn photos, of 255")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=processor_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="store")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder
        if folder is None:
            folder = Path(place) / "photos"
            folder.mkdir()
            draw(folder, options.count, options.height, options.width, options.grain)
        catalog = Catalog.open(folder)
        rows = [r.row for r in catalog.rows][: options.count]
        size = sum(Path(catalog.location(row).file).stat().st_size for row in rows)
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
                stored = store.nbytes
                shutil.rmtree(store.folder.parent)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    bare = max(middle["pillow_draft"], middle["simplejpeg"])
    result = {
        "photos": len(tasks),
        "source": f"drawn, {options.width} × {options.height}"
        if options.folder is None
        else options.folder.resolve().parent.name,
        "short_side": options.short_side,
        "workers": options.workers,
        "photos_per_second": middle,
        "all": rates,
        "file_bytes": size / len(tasks),
        "stored_bytes": stored,
        "ratio_to_bare_decoding": middle["store"] / bare,
        "target": 0.85,
    }
    print(record(options.name, result))
    print({k: v for k, v in result.items() if k != "all"})


if __name__ == "__main__":
    main()
