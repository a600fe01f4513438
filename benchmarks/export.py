"""ONNX Runtime against PyTorch, both embedding ready photos on one core; and what 8 bits lose.

python benchmarks/export.py --data DIR [--rounds 12]

(Not named onnx.py, which would hide the package of that name; it writes results/onnx.json.)

MobileNetV2 at 128 px with the start weights (``DIR/weights``). All engines take turns, round by
round, so that what else the machine does falls on all of them; times are processor time of one
thread; a ratio is the median over rounds of PyTorch ÷ ONNX Runtime: above 1, ONNX Runtime is
faster. ONNX Runtime's time includes the resize in its graph, which ready photos pass unchanged.
``from_photos`` is the whole way of one decoded photo of 300 × 400 px, which Pillow resizes for
PyTorch. 8 bits: static, ranges from train photos of ``DIR/cub50``, rank-1 among its test photos.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.look import look_at
from fieldmark.data.looktensor import stack
from fieldmark.encoder import Encoder
from fieldmark.export import probe_photos
from fieldmark.nn.spec import EncoderSpec
from fieldmark.onnx_encoder import OnnxEncoder
from fieldmark.workflows.doctor import installed_version
from fieldmark.workflows.export import export_encoder

WEIGHTS = "weights/mobilenetv2_100.imagenet.safetensors"
SIZE = 128
BATCHES = (1, 32)
PRECISIONS = ("fp32", "bf16", "auto")
Engines = dict[str, Callable[[], object]]


def timed(engines: Engines, rounds: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds of each engine, and of the ratio of each PyTorch to each ONNX Runtime."""
    for run in engines.values():
        run()
        run()
    names = list(engines)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # Each round begins with another engine.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.process_time()
            for _ in range(repeats):
                engines[name]()
            times[name].append((time.process_time() - began) / repeats * 1e3)
    result: dict[str, Any] = {
        "ms": {name: round(statistics.median(row), 2) for name, row in times.items()}
    }
    for ours in ("onnx fp32", "onnx int8"):
        for theirs in (name for name in names if name.startswith("torch")):
            ratios = sorted(a / b for a, b in zip(times[theirs], times[ours], strict=True))
            quarter = len(ratios) // 4
            result[f"{theirs} ÷ {ours}"] = {
                "median": round(statistics.median(ratios), 3),
                "middle_half": [round(ratios[quarter], 3), round(ratios[-1 - quarter], 3)],
            }
    return result


def engines_of(
    encoders: dict[str, Encoder], files: dict[str, OnnxEncoder], batch: int
) -> tuple[Engines, Engines]:
    """Calls that embed ready photos, and one decoded photo the whole way."""
    photos = [
        np.asarray(Image.fromarray(photo).resize((400, 300), Image.Resampling.BICUBIC))
        for photo in probe_photos()[-5:]
    ]
    crop = next(iter(encoders.values())).spec.crop
    looks = [look_at(photos[index % 5], SIZE, crop) for index in range(batch)]
    images = stack(looks)
    ready: Engines = {
        f"torch {name}": lambda e=encoder: e.encode(images) for name, encoder in encoders.items()
    }
    ready |= {f"onnx {name}": lambda e=file: e.run(e.framed(looks)) for name, file in files.items()}
    whole: Engines = {
        f"torch {name}": lambda e=encoder: e.encode(stack([look_at(photos[0], SIZE, crop)]))
        for name, encoder in encoders.items()
    }
    whole |= {f"onnx {name}": lambda e=file: e.run(photos[0][None]) for name, file in files.items()}
    return ready, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = BackboneConfig(weights=str(options.data / WEIGHTS))
    spec = EncoderSpec(Backbone.build(config, size=SIZE))
    encoders = {
        name: Encoder(spec, {"role": "start"}, device="cpu", precision=name) for name in PRECISIONS
    }
    photos = options.data / "cub50"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        encoders["fp32"].save(place / "encoder")
        told = export_encoder(
            place / "encoder",
            onnx=place / "int8.onnx",
            int8=True,
            photos=photos / "images",
            labels=photos / "split.csv",
        ).summary
        exact = export_encoder(place / "encoder", onnx=place / "fp32.onnx").summary
        files = {
            name: OnnxEncoder.load(place / f"{name}.onnx", threads=1) for name in ("fp32", "int8")
        }
    for encoder in encoders.values():
        # Decides on the arithmetic, on photos: noise would have it refuse what photos allow.
        encoder.encode(stack([look_at(p, SIZE, spec.crop) for p in probe_photos()[-5:]]))
    rows = []
    for batch in BATCHES:
        ready, whole = engines_of(encoders, files, batch)
        rows.append({"batch": batch, **timed(ready, options.rounds, 8 if batch == 1 else 1)})
        print(json.dumps(rows[-1]), flush=True)
    from_photos = timed(whole, options.rounds, 4)
    result = {
        "network": "mobilenetv2_100",
        "size": SIZE,
        "weights": Path(WEIGHTS).name,
        "threads": 1,
        "rounds": options.rounds,
        "arithmetic": {name: encoder._run().precision for name, encoder in encoders.items()},
        "onnx_versions": {
            name: installed_version(name) for name in ("onnx", "onnxscript", "onnxruntime")
        },
        "rows": rows,
        "from_photos": from_photos,
        "parity": {"drawn birds": exact["parity"], "cub50": told["parity"]},
        "bytes": {"fp32": exact["bytes"], "int8": told["bytes"]},
        "int8": told["int8"],
    }
    print(json.dumps(from_photos), json.dumps(told["int8"]), record("onnx", result), sep="\n")


if __name__ == "__main__":
    main()
