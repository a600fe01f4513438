"""What the shipped attention costs at inference: the encoder with it against the plain one.

python benchmarks/shipped_latency.py [--rounds 12]

LCR and PP-SSL ship the network plus max-out attention pooling and nothing else ("lightweight
inference" in PP-SSL's words). Both encoders hold the same network and run as they do in
``Encoder.embed``; they take turns, round by round, so that what else the machine does falls on both.
Times are processor time of one thread, which is latency on a machine that does nothing else. The
ratio is the median over rounds of with ÷ without.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.inference import Runner
from fieldmark.nn.spec import EncoderSpec

NETWORKS = ("mobilenetv2_100", "resnet50")
SIZES = (128, 224)
BATCHES = (1, 32)


def compare(name: str, size: int, batch: int, rounds: int, precision: Any) -> dict[str, Any]:
    """Median milliseconds of both, and of their ratio with the middle half of the rounds."""
    backbone = Backbone.build(BackboneConfig(name=name, weights="random"), size=size)
    torch.manual_seed(0)
    attention = MaxOutAttention(backbone.token_dim)
    plain = EncoderSpec(backbone)
    weighed = EncoderSpec(backbone, inserted={"max_out_attention": attention})
    device = torch.device("cpu")
    runners = [Runner(spec, device, precision) for spec in (plain, weighed)]
    images = torch.rand(batch, 3, size, size)
    for runner in runners:
        # The first calls decide on the arithmetic (from four images on) and warm up.
        runner(torch.rand(4, 3, size, size))
        runner(images)
    repeats = 4 if batch == 1 else 1
    times: list[list[float]] = []
    for number in range(rounds):
        row = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            for _ in range(repeats):
                runners[which](images)
            row[which] = (time.process_time() - began) / repeats * 1e3
        times.append(row)
    ratios = sorted(row[1] / row[0] for row in times)
    quarter = len(ratios) // 4
    parameters = sum(p.numel() for p in attention.parameters())
    return {
        "network": name,
        "size": size,
        "batch": batch,
        "precision": [runner.precision for runner in runners],
        "plain_ms": round(statistics.median(row[0] for row in times), 2),
        "with_attention_ms": round(statistics.median(row[1] for row in times), 2),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_middle_half": [round(ratios[quarter], 4), round(ratios[-1 - quarter], 4)],
        "parameters_added": parameters,
        "parameters_added_share": round(parameters / sum(p.numel() for p in plain.parameters()), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in NETWORKS:
        for size in SIZES:
            for batch in BATCHES:
                rounds = options.rounds * 2 if batch == 1 else options.rounds
                rows.append(compare(name, size, batch, rounds, options.precision))
                print(json.dumps(rows[-1]), flush=True)
    result = {"threads": 1, "rounds": options.rounds, "rows": rows}
    print(record("shipped_latency", result))


if __name__ == "__main__":
    main()
