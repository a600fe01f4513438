"""Every method on real photos, by ``fieldmark bench`` itself: the tables of docs/results.md.

Photos and weights are given; this adds what the folders do not say (coarser levels from class names,
where splits come from), writes gentle settings as recipe files, and calls the command. Interrupted, or
in several processes at once, it goes on with the cells that are missing.

    python benchmarks/study.py --data DIR --work DIR [--sets cub50 ...] [--methods mocov2 ...] [--seeds 3]
    python benchmarks/study.py --data DIR --work DIR --keep        results.jsonl and tables into results/
    python benchmarks/study.py --tables                            docs/results.md's tables from those
"""

import argparse
import csv
import io
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import study_tables
from _record import RESULTS
from fieldmark.config import merge, to_toml
from fieldmark.data.aviary import AviaryConfig, draw
from fieldmark.data.aviary import write as write_aviary
from fieldmark.data.benchmarks.vehicles import body_of, make_of
from fieldmark.rng import seed_of
from fieldmark.workflows.bench import bench
from fieldmark.workflows.leaderboard import as_markdown
from fieldmark.workflows.recipe import load_recipe
from methods_table import GENTLE, SETTINGS, WEIGHTS

METHODS = ("start", "mocov2", "mocov3", "simclr", "lcr", "msam", "ppssl", "lodisc", "fieldmark")
# From random weights everything is to be learnt: all stages, batch-norm too, at a real rate, with the
# recipe's own colours.
SCRATCH_RATE = 0.03
SCRATCH: dict[str, Any] = {
    **GENTLE,
    "backbone": {"normalization": "train", "train_from_stage": 0},
    "views": {},
    "train": {**GENTLE["train"], "warmup_epochs": 1},
}


class Photos(NamedTuple):
    """One folder of photos."""

    name: str
    """As ``--data`` calls it."""
    size: int
    levels: dict[str, Any]
    """Coarser level, and how a class's name tells it."""
    about: dict[str, str]
    """What the folder itself does not say."""
    folder: str = ""
    """Of the photos; by default the set's own name."""
    train: int | None = None
    """Train photos that are kept, whatever their class; all by default."""


def _kind(species: str) -> str:
    return re.split(r"[_ .]", species)[-1]


def _model(folder: str) -> str:
    return folder.partition(".")[2].replace("_", " ")


SETS = {
    "cub50": Photos("cub200", 128, {}, {}),
    "birds200": Photos(
        "folder",
        128,
        {"kind": _kind},
        {
            "title": "CUB-200 (2010), square crops around the bird",
            "split": "ours: 15 photos of each class in train",
            "licence": "non-commercial research",
            "overlap": "ImageNet-1k has 59 classes of birds, and photos of CUB-200 may be among them",
        },
    ),
    "cars196": Photos(
        "folder",
        128,
        {"body": lambda name: body_of(_model(name)), "make": lambda name: make_of(_model(name))},
        {
            "title": "Stanford Cars, official training half, cropped to the box",
            "split": "ours: half and half, stratified",
            "licence": "non-commercial research",
            "overlap": "ImageNet-1k has several classes of cars, such as convertible, minivan and sports car",
        },
    ),
    "objects100": Photos("folder", 64, {}, {}),
    "aviary": Photos("folder", 128, {}, {}),
}
# The same test photos after training on fewer: what should a user with N photos do?
FEWER = {"cub50": (60, 150, 400), "birds200": (300, 1000)}
for _name, _counts in FEWER.items():
    for _count in _counts:
        _about = {
            "title": _name,
            "split": f"the test photos of {_name}; {_count} of its train photos",
        }
        SETS[f"{_name}-{_count}"] = Photos(
            "folder", 128, {"kind": _kind}, {**SETS["birds200"].about, **_about}, _name, _count
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", type=int, metavar="EPOCHS", help="random start, so many epochs")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--keep", action="store_true", help="copy tables into results/bench")
    parser.add_argument("--tables", action="store_true", help="print what results/bench holds")
    options = parser.parse_args()
    if options.tables:
        print(study_tables.page(RESULTS / "bench"))
        return
    if options.data is None or options.work is None:
        parser.error("--data and --work are needed to train")
    for name in options.sets:
        out = options.work / "bench" / (f"{name}-random" if options.random else name)
        photos = SETS[name]
        found = bench(
            {photos.name: described(options, name)},
            out,
            methods=[recipe(options, method) for method in options.methods],
            seeds=options.seeds,
            extra=start(options, photos),
            only_plan=options.plan,
            say=lambda text: print(text, flush=True),
        )
        if not options.plan:
            print(as_markdown(found["rows"]), flush=True)
        if options.keep:
            kept = RESULTS / "bench" / out.name
            kept.mkdir(parents=True, exist_ok=True)
            for file in ("results.jsonl", "table.md"):
                # Errors of failed cells name their folder, which is nobody else's.
                text = (out / file).read_text().replace(str(options.work), "WORK")
                (kept / file).write_text(text)


def start(options: argparse.Namespace, photos: Photos) -> dict[str, Any]:
    """Network, weights and input of every cell."""
    weights = "random" if options.random else str(options.data / WEIGHTS)
    return {"size": photos.size, "backbone": {"name": "mobilenetv2_100", "weights": weights}}


def recipe(options: argparse.Namespace, method: str) -> str:
    """A shipped recipe, or the file of a gentle one."""
    if method in {"start", "fieldmark"}:
        return method
    how = "scratch" if options.random else "gentle"
    settings = merge(SCRATCH if options.random else GENTLE, SETTINGS[method].gentle)
    if options.random:
        settings = merge(settings, {"train": {"epochs": options.random, "lr": SCRATCH_RATE}})
    file: Path = options.work / "recipes" / f"{method}-{how}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    made = load_recipe(method, extra={"name": f"{method}-{how}", **settings})
    write(file, to_toml(made))
    return str(file)


def described(options: argparse.Namespace, name: str) -> Path:
    """The photos as ``--data`` takes them: the folder, or a table beside which more is told."""
    photos = SETS[name]
    folder = options.data.resolve() / (photos.folder or name)
    if name == "aviary":
        folder = options.work.resolve() / "data" / name
        # 60 photos of each of 16 species, at the size of the other sets.
        write_aviary(draw(AviaryConfig(size=160, per_species=60)), folder, masks=True)
        return folder
    if not photos.levels:
        return folder
    place: Path = options.work.resolve() / "data" / name
    place.mkdir(parents=True, exist_ok=True)
    with (folder / "split.csv").open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    if photos.train is not None:
        lines = fewer(lines, photos.train)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", "split"])
    images = os.path.relpath(folder / "images", place)
    for line in lines:
        writer.writerow(
            [f"{images}/{line['path'].removeprefix('images/')}", line["class"], line["split"]]
        )
    write(place / f"{name}.csv", text.getvalue())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *photos.levels])
    for each in sorted({line["class"] for line in lines}):
        writer.writerow([each, *(level(each) for level in photos.levels.values())])
    write(place / "levels.csv", text.getvalue())
    write(
        place / "about.toml", "".join(f'{key} = "{value}"\n' for key, value in photos.about.items())
    )
    return place / f"{name}.csv"


def fewer(lines: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """All test photos, and the first train photos of a fixed shuffle, so that subsets are nested."""
    train = [line for line in lines if line["split"] == "train"]
    order = np.argsort([seed_of("fewer", line["path"]) for line in train])
    kept = {train[i]["path"] for i in order[:count]}
    return [line for line in lines if line["split"] == "test" or line["path"] in kept]


def write(path: Path, text: str) -> None:
    """Whole or not at all: another process may be reading it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.rename(path)


if __name__ == "__main__":
    main()
