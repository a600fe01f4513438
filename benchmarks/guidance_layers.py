"""Do gradient maps taken at the image hold subtler cues than maps of deeper layers?

python benchmarks/guidance_layers.py --photos 256 --size 128 --name random_resnet10t \
    --set backbone.name=resnet10t --set backbone.weights=random --epochs 3
python benchmarks/guidance_layers.py --name mobilenetv2 --set backbone.weights=FILE

The claim behind PP-SSL's IADM (arXiv:2412.00134), measured where the discriminating details are
known: on aviary's drawn birds. For the image and for every stage, the gradient map of a contrastive
loss is taken; *lift* is the share of its energy that falls on the species' marks, divided by the
share of the photo that the marks cover: 1 says that the map knows nothing of them. The same for the
whole bird. Both are measured on the map as fine as its layer is, and after max-pooling to the grid
that attention is fitted on, where all layers are equally coarse. Controls: the contrast of the photo
itself (length of its colour gradient), and an even map, whose lift must be 1.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from _record import record
from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.watched import watched
from fieldmark.data.aviary import Aviary, AviaryConfig, draw
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.views import BatchSource
from fieldmark.methods import METHODS
from fieldmark.nn.cam import coarsen
from fieldmark.nn.guidance import Layer, guidance_maps, with_leaves
from fieldmark.training.loop import fit
from fieldmark.types import Batch, Progress
from fieldmark.workflows.recipe import Recipe, load_recipe

SIGNS = ("+loss", "-loss", "+score")


def mark_masks(aviary: Aviary) -> Tensor:
    """Pixels in the box of any visible mark ``[N S S]``."""
    size = aviary.config.size
    at = np.arange(size) + 0.5
    x0, y0, x1, y1 = np.moveaxis(aviary.mark_boxes, -1, 0)[..., None]
    across = (at >= x0) & (at < x1)
    down = (at >= y0) & (at < y1)
    seen = (aviary.mark_visible > 0.5)[..., None, None]
    return torch.from_numpy((down[..., :, None] & across[..., None, :] & seen).any(1)).float()


def lift(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's energy inside, divided by the share of area inside ``[B]``.

    Coarse maps are spread evenly over the pixels of their cells. NaN where nothing is inside.
    """
    maps = maps.double()
    maps = maps + 1e-30 * (maps.sum((1, 2), keepdim=True) == 0)
    fine = functional.interpolate(maps[:, None], masks.shape[1:], mode="nearest")[:, 0]
    inside = (fine * masks).sum((1, 2)) / fine.sum((1, 2))
    area = masks.double().mean((1, 2))
    return torch.where(area > 0, inside / area.clamp_min(1e-12), torch.nan)


def whole_photos(maker: Any, rows: np.ndarray, epoch: int) -> Batch:
    """Two looks at whole photos: only colours differ, so places stay known."""
    views = maker.make(rows, epoch)
    return Batch(views, torch.from_numpy(rows), 1)


def measure(method: Any, aviary: Aviary, recipe: Recipe, photos: int) -> dict[str, Any]:
    """Lifts of all layers, averaged over photos, with standard errors."""
    backbone = method.backbone
    layers: list[Layer] = ["image", *range(len(backbone.stage_dims))]
    rows = aviary.test_rows[:photos]
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "blur": 0.0, "gray": 0.0}
    colours = ViewSpec(size=recipe.size, count=2, **whole)
    source = BatchSource(
        MemoryPhotos(aviary.images),
        rows,
        MultiView(specs=(colours,)),
        batch_size=min(32, len(rows)),
        seed=7,
    )
    masks = {"marks": mark_masks(aviary), "bird": torch.from_numpy(aviary.masks).float()}
    masks = {
        name: functional.interpolate(mask[:, None], (recipe.size, recipe.size), mode="nearest")[
            :, 0
        ]
        for name, mask in masks.items()
    }
    found: dict[str, list[Tensor]] = {}

    def keep(key: str, maps: Tensor, which: Tensor) -> None:
        for name, mask in masks.items():
            found.setdefault(f"{key} {name}", []).append(lift(maps, mask[which]))

    # As when it is trained, but for batch statistics: those of the batch would mix photos.
    method.eval()
    _fill_queue(method, source)
    for step in range(source.steps_per_epoch):
        batch = whole_photos(source.maker, source.batch_rows(step), 0)
        stages = tuple(range(len(backbone.stage_dims)))
        with watched(backbone, stages) as passes:
            output = method(with_leaves(batch), Progress(0, 1, 0.0))
        grid = passes[0].features.shape
        for sign in SIGNS:
            total = output.similarity.sum() if sign == "+score" else output.loss * len(batch.rows)
            maps = guidance_maps(total, passes[:1], layers, backbone, sign=sign)[0]  # type: ignore[arg-type]
            for layer, fine in zip(layers, maps, strict=True):
                keep(f"{sign} {layer} fine", fine.detach(), batch.rows)
                keep(f"{sign} {layer} grid", coarsen(fine.detach(), grid), batch.rows)
        images = batch.views[0].images
        edges = sum(
            functional.pad((images.diff(dim=axis)).abs().sum(1), pad)
            for axis, pad in ((2, (0, 0, 0, 1)), (3, (0, 1)))
        )
        keep("control edges fine", edges, batch.rows)
        keep("control edges grid", coarsen(edges, grid), batch.rows)
        keep("control even fine", torch.ones_like(edges), batch.rows)
    result: dict[str, Any] = {}
    for key, values in found.items():
        value = torch.cat(values)
        value = value[~value.isnan()]
        *where, name = key.split(" ")
        entry = {
            "lift": round(float(value.mean()), 3),
            "standard_error": round(float(value.std() / len(value) ** 0.5), 3),
        }
        place = result
        for part in where:
            place = place.setdefault(part, {})
        place[name] = entry
    return {
        "photos": len(rows),
        "grid": list(grid),
        "strides": dict(zip(map(str, layers[1:]), backbone.stage_strides, strict=True)),
        "area_share": {k: round(float(m[rows].mean()), 4) for k, m in masks.items()},
        "maps": result,
    }


@torch.no_grad()
def _fill_queue(method: Any, source: BatchSource) -> None:
    """Negatives that are keys of photos, not random vectors."""
    if not hasattr(method, "queue"):
        return
    for step in range(source.steps_per_epoch):
        output = method(source.batch(step), Progress(0, 1, 0.0))
        keys, rows = output.carry["keys"], output.carry["rows"]
        method.queue.push(keys, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--base", default="mocov2", choices=("mocov2", "mocov3", "simclr"))
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--per-species", type=int, default=64)
    parser.add_argument("--photos", type=int, default=192, help="of the test half, to measure on")
    parser.add_argument("--epochs", type=int, default=0, help="of training before measuring")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    base = options.base if options.base == "simclr" else "mocov2"
    sets = (f"size={options.size}", f"train.epochs={max(1, options.epochs)}", *options.set)
    recipe = load_recipe("demo" if base == "simclr" else "gentle", sets)
    aviary = draw(AviaryConfig(species=16, per_species=options.per_species, size=options.size))
    torch.manual_seed(0)
    kind = METHODS[options.base]
    settings = recipe.method if recipe.method_name == options.base else kind.config_type()
    if options.base == "mocov2":
        settings = settings.model_copy(update={"queue_size": 256})
    method = kind(settings, Backbone.build(recipe.backbone, size=recipe.size))
    result: dict[str, Any] = {
        "backbone": method.backbone.config.name,
        "start": method.backbone.provenance.sentence(),
        "base": options.base,
        "size": options.size,
        "epochs": options.epochs,
        "before_training" if options.epochs else "measured": measure(
            method, aviary, recipe, options.photos
        ),
    }
    if options.epochs:
        source = BatchSource(
            MemoryPhotos(aviary.images),
            aviary.train_rows,
            recipe.multi_view(),
            batch_size=recipe.train.batch_size,
            seed=0,
        )
        with tempfile.TemporaryDirectory() as folder:
            fit(method, source, recipe.train, Path(folder))
        result["after_training"] = measure(method, aviary, recipe, options.photos)
    result["cpu_seconds"] = round(time.process_time() - began, 1)
    print(json.dumps(result, indent=1))
    print(record(f"guidance_layers_{options.name}", result))


if __name__ == "__main__":
    main()
