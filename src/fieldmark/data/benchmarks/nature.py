"""Flowers-102, Butterfly-200 and Leeds Butterflies."""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from fieldmark.data.benchmarks.benchmark import Benchmark, Facts
from fieldmark.data.benchmarks.files import Folder

FLOWERS102 = Facts(
    name="flowers102",
    title="Oxford Flowers-102",
    photos={"train": 1_020, "val": 1_020, "test": 6_149},
    classes=102,
    level="species",
    split="official (setid.mat); papers train on the official train alone, val takes no part",
    source="Download 102flowers.tgz, imagelabels.mat and setid.mat (segmentations in "
    "102segmentations.tgz) from https://www.robots.ox.ac.uk/~vgg/data/flowers/102 (330 MB) into one "
    "folder and unpack the archives.",
    licence="research; photographers keep their rights",
    citation="Nilsback and Zisserman 2008, Automated Flower Classification over a Large Number of "
    "Classes, ICVGIP",
    layout="""flowers-102/
├── jpg/image_00001.jpg
├── imagelabels.mat, setid.mat
└── segmim/segmim_00001.jpg      (102segmentations.tgz; may be missing)""",
    folder="flowers-102",
    overlap="ImageNet-1k has a few classes of flowers (daisy, lady's slipper)",
)
BUTTERFLY200 = Facts(
    name="butterfly200",
    title="Butterfly-200",
    photos={"train": 10_270, "test": 15_009},
    classes=200,
    level="species",
    split="official; train is the official train and val together, as papers have it",
    source="Download Butterfly200 from the project page of Chen et al. 2018 and unpack it.",
    licence="see its project page",
    citation="Chen, Wu, Gao, Dong, Luo and Lin 2018, Fine-Grained Representation Learning and "
    "Recognition by Exploiting Hierarchical Semantic Embedding, ACM Multimedia",
    layout="""Butterfly200/
├── Butterfly200_train_release.txt      001.Atrophaneura_horishanus/0001.jpg 1 1 1 1
├── Butterfly200_val_release.txt        (path, then species, genus, subfamily and family from 1)
├── Butterfly200_test_release.txt
└── images_small/001.Atrophaneura_horishanus/0001.jpg      (or images/)""",
    folder="Butterfly200",
    overlap="ImageNet-1k has six classes of butterflies",
)
LEEDS = Facts(
    name="leedsbutterfly",
    title="Leeds Butterflies",
    photos={"train": 416, "test": 416},
    classes=10,
    level="species",
    split="ours: there is none; every other photo, in the order of their names",
    source="Download leedsbutterfly_dataset_v1.0.zip from https://zenodo.org/records/7558895 "
    "and unpack it.",
    licence="research; photographers keep their rights",
    citation="Wang, Markert and Everingham 2009, Learning Models for Object Recognition from Natural "
    "Language Descriptions, BMVC",
    layout="""leedsbutterfly/
├── images/0010001.png                  (three digits of species, four of photo)
├── segmentations/0010001_seg0.png      (may be missing)
└── descriptions/001.txt                (first line: the species; may be missing)""",
    folder="leedsbutterfly",
    overlap="ImageNet-1k has six classes of butterflies, the monarch (Danaus plexippus) among them",
)


def read_flowers102(path: Path) -> Benchmark:
    """Flowers-102; classes have numbers, their names are on the web page only."""
    folder = Folder(path, FLOWERS102, ("jpg", "imagelabels.mat", "setid.mat"))
    labels = np.atleast_1d(
        folder.need(folder.matlab("imagelabels.mat"), "labels", "imagelabels.mat")
    )
    sets = folder.matlab("setid.mat")
    split = {}
    for variable, part in (("trnid", "train"), ("valid", "val"), ("tstid", "test")):
        for number in np.atleast_1d(folder.need(sets, variable, "setid.mat")):
            split[int(number)] = part
    numbers = sorted(split)
    if numbers and numbers[-1] > len(labels):
        raise folder.error(
            f"setid.mat names photo {numbers[-1]}, imagelabels.mat has {len(labels)}"
        )
    masks = None
    if folder.has("segmim"):
        masks = folder.masks([f"segmim/segmim_{number:05d}.jpg" for number in numbers], _not_blue)
    return folder.benchmark(
        [f"jpg/image_{number:05d}.jpg" for number in numbers],
        [f"{int(labels[number - 1]):03d}" for number in numbers],
        [split[number] for number in numbers],
        masks=masks,
    )


def _not_blue(values: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"]:
    """The background is painted (0, 0, 254), up to what JPEG makes of it."""
    red, green, blue = (values[..., channel].astype(int) for channel in range(3))
    return ~((red < 40) & (green < 40) & (blue > 200))


def read_butterfly200(path: Path) -> Benchmark:
    """Butterfly-200 with genera, subfamilies and families."""
    lists = {part: f"Butterfly200_{part}_release.txt" for part in ("train", "val", "test")}
    folder = Folder(path, BUTTERFLY200, tuple(lists.values()))
    images = next((name for name in ("images_small", "images") if folder.has(name)), None)
    if images is None:
        raise folder.error("images_small is missing")
    paths, splits = [], []
    species: list[str] = []
    above: dict[str, tuple[str, ...]] = {}
    for part, file in lists.items():
        for name, kind, *groups in folder.fields(file, 5):
            paths.append(f"{images}/{name}")
            splits.append("test" if part == "test" else "train")
            # The folder names the species, where there is one.
            species.append(name.rpartition("/")[0] or f"{kind:0>3}")
            above[species[-1]] = tuple(f"{group:0>3}" for group in groups)

    def at(place: int, level: str, name: str) -> str:
        return f"{level} {above[name][place]}"

    coarser = {
        level: partial(at, place, level)
        for place, level in enumerate(("genus", "subfamily", "family"))
    }
    return folder.benchmark(paths, species, splits, coarser=coarser)


def read_leedsbutterfly(path: Path) -> Benchmark:
    """Leeds Butterflies, split by us."""
    folder = Folder(path, LEEDS, ("images",))
    files = sorted(p.name for p in (folder.root / "images").iterdir() if p.stem[:7].isdigit())
    if not files:
        raise folder.error("images holds no photo such as 0010001.png")
    names = {}
    for number in {file[:3] for file in files}:
        text = f"descriptions/{number}.txt"
        names[number] = f"{number} {folder.lines(text)[0].strip()}" if folder.has(text) else number
    # Files are sorted by species, so that every other one is every other one of each species.
    splits = ["test" if place % 2 else "train" for place in range(len(files))]
    masks = None
    if folder.has("segmentations"):
        drawn = [f"segmentations/{Path(file).stem}_seg0.png" for file in files]
        masks = folder.masks(drawn, _one_or_three)
    return folder.benchmark(
        [f"images/{file}" for file in files],
        [names[file[:3]] for file in files],
        splits,
        masks=masks,
    )


def _one_or_three(values: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Its README: 1 and 3 are the butterfly, 0 and 2 are not."""
    return (values == 1) | (values == 3)
