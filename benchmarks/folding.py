"""What folding frozen batch-norm into the filters saves in training: a step without ÷ with.

python benchmarks/folding.py [--rounds 8]

Forward and backward through the whole network, channels last, float32, frozen statistics. Both
networks take turns, round by round, so that what else the machine does falls on both; times are
processor time of one thread; the ratio is the median over rounds.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from _record import record
from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone, BackboneConfig

NETWORKS = ("mobilenetv2_100", "resnet50", "convnext_tiny")
BATCH, SIZE = 32, 128


def step(backbone: Backbone, images: torch.Tensor) -> float:
    """Processor milliseconds of one forward and backward pass."""
    began = time.process_time()
    backbone(images).pooled.square().sum().backward()
    backbone.zero_grad(set_to_none=True)
    return (time.process_time() - began) * 1e3


def compare(name: str, rounds: int) -> dict[str, Any]:
    """Median milliseconds of both, and of their ratio with the middle half of the rounds."""
    config = BackboneConfig(name=name, weights="random", normalization="frozen")
    networks = [Backbone.build(config, size=SIZE) for _ in range(2)]
    for network in networks:
        network.to(memory_format=torch.channels_last)
    networks[0]._to_fold = False
    images = torch.rand(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    for network in networks:
        step(network, images)
    times: list[list[float]] = []
    for number in range(rounds):
        row = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            row[which] = step(networks[which], images)
        times.append(row)
    ratios = sorted(row[0] / row[1] for row in times)
    quarter = len(ratios) // 4
    return {
        "network": name,
        "without_ms": round(statistics.median(row[0] for row in times), 1),
        "with_ms": round(statistics.median(row[1] for row in times), 1),
        "ratio": round(statistics.median(ratios), 3),
        "middle_half": [round(ratios[quarter], 3), round(ratios[-1 - quarter], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runtime.tune_allocator()
    rows = [compare(name, options.rounds) for name in NETWORKS]
    for row in rows:
        print(row)
    print(record("folding", {"batch": BATCH, "size": SIZE, "rows": rows}))


if __name__ == "__main__":
    main()
