"""How many neighbours does the map of all photos keep, how long does it take, and do places stay?

The share of each photo's ten nearest in the embedding that are among its ten nearest on the map, and the
share of the latter that are of its class, for real photos. More photos than there are real ones are mixed
from real ones: each lies between a photo and one of its ten nearest, with noise.

    python benchmarks/map.py --data DATA cub50=INDEX
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np

from _record import record
from fieldmark.evaluation.plane import PERPLEXITY, flat, lay_out
from fieldmark.evaluation.projection import project
from fieldmark.index.alike import neighbours, read_items
from fieldmark.index.sqlite import SqliteIndex

faiss: Any = typed_faiss
NEAREST, JUDGED, NOISE = 10, 2000, 0.03
SIZES = (10_000, 100_000)
LANDMARKS = 10_000
ADDED = (0.1, 0.4)


def read(index: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and classes of an index's photos."""
    with labels.open() as file:
        of = {row["path"]: row["class"] for row in csv.DictReader(file)}
    with SqliteIndex(index) as opened:
        held = read_items(opened)
    rows = [row for row, item in enumerate(held.items) if _class(of, item.key) is not None]
    names = [_class(of, held.items[row].key) for row in rows]
    return held.vectors[rows], np.unique(names, return_inverse=True)[1]


def _class(of: dict[str, str], key: str) -> str | None:
    return of.get(key) or of.get(f"images/{key}")


def grown(x: np.ndarray, kinds: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """More photos, mixed from real ones."""
    rng = np.random.default_rng(0)
    near = neighbours(x, NEAREST).rows
    one = rng.integers(0, len(x), count)
    other = near[one, rng.integers(0, NEAREST, count)]
    share = rng.uniform(0, 0.5, (count, 1))
    made = x[one] * (1 - share) + x[other] * share + NOISE * rng.normal(size=(count, x.shape[1]))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32), kinds[one]


class Judge:
    """Compares maps with the space that they are of."""

    def __init__(self, x: np.ndarray, kinds: np.ndarray) -> None:
        self.kinds = kinds
        self.rows = np.sort(np.random.default_rng(1).permutation(len(x))[:JUDGED])
        self.true = self.nearest(x, faiss.IndexFlatIP(x.shape[1]))
        self.space_purity = self.purity(self.true)

    def nearest(self, points: np.ndarray, index: Any) -> np.ndarray:
        points = np.ascontiguousarray(points, np.float32)
        index.add(points)
        _, found = index.search(points[self.rows], NEAREST + 1)
        last = np.argsort(found == self.rows[:, None], axis=1, kind="stable")[:, :NEAREST]
        return np.take_along_axis(found, last, axis=1)

    def purity(self, found: np.ndarray) -> float:
        return round(100 * float((self.kinds[found] == self.kinds[self.rows][:, None]).mean()), 1)

    def __call__(self, make: Callable[[], np.ndarray]) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        places = make()
        told = {
            "seconds": round(time.perf_counter() - wall, 1),
            "processor_seconds": round(time.process_time() - cpu, 1),
        }
        found = self.nearest(places, faiss.IndexFlatL2(2))
        kept = [
            len(set(a) & set(b)) for a, b in zip(self.true.tolist(), found.tolist(), strict=True)
        ]
        return told | {
            "neighbours_kept": round(100 * float(np.mean(kept)) / NEAREST, 1),
            "of_the_class": self.purity(found),
        }


def landmarks(x: np.ndarray, count: int) -> np.ndarray:
    """t-SNE of some photos as reports have it, and the rest beside those that they are most like."""
    made = project(x, limit=count)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x[made.rows])
    cosines, near = index.search(x, 5)
    weight = np.exp((cosines - cosines[:, :1]) / 0.05)[..., None]
    places = (made.places[0][near] * weight).sum(axis=1) / weight.sum(axis=1)
    places[made.rows] = made.places[0]
    return np.asarray(places)


def added(x: np.ndarray, judge: Judge, share: float) -> dict[str, float]:
    """The map when a share of the photos comes later."""
    new = np.random.default_rng(2).random(len(x)) < share
    start = np.full((len(x), 2), np.nan)
    start[~new] = lay_out(x[~new]).places
    places: list[np.ndarray] = []

    def make() -> np.ndarray:
        places.append(lay_out(x, start=start).places)
        return places[0]

    told = judge(make)
    moved = np.linalg.norm(places[0][~new] - start[~new], axis=1)
    return told | {"old_ones_moved": round(float(np.median(moved)), 4)}


def keep(sets: dict[str, Any]) -> Path:
    """Write what is known so far: the large sizes take minutes."""
    return record("map", {"settings": {"perplexity": PERPLEXITY, "threads": 1}, "sets": sets})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("sets", nargs="+", help="NAME=INDEX")
    options = parser.parse_args()
    sets: dict[str, Any] = {}
    for text in options.sets:
        name, _, place = text.partition("=")
        x, kinds = read(Path(place), options.data / name / "split.csv")
        judge = Judge(x, kinds)
        one, other = lay_out(x).places, lay_out(x).places
        told: dict[str, Any] = {
            "photos": len(x),
            "of_the_class_in_the_space": judge.space_purity,
            "principal_components": judge(lambda x=x: flat(x).places),
            "report (scikit-learn, perplexity 30)": judge(
                lambda x=x: project(x, limit=len(x)).places[0]
            ),
            "service (openTSNE)": judge(lambda x=x: lay_out(x).places),
            "same_again": bool(np.array_equal(one, other)),
            "photos_added": {f"{share:.0%}": added(x, judge, share) for share in ADDED},
        }
        sets[name] = told
        keep(sets)
        for size in options.sizes:
            large, of = grown(x, kinds, size)
            judge = Judge(large, of)
            told[f"{size} mixed"] = {
                "of_the_class_in_the_space": judge.space_purity,
                "principal_components": judge(lambda x=large: flat(x).places),
                f"{LANDMARKS} landmarks (scikit-learn)": judge(
                    lambda x=large: landmarks(x, LANDMARKS)
                ),
                "service (openTSNE)": judge(lambda x=large: lay_out(x).places),
            }
            keep(sets)
    print(keep(sets).read_text())


if __name__ == "__main__":
    main()
