"""What a step of LoDisc costs beside the six encoder passes that it consists of.

    python benchmarks/lodisc_cost.py [--networks vit_small_patch16_224 mobilenetv2_100] [--batch 32]

The passes: two of the student with gradient and four of the teacher without. Reading attention, making
masks, heads, losses and the teacher's update come on top; the target is 1.15 times the passes. Processor
time is measured, rounds of all variants in turn, so that other programs count as little as possible.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.methods.lodisc import LoDisc, LoDiscConfig
from fieldmark.methods.mocov3 import MoCoV3, MoCoV3Config
from fieldmark.runtime import tune_allocator
from fieldmark.types import Batch, Progress, View

TARGET = 1.15
PROGRESS = Progress(1, 10, 0.1)


def draw_batch(count: int, size: int) -> Batch:
    rows = torch.arange(count)
    boxes, flipped = torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool)
    looks = [torch.rand(count, 3, size, size) for _ in range(2)]
    return Batch(tuple(View(look, rows, boxes, flipped) for look in looks), rows, 0)


def passes(method: LoDisc, batch: Batch) -> None:
    """Six passes and nothing else."""
    views = [view.images for view in batch.views]
    sum(method.backbone(x).pooled.square().mean() for x in views).backward()  # type: ignore[union-attr]
    with torch.no_grad():
        for x in [*views, *views]:
            method.teacher(x)


def step(method: LoDisc | MoCoV3, batch: Batch) -> None:
    method(batch, PROGRESS).loss.backward()
    method.after_step(PROGRESS, {})


def compare(name: str, size: int, count: int, rounds: int, hidden: int) -> dict[str, float]:
    def backbone() -> Backbone:
        return Backbone.build(BackboneConfig(name=name, weights="random"), size=size)

    lodisc = LoDisc(LoDiscConfig(hidden=hidden), backbone())
    mocov3 = MoCoV3(MoCoV3Config(hidden=hidden, freeze_patches=False), backbone())
    batch = draw_batch(count, size)
    variants: dict[str, Callable[[], None]] = {
        "six passes": lambda: passes(lodisc, batch),
        "lodisc": lambda: step(lodisc, batch),
        "mocov3": lambda: step(mocov3, batch),
    }
    times: dict[str, list[float]] = {key: [] for key in variants}
    for _ in range(rounds + 1):
        for key, run in variants.items():
            began = time.process_time()
            run()
            times[key].append(time.process_time() - began)
            for method in (lodisc, mocov3):
                method.zero_grad(set_to_none=True)
    seconds = {key: statistics.median(values[1:]) for key, values in times.items()}
    return {
        **{f"{key}, seconds": round(value, 4) for key, value in seconds.items()},
        "lodisc / six passes": round(seconds["lodisc"] / seconds["six passes"], 3),
        "lodisc / mocov3": round(seconds["lodisc"] / seconds["mocov3"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--networks", nargs="+", default=["vit_small_patch16_224", "mobilenetv2_100"]
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tune_allocator()
    found = {
        name: compare(name, options.size, options.batch, options.rounds, options.hidden)
        for name in options.networks
    }
    facts = {"target": f"lodisc / six passes <= {TARGET}", "size": options.size}
    result = {**facts, "batch": options.batch, "hidden": options.hidden, "networks": found}
    print(json.dumps(result, indent=2))
    print(record("lodisc_cost", result))


if __name__ == "__main__":
    main()
