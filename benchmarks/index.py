"""What an index costs beyond what it cannot do without, one core, in pairs.

*search*: `index.search` of one vector in 100,000 × 512, items read from the database and checked, against
bare FAISS over the same vectors with the same settings, which gives numbers only. *adding*: the whole job of
indexing real photos with durable steps, against embedding them; and rows/s of the durable steps alone.
*second*: the same job with nothing new, 100,000 photos, against listing and asking for each in plain Python.
*server*: search and adding in PostgreSQL, against the bare statement; no target.

    python benchmarks/index.py --data DIR [--part search] [--core 1]

DIR holds cub50 and the starting weights; without it photos are drawn, and the weights too. A part that is run
alone leaves the other figures as they are.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from PIL import Image

from _record import RESULTS, machine, measured, record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.encoder import Encoder
from fieldmark.index.index import Stamp
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.workflows.index import COMMIT, index_photos
from store import draw

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
IDENTITY = "a" * 64
DIM, K = 512, 10


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, random: np.random.Generator) -> np.ndarray:
    """200 genera × 10 species in 48 dimensions: photos by a good encoder."""
    genera = random.standard_normal((200, 48))
    species = np.repeat(genera, 10, 0) + 0.5 * random.standard_normal((2000, 48))
    each = species[random.integers(0, 2000, count)] + 0.3 * random.standard_normal((count, 48))
    return unit(each @ random.standard_normal((48, DIM)))


def scattered(count: int, random: np.random.Generator) -> np.ndarray:
    """No clusters, a spectrum that falls as a power: photos by a weak encoder."""
    return unit(random.standard_normal((count, DIM)) * np.arange(1, DIM + 1) ** -0.5)


def pairs(first: Callable[[int], Any], second: Callable[[int], Any], repeats: int) -> dict:
    """Seconds of two things done in turn, so that a busy machine slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for kept, call in zip(times, (first, second), strict=True):
            begin = time.perf_counter()
            call(turn)
            kept.append(time.perf_counter() - begin)
    one, two = map(statistics.median, times)
    return {"bare_s": one, "ours_s": two, "times_bare": two / one}


def recall(found: list[set[str]], truth: list[set[str]]) -> float:
    return sum(len(a & b) for a, b in zip(found, truth, strict=True)) / sum(map(len, truth))


def name(number: int) -> str:
    return f"species {number % 200:03d}/{number:06d}.jpg"


def fill(index: Any, vectors: np.ndarray, step: int) -> float:
    """Rows per second of durable steps."""
    index.add_space(IDENTITY, vectors.shape[1])
    begin = time.perf_counter()
    for at in range(0, len(vectors), step):
        part = vectors[at : at + step]
        rows = range(at, at + len(part))
        stamps = [Stamp(100_000, 1_700_000_000_000_000_000 + row, "0" * 64) for row in rows]
        metas = [{"split": "train", "group": f"{row % 97}"} for row in rows]
        index.add([name(row) for row in rows], part, metas=metas, stamps=stamps)
    return len(vectors) / (time.perf_counter() - begin)


def measure_search(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    result: dict[str, Any] = {"vectors": options.vectors, "dim": DIM, "k": K, "target": 1.3}
    for kind, make in (("clustered", clustered), ("scattered", scattered)):
        random = np.random.default_rng(0)
        drawn = make(options.vectors + options.queries, random)
        vectors, queries = drawn[: options.vectors], drawn[options.vectors :]
        flat = faiss.IndexFlatIP(DIM)
        flat.add(vectors)
        truth = [{name(i) for i in row} for row in flat.search(queries, K)[1].tolist()]
        folder = place / kind
        with SqliteIndex(folder, create=True) as index:
            fill(index, vectors, 5000)
            index.search(queries[:1], K)
            result[f"{kind}, exact"] = told = pairs(
                lambda i, flat=flat, queries=queries: flat.search(queries[i : i + 1], K),
                lambda i, index=index, queries=queries: index.search(queries[i : i + 1], K),
                options.queries,
            )
            hits = index.search(queries, K)
            told["recall"] = recall([{hit.key for hit in each} for each in hits], truth)
        for kept in folder.glob("nearest-*"):
            kept.unlink()
        with SqliteIndex(folder, exact_up_to=1000) as index:
            begin = time.perf_counter()
            hits = index.search(queries, K)
            built = time.perf_counter() - begin
            inner = index._nearest[1][0]._index
            result[f"{kind}, approximate"] = told = pairs(
                lambda i, inner=inner, queries=queries: inner.search(queries[i : i + 1], K),
                lambda i, index=index, queries=queries: index.search(queries[i : i + 1], K),
                options.queries,
            )
            told["recall"] = recall([{hit.key for hit in each} for each in hits], truth)
            told |= {"settings": index.stats().search, "built_s": built}
        print(kind, {k: v for k, v in result.items() if k.startswith(kind)})
    return result


def save_encoder(options: argparse.Namespace, place: Path) -> Path:
    """MobileNetV2 at 128 px: the fastest network here, so the hardest case for an index."""
    weights = "random" if options.data is None else str(options.data / WEIGHTS)
    config = BackboneConfig(name="mobilenetv2_100", weights=weights, seed=0)
    spec = EncoderSpec(Backbone.build(config, size=128).eval(), PostConfig(crop=0.875))
    Encoder(spec, device="cpu").save(place / "encoder")
    return place / "encoder"


def measure_adding(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    if options.data is None:
        folder = place / "drawn"
        folder.mkdir()
        draw(folder, options.photos, 375, 500, 4.0)
    else:
        folder = options.data / "cub50" / "images"
    catalog = Catalog.open(folder)
    encoder = save_encoder(options, place)
    rows = catalog.rows[:: max(1, len(catalog) // options.photos)][: options.photos]
    for row in rows:
        link = place / "photos" / row.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(catalog.location(row.row).file)
    loaded = Encoder.load(encoder, device="cpu")
    dim = loaded.dim

    def bare(_: int) -> None:
        loaded.embed(place / "photos", workers=1)

    def ours(turn: int) -> None:
        told = index_photos(
            encoder, place / "photos", place / f"index{turn}", device="cpu", workers=1
        )
        assert told["added"] == len(rows), told

    bare(0)
    timed = pairs(bare, ours, options.repeats)
    begin = time.perf_counter()
    Encoder.load(encoder, device="cpu")
    loading = time.perf_counter() - begin
    with SqliteIndex(place / "rows", create=True) as index:
        count = 20 * COMMIT
        random = np.random.default_rng(0)
        speed = fill(index, unit(random.standard_normal((count, dim))), COMMIT)
    return {
        "photos": len(rows),
        "source": "drawn, 500 × 375" if options.data is None else "cub50",
        "network": "mobilenetv2_100 at 128 px",
        "dim": dim,
        **timed,
        "ratio": timed["bare_s"] / timed["ours_s"],
        "target": 0.9,
        "loading_the_encoder_s": loading,
        "ratio_where_both_load": (timed["bare_s"] + loading) / timed["ours_s"],
        "durable_rows_per_second": speed,
        "photos_per_second": {key: len(rows) / timed[f"{key}_s"] for key in ("bare", "ours")},
    }


def listed(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for parent, _, names in os.walk(folder):
        for each in names:
            path = os.path.join(parent, each)  # noqa: PTH118 - as fast as Python can
            status = os.stat(path)  # noqa: PTH116
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


def measure_second(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The stamps are written into the index by hand: nothing is to be read or embedded."""
    encoder = save_encoder(options, place)
    loaded = Encoder.load(encoder, device="cpu")
    photos = place / "photos"
    Image.new("RGB", (8, 8)).save(place / "photo.jpg")
    data = (place / "photo.jpg").read_bytes()
    for number in range(options.vectors):
        file = photos / name(number)
        if number < 200:
            file.parent.mkdir(parents=True)
        file.write_bytes(data)
    catalog = Catalog.open(photos)
    random = np.random.default_rng(0)
    with SqliteIndex(place / "index", create=True) as index:
        index.add_space(loaded.identity, loaded.dim)
        for at in range(0, len(catalog), 5000):
            rows = catalog.rows[at : at + 5000]
            vectors = unit(random.standard_normal((len(rows), loaded.dim)))
            found = [catalog.signature(row.row) for row in rows]
            stamps = [Stamp(each.size, each.modified_ns, "0" * 64) for each in found if each]
            index.add([row.path for row in rows], vectors, stamps=stamps)
            index.set_labels({row.path: row.label for row in rows})

    def ours(_: int) -> None:
        told = index_photos(encoder, photos, place / "index", device="cpu")
        assert told["unchanged"] == options.vectors, told

    listed(photos)
    ours(0)
    timed = pairs(lambda _: listed(photos), ours, options.repeats)
    return {"photos": options.vectors, **timed, "target": 3.0}


def measure_server(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    import psutil
    import psycopg
    from pgvector.psycopg import register_vector

    from fieldmark.index.postgres import PostgresIndex

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgserver
    # Started by root it runs as another user, who must be able to reach the folder.
    place.chmod(0o755)
    server = pgserver.get_server(place / "data", cleanup_mode=None)
    count = options.vectors // 5
    random = np.random.default_rng(0)
    drawn = clustered(count + options.queries, random)
    vectors, queries = drawn[:count], drawn[count:]
    result: dict[str, Any] = {"vectors": count, "dim": DIM, "k": K}
    try:
        with (
            PostgresIndex(server.get_uri(), create=True, exact_up_to=1000) as index,
            psycopg.connect(server.get_uri(), autocommit=True) as db,
        ):
            register_vector(db)
            result["durable_rows_per_second"] = fill(index, vectors, COMMIT)

            def bare(turn: int) -> list[Any]:
                statement = "SELECT item FROM fieldmark.vectors_1 ORDER BY vector <#> %s LIMIT %s"
                return db.execute(statement, (queries[turn], K)).fetchall()

            def ours(turn: int) -> list[Any]:
                return index.search(queries[turn : turn + 1], K)

            result["exact"] = pairs(bare, ours, 20)
            index.compact()
            told = index.stats().search
            db.execute(f"SET hnsw.ef_search = {told['looks']}")
            bare(0)
            result["HNSW"] = {**pairs(bare, ours, options.queries), "settings": told}
    finally:
        psutil.Process(server.get_pid()).kill()
    return result


PARTS = {
    "search": measure_search,
    "adding": measure_adding,
    "second": measure_second,
    "server": measure_server,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--core", type=int, help="run on this processor alone")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--photos", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.data = options.data and options.data.resolve()
    if options.core is not None and platform.system() == "Linux":
        os.sched_setaffinity(0, {options.core})
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    before = RESULTS / "index.json"
    kept = json.loads(before.read_text()) if before.is_file() else {}
    result = {part: kept[part] for part in PARTS if part in kept}
    for part in options.part or PARTS:
        with tempfile.TemporaryDirectory() as place:
            begin = machine().get("load")
            found = PARTS[part](options, Path(place))
        after = measured()
        result[part] = {**found, **after, "load": [begin, after["load"]]}
        print(part, result[part])
    print(record("index", {part: result[part] for part in PARTS if part in result}))


if __name__ == "__main__":
    main()
