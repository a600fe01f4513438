"""How pure are clusters, and how much work is left to whoever names them?

K-means with as many clusters as classes (what papers report, and what nobody knows beforehand) against more
clusters that are merged afterwards: by the suggestions alone, and by a person who makes no mistake.

    python benchmarks/clusters.py --data DATA cub50=ENCODER birds200=ENCODER
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _record import encoder_facts, record
from fieldmark.encoder import Encoder
from fieldmark.evaluation.clusters import agreement, cluster
from fieldmark.index.clusters import MOST, PER_KIND, estimate_kinds, find_clusters, suggest_merges

TIMES = (1, 2, 3, 5, 8, 12, 16, 20, 25, 30)
WANTED = 90.0


def majority(assigned: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Commonest class of each cluster."""
    counts = np.zeros((assigned.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (assigned, labels), 1)
    return counts.argmax(1)


def describe(assigned: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    found = agreement(assigned, labels)
    purity = 100 * float((majority(assigned, labels)[assigned] == labels).mean())
    return {
        "purity": round(purity, 2),
        "nmi": round(found.nmi, 2),
        "ari": round(found.ari, 2),
        "accuracy": round(found.accuracy, 2),
    }


def measure(x: np.ndarray, labels: np.ndarray, count: int, groups: int) -> dict[str, Any]:
    """One number of clusters: as they are, merged as suggested, named by someone who knows."""
    started = time.perf_counter()
    found = find_clusters(x, count)
    merges = suggest_merges(found, groups)
    seconds = time.perf_counter() - started
    names = majority(found.assigned, labels)
    right = names[merges.pairs[:, 0]] == names[merges.pairs[:, 1]]
    first = max(1, len(names) - groups)
    named = names[found.assigned]
    return {
        "clusters": len(names),
        **describe(found.assigned, labels),
        "merged_as_suggested": describe(merges.merged[found.assigned], labels),
        "named_by_who_knows": describe(named, labels),
        "classes_found": len(np.unique(names)),
        "names_to_give": len(names),
        "merges_a_perfect_user_makes": len(names) - len(np.unique(names)),
        "suggestions_that_are_right": round(float(right[:first].mean()), 4),
        "names_to_give_after_suggestions": len(names) - int(right.sum()),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("sets", nargs="+", help="NAME=ENCODER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {}
    for text in options.sets:
        name, _, folder = text.partition("=")
        root = options.data / name
        with (root / "split.csv").open() as file:
            rows = [(row["path"], row["class"]) for row in csv.DictReader(file)]
        _, labels = np.unique([label for _, label in rows], return_inverse=True)
        encoder = Encoder.load(folder, device="cpu")
        x = encoder.embed([root / path for path, _ in rows], workers=1)
        classes = int(labels.max()) + 1
        kinds = estimate_kinds(x)
        plain = cluster(x, labels, seeds=[0], starts=1)
        told: dict[str, Any] = {
            "photos": len(rows),
            "encoder": encoder_facts(encoder),
            "classes": classes,
            "estimated_kinds": kinds,
            "plain_k_means": describe(plain.clusters[0], labels),
            "default": measure(x, labels, min(PER_KIND * kinds, len(x)), kinds),
            "by_number": {},
        }
        for times in TIMES:
            if times * classes <= min(len(x), MOST):
                told["by_number"][f"{times} x classes"] = measure(x, labels, times * classes, kinds)
        enough = [each for each in told["by_number"].values() if each["purity"] >= WANTED]
        told["merges_for_purity_90"] = enough[0]["merges_a_perfect_user_makes"] if enough else None
        told["clusters_for_purity_90"] = enough[0]["clusters"] if enough else None
        sets[name] = told
        print(name, told, flush=True)
    result = {
        "target": "more clusters than kinds are purer than plain k-means; merges for purity 90 %",
        "sets": sets,
    }
    print(record("clusters", result))


if __name__ == "__main__":
    main()
