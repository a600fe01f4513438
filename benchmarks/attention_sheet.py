"""Where encoders look: a sheet of whole photos, one column per encoder, with energy in the box.

python benchmarks/attention_sheet.py CUB_ROOT --encoder "LCR=runs/lcr/encoders/student" \
    --encoder "start=runs/lcr/encoders/start" --out sheet.png
python benchmarks/attention_sheet.py CUB_ROOT --runs DIR --out sheet.png --name attention_methods
    of methods_table.py's run folders: every method at today's defaults

What is shown is what each cell adds to the shipped feature: the length of its feature, times its
attention where the encoder has one. *Energy* is the share of it inside the object's box, *lift* that
share divided by the box's share of the picture: 1 is a map that knows nothing. Attention alone is
measured too. Numbers are of every photo that is given, the sheet shows the first few of them.
The boxes are used for measuring only.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from _record import record
from fieldmark.encoder import Encoder
from fieldmark.evaluation.localisation import cover_by_boxes, measure_localisation
from fieldmark.nn.contributions import contributions

CELL, MARGIN, TOP, LEFT, FOOT = 190, 14, 92, 14, 34
INK, FAINT, BOX = (32, 34, 38), (110, 114, 120), (255, 255, 255)
# Dark to light, evenly growing lightness: black, violet, magenta, orange, pale yellow.
RAMP = np.array(
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)],
    float,
)

# Which run of methods_table.py each column is; its student, whose attention is what was fitted.
RUNS = {
    "MoCo v2": "mocov2",
    "LCR": "lcr",
    "MSAM-CL": "msam",
    "PP-SSL, IADM alone": "ppssl",
    "LoDisc": "lodisc",
    "fieldmark": "fieldmark",
}


class Shown(NamedTuple):
    """A square picture as the encoder gets it, and the object's box in it, both on [0, 1]."""

    pixels: Tensor
    box: tuple[float, float, float, float]


def read_cub(root: Path, split: str) -> list[tuple[Path, tuple[float, float, float, float]]]:
    """Photos and boxes (x, y, width, height in pixels) of a folder in CUB's layout."""
    lines = (root / "images.txt").read_text().splitlines()
    names = dict(line.split() for line in lines)
    boxes = {}
    for line in (root / "bounding_boxes.txt").read_text().splitlines():
        number, *values = line.split()
        x, y, w, h = map(float, values)
        boxes["images/" + names[number]] = (x, y, w, h)
    with (root / "split.csv").open() as file:
        paths = [row["path"] for row in csv.DictReader(file) if row["split"] == split]
    return [(root / path, boxes[path]) for path in paths]


def show(path: Path, box: tuple[float, float, float, float], size: int) -> Shown:
    """The middle square of a photo, resized, with the part of the box that is in it."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side)).resize(
        (size, size), Image.Resampling.LANCZOS
    )
    x, y, w, h = box
    edges = ((x - left) / side, (y - top) / side, (x + w - left) / side, (y + h - top) / side)
    clipped = tuple(min(1.0, max(0.0, edge)) for edge in edges)
    pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1).float() / 255
    return Shown(pixels, clipped)  # type: ignore[arg-type]


@torch.no_grad()
def look(encoder: Encoder, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """What each cell adds, and attention alone where there is one, both ``[B h w]``."""
    images = images.to(encoder.device)
    added = contributions(encoder.spec, images)
    inserted = dict(encoder.spec.inserted.items()).get("max_out_attention")
    if inserted is None:
        return added, None
    features = encoder.spec.backbone(images)
    return added, inserted.weights(features.tokens).unflatten(1, features.shape)


def energy_in_box(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Share of each map inside its box, and that share ÷ the box's area; cells are even inside."""
    shape = (maps.shape[1], maps.shape[2])
    cover = cover_by_boxes(boxes.double().numpy(), shape)
    found = measure_localisation(maps.double().numpy(), cover).per_photo
    return torch.from_numpy(found["energy"]), torch.from_numpy(found["lift"])


def measure(encoder: Encoder, shown: list[Shown]) -> dict[str, Any]:
    """Mean energy and lift over all photos, with standard errors."""
    found: dict[str, list[Tensor]] = {}
    for begin in range(0, len(shown), 32):
        part = shown[begin : begin + 32]
        boxes = torch.tensor([item.box for item in part])
        added, attention = look(encoder, torch.stack([item.pixels for item in part]))
        for name, maps in (("contribution", added), ("attention", attention)):
            if maps is not None:
                share, lift = energy_in_box(maps, boxes)
                found.setdefault(f"{name}_energy", []).append(share)
                found.setdefault(f"{name}_lift", []).append(lift)
    result = {}
    for name, values in found.items():
        value = torch.cat(values)
        result[name] = round(float(value.mean()), 4)
        result[f"{name}_error"] = round(float(value.std() / len(value) ** 0.5), 4)
    return result


def coloured(pixels: Tensor, cells: Tensor) -> Image.Image:
    """A photo in grey under its map in colour; the map's largest value is brightest."""
    low, high = cells.min(), cells.max()
    scaled = (cells - low) / (high - low).clamp_min(1e-12)
    smooth = functional.interpolate(
        scaled[None, None], (CELL, CELL), mode="bicubic", align_corners=False
    ).clamp(0, 1)[0, 0]
    place = smooth.numpy() * (len(RAMP) - 1)
    below = np.clip(place.astype(int), 0, len(RAMP) - 2)
    share = (place - below)[..., None]
    heat = RAMP[below] * (1 - share) + RAMP[below + 1] * share
    photo = np.asarray(plain(pixels), float)
    grey = photo.mean(2, keepdims=True).repeat(3, 2)
    strength = 0.25 + 0.5 * smooth.numpy()[..., None]
    return Image.fromarray((grey * (1 - strength) + heat * strength).astype(np.uint8))


def plain(pixels: Tensor) -> Image.Image:
    """The photo as the encoder sees it, enlarged."""
    array = (pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return Image.fromarray(array).resize((CELL, CELL), Image.Resampling.LANCZOS)


def draw_sheet(
    shown: list[Shown], encoders: dict[str, Encoder], measured: dict[str, Any], title: str
) -> Image.Image:
    """Photos down, encoders across; each map with its own share of energy in the box."""
    names = ["photo", *encoders]
    width = 2 * LEFT + len(names) * (CELL + MARGIN) - MARGIN
    height = TOP + len(shown) * (CELL + MARGIN) + FOOT
    sheet = Image.new("RGB", (width, height), (250, 250, 248))
    pen = ImageDraw.Draw(sheet)
    large, normal, small = (ImageFont.load_default(size) for size in (19, 15, 13))
    pen.text((LEFT, 12), title, INK, font=large)
    for column, name in enumerate(names):
        x = LEFT + column * (CELL + MARGIN)
        pen.text((x, 46), name, INK, font=normal)
        told = "box of the bird" if name == "photo" else (
            f"in box {measured[name]['contribution_energy']:.0%}, "
            f"lift {measured[name]['contribution_lift']:.2f}"
        )  # fmt: skip
        pen.text((x, 66), told, FAINT, font=small)
    for row, item in enumerate(shown):
        y = TOP + row * (CELL + MARGIN)
        for column, name in enumerate(names):
            x = LEFT + column * (CELL + MARGIN)
            if name == "photo":
                tile, text = plain(item.pixels), ""
            else:
                added, _ = look(encoders[name], item.pixels[None])
                share, _ = energy_in_box(added, torch.tensor([item.box]))
                tile, text = coloured(item.pixels, added[0]), f"{float(share[0]):.0%}"
            sheet.paste(tile, (x, y))
            corners = [edge * CELL for edge in item.box]
            frame = [x + corners[0], y + corners[1], x + corners[2] - 1, y + corners[3] - 1]
            pen.rectangle(frame, outline=INK, width=3)
            pen.rectangle(frame, outline=BOX, width=1)
            if text:
                pen.rectangle([x, y, x + 8 + 8 * len(text), y + 19], fill=(0, 0, 0))
                pen.text((x + 4, y + 2), text, (255, 255, 255), font=small)
    foot = (
        f"Maps: what each cell adds to the shipped feature. Under each name: means over "
        f"{next(iter(measured.values()))['photos']} test photos."
    )
    pen.text((LEFT, height - 26), foot, FAINT, font=small)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder in CUB's layout, with split.csv")
    parser.add_argument("--encoder", action="append", default=[], help="NAME=FOLDER")
    parser.add_argument("--runs", type=Path, help="what methods_table.py was given as --work")
    parser.add_argument("--photos", type=int, default=400, help="to measure on")
    parser.add_argument("--rows", type=int, default=7, help="on the sheet")
    parser.add_argument("--out", type=Path, required=True, help="PNG; not committed: real photos")
    parser.add_argument("--name", default="attention_sheet", help="of the JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [text.split("=", 1) for text in options.encoder]
    if options.runs:
        runs = {name: options.runs / f"cub50-{run}-gentle-0" for name, run in RUNS.items()}
        pairs.append(("start", runs["MoCo v2"] / "encoders/start"))
        pairs += [(name, run / "encoders/student") for name, run in runs.items()]
    if not pairs:
        parser.error("--encoder or --runs says what to look at")
    encoders = {name: Encoder.load(folder, device="cpu") for name, folder in pairs}
    sizes = {encoder.size for encoder in encoders.values()}
    if len(sizes) != 1:
        parser.error(f"the encoders take photos of different sizes: {sorted(sizes)}")
    # Evenly over the classes.
    items = read_cub(options.root, "test")
    items = items[:: max(1, len(items) // options.photos)][: options.photos]
    shown = [show(path, box, sizes.copy().pop()) for path, box in items]
    measured = {
        name: {"photos": len(shown), **measure(encoder, shown)}
        for name, encoder in encoders.items()
    }
    # Where the bird fills less than half of the picture there is something to find.
    small = [item for item in shown if 0.08 < _area(item) < 0.4]
    step = max(1, len(small) // options.rows)
    picture = draw_sheet(
        small[::step][: options.rows], encoders, measured, "Where the shipped feature comes from"
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.out)
    result = {
        "photos": len(shown),
        "size": sizes.pop(),
        "box_area": round(float(np.mean([_area(item) for item in shown])), 4),
        "encoders": measured,
        "starts": {name: encoder.provenance.sentence() for name, encoder in encoders.items()},
    }
    print(json.dumps(result, indent=1))
    print(record(options.name, result))


def _area(item: Shown) -> float:
    x0, y0, x1, y1 = item.box
    return (x1 - x0) * (y1 - y0)


if __name__ == "__main__":
    main()
