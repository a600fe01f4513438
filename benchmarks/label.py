"""From a few labels to a classifier: how fast, how many labels, how sure, and what is unknown.

python benchmarks/label.py --data DIR --birds200 ENCODER --cub50 ENCODER [--part refit …]

Photos of ``DIR/birds200`` (split.csv, ours) and ``DIR/cub50`` (official split), embedded by an encoder
trained on each without labels and, beside it, by the start: MobileNetV2 with ImageNet labels at 128 px
(``DIR/weights``), pooled features as they are.

refit     a logistic head for 10,000 photos (birds200, mirrored ones as further photos) × 1,280 numbers, 200
          classes, against scikit-learn's, in turns; and ours again after 50 more labels
next      labels that our order needs for the accuracy that a random order reaches with so many;
          long-tailed (15 photos of the first species to 1 of the last) and even; test photos of all
          species count alike
unknown   a third of the species held out: familiarity against the largest probability
sets      coverage of conformal sets and calibration on test photos, from train photos alone
mistakes  one label of twenty made wrong: one half at random, one half to one of the three most alike
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from _record import RESULTS, encoder_facts, measured, record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.evaluation.calibration import measure_calibration
from fieldmark.evaluation.openset import auroc, fpr95
from fieldmark.label.calibration import chances, fit_sets
from fieldmark.label.classifier import FieldClassifier
from fieldmark.label.heads import class_means, fit_head
from fieldmark.label.next import GUESS_TEMPERATURE, GUESSES, fit_likeness, pick_next
from fieldmark.nn.spec import EncoderSpec

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
SIZE = 128
LEVELS = (0.3, 0.5, 0.7, 0.9)
"""Of the labels that a random order is given: where the accuracies to reach are read."""


class Photos(NamedTuple):
    """Embedded photos of one split."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


def listed(folder: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Photos, classes and which are for training."""
    with (folder / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = np.unique([row["class"] for row in rows], return_inverse=True)[1]
    train = np.array([row["split"] == "train" for row in rows])
    return [folder / row["path"] for row in rows], labels, train


def start(data: Path) -> Encoder:
    """The starting encoder as it is."""
    config = BackboneConfig(weights=str(data / WEIGHTS))
    return Encoder(EncoderSpec(Backbone.build(config, size=SIZE)), {"role": "start"}, device="cpu")


def embed(encoder: Encoder, folder: Path) -> Photos:
    """All photos of a data set."""
    paths, labels, train = listed(folder)
    x = encoder.embed(paths)
    return Photos(x[train], labels[train], x[~train], labels[~train])


# -- refit


def refit(data: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each, and how often it is right on photos of neither kind."""
    encoder = start(data)
    paths, labels, _ = listed(data / "birds200")
    order = np.random.default_rng(0).permutation(len(paths))
    test, rest = order[:1000], order[1000:]
    plain = encoder.embed([paths[row] for row in order])
    mirrored = encoder.embed(
        [np.asarray(Image.open(paths[row]).convert("RGB"))[:, ::-1].copy() for row in rest]
    )
    x = np.concatenate([plain[1000:], mirrored])[:10_000]
    y = np.concatenate([labels[rest], labels[rest]])[:10_000]
    mixed = np.random.default_rng(1).permutation(len(x))
    x, y = x[mixed], y[mixed]
    asked, truth = plain[:1000], labels[test]
    made = FieldClassifier("logistic").fit(x[:2000], y[:2000])
    made.spec_ = GUESSES
    made.refit(x[:-50], y[:-50])
    before = (made.classes_, made.head_)

    def again() -> FieldClassifier:
        made.classes_, made.head_ = before
        return made.refit(x, y)

    def accuracy(predicted: np.ndarray) -> float:
        return round(100 * float((predicted == truth).mean()), 2)

    ours: list[float] = []
    cold: list[float] = []
    theirs: list[float] = []
    found: dict[str, float] = {}
    for number in range(rounds):
        zero: list[Any] = []
        cold.append(timed(lambda zero=zero: zero.append(fit_head(GUESSES, x, y, 200))))
        found["cold"] = accuracy(zero[0].scores(asked).argmax(axis=1))
        ours.append(timed(again))
        found["ours"] = accuracy(made.predict(asked))
        if number < 2:
            rival = LogisticRegression(C=10.0, max_iter=1000)
            theirs.append(timed(lambda rival=rival: rival.fit(x, y)))
            found["theirs"] = accuracy(rival.predict(asked))
    whole = timed(lambda: FieldClassifier().fit(x, y))
    seconds, slow = statistics.median(ours), statistics.median(theirs)
    return {
        "photos": len(x),
        "dim": x.shape[1],
        "classes": 200,
        "refit_seconds": round(seconds, 3),
        "from_zero_seconds": round(statistics.median(cold), 3),
        "whole_fit_seconds": round(whole, 1),
        "sklearn_seconds": round(slow, 3),
        "ratio": round(slow / seconds, 1),
        "ratio_from_zero": round(slow / statistics.median(cold), 1),
        "top1": found,
        "encoder": encoder_facts(encoder),
        "threads": torch.get_num_threads(),
        "target": "refit at most 1 s, and scikit-learn ÷ ours at least 5",
    }


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


# -- next


def long_tail(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows in which the n-th class of a random order has ever fewer photos, the last one."""
    draw = np.random.default_rng(1000 + seed)
    order = draw.permutation(labels.max() + 1)
    most = int(np.bincount(labels).min())
    kept = []
    for place, label in enumerate(order):
        count = max(1, round(most ** (1 - place / (len(order) - 1))))
        kept.append(draw.permutation(np.flatnonzero(labels == label))[:count])
    return np.concatenate(kept)


def curve(photos: Photos, rows: np.ndarray, batch: int, most: int, seed: int, order: str) -> Any:
    """Mean accuracy over classes after each batch of labels, percent."""
    x, y = photos.train[rows], photos.train_labels[rows]
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(len(x))
    labelled = np.zeros(len(x), bool)
    likeness = fit_likeness(x) if order == "ours" else None
    mass = None
    found = []
    while labelled.sum() < min(most, len(x)):
        if likeness is not None:
            labelled[pick_next(likeness, labelled, batch, probabilities=mass).rows] = True
        elif order == "random" or mass is None:
            labelled[shuffled[: labelled.sum() + batch]] = True
        else:  # where the two likeliest classes are nearest to each other
            two = np.sort(mass, axis=1)[:, -2:]
            doubt = np.where(labelled, np.inf, two[:, 1] - two[:, 0])
            labelled[np.argsort(doubt, kind="stable")[:batch]] = True
        names, of = np.unique(y[labelled], return_inverse=True)
        head = fit_head(GUESSES, x[labelled], of, len(names))
        if order != "random" and len(names) > 1:
            mass = chances(head.scores(x), GUESS_TEMPERATURE)
        right = names[head.scores(photos.test).argmax(axis=1)] == photos.test_labels
        sums = np.bincount(photos.test_labels, right)
        found.append(100 * float((sums / np.bincount(photos.test_labels)).mean()))
    return found


def label_next(photos: Photos, seeds: int) -> dict[str, Any]:
    """Labels needed, ours ÷ random order, where random reaches with so many."""
    result: dict[str, Any] = {}
    for name, batch, most in (("long-tailed", 50, 700), ("even", 100, 1500)):
        tops: dict[str, list[list[float]]] = {"random": [], "ours": [], "margin": []}
        ratios: dict[str, list[list[float]]] = {"ours": [], "margin": []}
        for seed in range(seeds):
            labels = photos.train_labels
            rows = long_tail(labels, seed) if name == "long-tailed" else np.arange(len(labels))
            for order, top in tops.items():
                top.append(curve(photos, rows, batch, most, seed, order))
            theirs = tops["random"][-1]
            counts = batch * np.arange(1, len(theirs) + 1)
            places = [int(level * len(theirs)) for level in LEVELS]
            for order, kept in ratios.items():
                rising = np.maximum.accumulate(tops[order][-1])
                kept.append(
                    [
                        float(np.interp(theirs[place], rising, counts)) / counts[place]
                        if rising[-1] >= theirs[place]
                        else float("inf")
                        for place in places
                    ]
                )
        shown = np.array(ratios["ours"])
        result[name] = {
            "photos": len(rows),
            "batch": batch,
            "labels": [int(counts[place]) for place in places],
            "ratio": shown.mean(axis=0).round(3).tolist(),
            "worst_seed": shown.max(axis=0).round(3).tolist(),
            "mean_ratio": round(float(shown.mean()), 3),
            "margin_ratio": np.mean(ratios["margin"], axis=0).round(3).tolist(),
            **{
                f"{order}_top1": np.mean(top, axis=0).round(2).tolist()
                for order, top in tops.items()
            },
            "seeds": seeds,
        }
    result["target"] = "ratio at most 0.8 on the long-tailed set, never above 1.0 on the even one"
    return result


# -- unknown


def unknown(photos: Photos, draws: int) -> dict[str, Any]:
    """Area under the curve of telling known from unknown species, over draws."""
    rows = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(photos.classes)
        known = order[: round(photos.classes * 2 / 3)]
        chosen = np.isin(photos.train_labels, known)
        made = FieldClassifier("logistic").fit(photos.train[chosen], photos.train_labels[chosen])
        own = np.isin(photos.test_labels, known)
        familiar = made.familiarity(photos.test).astype(np.float64)
        plain = made.predict_proba(photos.test).max(axis=1)
        rejected = made.is_unknown(photos.test)
        rejection = made.rejection_
        assert rejection is not None
        rows.append(
            {
                "familiarity": 100 * auroc(familiar, own),
                "largest_probability": 100 * auroc(plain, own),
                "gain": 100 * (auroc(familiar, own) - auroc(plain, own)),
                "fpr95": 100 * fpr95(familiar, own),
                "fpr95_largest_probability": 100 * fpr95(plain, own),
                "lost": 100 * float(rejected[own].mean()),
                "caught": 100 * float(rejected[~own].mean()),
                "own_auroc": 100 * rejection.auroc,
            }
        )
    means = {name: round(statistics.mean(row[name] for row in rows), 2) for name in rows[0]}
    gains = [row["gain"] for row in rows]
    reach = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5
    return {
        **means,
        "gain_interval": [round(means["gain"] - reach, 2), round(means["gain"] + reach, 2)],
        "draws": draws,
        "stated_lost": 5.0,
        "target": "AUROC above that of the largest probability, interval of the gain above 0",
    }


# -- sets


def adaptive(held: np.ndarray, truth: np.ndarray, mass: np.ndarray, coverage: float) -> np.ndarray:
    """Regularised adaptive sets (arXiv:2009.14193 without randomisation, penalty 0.01 beyond five)."""

    def ranked(chances: np.ndarray) -> np.ndarray:
        order = np.argsort(-chances, axis=1, kind="stable")
        places = np.maximum(np.arange(chances.shape[1]) - 4, 0)
        sums = np.cumsum(np.take_along_axis(chances, order, axis=1), axis=1) + 0.01 * places
        found = np.empty_like(sums)
        np.put_along_axis(found, order, sums, axis=1)
        return found

    strange = np.sort(ranked(held)[np.arange(len(truth)), truth])
    threshold = strange[int(np.ceil((len(truth) + 1) * coverage)) - 1]
    inside = ranked(mass) <= threshold
    inside[np.arange(len(mass)), mass.argmax(axis=1)] = True
    return inside


def sets(photos: Photos) -> dict[str, Any]:
    """Coverage and calibration on test photos; everything was fitted on train photos."""
    made = FieldClassifier().fit(photos.train, photos.train_labels)
    mass = made.predict_proba(photos.test)
    held = ~np.isnan(made.held_out_).any(axis=1)
    rows = {}
    for coverage in (0.8, 0.9, 0.95):
        fitted_sets = fit_sets(made.held_out_[held], photos.train_labels[held], coverage)
        inside = fitted_sets.members(mass)
        hit = inside[np.arange(len(mass)), photos.test_labels]
        wide = adaptive(made.held_out_[held], photos.train_labels[held], mass, coverage)
        rows[str(coverage)] = {
            "covered": round(100 * float(hit.mean()), 2),
            "mean_size": round(float(inside.sum(axis=1).mean()), 2),
            "median_size": float(np.median(inside.sum(axis=1))),
            "adaptive_covered": round(
                100 * float(wide[np.arange(len(mass)), photos.test_labels].mean()), 2
            ),
            "adaptive_mean_size": round(float(wide.sum(axis=1).mean()), 2),
        }
    logits = np.log(mass + 1e-12)
    scores = made.decision_function(photos.test)
    return {
        "head": str(made.spec_),
        "heads": {name: round(100 * share, 2) for name, share in made.validation_.heads.items()},
        "held_out_top1": round(100 * made.validation_.accuracy, 2),
        "test_top1": round(
            100 * float((made.predict(photos.test) == photos.test_labels).mean()), 2
        ),
        "ece": round(measure_calibration(logits, photos.test_labels).ece, 2),
        "ece_uncalibrated": round(measure_calibration(scores, photos.test_labels).ece, 2),
        "coverage": rows,
        "target": "coverage within 2 points of what is stated (0.9 by default)",
    }


# -- mistakes


def mistakes(photos: Photos) -> dict[str, Any]:
    """How many of the labels that were made wrong are found."""
    x, y, classes = photos.train, photos.train_labels, photos.classes
    draw = np.random.default_rng(0)
    changed = draw.permutation(len(y))[: len(y) // 20]
    means = class_means(x, y, classes)
    alike = means @ means.T
    np.fill_diagonal(alike, -9)
    given = y.copy()
    for number, row in enumerate(changed):
        near = alike[y[row]].argsort()[-1 - draw.integers(3)]
        given[row] = near if number % 2 else (y[row] + 1 + draw.integers(classes - 1)) % classes
    wrong = given != y
    made = FieldClassifier("logistic").fit(x, given)
    found = made.suspects()
    mass = made.held_out_
    own = mass[np.arange(len(given)), given]
    others = mass.copy()
    others[np.arange(len(given)), given] = 0
    rows = [suspect.row for suspect in found]
    score = np.zeros(len(y))
    score[rows] = [suspect.score for suspect in found]
    return {
        "labels": len(y),
        "wrong": int(wrong.sum()),
        "auroc": round(100 * auroc(score, wrong), 2),
        "precision_of_as_many": round(100 * float(wrong[rows[: wrong.sum()]].mean()), 2),
        "precision_of_50": round(100 * float(wrong[rows[:50]].mean()), 2),
        "precision_by_given_probability": share(wrong, own),
        "precision_by_distance": share(wrong, own - others.max(axis=1)),
        "chance": 5.0,
        "right_suggestion": round(
            100 * statistics.mean(float(s.suggested == y[s.row]) for s in found if wrong[s.row]),
            2,
        ),
    }


def share(wrong: np.ndarray, score: np.ndarray) -> float:
    """Percent of wrong ones among as many of the lowest scores."""
    return round(100 * float(wrong[np.argsort(score, kind="stable")[: wrong.sum()]].mean()), 2)


PARTS = ("refit", "next", "unknown", "sets", "mistakes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--birds200", type=Path, required=True)
    parser.add_argument("--cub50", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    wanted = options.part or PARTS
    result: dict[str, Any] = {}
    if (RESULTS / "label.json").is_file():
        import json

        # What was not asked for stays as it was measured.
        kept = json.loads((RESULTS / "label.json").read_text())
        result = {part: kept[part] for part in PARTS if part in kept}
    if "refit" in wanted:
        result["refit"] = refit(options.data, options.rounds) | measured()
        print("refit", result["refit"], flush=True)
        record("label", result)
    measures: dict[str, tuple[str, Callable[[Photos], dict[str, Any]]]] = {
        "next": ("birds200", lambda photos: label_next(photos, options.seeds)),
        "unknown": ("birds200", lambda photos: unknown(photos, options.draws)),
        "sets": ("cub50", sets),
        "mistakes": ("birds200", mistakes),
    }
    for data in ("birds200", "cub50"):
        parts = [part for part, (of, _) in measures.items() if of == data and part in wanted]
        if not parts:
            continue
        for role, encoder in (
            ("trained", Encoder.load(getattr(options, data), device="cpu")),
            ("start", start(options.data)),
        ):
            photos = embed(encoder, options.data / data)
            for part in parts:
                result.setdefault(part, {})[role] = {
                    "data": data,
                    "encoder": encoder_facts(encoder),
                    **measures[part][1](photos),
                    **measured(),
                }
                print(part, role, result[part][role], flush=True)
                record("label", result)


if __name__ == "__main__":
    main()
