"""Stanford Dogs and Oxford-IIIT Pets."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from fieldmark.data.benchmarks.benchmark import Benchmark, Facts
from fieldmark.data.benchmarks.files import NO_BOX, Folder

DOGS = Facts(
    name="dogs",
    title="Stanford Dogs",
    photos={"train": 12_000, "test": 8_580},
    classes=120,
    level="breed",
    split="official (train_list.mat and test_list.mat)",
    source="Download images.tar, annotation.tar and lists.tar from "
    "http://vision.stanford.edu/aditya86/ImageNetDogs (800 MB) into one folder and unpack them.",
    licence="ImageNet terms: non-commercial research and education",
    citation="Khosla, Jayadevaprakash, Yao and Fei-Fei 2011, Novel Dataset for Fine-Grained Image "
    "Categorization, FGVC workshop at CVPR",
    layout="""stanford_dogs/
├── Images/n02085620-Chihuahua/n02085620_10074.jpg
├── train_list.mat, test_list.mat      (or in lists/)
└── Annotation/n02085620-Chihuahua/n02085620_10074      (boxes, XML; may be missing)""",
    folder="stanford_dogs",
    overlap="these photos ARE of ImageNet-1k, labels and all: weights trained on it have seen the answers",
)
PETS = Facts(
    name="pets",
    title="Oxford-IIIT Pets",
    photos={"train": 3_680, "test": 3_669},
    classes=37,
    level="breed",
    split="official (trainval.txt and test.txt)",
    source="Download images.tar.gz and annotations.tar.gz from "
    "https://www.robots.ox.ac.uk/~vgg/data/pets (800 MB) into one folder and unpack them.",
    licence="CC BY-SA 4.0",
    citation="Parkhi, Vedaldi, Zisserman and Jawahar 2012, Cats and Dogs, CVPR",
    layout="""oxford-iiit-pet/
├── images/Abyssinian_1.jpg
├── annotations/trainval.txt, annotations/test.txt      Abyssinian_100 1 1 1
│                                       (name, breed, 1 cat or 2 dog, breed within its species)
└── annotations/trimaps/Abyssinian_1.png      (may be missing)""",
    folder="oxford-iiit-pet",
    overlap="ImageNet-1k has 118 breeds of dogs and five classes of cats, many of them the same breeds",
)


def read_dogs(path: Path) -> Benchmark:
    """Stanford Dogs."""
    folder = Folder(path, DOGS, ("Images",))
    paths: list[str] = []
    splits: list[str] = []
    for split in ("train", "test"):
        file = f"{split}_list.mat"
        file = file if folder.has(file) else f"lists/{file}"
        listed = np.atleast_1d(folder.need(folder.matlab(file), "file_list", file))
        paths += [f"Images/{name}" for name in listed]
        splits += [split] * len(listed)
    boxes = None
    if folder.has("Annotation"):
        boxes = np.array([_box(folder, path) for path in paths], np.float64)
    return folder.benchmark(paths, [path.split("/")[1] for path in paths], splits, boxes=boxes)


def _box(folder: Folder, path: str) -> tuple[float, ...]:
    """The first dog's box; a photo may show several."""
    file = folder.root / path.replace("Images/", "Annotation/", 1).rpartition(".")[0]
    try:
        box = ElementTree.parse(file).find("object/bndbox")
        if box is None:
            return NO_BOX
        return tuple(float(box.findtext(end, "nan")) for end in ("xmin", "ymin", "xmax", "ymax"))
    except FileNotFoundError:
        return NO_BOX
    except (ElementTree.ParseError, ValueError) as error:
        raise folder.error(f"{file} is not a box in XML ({error})") from None


def read_pets(path: Path) -> Benchmark:
    """Oxford-IIIT Pets with cat or dog as the coarser level."""
    lists = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
    folder = Folder(path, PETS, ("images", *lists.values()))
    paths, splits, breeds = [], [], []
    species: dict[str, str] = {}
    for split, file in lists.items():
        for name, _, kind, _ in folder.fields(file, 4):
            paths.append(f"images/{name}.jpg")
            splits.append(split)
            breeds.append(name.rpartition("_")[0])
            species[breeds[-1]] = "cat" if kind == "1" else "dog"
    masks = None
    if folder.has("annotations/trimaps"):
        drawn = [f"annotations/trimaps/{Path(path).stem}.png" for path in paths]
        masks = folder.masks(drawn, _one)
    return folder.benchmark(
        paths, breeds, splits, coarser={"species": species.__getitem__}, masks=masks
    )


def _one(values: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """1 is the pet, 2 the background, 3 the outline between, left undecided."""
    return values == 1
