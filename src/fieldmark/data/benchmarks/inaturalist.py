"""iNaturalist competitions: COCO-style JSON with a taxonomy."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from fieldmark.data.benchmarks.benchmark import Benchmark, Facts
from fieldmark.data.benchmarks.files import Folder

INATURALIST = Facts(
    name="inaturalist",
    title="iNaturalist",
    photos={},
    classes=0,
    level="species",
    split="official; the validation photos are the test part, for the test labels are not public",
    source="Download a year's images and JSON from https://github.com/visipedia/inat_comp (2021: 224 GB, "
    "its train_mini 42 GB) and unpack them into one folder.",
    licence="non-commercial research and education; photographers keep their rights",
    citation="Van Horn et al. 2018, The iNaturalist Species Classification and Detection Dataset, CVPR; "
    "Van Horn et al. 2021, Benchmarking Representation Learning for Natural World Image Collections, CVPR",
    layout="""inaturalist/
├── train.json, train_mini.json or train2019.json      images, annotations, categories
├── val.json or val2019.json
└── the photos, where file_name in the JSON says (train_mini/…/….jpg)""",
    overlap="ImageNet-1k has some 400 classes of animals and plants",
)
_RANKS = ("genus", "family", "order", "class", "phylum", "kingdom", "supercategory")


def read_inaturalist(path: Path) -> Benchmark:
    """Any year's lists whose photos are there, or other JSON of that form."""
    folder = Folder(path, INATURALIST, ())
    lists = {part: _list_with_photos(folder, part) for part in ("train", "val")}
    paths: list[str] = []
    numbers: list[int] = []
    splits: list[str] = []
    categories: dict[int, dict[str, Any]] = {}
    for part, (file, data) in lists.items():
        try:
            files = {image["id"]: image["file_name"] for image in data["images"]}
            categories |= {category["id"]: category for category in data["categories"]}
            for label in data["annotations"]:
                paths.append(files[label["image_id"]])
                numbers.append(label["category_id"])
                splits.append("test" if part == "val" else "train")
        except (KeyError, TypeError) as error:
            raise folder.error(f"{file} lacks {error} somewhere") from None
    unknown = [number for number in numbers if number not in categories]
    if unknown:
        raise folder.error(f"there is no category {unknown[0]}")
    # Some years hide the species' names, and names may repeat across kingdoms: the number comes first.
    width = len(str(max(categories, default=0)))
    names = {n: f"{n:0{width}d} {c.get('name', '')}".strip() for n, c in categories.items()}
    of_class = {names[number]: categories[number] for number in numbers}

    def at(rank: str, name: str) -> str:
        return str(of_class[name][rank])

    coarser = {
        rank: partial(at, rank)
        for rank in _RANKS
        if all(category.get(rank) for category in of_class.values())
    }
    return folder.benchmark(paths, [names[number] for number in numbers], splits, coarser=coarser)


def _list_with_photos(folder: Folder, part: str) -> tuple[str, dict[str, Any]]:
    """The list of this part whose first photo is there; smaller lists are tried first."""
    found = sorted(folder.root.glob(f"{part}*.json"), key=lambda file: file.stat().st_size)
    if not found:
        raise folder.error(f"there is no {part}.json (nor {part}*.json)")
    for file in found:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise folder.error(f"{file.name} cannot be read as JSON ({error})") from None
        images = data.get("images") if isinstance(data, dict) else None
        if images and folder.has(str(images[0].get("file_name", ""))):
            return file.name, data
    raise folder.error(f"the photos that {found[0].name} lists are missing")
