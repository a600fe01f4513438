"""Food-101, ImageNet, Tiny ImageNet, and any folder or table of the user's own."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fieldmark import rng
from fieldmark.config import read_toml
from fieldmark.data.benchmarks.benchmark import Benchmark, Facts, Masks, missing_files
from fieldmark.data.benchmarks.files import NO_BOX, Folder, indexed, white
from fieldmark.data.catalog import PHOTO_SUFFIXES, Catalog
from fieldmark.data.splits import read_split
from fieldmark.data.tables import read_table
from fieldmark.errors import CatalogError, InputError

FOOD101 = Facts(
    name="food101",
    title="Food-101",
    photos={"train": 75_750, "test": 25_250},
    classes=101,
    level="dish",
    split="official (meta/train.txt and meta/test.txt); train labels are noisy on purpose",
    source="Download food-101.tar.gz from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101 "
    "(5 GB) and unpack it.",
    licence="research; photos of foodspotting.com",
    citation="Bossard, Guillaumin and Van Gool 2014, Food-101, ECCV",
    layout="""food-101/
├── images/apple_pie/1005649.jpg
└── meta/train.txt, meta/test.txt      apple_pie/1005649""",
    folder="food-101",
    overlap="ImageNet-1k has some ten classes of dishes",
)
IMAGENET = Facts(
    name="imagenet",
    title="ImageNet-1k",
    photos={"train": 1_281_167, "test": 50_000},
    classes=1_000,
    level="synset",
    split="official; the validation photos are the test part, as papers have it",
    source="Ask for ILSVRC2012 at https://image-net.org (150 GB) and unpack it to folders of classes.",
    licence="ImageNet terms: non-commercial research and education",
    citation="Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge, IJCV 115",
    layout="""imagenet/
├── train/n01440764/n01440764_10026.JPEG
└── val/n01440764/ILSVRC2012_val_00000293.JPEG
    (or val/*.JPEG with LOC_val_solution.csv beside it: ImageId,PredictionString)""",
    folder="imagenet",
    overlap="weights trained on ImageNet-1k with labels have seen the answers",
)
TINY_IMAGENET = Facts(
    name="tinyimagenet",
    title="Tiny ImageNet",
    photos={"train": 100_000, "test": 10_000},
    classes=200,
    level="synset",
    split="official; the validation photos are the test part, for the test labels are not public",
    source="Download tiny-imagenet-200.zip from http://cs231n.stanford.edu (240 MB) and unpack it.",
    licence="ImageNet terms: non-commercial research and education",
    citation="Le and Yang 2015, Tiny ImageNet Visual Recognition Challenge, CS 231N",
    layout="""tiny-imagenet-200/
├── wnids.txt                   n02124075      (one a line)
├── train/n02124075/images/n02124075_0.JPEG
├── train/n02124075/n02124075_boxes.txt      n02124075_0.JPEG 0 10 63 58      (may be missing)
├── val/images/val_0.JPEG
└── val/val_annotations.txt     val_0.JPEG n03444034 0 32 44 62""",
    folder="tiny-imagenet-200",
    overlap="a part of ImageNet: weights trained on it with labels have seen the answers",
)
FOLDER = Facts(
    name="folder",
    title="your own photos",
    photos={},
    classes=0,
    level="class",
    split="yours: the column split, or folders train and test; without either ours, half of each "
    "class by a fixed draw",
    source="Any folder, table or shards of your own.",
    licence="yours",
    citation="",
    layout="""photos/
├── split.csv                   path,class,split      (or)
├── train/CLASS/….jpg, test/CLASS/….jpg               (or)
├── CLASS/….jpg
├── levels.csv                  class,genus,family    (coarser levels; may be missing)
├── boxes.csv or parts.csv      path,x_1,y_1,x_2,y_2  (pixels; may be missing)
├── masks/CLASS/….png           white where the object is, below masks/ as photos are below images/
│                               or the folder itself  (may be missing)
└── about.toml                  title, split, licence, overlap: what tables say (may be missing)
or a table (.csv, .tsv, .jsonl, .parquet) with path, label and split; or WebDataset shards.""",
)


def read_food101(path: Path) -> Benchmark:
    """Food-101."""
    folder = Folder(path, FOOD101, ("images", "meta/train.txt", "meta/test.txt"))
    names, splits = [], []
    for split in ("train", "test"):
        listed = folder.lines(f"meta/{split}.txt")
        names += listed
        splits += [split] * len(listed)
    return folder.benchmark(
        [f"images/{name}.jpg" for name in names],
        [name.partition("/")[0] for name in names],
        splits,
    )


def read_imagenet(path: Path) -> Benchmark:
    """ImageNet-1k in folders of classes; a flat val folder needs its solution table."""
    folder = Folder(path, IMAGENET, ("train", "val"))
    paths, names = _class_folders(folder, "train")
    tests, test_names = _class_folders(folder, "val")
    solution = "LOC_val_solution.csv"
    if not tests and not folder.has(solution):
        raise folder.error(f"val has no folders of classes, and {solution} is missing")
    if not tests:
        for line in folder.lines(solution)[1:]:
            photo, _, answer = line.partition(",")
            tests.append(f"val/{photo}.JPEG")
            test_names.append(answer.split()[0])
    splits = ["train"] * len(paths) + ["test"] * len(tests)
    return folder.benchmark(paths + tests, names + test_names, splits)


def read_tiny_imagenet(path: Path) -> Benchmark:
    """Tiny ImageNet with the box of each photo."""
    folder = Folder(path, TINY_IMAGENET, ("train", "val/images", "val/val_annotations.txt"))
    paths, names, splits = [], [], []
    boxes: list[Sequence[float]] = []
    for synset in sorted(p.name for p in (folder.root / "train").iterdir() if p.is_dir()):
        listed = f"train/{synset}/{synset}_boxes.txt"
        found = folder.numbers(listed, 4) if folder.has(listed) else {}
        for photo in _photos_in(folder, f"train/{synset}/images"):
            paths.append(f"train/{synset}/images/{photo}")
            names.append(synset)
            splits.append("train")
            boxes.append(found.get(photo, NO_BOX))
    for photo, synset, *box in folder.fields("val/val_annotations.txt", 6):
        paths.append(f"val/images/{photo}")
        names.append(synset)
        splits.append("test")
        boxes.append([float(value) for value in box])
    # Both ends are inside.
    return folder.benchmark(
        paths, names, splits, boxes=np.array(boxes, np.float64) + np.array([0, 0, 1, 1])
    )


def _class_folders(folder: Folder, part: str) -> tuple[list[str], list[str]]:
    paths, names = [], []
    for name in sorted(p.name for p in (folder.root / part).iterdir() if p.is_dir()):
        for photo in _photos_in(folder, f"{part}/{name}"):
            paths.append(f"{part}/{name}/{photo}")
            names.append(name)
    return paths, names


def _photos_in(folder: Folder, name: str) -> list[str]:
    place = folder.root / name
    if not place.is_dir():
        raise folder.error(f"{name} is missing")
    return sorted(p.name for p in place.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)


def read_folder(path: Path) -> Benchmark:
    """Any labelled photos of the user's own, with the split that they come with or one of ours.

    Raises:
        CatalogError: If photos have no labels.
        LabelError: If the split table is wrong.
    """
    path = Path(path)
    table = path / "split.csv" if path.is_dir() else path
    shards = None
    if table.is_file() and table.suffix != ".tar" and _has_split(table):
        lines = read_split(table)
        root = table.parent
        paths, names = [line.path for line in lines], [line.label for line in lines]
        splits: list[str | None] = [line.split for line in lines]
    else:
        catalog = Catalog.open(path)
        root = path if path.is_dir() else path.parent
        shards = None if catalog.file(0) else catalog
        paths = [row.path for row in catalog.rows]
        names = [row.label or "" for row in catalog.rows]
        splits = catalog.splits
        nameless = [p for p, name in zip(paths, names, strict=True) if not name]
        if nameless:
            raise CatalogError(
                f"{path}: {len(nameless):,} of {len(paths):,} photos have no label, such as "
                f"{nameless[0]}; a benchmark needs the class of every photo. The layout should be one "
                f"of:\n{FOLDER.layout}"
            )
    classes, labels = indexed(names)
    known = [split for split in splits if split]
    facts = FOLDER
    if not known:
        drawn = halves(paths, labels)
        facts = FOLDER._replace(split="ours: half of each class by a fixed draw")
    elif "test" not in known:
        # Validation photos are what there is to test on.
        drawn = ["test" if split == "val" else split or "val" for split in splits]
        facts = FOLDER._replace(split="yours; the validation photos are the test part")
    else:
        drawn = [split or "val" for split in splits]
        facts = FOLDER._replace(split="yours")
    return Benchmark(
        facts=_about(root / "about.toml", facts)._replace(name=path.name.split(".")[0] or "folder"),
        root=root,
        paths=tuple(paths),
        labels=labels,
        splits=tuple(drawn),
        classes=classes,
        coarser=_levels(root / "levels.csv", classes),
        boxes=_boxes(root, paths),
        masks=_masks(root, paths),
        shards=shards,
    )


_ABOUT = ("title", "split", "licence", "overlap")


def _about(file: Path, facts: Facts) -> Facts:
    """What a folder's owner says of it."""
    if not file.is_file():
        return facts
    told = read_toml(file)
    for key, value in told.items():
        if key not in _ABOUT or not isinstance(value, str):
            raise CatalogError(
                f"{file}: '{key} = {value!r}' is not understood; it may say {', '.join(_ABOUT)}, each a text."
            )
    return facts._replace(**told)


def told_licence(source: Path) -> str:
    """What ``about.toml`` beside photos says of their licence; ``unknown`` where it says nothing.

    Args:
        source: Folder of photos, or a table or shard in one.
    """
    for folder in (source, source.parent):
        try:
            found = _about(folder / "about.toml", FOLDER._replace(licence="unknown"))
        except (InputError, OSError):
            # Somebody else's file: a run that took hours must not end over it.
            continue
        if found.licence != "unknown":
            return found.licence
    return "unknown"


_CORNERS = ("x_1", "y_1", "x_2", "y_2")


def _boxes(root: Path, paths: Sequence[str]) -> Float[np.ndarray, "N 4"] | None:
    """Boxes from a table beside the photos; NaN where a photo has none."""
    file = next(
        (root / name for name in ("boxes.csv", "parts.csv") if (root / name).is_file()), None
    )
    if file is None:
        return None
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.DictReader(opened)
        if not {"path", *_CORNERS} <= set(reader.fieldnames or ()):
            raise CatalogError(f"{file} needs the columns path, {', '.join(_CORNERS)}.")
        found = {}
        for number, line in enumerate(reader, 2):
            try:
                box = [float(line[corner]) for corner in _CORNERS]
            except (TypeError, ValueError):
                raise CatalogError(f"{file}, line {number}: the box is no four numbers.") from None
            if not (box[0] < box[2] and box[1] < box[3]):
                raise CatalogError(
                    f"{file}, line {number}: the box {box} is empty; it is x_1 y_1 x_2 y_2 with "
                    "x_1 < x_2 and y_1 < y_2."
                )
            found[line["path"]] = box
    return np.array([found.get(path, NO_BOX) for path in paths], np.float64)


def _masks(root: Path, paths: Sequence[str]) -> Masks | None:
    """Masks below ``masks``, placed as the photos are."""
    if not (root / "masks").is_dir():
        return None
    wanted = [f"masks/{path.removeprefix('images/').rpartition('.')[0]}.png" for path in paths]
    absent = set(missing_files(root, wanted))
    files = tuple(None if file in absent else file for file in wanted)
    return Masks(files, white) if any(files) else None


def _has_split(table: Path) -> bool:
    return any(row["split"] for row in read_table(table))


def halves(paths: list[str], labels: np.ndarray) -> list[str]:
    """Half of each class for training and half for testing, whatever order the photos come in.

    Args:
        paths: Of the photos.
        labels: Class of each.
    """
    key = [int(rng.seed_of("halves", path)) for path in paths]
    members = defaultdict(list)
    for row in sorted(range(len(paths)), key=lambda row: key[row]):
        members[int(labels[row])].append(row)
    splits = ["train"] * len(paths)
    for rows in members.values():
        for row in rows[: len(rows) // 2]:
            splits[row] = "test"
    return splits


def _levels(file: Path, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Coarser levels of each class from a table with a line a class."""
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8-sig", newline="") as opened:
        lines = list(csv.DictReader(opened))
    if not lines or "class" not in lines[0] or len(lines[0]) < 2:
        raise CatalogError(
            f"{file} needs a column 'class' and one for each coarser level, such as class,genus,family."
        )
    found = {line["class"]: line for line in lines}
    absent = [name for name in classes if name not in found]
    if absent:
        raise CatalogError(f"{file} says nothing of {len(absent)} classes, such as {absent[0]!r}.")
    levels = [name for name in lines[0] if name != "class"]
    for level in levels:
        empty = [name for name in classes if not found[name][level]]
        if empty:
            raise CatalogError(f"{file} leaves the {level} of {empty[0]!r} empty.")
    return {level: tuple(found[name][level] for name in classes) for level in levels}
