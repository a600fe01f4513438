"""How hard the aviary is, and how much of it the demo learns without labels.

python benchmarks/aviary_difficulty.py [--controls-only] [--epochs 25] [--run FOLDER] [--threads 2]

Four figures: what pooled colour statistics and what the background alone tell of the species (as
multiples of guessing), what a supervised network of the demo's kind reaches, and how much of the
way from the random network to the supervised one the demo's recipe goes without labels.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from _record import record
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.aviary import VERSION, Aviary, AviaryConfig, draw, write
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.views import BatchSource, center_views
from fieldmark.evaluation.compare import paired_bootstrap
from fieldmark.evaluation.evaluate import EvalResult, evaluate_encoder
from fieldmark.runtime import tune_allocator
from fieldmark.workflows.recipe import Recipe, load_recipe

MEASURES = ("rank1", "map", "linear")


def colour_statistics(images: np.ndarray) -> np.ndarray:
    """Mean, deviation and 16-bin histogram of each channel, 4 x 4 x 4 joint histogram."""
    pixels = images.reshape(len(images), -1, 3)
    flat = pixels.astype(np.float32) / 255
    coarse = (pixels // 64).astype(np.int64) @ np.array([16, 4, 1])
    features = [flat.mean(axis=1), flat.std(axis=1)]
    features.append(np.stack([np.bincount(code, minlength=64) for code in coarse]))
    for channel in range(3):
        levels = pixels[:, :, channel] // 16
        features.append(np.stack([np.bincount(level, minlength=16) for level in levels]))
    return np.concatenate(features, axis=1)


def thumbnails(images: np.ndarray, side: int = 8) -> np.ndarray:
    """Means over an 8 x 8 grid."""
    step = images.shape[1] // side
    cells = images.reshape(len(images), side, step, side, step, 3).mean(axis=(2, 4))
    return cells.reshape(len(images), -1)


def times_chance(features: np.ndarray, aviary: Aviary) -> dict[str, float]:
    """Test accuracy of simple classifiers, as a multiple of guessing."""
    train, test, labels = aviary.train_rows, aviary.test_rows, aviary.labels
    models = {
        "logistic, strong penalty": LogisticRegression(C=0.03, max_iter=300),
        "logistic, weak penalty": LogisticRegression(C=1.0, max_iter=300),
        "15 nearest": KNeighborsClassifier(15),
    }
    scores = {}
    for name, model in models.items():
        fitted = make_pipeline(StandardScaler(), model).fit(features[train], labels[train])
        accuracy = fitted.score(features[test], labels[test])
        scores[name] = round(float(accuracy) * len(aviary.species), 3)
    return scores


def controls(per_species: int) -> dict[str, object]:
    """Colour and background alone, on more photos than the demo has, so that chance is narrow."""
    aviary = draw(AviaryConfig(per_species=per_species, test_every=2, seed=1))
    blank = np.where(aviary.masks[..., None], 128, aviary.images).astype(np.uint8)
    rate = 1 / len(aviary.species)
    return {
        "photos": len(aviary.images),
        "standard_error_of_chance": round(
            float(np.sqrt((1 - rate) / rate / len(aviary.test_rows))), 3
        ),
        "colour": times_chance(colour_statistics(aviary.images), aviary),
        "background, colour": times_chance(colour_statistics(aviary.backgrounds), aviary),
        "background, thumbnails": times_chance(thumbnails(aviary.backgrounds), aviary),
        "bird painted grey, colour": times_chance(colour_statistics(blank), aviary),
    }


def embed(backbone: Backbone, store: MemoryPhotos, size: int) -> np.ndarray:
    """L2-normalised features of all photos, whole."""
    backbone.eval()
    parts = []
    with torch.inference_mode():
        for rows in np.array_split(store.usable, max(1, len(store) // 64)):
            parts.append(backbone(center_views(store, rows, size, crop=1.0).images).pooled)
    return nn.functional.normalize(torch.cat(parts), dim=1).float().numpy()


def evaluate(backbone: Backbone, aviary: Aviary, size: int) -> EvalResult:
    features = embed(backbone, MemoryPhotos(aviary.images), size)
    names = [kind.name for kind in aviary.species]
    train, test = aviary.train_rows, aviary.test_rows
    return evaluate_encoder(
        features[train], aviary.labels[train], features[test], aviary.labels[test], names
    )


def supervised(recipe: Recipe, aviary: Aviary, epochs: int) -> tuple[EvalResult, float]:
    """The recipe's network trained with labels; its measures and its own test accuracy."""
    torch.manual_seed(0)
    store = MemoryPhotos(aviary.images)
    backbone = Backbone.build(recipe.backbone, size=recipe.size)
    head = nn.Linear(backbone.dim, len(aviary.species))
    views = MultiView(
        specs=(ViewSpec(size=recipe.size, scale=(0.7, 1.0), hue=0.0, gray=0.0, blur=0.0),)
    )
    source = BatchSource(
        store, aviary.train_rows, views, batch_size=64, seed=0, device=torch.device("cpu")
    )
    steps = epochs * source.steps_per_epoch
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    labels = torch.from_numpy(aviary.labels)
    backbone.train()
    for step in range(steps):
        batch = source.batch(step)
        logits = head(backbone(batch.views[0].images).pooled)
        loss = nn.functional.cross_entropy(logits, labels[batch.rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    backbone.eval()
    right = []
    with torch.inference_mode():
        for rows in np.array_split(aviary.test_rows, 10):
            shown = center_views(store, rows, recipe.size, crop=1.0).images
            right.append(head(backbone(shown).pooled).argmax(1) == labels[rows])
    accuracy = torch.cat(right).float().mean().item()
    return evaluate(backbone, aviary, recipe.size), accuracy


def demo(recipe: Recipe, aviary: Aviary, folder: Path) -> EvalResult:
    """What `make demo` trains, measured without post-processing."""
    from fieldmark.encoder import Encoder
    from fieldmark.workflows.train import train

    if not (folder / "run" / "encoders" / "student").is_dir():
        table = write(aviary, folder / "photos")
        train(folder / "photos" / "images", folder / "run", recipe, probe=table)
    encoder = Encoder.load(folder / "run" / "encoders" / "student")
    return evaluate(encoder.spec.backbone, aviary, recipe.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--controls-only", action="store_true", help="no training")
    parser.add_argument("--per-species", type=int, default=600, help="photos for the controls")
    parser.add_argument("--epochs", type=int, default=25, help="of supervised training")
    parser.add_argument("--run", type=Path, help="keep photos and run here; reused when finished")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tune_allocator()
    result: dict[str, object] = {
        "aviary_version": VERSION,
        "targets": {
            "colour": "< 2 x chance",
            "background": "< 1.2 x chance",
            "supervised accuracy": ">= 80 %",
            "demo": ">= 25 % of the way from random to supervised, interval above 0",
        },
        "controls": controls(options.per_species),
    }
    if not options.controls_only:
        recipe = load_recipe("demo")
        aviary = draw()
        start = evaluate(Backbone.build(recipe.backbone, size=recipe.size), aviary, recipe.size)
        labelled, accuracy = supervised(recipe, aviary, options.epochs)
        with tempfile.TemporaryDirectory() as aside:
            learned = demo(recipe, aviary, options.run or Path(aside))
        result["supervised_accuracy"] = round(accuracy * 100, 2)
        result["measures"] = {
            name: {m: round(side.measures[m], 2) for m in MEASURES}
            for name, side in (("random", start), ("demo", learned), ("supervised", labelled))
        }
        result["demo"] = {m: way(start, learned, labelled, m) for m in MEASURES}
    print(json.dumps(result, indent=2))
    print(record("aviary_difficulty", result))


def way(
    start: EvalResult, learned: EvalResult, labelled: EvalResult, measure: str
) -> dict[str, object]:
    """Share of the way from random to supervised, with the interval of the gain in points."""
    room = labelled.measures[measure] - start.measures[measure]
    gain = paired_bootstrap(start.per_query[measure], learned.per_query[measure], start.labels)
    return {
        "share_of_the_way": round((learned.measures[measure] - start.measures[measure]) / room, 3),
        "gain": round(gain.value * 100, 2),
        "interval": [round(gain.low * 100, 2), round(gain.high * 100, 2)],
    }


if __name__ == "__main__":
    main()
