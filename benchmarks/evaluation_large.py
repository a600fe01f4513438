"""All measures of 200,000 embeddings of 2,048 numbers: how much memory, how long?

    python benchmarks/evaluation_large.py [--photos 200000 --dim 2048 --classes 555]

Half of the photos teach, half are asked. The embeddings are drawn into a file and read from there, as a
catalogue's would be; the peak counts everything, libraries and embeddings included.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from _record import record
from fieldmark.evaluation.evaluate import EvalConfig, evaluate_encoder


def draw(file: Path, count: int, dim: int, classes: int) -> np.ndarray:
    """Labels; unit vectors go into the file, some rows at a time."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count)
    centres = generator.standard_normal((classes, dim), dtype=np.float32)
    x = np.lib.format.open_memmap(file, "w+", np.float32, (count, dim))
    for first in range(0, count, 10_000):
        some = slice(first, first + 10_000)
        part = 0.35 * centres[labels[some]]
        part += generator.standard_normal(part.shape, dtype=np.float32)
        x[some] = part / np.linalg.norm(part, axis=1, keepdims=True)
    x.flush()
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=555)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "embeddings.npy"
        labels = draw(file, options.photos, options.dim, options.classes)
        before = peak()
        x, half = np.load(file), options.photos // 2
        began = time.perf_counter()
        names = [str(i) for i in range(options.classes)]
        config = EvalConfig(fractions=(0.5, 0.1, 0.01), subset_seeds=1)
        found = evaluate_encoder(x[:half], labels[:half], x[half:], labels[half:], names, config)
        seconds = time.perf_counter() - began
    result = {
        "photos": options.photos,
        "dim": options.dim,
        "classes": options.classes,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "embeddings_gb": round(x.nbytes / 1e9, 2),
        "peak_gb": round(peak(), 2),
        "peak_before_gb": round(before, 2),
        "peak_target_gb": 4,
        "measures": {name: round(value, 3) for name, value in found.measures.items()},
    }
    print(result)
    print(record("evaluation_large", result))


def peak() -> float:
    """Largest resident memory of this process so far, GB (Linux: kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
