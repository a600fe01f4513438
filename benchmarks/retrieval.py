"""Retrieval metrics against the matrix product alone and against a per-query argsort loop.

python benchmarks/retrieval.py [--queries 24633] [--dim 2048] [--classes 555] [--threads 2]
"""

import argparse
import threading
import time

import numpy as np
import psutil
import torch

from _record import record
from fieldmark.evaluation.retrieval import evaluate_retrieval


def draw(count: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Clustered unit vectors, float32."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    x = generator.standard_normal((count, dim), dtype=np.float32)
    x += 0.5 * generator.standard_normal((classes, dim), dtype=np.float32)[labels]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, labels


def product_seconds(x: np.ndarray, rows: int) -> float:
    """The bare similarity matrix, some rows at a time into one buffer."""
    vectors = torch.from_numpy(x)
    out = torch.empty(rows, len(x))
    start = time.perf_counter()
    for first in range(0, len(x), rows):
        part = vectors[first : first + rows]
        torch.mm(part, vectors.T, out=out[: len(part)])
    return time.perf_counter() - start


def loop_seconds(x: np.ndarray, labels: np.ndarray, queries: int) -> float:
    """The usual way: one argsort per query, scaled up from some queries to all."""
    vectors, targets = torch.from_numpy(x), torch.from_numpy(labels)
    start = time.perf_counter()
    for first in range(0, queries, 256):
        scores = vectors[first : first + 256] @ vectors.T
        for row in range(len(scores)):
            scores[row, first + row] = -2
            order = torch.argsort(scores[row], descending=True)[:-1]
            hits = targets[order] == targets[first + row]
            places = torch.nonzero(hits).flatten() + 1
            (torch.arange(1, len(places) + 1) / places).mean().item()
    return (time.perf_counter() - start) * len(x) / queries


class PeakMemory:
    """Largest resident memory beyond that at the start, in MB, sampled every 5 ms."""

    def __enter__(self) -> "PeakMemory":
        self.process = psutil.Process()
        self.base = self.peak = self.process.memory_info().rss
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.megabytes = (self.peak - self.base) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=24_633)
    parser.add_argument("--dim", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=555)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--loop-queries", type=int, default=1_024, help="queries the rival loop is timed on"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, labels = draw(options.queries, options.dim, options.classes)
    product_seconds(x[: min(len(x), 2048)], 256)  # warm up the library's threads
    product, ours, extra = [], [], []
    # Alternating, so that a slower spell of the machine falls on both.
    for _ in range(options.repeats):
        product.append(min(product_seconds(x, rows) for rows in (256, 1024)))
        with PeakMemory() as memory:
            start = time.perf_counter()
            scores = evaluate_retrieval(x, labels)
            ours.append(time.perf_counter() - start)
        extra.append(memory.megabytes)
    loop = loop_seconds(x, labels, min(len(x), options.loop_queries))
    result = {
        "queries": options.queries,
        "dim": options.dim,
        "classes": options.classes,
        "threads": options.threads,
        "product_seconds": min(product),
        "retrieval_seconds": min(ours),
        "ratio_to_product": min(ours) / min(product),
        "ratio_to_product_target": 1.5,
        "loop_ratio_to_product": loop / min(product),
        "loop_queries_timed": min(len(x), options.loop_queries),
        "peak_extra_mb": max(extra),
        "peak_extra_mb_target": 500,
        "map": scores.summary()["map"],
    }
    print(result)
    print(record("retrieval", result))


if __name__ == "__main__":
    main()
