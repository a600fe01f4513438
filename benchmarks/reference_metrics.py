"""Our measures against those of other packages, on the same features: differences must vanish.

Outside the package, for it needs what users do not: torchmetrics and pytorch-metric-learning.

    pip install torchmetrics pytorch-metric-learning
    python benchmarks/reference_metrics.py
"""

import numpy as np
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn import metrics
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from _record import record
from fieldmark.evaluation.calibration import measure_calibration
from fieldmark.evaluation.classification import measure_classification
from fieldmark.evaluation.clusters import agreement
from fieldmark.evaluation.knn import weighted_knn
from fieldmark.evaluation.openset import auroc
from fieldmark.evaluation.retrieval import evaluate_retrieval

TARGET = 1e-6


def features(
    seed: int, photos: int = 900, classes: int = 30, dim: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap, so that no measure is 0 or 1."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, photos)
    means = np.random.default_rng(99).normal(size=(classes, dim))
    x = means[labels] + 2.5 * draw.normal(size=(photos, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def retrieval() -> dict[str, float]:
    """Leave-one-out rank-1, mAP and mAP@R against pytorch-metric-learning's."""
    x, labels = features(0)
    ours = evaluate_retrieval(x, labels).summary()
    theirs = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision", "mean_average_precision_at_r"),
        k=len(x) - 1,
        knn_func=CustomKNN(CosineSimilarity()),
    ).get_accuracy(torch.from_numpy(x), torch.from_numpy(labels))
    pairs = {
        "rank1": "precision_at_1",
        "map": "mean_average_precision",
        "map_at_r": "mean_average_precision_at_r",
    }
    return {name: abs(ours[name] / 100 - float(theirs[other])) for name, other in pairs.items()}


def knn() -> dict[str, float]:
    """Against the sum that DINO's evaluation writes: votes of exp(cosine / 0.1) of 20 neighbours."""
    x, labels = features(1)
    test, truth = features(2, photos=300)
    similar, near = (torch.from_numpy(test) @ torch.from_numpy(x).T).topk(20, dim=1)
    votes = torch.zeros(len(test), 30).scatter_add_(
        1, torch.from_numpy(labels)[near], (similar / 0.1).exp()
    )
    theirs = (votes.argmax(1).numpy() == truth).mean()
    ours = (weighted_knn(x, labels, test, classes=30, k=20) == truth).mean()
    return {"knn": float(abs(ours - theirs))}


def classification() -> dict[str, float]:
    """Against torchmetrics; logits with no ties."""
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 12, 2_000)
    logits = (2 * np.eye(12)[labels] + draw.normal(0, 1.5, (2_000, 12))).astype(np.float32)
    ours = measure_classification(logits, labels).measures
    scores, truth = torch.from_numpy(logits), torch.from_numpy(labels)
    theirs = {
        "top1": multiclass_accuracy(scores, truth, 12, average="micro"),
        "top5": multiclass_accuracy(scores, truth, 12, average="micro", top_k=5),
        "recall": multiclass_recall(scores, truth, 12, average="macro"),
        "precision": multiclass_precision(scores, truth, 12, average="macro"),
        "f1": multiclass_f1_score(scores, truth, 12, average="macro"),
    }
    found = {name: abs(ours[name] / 100 - float(value)) for name, value in theirs.items()}
    for bins in (10, 15):
        other = multiclass_calibration_error(scores.double(), truth, 12, n_bins=bins, norm="l1")
        found[f"ece_{bins}"] = abs(
            measure_calibration(logits, labels, bins=bins).ece / 100 - float(other)
        )
    known = labels < 6
    other = multiclass_auroc(
        torch.stack([-scores[:, 0], scores[:, 0]], 1).softmax(1), torch.from_numpy(known).long(), 2
    )
    found["auroc"] = abs(auroc(logits[:, 0].astype(np.float64), known) - float(other))
    return found


def clusters() -> dict[str, float]:
    """NMI and ARI against scikit-learn's; accuracy against its contingency table matched greedily."""
    draw = np.random.default_rng(4)
    labels = draw.integers(0, 8, 600)
    # Mostly right, so that the best match is the obvious one.
    found = np.where(draw.random(600) < 0.7, (labels + 3) % 8, draw.integers(0, 8, 600))
    ours = agreement(found, labels)
    table = metrics.cluster.contingency_matrix(labels, found)
    return {
        "nmi": abs(ours.nmi / 100 - metrics.normalized_mutual_info_score(labels, found)),
        "ari": abs(ours.ari / 100 - metrics.adjusted_rand_score(labels, found)),
        "cluster_accuracy": abs(ours.accuracy / 100 - table.max(axis=1).sum() / 600),
    }


def main() -> None:
    parts = (retrieval, knn, classification, clusters)
    found = {name: float(value) for part in parts for name, value in part().items()}
    for name, value in found.items():
        print(f"{name:<20}{value:.1e}  {'ok' if value <= TARGET else 'DIFFERS'}")
    print(record("reference_metrics", {"largest_difference": found, "target": TARGET}))


if __name__ == "__main__":
    main()
