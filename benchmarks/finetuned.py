"""What labels add: linear probe and supervised fine-tuning of encoders that trained without labels.

The evaluation of the MSAM-CL paper (top-1, top-5, macro recall, precision, F1, and its own F1) of the
start and of encoders from ``methods_table.py``'s run folders. The start, fine-tuned, is the supervised
reference. Every fine-tuning is a ``fieldmark finetune``; interrupted, it goes on.

    python benchmarks/finetuned.py --data DIR --runs DIR --work DIR [--photos cub50] [--of start msam]
    python benchmarks/finetuned.py --data DIR --runs DIR --work DIR --normalization [--epochs 10]
        the start with batch-norm frozen and in train mode; a third of the train photos judges
    python benchmarks/finetuned.py --table
"""

import argparse
import csv
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from _record import RESULTS, record
from fieldmark.config import merge
from fieldmark.evaluation.classification import LABELS
from fieldmark.evaluation.evaluate import EvalConfig
from fieldmark.training.finetune import FinetuneConfig
from fieldmark.workflows.evaluate import evaluate
from fieldmark.workflows.finetune import finetune

NAME = "finetuned"
# Run of the table, and which of its encoders. The probe reads all of them behind their whitening,
# as the table does; fine-tuning begins before it.
ENCODERS = {
    "start": ("msam", "start"),
    "msam": ("msam", "teacher"),
    "fieldmark": ("fieldmark", "student"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, help="what methods_table.py was given as --work")
    parser.add_argument("--work", type=Path, help="where classifiers are kept")
    parser.add_argument("--photos", nargs="+", default=["cub50"])
    parser.add_argument("--of", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--normalization", action="store_true", help="compare its settings")
    parser.add_argument("--table", action="store_true", help="print what was recorded")
    options = parser.parse_args()
    if not options.table:
        if not (options.data and options.runs and options.work):
            parser.error("--data, --runs and --work are needed to train")
        if options.normalization:
            for photos in options.photos:
                compare_normalization(options, photos)
            return
        for photos in options.photos:
            for name in options.of:
                row = one(options, photos, name)
                kept = [r for r in recorded() if (r["photos"], r["encoder"]) != (photos, name)]
                print(record(NAME, {"rows": [*kept, row]}), flush=True)
    print(table(recorded()))


def one(options: argparse.Namespace, photos: str, name: str) -> dict[str, Any]:
    """Linear probe and fine-tuning of one encoder."""
    encoder, folder = encoder_of(options, photos, name), options.data / photos
    images, labels = folder / "images", folder / "split.csv"
    probe = evaluate(encoder, images, labels=labels, config=EvalConfig(fractions=()))
    tuned = tune(options, photos, encoder, options.work / f"{photos}-{name}", labels)
    return {
        "photos": photos,
        "encoder": name,
        **tuned,
        "linear probe": probe.data["classification"]["encoder"],
    }


def encoder_of(options: argparse.Namespace, photos: str, name: str) -> Path:
    run, who = ENCODERS[name]
    # The start is the same beside every seed.
    places = sorted(Path(options.runs).glob(f"{photos}-{run}-gentle-*/encoders/{who}"))
    if not places:
        raise SystemExit(f"{options.runs} holds no run {photos}-{run}-gentle-*; make it first.")
    return places[0]


def tune(
    options: argparse.Namespace,
    photos: str,
    encoder: Path,
    out: Path,
    labels: Path,
    **settings: Any,
) -> dict[str, Any]:
    """What ``fieldmark finetune`` measures."""
    changes = merge(FinetuneConfig().dump(), {"train": {"epochs": options.epochs}, **settings})
    tuned = finetune(
        encoder,
        options.data / photos / "images",
        out,
        labels=labels,
        config=FinetuneConfig.model_validate(changes),
        say=print,
    )
    assert tuned is not None
    facts = ("train_photos", "test_photos", "classes", "epochs", "images_per_second", "seconds")
    return {
        **{fact: tuned[fact] for fact in facts},
        "seed": tuned["settings"]["train"]["seed"],
        "fine-tuned": {measure: tuned["measures"][measure] for measure in LABELS},
    }


def compare_normalization(options: argparse.Namespace, photos: str) -> None:
    """Batch-norm frozen and in train mode, on train photos only: test photos choose nothing."""
    labels, encoder = options.work / f"{photos}-thirds.csv", encoder_of(options, photos, "start")
    labels.parent.mkdir(parents=True, exist_ok=True)
    write_thirds(options.data / photos / "split.csv", labels)
    found = {
        how: tune(
            options, photos, encoder, options.work / f"{photos}-{how}", labels, normalization=how
        )
        for how in ("frozen", "train")
    }
    print(record(f"finetune_normalization_{photos}", {"photos": photos, "runs": found}), flush=True)
    print({how: run["fine-tuned"]["top1"] for how, run in found.items()})


def write_thirds(split: Path, out: Path) -> None:
    """Of each class two thirds of the train photos to teach and one to ask; paths below images."""
    classes = defaultdict(list)
    with split.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "train":
                classes[row["class"]].append(row["path"].removeprefix("images/"))
    draw = random.Random(0)
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split"))
        for name, paths in classes.items():
            draw.shuffle(paths)
            writer.writerows((p, name, "train" if i % 3 else "test") for i, p in enumerate(paths))


def recorded() -> list[dict[str, Any]]:
    path = RESULTS / f"{NAME}.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    """One line an encoder and way of teaching it."""
    heads = ("top-1", "top-5", "recall", "precision", "F1", "F1 of the paper")
    lines = ["| photos | encoder | labels | " + " | ".join(heads) + " |", "|---" * 9 + "|"]
    for row in rows:
        for how in ("linear probe", "fine-tuned"):
            numbers = [f"{row[how][measure]:.1f}" for measure in LABELS]
            cells = [row["photos"], f"`{row['encoder']}`", how, *numbers]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
