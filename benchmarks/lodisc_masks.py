"""What LoDisc's masks show: how much of the bird, and of the marks that tell species apart.

    python benchmarks/lodisc_masks.py --data DIR --start vit.safetensors [--start random:NAME ...]

On cub50 the bird's box is drawn by people; on the aviary the boxes of bird and marks are known because
we draw them. Masks are made of whole photos and of the crops that LoDisc trains on. *Lift* is the share
of the shown area that lies in the box, as a multiple of the box's own share of the picture: 1 is what a
blind mask has. Boxes choose nothing here: they only tell.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.aviary import VERSION, AviaryConfig, draw
from fieldmark.data.decode import decode
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.sampling import byol_views
from fieldmark.data.views import ViewMaker, center_views
from fieldmark.encoder import Encoder
from fieldmark.nn.saliency import MaskHits, keep_cells, look, mask_hits, order_cells
from fieldmark.runtime import tune_allocator
from fieldmark.types import View

MASKS = {
    "attention, fused": ("attention", "fused"),
    "attention, last": ("attention", "last"),
    "random": ("random", "last"),
    "inverse": ("inverse", "fused"),
}
VISIBLE = 0.02
"""A crop counts when the box takes at least this share of it (marks: when their centre is in it)."""


def cub50(folder: Path, count: int) -> tuple[MemoryPhotos, np.ndarray]:
    """Photos and the birds' boxes as fractions, evenly over the whole set."""
    names = dict(line.split() for line in (folder / "images.txt").read_text().splitlines())
    rows = [line.split() for line in (folder / "bounding_boxes.txt").read_text().splitlines()]
    rows = rows[:: max(1, len(rows) // count)]
    photos, boxes = [], []
    for number, *box in rows:
        pixels = decode((folder / "images" / names[number]).read_bytes()).pixels
        x, y, w, h = map(float, box)
        height, width = pixels.shape[:2]
        photos.append(pixels)
        boxes.append([x / width, y / height, (x + w) / width, (y + h) / height])
    return MemoryPhotos(photos), np.array(boxes)


def aviary(size: int, count: int) -> tuple[MemoryPhotos, np.ndarray, np.ndarray]:
    """Photos, birds' boxes and marks' boxes as fractions; NaN where a mark cannot be seen."""
    drawn = draw(AviaryConfig(size=size, per_species=max(1, count // 16)))
    marks = drawn.mark_boxes.astype(np.float64) / size
    marks[drawn.mark_visible < 0.5] = np.nan
    return MemoryPhotos(drawn.images), drawn.boxes.astype(np.float64) / size, marks


def in_view(boxes: Tensor, view: View) -> Tensor:
    """Boxes of the photo as fractions of the view; [B 4] or [B M 4]."""
    crop, flipped = view.boxes.double(), view.flipped
    while crop.ndim < boxes.ndim:
        crop, flipped = crop[:, None], flipped[:, None]
    low, high = crop[..., :2], crop[..., 2:]
    moved = torch.cat([(boxes[..., :2] - low), (boxes[..., 2:] - low)], -1) / torch.cat(
        [high - low] * 2, -1
    )
    mirrored = torch.stack([1 - moved[..., 2], moved[..., 1], 1 - moved[..., 0], moved[..., 3]], -1)
    return torch.where(flipped[..., None], mirrored, moved)


def summary(hits: list[MaskHits], chosen: list[Tensor]) -> dict[str, float]:
    """Means over photos and the lift with its standard error (by drawing photos anew)."""
    inside, covered, area, kept = (
        torch.cat([field[use] for field, use in zip(fields, chosen, strict=True)]).numpy()
        for fields in zip(*hits, strict=True)
    )
    # Area-weighted, so that a mark of few pixels does not decide.
    both = inside * kept

    def lift(rows: Any) -> float:
        return float(both[rows].mean() / (area[rows] * kept[rows]).mean())

    generator = np.random.default_rng(0)
    again = [lift(generator.integers(0, len(both), len(both))) for _ in range(200)]
    return {
        "boxes": len(both),
        "box_share": round(float(area.mean()), 4),
        "kept_share": round(float(kept.mean()), 4),
        "inside": round(float(inside.mean()), 4),
        "covered": round(float(covered.mean()), 4),
        "lift": round(lift(slice(None)), 3),
        "lift_standard_error": round(float(np.std(again)), 3),
    }


@torch.no_grad()
def study(
    backbone: Backbone, store: MemoryPhotos, boxes: dict[str, np.ndarray], keep: float
) -> dict[str, Any]:
    backbone.eval()
    maker = ViewMaker(store, byol_views(backbone.size, 0.08), seed=0)
    looks = {
        "whole photos": lambda rows: center_views(store, rows, backbone.size, crop=1.0),
        "training crops": lambda rows: maker.make(rows, 0)[0],
    }
    result: dict[str, Any] = {}
    for title, make in looks.items():
        hits: dict[tuple[str, str], list[MaskHits]] = {}
        chosen: dict[str, list[Tensor]] = {name: [] for name in boxes}
        for rows in np.array_split(store.usable, max(1, len(store) // 64)):
            view = make(rows)
            scores = {
                layers: look(backbone, view.images, layers)[1] for layers in ("fused", "last")
            }
            shown = {}
            for name, photo_boxes in boxes.items():
                moved = in_view(torch.from_numpy(photo_boxes[rows]), view)
                shown[name] = moved.flatten(0, -2)
                centre = (moved[..., :2] + moved[..., 2:]).flatten(0, -2) / 2
                inside = ((centre > 0) & (centre < 1)).all(1)
                clipped = shown[name].clamp(0, 1)
                area = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
                chosen[name].append(inside if name == "marks" else area > VISIBLE)
            for mask, (selection, layers) in MASKS.items():
                kept = keep_cells(
                    order_cells(scores[layers], selection, int(rows[0])),  # type: ignore[arg-type]
                    keep,
                )
                for name, photo_boxes in boxes.items():
                    each = kept.repeat_interleave(photo_boxes[0].size // 4, 0)
                    clean = torch.nan_to_num(shown[name])
                    hits.setdefault((name, mask), []).append(mask_hits(each, clean))
        result[title] = {
            name: {mask: summary(hits[name, mask], chosen[name]) for mask in MASKS}
            for name in boxes
        }
    return result


def open_start(start: str, size: int) -> Backbone:
    """A weights file, an encoder's folder, or random:NAME."""
    if start.startswith("random:"):
        return Backbone.build(BackboneConfig(name=start[7:], weights="random"), size=size)
    if Path(start).is_dir():
        return Encoder.load(start).spec.backbone
    return Backbone.build(BackboneConfig(weights=start), size=size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", nargs="+", required=True, help="weights, encoder or random:NAME")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--count", type=int, default=960, help="photos of each set")
    options = parser.parse_args()
    tune_allocator()
    photos, birds = cub50(options.data / "cub50", options.count)
    drawn, drawn_birds, marks = aviary(options.size, options.count)
    found = {}
    for start in options.start:
        backbone = open_start(start, options.size)
        found[start if start.startswith("random:") else Path(start).name] = {
            "network": backbone.config.name,
            "weights": backbone.provenance.sentence(),
            "read": "attention" if backbone.attention_blocks else "energy of cells (ours)",
            "cub50": study(backbone, photos, {"bird": birds}, options.keep),
            "aviary": study(backbone, drawn, {"bird": drawn_birds, "marks": marks}, options.keep),
        }
        print(json.dumps(found, indent=2), flush=True)
    facts = {"size": options.size, "keep": options.keep, "aviary_version": VERSION}
    print(record("lodisc_masks", {**facts, "starts": found}))


if __name__ == "__main__":
    main()
