"""CUB-200-2011 and NABirds: lists of ``id value`` lines, one file a property."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fieldmark.data.benchmarks.benchmark import Attributes, Benchmark, Facts, Masks, Parts
from fieldmark.data.benchmarks.files import Folder, white

CUB200 = Facts(
    name="cub200",
    title="CUB-200-2011",
    photos={"train": 5_994, "test": 5_794},
    classes=200,
    level="species",
    split="official (train_test_split.txt)",
    source="Download CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158 (1.1 GB; "
    "segmentations.tgz beside it adds masks) and unpack it.",
    licence="Caltech: non-commercial research and education; photographers keep their rights",
    citation="Wah, Branson, Welinder, Perona and Belongie 2011, The Caltech-UCSD Birds-200-2011 "
    "Dataset, CNS-TR-2011-001",
    layout="""CUB_200_2011/
├── images.txt                 1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
├── image_class_labels.txt     1 1
├── classes.txt                1 001.Black_footed_Albatross
├── train_test_split.txt       1 0      (1: train)
├── bounding_boxes.txt         1 60.0 27.0 325.0 304.0      (x y width height; may be missing)
├── images/001.Black_footed_Albatross/….jpg
├── parts/parts.txt, parts/part_locs.txt                     (may be missing)
├── attributes/image_attribute_labels.txt, attributes.txt    (may be missing)
└── segmentations/001.Black_footed_Albatross/….png           (a download of its own)""",
    folder="CUB_200_2011",
    overlap="ImageNet-1k has 59 classes of birds, and some of these very photos are in it",
)
NABIRDS = Facts(
    name="nabirds",
    title="NABirds",
    photos={"train": 23_929, "test": 24_633},
    classes=555,
    level="visual category",
    split="official (train_test_split.txt)",
    source="Ask for nabirds.tar.gz at https://dl.allaboutbirds.org/nabirds (9 GB) and unpack it.",
    licence="Cornell Lab of Ornithology: non-commercial research and education",
    citation="Van Horn et al. 2015, Building a bird recognition app and large scale dataset with "
    "citizen scientists, CVPR",
    layout="""nabirds/
├── images.txt                 0000139e-21dc-4d0c-bfe1-4cae3c85c829 0817/0000139e….jpg
├── image_class_labels.txt     0000139e-21dc-4d0c-bfe1-4cae3c85c829 817
├── classes.txt                817 Oak Titmouse      (all nodes of the tree)
├── train_test_split.txt       0000139e-21dc-4d0c-bfe1-4cae3c85c829 0      (1: train)
├── hierarchy.txt              817 372      (child and parent)
├── bounding_boxes.txt         0000139e-… 83 59 128 228      (x y width height)
├── photographers.txt          0000139e-… Ruth_Cantwell      (may be missing)
├── images/0817/….jpg
└── parts/parts.txt, parts/part_locs.txt      (may be missing)""",
    folder="nabirds",
    overlap="ImageNet-1k has 59 classes of birds",
)
_NEEDED = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt", "images")


def read_cub200(path: Path) -> Benchmark:
    """CUB-200-2011, or a part of it in its layout."""
    folder = Folder(path, CUB200, _NEEDED)
    ids, paths, numbers, splits = _lists(folder)
    names = folder.by_id("classes.txt")
    return folder.benchmark(
        paths,
        [_known(folder, names, number) for number in numbers],
        splits,
        coarser={"kind": _kind},
        boxes=_boxes(folder, ids),
        parts=_parts(folder, ids),
        masks=_segmentations(folder, paths),
        attributes=_attributes(folder, ids),
    )


def read_nabirds(path: Path) -> Benchmark:
    """NABirds; the levels are those of its tree, one to three steps below the root."""
    folder = Folder(path, NABIRDS, (*_NEEDED, "hierarchy.txt"))
    ids, paths, numbers, splits = _lists(folder)
    names = folder.by_id("classes.txt", last_is_text=True)
    parents = folder.by_id("hierarchy.txt")
    # Two visual categories of different species may have one name, but never one number.
    labelled = {number: _known(folder, names, number) for number in dict.fromkeys(numbers)}
    if len(set(labelled.values())) < len(labelled):
        labelled = {number: f"{name} [{number}]" for number, name in labelled.items()}
    lines = {name: _ancestors(number, parents) for number, name in labelled.items()}

    def at(depth: int, name: str) -> str:
        return names.get(lines[name][min(depth, len(lines[name]) - 1)], "")

    groups = None
    if folder.has("photographers.txt"):
        photographers = folder.by_id("photographers.txt", last_is_text=True)
        groups = tuple(photographers.get(i, i) for i in ids)
    return folder.benchmark(
        paths,
        [labelled[number] for number in numbers],
        splits,
        coarser={
            level: partial(at, depth)
            for depth, level in enumerate(("order", "family", "species"), 1)
        },
        boxes=_boxes(folder, ids),
        parts=_parts(folder, ids),
        groups=groups,
    )


def _lists(folder: Folder) -> tuple[list[str], list[str], list[str], list[str]]:
    """Ids, paths, class numbers and parts of all photos, in the order of images.txt."""
    images = folder.by_id("images.txt", last_is_text=True)
    numbers = folder.by_id("image_class_labels.txt")
    trains = folder.by_id("train_test_split.txt")
    for file, values in (("image_class_labels.txt", numbers), ("train_test_split.txt", trains)):
        absent = [i for i in images if i not in values]
        if absent:
            raise folder.error(f"{file} says nothing of {len(absent)} photos, such as {absent[0]}")
    ids = list(images)
    paths = [f"images/{images[i]}" for i in ids]
    return (
        ids,
        paths,
        [numbers[i] for i in ids],
        ["train" if trains[i] == "1" else "test" for i in ids],
    )


def _known(folder: Folder, names: dict[str, str], number: str) -> str:
    if number not in names:
        raise folder.error(f"classes.txt has no class {number}")
    return names[number]


def _kind(species: str) -> str:
    """The last word of a species' name: ``001.Black_footed_Albatross`` is an albatross."""
    return re.split(r"[_ .]", species)[-1]


def _ancestors(number: str, parents: dict[str, str]) -> list[str]:
    """From the root down to a node; the root is the one whose parent is not in the tree."""
    line = [number]
    while line[-1] in parents and parents[line[-1]] not in line:
        line.append(parents[line[-1]])
    return line[::-1]


def _boxes(folder: Folder, ids: list[str]) -> Float[np.ndarray, "N 4"] | None:
    boxes = folder.boxes("bounding_boxes.txt", ids)
    if boxes is not None:
        boxes[:, 2:] += boxes[:, :2]
    return boxes


def _parts(folder: Folder, ids: list[str]) -> Parts | None:
    if not folder.has("parts/part_locs.txt") or not folder.has("parts/parts.txt"):
        return None
    names = folder.by_id("parts/parts.txt", last_is_text=True)
    column, row = ({key: i for i, key in enumerate(keys)} for keys in (names, ids))
    points = np.full((len(ids), len(names), 2), np.nan)
    visible = np.zeros((len(ids), len(names)), bool)
    for photo, part, x, y, seen in folder.fields("parts/part_locs.txt", 5):
        if photo in row and part in column:
            points[row[photo], column[part]] = float(x), float(y)
            visible[row[photo], column[part]] = seen == "1"
    return Parts(tuple(names.values()), points, visible)


def _segmentations(folder: Folder, paths: list[str]) -> Masks | None:
    if not folder.has("segmentations"):
        return None
    files = [
        str(Path(path.replace("images/", "segmentations/", 1)).with_suffix(".png"))
        for path in paths
    ]
    # Five people drew each bird; a pixel is white where most of them meant it.
    return folder.masks(files, white)


def _attributes(folder: Folder, ids: list[str]) -> Callable[[], Attributes] | None:
    table = "attributes/image_attribute_labels.txt"
    lists = [
        f
        for f in ("attributes/attributes.txt", "attributes.txt", "../attributes.txt")
        if folder.has(f)
    ]
    if not folder.has(table) or not lists:
        return None

    def read() -> Attributes:
        names = folder.by_id(lists[0], last_is_text=True)
        column, row = ({key: i for i, key in enumerate(keys)} for keys in (names, ids))
        present = np.zeros((len(ids), len(names)), bool)
        for line in folder.lines(table):
            # A few official lines have too many fields; the first three are right in all.
            photo, attribute, is_present, *_ = line.split()
            if is_present == "1" and photo in row and attribute in column:
                present[row[photo], column[attribute]] = True
        return Attributes(tuple(names.values()), present)

    return read
