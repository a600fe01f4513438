"""Every method on real photos from the same start: published settings, and gentle ones.

Every run is an ordinary ``fieldmark train`` in a process of its own (so its peak memory is its
own). Interrupted, it goes on with the runs that are missing.

    python benchmarks/methods_table.py --data DIR --work DIR [--photos birds200] [--runs lcr ...]
    python benchmarks/methods_table.py --table          docs/results.md's tables from the JSON
    python benchmarks/methods_table.py --table --data DIR --work DIR     after reading the runs again
    python benchmarks/methods_table.py --data DIR --work DIR --weights vit.safetensors --name methods_vit \
        --how gentle --seeds 1 --runs start mocov2 mocov3 lodisc fieldmark    from another start
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from _record import RESULTS, commit, record
from fieldmark.config import merge
from fieldmark.workflows.recipe import Recipe, load_recipe
from fieldmark.workflows.train import read_result, train

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
PHOTOS = ("birds200", "cub50", "cars196")
# What all gentle runs share: a low rate, the start's batch-norm statistics, the last three stages,
# colours left alone, and the whitening of recipe gentle on both sides of the comparison.
GENTLE: dict[str, Any] = {
    "backbone": {"normalization": "frozen", "train_from_stage": -3},
    "views": {"override": {"hue": 0.0, "gray": 0.0, "saturation": 0.2}},
    "train": {
        "epochs": 2,
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.001,
        "lr_scaling": "none",
        "weight_decay": 1e-4,
        "warmup_epochs": 0,
        "schedule": "cosine",
    },
    "post": {"whitening": "instance-lda", "whiten_dim": 256, "whiten_power": 0.25},
}
# A transformer hardly moves at that rate: 0.00 of mAP in two epochs.
TRANSFORMER: dict[str, Any] = {
    "backbone": {"train_from_stage": 0},
    "train": {"epochs": 5, "optimizer": "adamw", "lr": 2e-4, "weight_decay": 0.05},
}
_QUEUE = {"dim": 128, "queue_size": 4096, "mask_same_image": True, "temperature": 0.1}
_MOCO = {**_QUEUE, "momentum": 0.99}
# What MoCo v3's authors use for convolutional networks.
_CONVNET = {"temperature": 1.0, "projector_layers": 2, "smallest_crop": 0.2}


class Setting(NamedTuple):
    """One row of the table."""

    recipe: str
    published: dict[str, Any]
    """On top of the recipe, in the rows with published settings; the network is the shared one."""
    gentle: dict[str, Any]
    """On top of recipe and ``GENTLE``."""
    extra_data: str = "none"
    """Data or weights that the method sees beyond photos and start."""
    class_names: str = "none"
    """Whether names of the classes take part."""


SETTINGS: dict[str, Setting] = {
    "start": Setting("start", {}, {"post": {"flip": False}}),
    "mocov2": Setting("mocov2", {}, {"method": _MOCO}),
    "mocov3": Setting("mocov3", {"method": _CONVNET}, {"method": _CONVNET}),
    # Batch-norm in its head multiplies what reaches the network: at the common rate it keeps a
    # quarter of the start's neighbours where the others keep six tenths.
    "simclr": Setting("simclr", {}, {"method": {"temperature": 0.1}, "train": {"lr": 0.00025}}),
    "simclr-at-0.001": Setting("simclr", {}, {"method": {"temperature": 0.1}}),
    "lcr": Setting("lcr", {}, {"method": {"contrast": _MOCO}}),
    # At the network's own rate its gates open by less than a thousandth: nothing of it takes part.
    "msam": Setting("msam", {}, {"method": {"momentum": 0.99, "module_rate": 100.0}}),
    "ppssl": Setting("ppssl", {}, {"method": {"contrast": _MOCO}}),
    "lodisc": Setting("lodisc", {}, {"method": {"momentum": 0.99}}),
    "fieldmark": Setting("fieldmark", {}, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="where runs are kept")
    parser.add_argument("--table", action="store_true", help="print what was recorded")
    parser.add_argument("--photos", nargs="+", default=list(PHOTOS), choices=PHOTOS)
    parser.add_argument("--runs", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--how", nargs="+", default=["gentle", "published"])
    parser.add_argument("--epochs", type=int, default=20, help="of published settings")
    parser.add_argument("--seeds", type=int, default=3, help="of gentle settings; published: one")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--weights", type=Path, help="another start than the shared weights")
    parser.add_argument("--name", default="methods_table", help="of the JSON")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        if options.data and options.work:
            print(keep(options))
        runs = recorded(options.name)
        print(f"{table(runs)}\n\n{two_by_twos(runs)}")
        return
    if options.data is None or options.work is None:
        parser.error("--data and --work are needed to train")
    if options.one:
        photos, run, how, seed = options.one
        one_run(options, photos, run, how, int(seed))
        return
    for how, seed, photos, run in itertools.product(
        options.how, range(options.seeds), options.photos, options.runs
    ):
        if how == "published" and (seed or run in {"fieldmark", "start"}):
            continue
        if run == "start" and seed:
            continue
        if not complete(place(options, photos, run, how, seed)):
            command = [sys.executable, *sys.argv, "--one", photos, run, how, str(seed)]
            if subprocess.run(command, check=False).returncode:
                print(f"{photos} {run} {how} {seed}: stopped with an error", flush=True)
        print(keep(options), flush=True)


def keep(options: argparse.Namespace) -> Path:
    """Write what all runs of the folder found, beside those recorded from other folders."""
    weights = options.weights.name if options.weights else WEIGHTS
    runs = {identity(run): run for run in recorded(options.name)}
    for run in finished(options):
        before = runs.get(identity(run), {})
        # A run that is recorded again keeps the commit of its first record, the nearest to its making.
        same = before.get("trained") == run["trained"]
        runs[identity(run)] = {**run, "commit": before["commit"] if same else commit()}
    ordered = [runs[key] for key in sorted(runs, key=rank)]
    return record(options.name, {"runs": ordered, "weights": weights, "size": options.size})


def identity(run: dict[str, Any]) -> tuple[str, str, str, int]:
    return run["photos"], run["run"], run["how"], run["seed"]


def rank(key: tuple[str, str, str, int]) -> tuple[int, int, str, int]:
    """Where a run stands in the table."""
    photos, run, how, seed = key
    return PHOTOS.index(photos), list(SETTINGS).index(run), how, seed


def recorded(name: str) -> list[dict[str, Any]]:
    """Every run so far; ``commit`` is of the run, or of the record that first held it."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    return [{**run, "commit": run.get("commit", before["commit"])} for run in before["runs"]]


def place(options: argparse.Namespace, photos: str, run: str, how: str, seed: int) -> Path:
    return Path(options.work) / f"{photos}-{run}-{how}-{seed}"


def complete(out: Path) -> bool:
    return read_result(out) is not None and (out / "memory.json").is_file()


def network_of(weights: Path) -> dict[str, str]:
    """The network that a weights file is of, whatever a recipe names."""
    with safe_open(weights, framework="pt") as file:
        return {"name": file.metadata()["arch"], "weights": str(weights)}


def gentle(weights: Path) -> dict[str, Any]:
    """What all gentle runs from these weights share."""
    transformer = network_of(weights)["name"].startswith("vit")
    return merge(GENTLE, TRANSFORMER) if transformer else GENTLE


def recipe_of(options: argparse.Namespace, run: str, how: str, seed: int) -> Recipe:
    setting, weights = SETTINGS[run], options.weights or options.data / WEIGHTS
    parts: list[dict[str, Any]] = [
        {"size": options.size},
        {"backbone": network_of(weights)},
        {"train": {"seed": seed}},
    ]
    if how == "published":
        parts += [{"train": {"epochs": options.epochs}}, setting.published]
    elif run not in {"fieldmark", "start"}:
        parts += [gentle(weights), setting.gentle]
    else:
        parts += [setting.gentle]
    changes: dict[str, Any] = {}
    for part in parts:
        changes = merge(changes, part)
    if run == "start":
        changes.pop("train")
    return load_recipe(setting.recipe, extra=changes)


def one_run(options: argparse.Namespace, photos: str, run: str, how: str, seed: int) -> None:
    folder, out = options.data / photos, place(options, photos, run, how, seed)
    train(
        folder / "images",
        out,
        recipe_of(options, run, how, seed),
        probe=folder / "split.csv",
        say=print,
    )
    # Kilobytes on Linux. Decoding runs in processes of its own.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (out / "memory.json").write_text(json.dumps({"peak_gib": round(peak, 2)}))


def finished(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What every run in the folder found, also those of earlier calls."""
    kept = ("verdict", "start", "trained", "gain", "interval", "shipped", "candidate", "grid")
    runs = []
    for photos, run, how, seed in itertools.product(
        PHOTOS, SETTINGS, ("gentle", "published"), range(10)
    ):
        out = place(options, photos, run, how, seed)
        result = read_result(out)
        if result is None or not complete(out):
            continue
        # The run's own, whatever this call's --epochs says.
        settings = tomllib.loads((out / "config.resolved.toml").read_text())
        times = [json.loads(line) for line in read_lines(out / "timing.jsonl")]
        rates = [line["images_per_second"] for line in times if "images_per_second" in line]
        facts: dict[str, Any] = {"photos": photos, "run": run, "how": how, "seed": seed}
        facts["epochs"] = settings["train"]["epochs"] if settings["method"]["name"] != "none" else 0
        facts["images_per_second"] = round(statistics.median(rates), 1) if rates else None
        start = json.loads((out / "encoders" / "start" / "encoder.json").read_text())["spec"]
        facts["network"] = start["backbone"]["name"]
        facts["start_saw"] = f"labels of {start['provenance']['labels_seen']}"
        facts["extra_data"] = SETTINGS[run].extra_data
        facts["class_names"] = SETTINGS[run].class_names
        facts |= json.loads((out / "memory.json").read_text())
        runs.append({**facts, **{key: result.get(key) for key in kept}})
    return runs


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


MEASURES = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "map": "mAP",
    "linear": "linear",
    "linear@50": "50 %",
    "linear@20": "20 %",
    "knn": "kNN",
}


def table(runs: list[dict[str, Any]]) -> str:
    """Mean over seeds of what was trained, gain over the start under the same post-processing."""
    lines = [
        "| photos | method | settings | epochs | seeds | start saw | extra data | class names | "
        + " | ".join(MEASURES.values())
        + " | rank-1 gain of each seed, interval of the first | mAP gain | verdicts | images/s | GiB |",
        "|---" * (len(MEASURES) + 13) + "|",
    ]
    runs = [each for run in runs for each in (*plain(run), run)]
    for key in dict.fromkeys((run["photos"], run["how"], run["run"]) for run in runs):
        same = [run for run in runs if (run["photos"], run["how"], run["run"]) == key]
        first = same[0]
        cells = [key[0], f"`{key[2]}`", key[1], str(first["epochs"]), str(len(same))]
        cells += [first[name] for name in ("start_saw", "extra_data", "class_names")]
        for measure in MEASURES:
            cells.append(f"{statistics.mean(run['trained'][measure] for run in same):.1f}")
        for measure in ("rank1", "map"):
            cells.append(", ".join(f"{run['gain'][measure]:+.1f}" for run in same))
            if first["interval"]:
                cells[-1] += " [{:+.1f}, {:+.1f}]".format(*first["interval"][measure])
        verdicts = [run["verdict"] for run in same]
        cells.append(
            ", ".join(f"{word} × {verdicts.count(word)}" for word in sorted(set(verdicts)))
        )
        rates = [run["images_per_second"] for run in same if run["images_per_second"]]
        cells.append(f"{statistics.median(rates):.0f}" if rates else "–")
        cells.append(f"{max(run['peak_gib'] for run in same):.1f}")
        lines.append("| " + " | ".join(cells).replace(" -", " −").replace("[-", "[−") + " |")
    return "\n".join(lines)


def plain(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The start as it is, beside the row of the start with its post-processing."""
    if run["run"] != "start":
        return []
    nothing = dict.fromkeys(run["gain"], 0.0)
    facts = {"run": "start, as it is", "trained": run["start"], "verdict": "the start itself"}
    return [{**run, **facts, "gain": nothing, "interval": {}}]


def two_by_twos(runs: list[dict[str, Any]], run: str = "fieldmark") -> str:
    """Start and trained, plain and post-processed, of every run of one method."""
    lines = ["| photos | seed | measure | start: plain | post | trained: plain | post | gain |"]
    lines.append("|---" * 8 + "|")
    for found in (found for found in runs if found["run"] == run):
        for measure, label in (("rank1", "rank-1"), ("map", "mAP"), ("linear", "linear")):
            cells = [found["grid"][measure][side] for side in ("start", "trained")]
            numbers = [f"{cell[how]:.1f}" for cell in cells for how in ("plain", "post")]
            low, high = found["interval"][measure]
            gain = f"{found['gain'][measure]:+.1f} [{low:+.1f}, {high:+.1f}]"
            row = [found["photos"], str(found["seed"]), label, *numbers, gain]
            lines.append(
                "| " + " | ".join(row).replace("-", "−").replace("rank−1", "rank-1") + " |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
