"""Are planted copies found, and nothing else? And foreign photos and wrong labels?

Photos are copied as people copy them (each way alike often), foreign photos are put among them, labels are
exchanged; what ``fieldmark duplicates`` and ``fieldmark outliers`` find is counted. Pairs of real photos that
are called the same picture are listed, to be looked at: no list of true ones exists.

    python benchmarks/duplicates.py --data DATA --photos cub50 --encoder ENCODER --foreign cars196
"""

import argparse
import csv
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from sklearn.metrics import roc_auc_score

from _record import RESULTS, encoder_facts, measured, record
from fieldmark.data.audit import AuditConfig, likeness, near_groups
from fieldmark.data.decode import decode
from fieldmark.encoder import Encoder
from fieldmark.index.alike import doubt_labels, neighbours, read_items, unlikeness
from fieldmark.index.places import open_index
from fieldmark.workflows.duplicates import find_duplicates
from fieldmark.workflows.index import index_photos

WAYS = ("compressed", "resized", "cropped", "mirrored", "brightened")
SHARE = 0.02


def change(photo: Image.Image, way: str) -> Image.Image:
    width, height = photo.size
    if way == "resized":
        return photo.resize((max(1, width * 6 // 10), max(1, height * 6 // 10)))
    if way == "cropped":
        return photo.crop((round(width * 0.05), round(height * 0.05), width, height))
    if way == "mirrored":
        return ImageOps.mirror(photo)
    if way == "brightened":
        return ImageEnhance.Brightness(photo).enhance(1.3)
    return photo


def plant(root: Path, paths: list[str], place: Path, count: int) -> dict[str, tuple[str, str]]:
    """Links to the photos, and changed copies beside them: source and way by copy."""
    for path in paths:
        link = place / "real" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root / path)
    (place / "copies").mkdir()
    planted = {}
    chosen = np.random.default_rng(0).choice(len(paths), count, replace=False)
    for number, row in enumerate(chosen.tolist()):
        way = WAYS[number % len(WAYS)]
        name = f"copies/{number:03d}-{way}.jpg"
        with Image.open(root / paths[row]) as photo:
            made = change(photo.convert("RGB"), way)
        made.save(place / name, quality=35 if way == "compressed" else 92)
        planted[name] = (f"real/{paths[row]}", way)
    return planted


def pairs_of(groups: list[list[str]]) -> set[tuple[str, str]]:
    return {pair for group in groups for pair in itertools.combinations(sorted(group), 2)}


def judge(found: set[tuple[str, str]], planted: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Recall of planted copies by way, and what else there is.

    A copy of a photo that itself has a twin is near that twin too: not counted as wrong.
    """
    sources = {name: source for name, (source, _) in planted.items()}
    hit = {name: (min(name, s), max(name, s)) in found for name, (s, _) in planted.items()}
    between_real = {pair for pair in found if not set(pair) & planted.keys()}
    twins = between_real | {(b, a) for a, b in between_real}
    wrong = 0
    for a, b in found - between_real:
        one, other = sources.get(a, a), sources.get(b, b)
        wrong += one != other and (one, other) not in twins
    right = sum(hit.values())
    return {
        "recall": round(right / len(planted), 4),
        "recall_by_way": {
            way: round(float(np.mean([hit[n] for n, (_, w) in planted.items() if w == way])), 4)
            for way in WAYS
        },
        "precision_of_planted": round(right / max(1, right + wrong), 4),
        "wrong_pairs_with_a_copy": wrong,
        "pairs_of_real_photos": len(between_real),
    }


def by_hash(place: Path, keys: list[str]) -> set[tuple[str, str]]:
    """What ``fieldmark check`` finds without any encoder."""
    photos = (decode((place / key).read_bytes(), short_side=64).pixels for key in keys)
    found = likeness(photos, len(keys))
    return pairs_of([[keys[row] for row in group] for group in near_groups(*found, AuditConfig())])


def outliers(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """AUROC of foreign photos among own ones: by the shipped score and by the nearest ten."""
    both, foreign = np.concatenate([x, y]), np.arange(len(x) + len(y)) >= len(x)
    near = 1 - neighbours(both, 10).cosines.mean(axis=1)
    score = unlikeness(both)
    worst = np.argsort(-score)[: len(y)]
    return {
        "foreign": len(y),
        "auroc": round(float(roc_auc_score(foreign, score)), 4),
        "among_the_worst_as_many": round(float(foreign[worst].mean()), 4),
        "auroc_of_ten_nearest": round(float(roc_auc_score(foreign, near)), 4),
    }


def doubts(x: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AUROC of exchanged labels: at random, and to the class that is most alike (adversarial)."""
    random = np.random.default_rng(2)
    classes = int(labels.max()) + 1
    wrong = random.choice(len(x), round(SHARE * len(x)), replace=False)
    centres = np.stack([x[labels == c].mean(0) for c in range(classes)])
    alike = x @ centres.T
    alike[np.arange(len(x)), labels] = -9
    found = {}
    for name, other in (
        ("random", (labels[wrong] + random.integers(1, classes, len(wrong))) % classes),
        ("most_alike", alike[wrong].argmax(1)),
    ):
        given = labels.copy()
        given[wrong] = other
        score = doubt_labels(x, given).score
        known = ~np.isnan(score)
        truth = np.isin(np.arange(len(x)), wrong)[known]
        found[name] = round(float(roc_auc_score(truth, score[known])), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--foreign", required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Links to photos lie in another folder.
    options.data = options.data.resolve()
    root = options.data / options.photos
    with (root / "split.csv").open() as file:
        rows = [(row["path"], row["class"]) for row in csv.DictReader(file)]
    names = sorted({label for _, label in rows})
    with tempfile.TemporaryDirectory() as made:
        place = Path(made) / "photos"
        planted = plant(root, [path for path, _ in rows], place, options.copies)
        index_photos(options.encoder, place, Path(made) / "index", workers=1, device="cpu")
        started = time.perf_counter()
        sure = find_duplicates(Path(made) / "index", photos=place)
        seconds = time.perf_counter() - started
        guess = find_duplicates(Path(made) / "index")
        groups = [[p["path"] for p in g["photos"]] for g in sure["groups"] if g["kind"] != "burst"]
        guesses = [[p["path"] for p in g["photos"]] for g in guess["groups"]]
        with open_index(Path(made) / "index") as index:
            items, x = read_items(index)
        keys = [item.key for item in items]
        hashes = judge(by_hash(place, keys), planted)
    real = np.array([key.startswith("real/") for key in keys])
    label = dict(rows)
    own = [key.removeprefix("real/") for key in keys if key.startswith("real/")]
    labels = np.array([names.index(label[key]) for key in own])
    encoder = Encoder.load(options.encoder, device="cpu")
    with (options.data / options.foreign / "split.csv").open() as file:
        others = [row["path"] for row in csv.DictReader(file)]
    count = round(SHARE * int(real.sum()))
    chosen = np.random.default_rng(1).choice(len(others), count, replace=False)
    y = encoder.embed([options.data / options.foreign / others[i] for i in chosen], workers=1)
    found = {
        **measured(),
        "photos": len(rows),
        "encoder": encoder_facts(encoder),
        "copies": len(planted),
        "threshold": sure["threshold"],
        "pairs_compared": sure["pairs"],
        "merely_alike": sure["alike"],
        "seconds": round(seconds, 1),
        "with_photos": judge(pairs_of(groups), planted),
        "exact_groups_of_real_photos": sure["exact"],
        "real_pairs": sorted(p for p in pairs_of(groups) if p[0].startswith("real/")),
        "without_photos": judge(pairs_of(guesses), planted),
        "by_perceptual_hash": hashes,
        "outliers": {
            f"{options.foreign}, {SHARE:.0%}": outliers(x[real], y),
            f"{options.foreign}, ten": outliers(x[real], y[:10]),
        },
        "wrong_labels_auroc": doubts(x[real], labels),
    }
    print({name: value for name, value in found.items() if name != "real_pairs"})
    results = RESULTS / "duplicates.json"
    before = json.loads(results.read_text()).get("sets", {}) if results.is_file() else {}
    told = {
        "target": "copies: recall and precision 0.95 and more with photos; foreign photos: AUROC 0.95",
        "ways": WAYS,
        "sets": before | {options.photos: found},
    }
    print(record("duplicates", told))


if __name__ == "__main__":
    main()
