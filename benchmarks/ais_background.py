"""Does AIS make features lean less on surroundings? Aviary with places that go with species.

    python benchmarks/ais_background.py --teacher fieldmark:DIR [--epochs 10] [--seeds 1]
    python benchmarks/ais_background.py --teacher fieldmark:DIR --start FILE --size 128 --lr 2e-4 \
        --epochs 3 --name ais_background_from_weights

Each species is drawn in six places of its own, so that a lazy network can tell species by place.
The same network learns on these photos without labels, with and without AIS (PP-SSL's text part; the
teacher comes from aviary_teacher.py); IADM is off in both. Then species are told from labelled
training photos, in their usual places, by nearest neighbour and by a linear probe, and tested on
photos in the usual places and on the same birds in another species' places. What is lost between
the two is the reliance on surroundings. The features of the run with AIS are measured as they ship
(attention-weighted) and as a plain average too. A third run pools by an attention that nothing fits.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _record import record
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.aviary import Aviary, AviaryConfig, draw
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.views import BatchSource
from fieldmark.evaluation.linear import logistic_probe
from fieldmark.methods import METHODS
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.loop import fit
from fieldmark.workflows.recipe import load_recipe

PLACES = 6
TEXTS = Path(__file__).with_name("aviary_texts.toml")
# Numbers far from any photo's own.
_FIRST_PLACE = 1_000_000


def aviaries(per_species: int, size: int) -> tuple[Aviary, Aviary]:
    """The same birds in the places of their species, and in those of another one."""
    config = AviaryConfig(species=16, per_species=per_species, size=size, seed=5)
    photos = np.arange(config.species * config.per_species, dtype=np.int64)
    species, turn = photos % config.species, photos // config.species
    other = (species + 1 + turn % (config.species - 1)) % config.species
    usual, swapped = (_FIRST_PLACE + owner * PLACES + turn % PLACES for owner in (species, other))
    return draw(config, places=usual), draw(config, places=swapped)


@torch.no_grad()
def embed(spec: EncoderSpec, images: np.ndarray) -> np.ndarray:
    """Unit vectors of drawn photos, whole."""
    spec.eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return torch.cat([spec(part) for part in pixels.split(128)]).numpy()


def tell(spec: EncoderSpec, usual: Aviary, swapped: Aviary) -> dict[str, float]:
    """Accuracies in the usual places and in others, in percent."""
    train, test = usual.train_rows, usual.test_rows
    gallery, labels = embed(spec, usual.images[train]), usual.labels
    probe = logistic_probe(gallery, labels[train], classes=len(usual.species))
    result = {}
    for name, aviary in (("usual", usual), ("swapped", swapped)):
        queries = embed(spec, aviary.images[test])
        nearest = (queries @ gallery.T).argmax(1)
        result[f"nearest_{name}"] = float((labels[train][nearest] == labels[test]).mean() * 100)
        told = (queries @ probe.weight.T + probe.bias).argmax(1)
        result[f"linear_{name}"] = float((told == labels[test]).mean() * 100)
    for how in ("nearest", "linear"):
        result[f"{how}_lost"] = result[f"{how}_usual"] - result[f"{how}_swapped"]
    # Does a moved bird still find itself, or the photo whose place it stands in now?
    still, moved = embed(spec, usual.images[test]), embed(spec, swapped.images[test])
    own = (still * moved).sum(1)
    in_place = usual.places[test][None] == swapped.places[test][:, None]
    alike = np.where(in_place, moved @ still.T, -1.0).max(1)
    result["bird_before_place"] = float((own > alike).mean() * 100)
    return {key: round(value, 2) for key, value in result.items()}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train one variant and measure it."""
    torch.set_num_threads(1)
    began = time.process_time()
    sets = [f"train.epochs={job['epochs']}", f"train.seed={job['seed']}"]
    sets.append(f"views.override.scale=[{job['smallest_crop']}, 1.0]")
    sets += [f"size={job['size']}", f"train.lr={job['lr']}"]
    if job["start"]:
        # Trained weights are lost by fresh batch-norm statistics and by training every stage.
        sets += [f"backbone.weights={job['start']}", "backbone.name=mobilenetv2_100"]
        sets += ["backbone.normalization=frozen", "backbone.train_from_stage=-3"]
    recipe = load_recipe("demo", sets)
    usual, swapped = aviaries(job["per_species"], recipe.size)
    extra = {"ais": False}
    if job["ais"] is not None:
        extra = {"teacher": job["teacher"], "texts": str(TEXTS), "ais_weight": job["ais"]}
    settings = METHODS["ppssl"].config_type.parse(
        {"base": "simclr", "contrast": recipe.method.dump(), "iadm": "none", **extra}, "[method]"
    )
    start = Backbone.build(recipe.backbone, size=recipe.size)
    before = tell(EncoderSpec(start), usual, swapped)
    torch.manual_seed(job["seed"])
    method = METHODS["ppssl"](settings, Backbone.build(recipe.backbone, size=recipe.size))
    source = BatchSource(
        MemoryPhotos(usual.images),
        usual.train_rows,
        recipe.multi_view(),
        batch_size=recipe.train.batch_size,
        seed=job["seed"],
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(method, source, recipe.train, Path(folder))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines if '"loss"' in line]
    spec = method.exports()["student"]
    return {
        **job,
        "teacher": None,
        "start": Path(job["start"]).name if job["start"] else None,
        "before": before,
        "trained": tell(spec, usual, swapped),
        "trained_plain_average": tell(EncoderSpec(spec.backbone), usual, swapped),
        "ais_first_and_last": [round(step["ais"], 4) for step in (steps[0], steps[-1])]
        if job["ais"] is not None
        else None,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, help="such as fieldmark:DIR")
    parser.add_argument("--start", help="weights; without them random ones of the demo's network")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-species", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", type=float, nargs="+", default=[1.2])
    parser.add_argument("--smallest-crop", type=float, default=0.4, help="share of the photo")
    parser.add_argument("--name", default="ais_background", help="of the JSON")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs = [
        {"ais": weight, "seed": seed, "epochs": options.epochs, "teacher": options.teacher,
         "per_species": options.per_species, "smallest_crop": options.smallest_crop,
         "start": options.start, "size": options.size, "lr": options.lr}
        for seed in range(options.seeds)
        # None: plain average. 0: pooled by an attention that nothing fits.
        for weight in (None, 0.0, *options.weights)
    ]  # fmt: skip
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(run, jobs))
    result = {"places_per_species": PLACES, "runs": runs}
    print(json.dumps(result, indent=1))
    print(record(options.name, result))


if __name__ == "__main__":
    main()
