"""Are the maps of look-alike pairs true, and do they lie on the bird?

    python benchmarks/explain.py --data DIR [--pairs 100] [--size 128]
    python benchmarks/explain.py --data DIR --encoder RUN/encoder --name explain_trained

Pairs are photos of the test split and the most similar photo of another class. Explained is their
cosine. *Faithfulness* is the area between the curves of a map and of random orders while cells are
hidden and uncovered, in units of the cosine; *energy* the share of a map's positive part inside the
bird's box, *lift* that share divided by the box's share of the photo (1: a map that knows nothing).
The boxes are used for measuring only. On drawn birds the marks that differ between two species are
known: *rate* says how often the strongest place of a map is one of them. *falls* is what blurring the
map's strongest part (a quarter of the side) takes from the cosine; *patches* is faithfulness once
more with the maps averaged over 8 × 8 patches, so that smooth maps gain nothing by being smooth.
Compared with: the length of each cell's feature, which knows nothing of the other photo, and the
order of chance.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.aviary import AviaryConfig, draw
from fieldmark.data.look import look_at, window
from fieldmark.data.looktensor import stack
from fieldmark.encoder import Encoder
from fieldmark.evaluation.localisation import cover_by_boxes, measure_localisation
from fieldmark.explain.cells import finer, read_cells
from fieldmark.explain.drawn import find_drawn_marks
from fieldmark.explain.faithfulness import draw_chance, measure_faithfulness
from fieldmark.explain.maps import gradient_maps, photo_maps, toward
from fieldmark.explain.parts import losses, strongest
from fieldmark.explain.sharpening import BROAD, FINE, sharpening_maps
from fieldmark.nn.spec import EncoderSpec, PostConfig, freeze
from fieldmark.nn.whitening import fit_whitening

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
PHOTOS = "cub50"
PATCHES = 8


def read_rows(root: Path, split: str) -> list[tuple[str, str]]:
    with (root / "split.csv").open() as file:
        return [
            (row["path"], row["class"]) for row in csv.DictReader(file) if row["split"] == split
        ]


def read_boxes(root: Path) -> dict[str, tuple[float, ...]]:
    """x0 y0 x1 y1 in pixels."""
    names = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    found = {}
    for line in (root / "bounding_boxes.txt").read_text().splitlines():
        number, *values = line.split()
        x, y, w, h = map(float, values)
        found["images/" + names[number]] = (x, y, x + w, y + h)
    return found


def look(path: Path, box: tuple[float, ...], size: int, crop: float) -> tuple[Any, Any]:
    """What the encoder sees, and the bird's box in it as fractions."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    left, top, right, bottom = window(*pixels.shape[:2], size, crop)
    place = np.array([box[0] - left, box[1] - top, box[2] - left, box[3] - top])
    scale = np.array([right - left, bottom - top] * 2)
    return look_at(pixels, size, crop), np.clip(place / scale, 0, 1)


def build(options: argparse.Namespace, root: Path) -> Encoder:
    """The start with PCA whitening fitted on unlabelled train photos, or the given encoder."""
    if options.encoder:
        return Encoder.load(options.encoder, device="cpu")
    config = BackboneConfig(weights=str(options.data / WEIGHTS))
    backbone = Backbone.build(config, size=options.size)
    spec = freeze(EncoderSpec(backbone, PostConfig()))
    plain = Encoder(spec, device="cpu")
    if not options.dim:
        return plain
    paths = [root / path for path, _ in read_rows(root, "train")]
    raw = torch.from_numpy(plain.embed(paths))
    post = PostConfig(whiten_dim=options.dim)
    return Encoder(spec.with_post(post, fit_whitening(raw, options.dim)), device="cpu")


def pairs_of(embeddings: torch.Tensor, labels: list[str], count: int) -> list[tuple[int, int]]:
    """Photos evenly over the test split, each with its nearest of another class."""
    names = np.array(labels)
    alike = embeddings @ embeddings.T
    alike[torch.from_numpy(names[:, None] == names)] = -2
    queries = np.linspace(0, len(names) - 1, count).round().astype(int)
    return [(int(row), int(alike[row].argmax())) for row in queries]


def measure(
    encoder: Encoder, images: torch.Tensor, boxes: np.ndarray, draws: int
) -> dict[str, dict[str, float]]:
    """Every kind of map of photos and their partners; even rows pair with the next odd ones."""
    spec = encoder.spec
    with torch.no_grad():
        embeddings = torch.cat([spec(part) for part in images.split(32)])
    partner = torch.arange(len(images)) ^ 1
    target = embeddings[partner]
    shape = toward(spec, images[:1], target[:1]).maps.shape[1:]
    steps = finer((shape[0], shape[1]))

    def each(make: Any) -> torch.Tensor:
        parts = zip(images.split(16), target.split(16))
        return torch.cat([make(one, two) for one, two in parts]).detach().clone()

    maps = {
        "similarity": each(lambda x, d: toward(spec, x, d).maps),
        "activation": each(lambda x, d: photo_maps(spec, x).added),
        "similarity, finer": each(lambda x, d: toward(spec, x, d, steps=steps).maps),
        "activation, finer": each(lambda x, d: photo_maps(spec, x, steps=steps).added),
        "own direction, finer": each(lambda x, d: photo_maps(spec, x, steps=steps).own),
        "gradient, finer": each(lambda x, d: gradient_maps(spec, x, d, steps=steps)),
        "sharpening, broad": each(lambda x, d: sharpening_maps(spec, x, d, soft=BROAD).maps),
        "sharpening, fine": each(lambda x, d: sharpening_maps(spec, x, d, soft=FINE).maps),
    }
    if photo_maps(spec, images[:1]).attention is not None:
        maps["attention"] = each(lambda x, d: photo_maps(spec, x).attention)
    luck = {}
    found: dict[str, dict[str, float]] = {}
    scores: dict[str, np.ndarray] = {}
    patches: dict[str, np.ndarray] = {}
    for name, one in maps.items():
        started = time.perf_counter()
        grid = (one.shape[1], one.shape[2])
        if grid not in luck:
            luck[grid] = draw_chance(encoder.encode, images, target, grid, draws=draws)
        told = measure_faithfulness(encoder.encode, images, target, one, chance=luck[grid])
        scores[name] = told.per_photo
        positive = one.clamp_min(0).double()
        usable = (positive.sum((1, 2)) > 0).numpy()
        covers = cover_by_boxes(boxes, (one.shape[1], one.shape[2]))
        usable &= covers.mean((1, 2)) > 0
        place = measure_localisation(positive.numpy()[usable], covers[usable])
        error = told.per_photo.std(ddof=1) / len(told.per_photo) ** 0.5
        falls = losses(spec, images, target, strongest(one.clamp_min(0), 1)[:, 0], grid[0])
        found[name] = {
            "grid": one.shape[1],
            "faithfulness": round(told.score, 4),
            "error": round(float(error), 4),
            "better_than_random": round(float((told.per_photo > 0).mean()), 3),
            "deletion": round(told.deletion, 4),
            "insertion": round(told.insertion, 4),
            "one_random_order": round(told.chance, 4),
            "energy": round(place.energy / 100, 4),
            "lift": round(place.lift, 3),
            "pointing": round(place.pointing / 100, 3),
            "box": round(place.area / 100, 4),
            "falls": round(float(falls.mean()), 4),
        }
        if min(grid) > PATCHES:
            pooled = functional.adaptive_avg_pool2d(one[:, None], PATCHES)[:, 0]
            patch = (PATCHES, PATCHES)
            if patch not in luck:
                luck[patch] = draw_chance(encoder.encode, images, target, patch, draws=draws)
            coarse = measure_faithfulness(
                encoder.encode, images, target, pooled, chance=luck[patch]
            )
            patches[name] = coarse.per_photo
            found[name]["patches"] = round(coarse.score, 4)
        print(f"{name:20}", found[name], f"{time.perf_counter() - started:.0f} s", flush=True)
    # Photos are the same, so the difference is surer than either.
    for name, plain in (
        ("similarity", "activation"),
        ("similarity, finer", "activation, finer"),
        ("sharpening, broad", "activation, finer"),
        ("sharpening, fine", "activation, finer"),
    ):
        for key, measured in (("beyond_activation", scores), ("patches_beyond", patches)):
            if name in measured:
                gap = measured[name] - measured[plain]
                found[name][key] = round(float(gap.mean()), 4)
                error = gap.std(ddof=1) / len(gap) ** 0.5
                found[name][f"{key}_error"] = round(float(error), 4)
    return found


def measure_aviary(spec: EncoderSpec, couples: int = 6, photos: int = 20) -> dict[str, float]:
    """Drawn birds: how often the strongest place of a two-species map is a mark that differs."""
    aviary = draw(AviaryConfig(species=2 * couples, per_species=photos, size=spec.size))
    found = [find_drawn_marks(spec, aviary, (2 * i, 2 * i + 1)) for i in range(couples)]
    mean = {
        key: round(float(np.mean([getattr(one, key) for one in found])), 4)
        for key in ("rate", "chance", "on_bird", "right")
    }
    return {"couples": couples, "photos": sum(one.photos for one in found), **mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="instead of the start")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--dim", type=int, default=256, help="of the whitening; 0: none")
    parser.add_argument("--draws", type=int, default=2, help="random orders per photo")
    parser.add_argument("--name", default="explain", help="of the JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = options.data / PHOTOS
    encoder = build(options, root)
    boxes = read_boxes(root)
    rows = read_rows(root, "test")
    seen = [look(root / path, boxes[path], encoder.size, encoder.spec.crop) for path, _ in rows]
    images = stack([pixels for pixels, _ in seen])
    with torch.no_grad():
        embeddings = torch.cat([encoder.encode(part) for part in images.split(64)]).cpu()
    pairs = pairs_of(embeddings, [label for _, label in rows], options.pairs)
    order = torch.tensor(pairs).flatten()
    places = np.stack([seen[index][1] for index in order.tolist()])
    started = time.perf_counter()
    found = measure(encoder, images[order], places, options.draws)
    cosine = (embeddings[order[::2]] * embeddings[order[1::2]]).sum(1)
    result = {
        "photos": PHOTOS,
        "pairs": len(pairs),
        "cosine": round(float(cosine.mean()), 4),
        "size": encoder.size,
        "pooling": read_cells(encoder.spec, images[:1]).pooling,
        "whitening": options.dim if not options.encoder else bool(encoder.spec.whitening),
        "start": encoder.provenance.sentence(),
        "target": "similarity better than random and than activation in faithfulness and energy",
        "maps": found,
        "aviary": measure_aviary(encoder.spec),
        "seconds": round(time.perf_counter() - started),
    }
    print(record(options.name, result))


if __name__ == "__main__":
    main()
