"""Write an aviary as photos and tables."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from fieldmark import storage
from fieldmark.data.aviary.drawing import VERSION, Aviary
from fieldmark.data.aviary.paint import PARTS
from fieldmark.data.aviary.species import MARKS
from fieldmark.errors import OutputError

_RECORD = "aviary.json"


def write(aviary: Aviary, folder: Path, *, masks: bool = False) -> Path:
    """Write photos as ``images/SPECIES/NUMBER.jpg`` with their tables.

    ``split.csv`` has path, class, split; ``parts.csv`` has the bird's box (x_1 y_1 x_2 y_2), its
    parts and its marks' boxes, all in pixels; ``aviary.json`` describes the species. Paths are
    relative to the tables. Writing the same aviary again gives the same files.

    Args:
        aviary: What :func:`draw` returned.
        folder: Where to write; created when missing.
        masks: Write ``masks/SPECIES/NUMBER.png`` too, 255 where the bird shows.

    Returns:
        The path of ``split.csv``, written last.

    Raises:
        OutputError: If the folder holds something else, or cannot be written.
        StorageError: If the disk is full.
    """
    record = _record(aviary)
    _refuse_other(folder, record)
    storage.make_folder(folder)
    storage.write_json(folder / _RECORD, record)
    for kind in aviary.species:
        storage.make_folder(folder / "images" / kind.name)
        if masks:
            storage.make_folder(folder / "masks" / kind.name)
    names = [f"{aviary.species[label].name}/{i:05d}" for i, label in enumerate(aviary.labels)]
    with storage.storage_errors(folder):
        # Not fsynced one by one: split.csv comes last, and drawing again is cheap.
        for i, name in enumerate(names):
            jpeg = simplejpeg.encode_jpeg(aviary.images[i], quality=95, colorsubsampling="444")
            (folder / "images" / f"{name}.jpg").write_bytes(jpeg)
            if masks:
                Image.fromarray(aviary.masks[i].astype(np.uint8) * 255).save(
                    folder / "masks" / f"{name}.png"
                )
    paths = [f"images/{name}.jpg" for name in names]
    storage.write_text(folder / "parts.csv", _parts_table(aviary, paths))
    split = folder / "split.csv"
    storage.write_text(split, _split_table(aviary, paths))
    return split


def _record(aviary: Aviary) -> dict[str, Any]:
    moved = (aviary.places != np.arange(len(aviary.places))).any()
    return {
        "made_by": "fieldmark sample",
        "version": VERSION,
        "config": aviary.config.dump(),
        **({"places": aviary.places.tolist()} if moved else {}),
        "species": [{"class": kind.name, "marks": kind.description} for kind in aviary.species],
    }


def _refuse_other(folder: Path, record: dict[str, Any]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a new or empty folder to draw photos into.")
    if not any(folder.iterdir()):
        return
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != record:
        what = "photos drawn with other settings" if found else "something else"
        raise OutputError(
            f"{folder} already holds {what}; fieldmark does not mix or delete files there. "
            "Name a new or empty folder."
        )


def _csv(header: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _split_table(aviary: Aviary, paths: list[str]) -> str:
    rows = [
        [path, aviary.species[label].name, "test" if test else "train"]
        for path, label, test in zip(paths, aviary.labels, aviary.test, strict=True)
    ]
    return _csv(["path", "class", "split"], rows)


def _parts_table(aviary: Aviary, paths: list[str]) -> str:
    corners = ("x_1", "y_1", "x_2", "y_2")
    header = ["path", *corners]
    header += [f"{part}_{axis}" for part in PARTS for axis in "xy"]
    header += [f"{mark}_mark_{corner}" for mark in MARKS for corner in corners]
    header += [f"{mark}_mark_visible" for mark in MARKS]
    numbers = np.concatenate(
        [
            field.reshape(len(paths), -1)
            for field in (aviary.boxes, aviary.parts, aviary.mark_boxes, aviary.mark_visible)
        ],
        axis=1,
    )
    rows = [
        [path, *(f"{number:.2f}".rstrip("0").rstrip(".") for number in line)]
        for path, line in zip(paths, numbers, strict=True)
    ]
    return _csv(header, rows)
