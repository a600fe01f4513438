"""Stanford Cars and FGVC-Aircraft."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from fieldmark.data.benchmarks.benchmark import Benchmark, Facts
from fieldmark.data.benchmarks.files import Folder

CARS196 = Facts(
    name="cars196",
    title="Stanford Cars",
    photos={"train": 8_144, "test": 8_041},
    classes=196,
    level="model",
    split="official (the devkit's lists)",
    source="The official server is gone; copies of cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
    "cars_test_annos_withlabels.mat are kept by others (1.9 GB). Unpack them into one folder.",
    licence="non-commercial research",
    citation="Krause, Stark, Deng and Fei-Fei 2013, 3D Object Representations for Fine-Grained "
    "Categorization, 3dRR",
    layout="""stanford_cars/
├── cars_train/00001.jpg
├── cars_test/00001.jpg
├── devkit/cars_meta.mat, devkit/cars_train_annos.mat
└── cars_test_annos_withlabels.mat      (or in devkit/)
or, as one list:
├── car_ims/000001.jpg
└── cars_annos.mat""",
    folder="stanford_cars",
    overlap="ImageNet-1k has several classes of cars, such as convertible, minivan and sports car",
)
AIRCRAFT = Facts(
    name="aircraft",
    title="FGVC-Aircraft",
    photos={"train": 6_667, "test": 3_333},
    classes=100,
    level="variant",
    split="official; train is the official train and val together, as papers have it",
    source="Download fgvc-aircraft-2013b.tar.gz from "
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft (2.8 GB) and unpack it.",
    licence="non-commercial research; photographers keep their rights",
    citation="Maji, Kannala, Rahtu, Blaschko and Vedaldi 2013, Fine-Grained Visual Classification of "
    "Aircraft, arXiv:1306.5151",
    layout="""fgvc-aircraft-2013b/data/
├── images/0034309.jpg      (the lowest 20 pixels are a banner with the photographer's name)
├── images_variant_trainval.txt, images_variant_test.txt      1025794 707-320
├── images_family_trainval.txt, images_family_test.txt        (may be missing)
├── images_manufacturer_trainval.txt, …_test.txt              (may be missing)
└── images_box.txt          1025794 3 144 998 431      (x0 y0 x1 y1 from 1; may be missing)""",
    folder="fgvc-aircraft-2013b",
    overlap="ImageNet-1k has a few classes of aircraft, such as airliner and warplane",
)


def read_cars196(path: Path) -> Benchmark:
    """Stanford Cars, as three archives or as the single list that others passed on."""
    folder = Folder(path, CARS196, ())
    if folder.has("cars_annos.mat"):
        return _cars_of_one_list(folder)
    for name in ("cars_train", "cars_test", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"):
        if not folder.has(name):
            raise folder.error(f"{name} is missing")
    labelled = "cars_test_annos_withlabels.mat"
    # cars_test_annos.mat, which is in the devkit, has no classes.
    tests = labelled if folder.has(labelled) else f"devkit/{labelled}"
    names = _names(folder, "devkit/cars_meta.mat")
    paths, models, splits, boxes = [], [], [], []
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", tests)):
        for photo in _photos(folder, file):
            paths.append(f"cars_{split}/{_field(folder, photo, 'fname', file)}")
            models.append(_model(folder, names, photo, file))
            splits.append(split)
            boxes.append(_box(folder, photo, file))
    return _cars(folder, paths, models, splits, boxes)


def _cars_of_one_list(folder: Folder) -> Benchmark:
    file = "cars_annos.mat"
    names = _names(folder, file)
    photos = _photos(folder, file)
    return _cars(
        folder,
        [str(_field(folder, photo, "relative_im_path", file)) for photo in photos],
        [_model(folder, names, photo, file) for photo in photos],
        ["test" if int(_field(folder, photo, "test", file)) else "train" for photo in photos],
        [_box(folder, photo, file) for photo in photos],
    )


def _cars(
    folder: Folder,
    paths: list[str],
    models: list[str],
    splits: list[str],
    boxes: list[list[float]],
) -> Benchmark:
    return folder.benchmark(
        paths,
        models,
        splits,
        coarser={"body": body_of, "make": make_of},
        boxes=np.array(boxes, np.float64),
    )


def _photos(folder: Folder, file: str) -> list[Any]:
    return list(np.atleast_1d(folder.need(folder.matlab(file), "annotations", file)))


def _names(folder: Folder, file: str) -> list[str]:
    names = np.atleast_1d(folder.need(folder.matlab(file), "class_names", file))
    return [str(name).strip() for name in names]


def _field(folder: Folder, photo: Any, name: str, file: str) -> Any:
    try:
        return getattr(photo, name)
    except AttributeError:
        raise folder.error(f"{file} says no '{name}' of a photo") from None


def _model(folder: Folder, names: list[str], photo: Any, file: str) -> str:
    number = int(getattr(photo, "class", 0))
    if not 1 <= number <= len(names):
        raise folder.error(f"{file} has a photo of class {number}; there are {len(names)}")
    return names[number - 1]


def _box(folder: Folder, photo: Any, file: str) -> list[float]:
    corners = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    return [float(_field(folder, photo, corner, file)) for corner in corners]


_MAKES = ("AM General", "Aston Martin", "Land Rover", "Rolls-Royce")
_BODIES = ("Convertible", "Coupe", "Hatchback", "Minivan", "SUV", "Sedan", "Van", "Wagon")


def make_of(model: str) -> str:
    """``AM General Hummer SUV 2000`` is an AM General."""
    return next((make for make in _MAKES if model.startswith(make)), model.split()[0])


def body_of(model: str) -> str:
    """``AM General Hummer SUV 2000`` is an SUV; names like ``Buick Regal GS 2012`` do not tell."""
    last = re.sub(r"\s*\d{4}$", "", model).split()[-1]
    if last in {"Cab", "SuperCab"}:
        return "Pickup"
    return last if last in _BODIES else "other"


def read_aircraft(path: Path) -> Benchmark:
    """FGVC-Aircraft with families and manufacturers."""
    if (Path(path) / AIRCRAFT.folder).is_dir():
        path = Path(path) / AIRCRAFT.folder
    inner = Path(path) / "data"
    folder = Folder(
        inner if inner.is_dir() else path,
        AIRCRAFT,
        ("images", "images_variant_trainval.txt", "images_variant_test.txt"),
    )
    ids, variants, splits = _list(folder, "variant")
    coarser = {}
    for level in ("family", "manufacturer"):
        if folder.has(f"images_{level}_trainval.txt") and folder.has(f"images_{level}_test.txt"):
            of_photo = dict(zip(*_list(folder, level)[:2], strict=True))
            groups = {v: of_photo.get(i, "") for i, v in zip(ids, variants, strict=True)}
            coarser[level] = groups.__getitem__
    boxes = folder.boxes("images_box.txt", ids)
    if boxes is not None:
        boxes[:, :2] -= 1  # counted from 1, both ends inside
    paths = [f"images/{i}.jpg" for i in ids]
    return folder.benchmark(paths, variants, splits, coarser=coarser, boxes=boxes)


def _list(folder: Folder, level: str) -> tuple[list[str], list[str], list[str]]:
    ids: list[str] = []
    names: list[str] = []
    splits: list[str] = []
    for part, split in (("trainval", "train"), ("test", "test")):
        file = f"images_{level}_{part}.txt"
        for photo, name in folder.fields(file, 2, last_is_text=True):
            ids.append(photo)
            names.append(name)
            splits.append(split)
    return ids, names, splits
