"""Seconds of a method's training step relative to MoCo v2's, on one machine.

    python benchmarks/method_cost.py                        every row of CASES
    python benchmarks/method_cost.py msam_resnet50 --batch 16 --rounds 5
    python benchmarks/method_cost.py --method msam --set module=pyramid --network resnet50 --size 224

Both methods get the same network, photos, batch size, arithmetic and optimiser; a step is forward,
backward, optimiser and after_step on views that are already made. The two are measured in turns,
the order reversed from round to round, so that a change of the machine's mood hits both; a round's
ratio is median / median, and the result is the median over rounds. What a method caches for a whole
epoch (start_epoch) is not part of a step and is not timed. Results: results/method_cost_<case>.json.
"""

import argparse
import copy
import json
import statistics
import time
from typing import Any, NamedTuple

import torch

from _record import record
from fieldmark import config as settings
from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.views import BatchSource
from fieldmark.methods import METHODS
from fieldmark.training.config import TrainConfig
from fieldmark.training.optim import build_optimizer
from fieldmark.training.precision import autocast
from fieldmark.types import Progress
from loop import Photos


class Case(NamedTuple):
    """One row of the table: which method, on what, and how much it may cost."""

    method: str
    settings: dict[str, Any]
    network: str
    size: int
    batch: int
    target: float | None
    """Largest ratio that is allowed; None: only told."""
    base: str = "mocov2"
    base_settings: dict[str, Any] = {}


# The queue is as long in both, so that the ratio is that of the networks' passes.
_MSAM = {"base_settings": {"queue_size": 64}}
_SHORT = {"queue_size": 4096}
_ATTACHED = {"base_settings": _SHORT}
CASES = {
    "msam_resnet50": Case("msam", {}, "resnet50", 224, 16, 1.5, **_MSAM),
    "msam_mobilenetv2_100": Case("msam", {}, "mobilenetv2_100", 224, 32, 1.5, **_MSAM),
    "msam_pyramid_resnet50": Case("msam", {"module": "pyramid"}, "resnet50", 224, 16, 1.5, **_MSAM),
    "lcr_resnet50": Case("lcr", {"contrast": _SHORT}, "resnet50", 224, 16, 1.15, **_ATTACHED),
    "ppssl_resnet50": Case("ppssl", {"contrast": _SHORT}, "resnet50", 224, 16, 1.6, **_ATTACHED),
    "msam_stem_resnet50": Case("msam", {"module": "stem"}, "resnet50", 224, 16, None, **_MSAM),
}


class Stepper:
    """One method with its optimiser and one batch of its views."""

    def __init__(self, name, own, case, arguments, backbone, device):
        kind = METHODS[name]
        config = kind.config_type(**own)
        torch.manual_seed(0)
        self.method = kind(config, copy.deepcopy(backbone)).train()
        self.method.to(device=device, memory_format=torch.channels_last)
        store = Photos(case.batch, round(case.size / 0.2**0.5 / 8) * 8)
        dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
        source = BatchSource(
            store,
            store.usable,
            kind.views(config, case.size),
            batch_size=case.batch,
            seed=0,
            device=device,
            dtype=dtype,
        )
        batch = source.batch(0)
        self.batch = batch._replace(
            views=tuple(
                view._replace(images=view.images.contiguous(memory_format=torch.channels_last))
                for view in batch.views
            )
        )
        self.optimizer = build_optimizer(self.method, TrainConfig(batch_size=case.batch, lr=1e-4))
        self.precision, self.device, self.steps = arguments.precision, device, 0

    def seconds(self, steps):
        """Median seconds of a step."""
        taken = []
        for _ in range(steps):
            progress = Progress(self.steps, 10_000, self.steps / 100)
            runtime.synchronise(self.device)
            began = time.perf_counter()
            torch.manual_seed(self.batch.key)
            with autocast(self.precision, self.device):
                output = self.method(self.batch, progress)
            output.loss.backward()
            self.method.before_step(progress)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                self.method.after_step(progress, output.carry)
            runtime.synchronise(self.device)
            taken.append(time.perf_counter() - began)
            self.steps += 1
        return statistics.median(taken)


def measure(name, case, arguments, device):
    """Ratios of one row, and the JSON that is kept."""
    start = BackboneConfig(name=case.network, weights="random", normalization="train")
    backbone = Backbone.build(start, size=case.size)
    base = Stepper(case.base, case.base_settings, case, arguments, backbone, device)
    other = Stepper(case.method, case.settings, case, arguments, backbone, device)
    for stepper in (base, other):
        stepper.seconds(arguments.warm_up)
    ratios, seconds = [], []
    for turn in range(arguments.rounds):
        order = (base, other) if turn % 2 == 0 else (other, base)
        found = {stepper: stepper.seconds(arguments.steps) for stepper in order}
        seconds.append((found[base], found[other]))
        ratios.append(found[other] / found[base])
        print(f"{name}, round {turn + 1}: {case.base} {found[base]:.3f} s, {case.method} "
              f"{found[other]:.3f} s, ratio {ratios[-1]:.3f}", flush=True)  # fmt: skip
    ratio = statistics.median(ratios)
    return {
        "ratio": round(ratio, 3),
        "ratios": [round(value, 3) for value in ratios],
        "target": case.target,
        "reached": None if case.target is None else ratio <= case.target,
        "base_seconds": round(statistics.median(pair[0] for pair in seconds), 4),
        "seconds": round(statistics.median(pair[1] for pair in seconds), 4),
        "parameters": sum(p.numel() for p in other.method.parameters() if p.requires_grad),
        "base_parameters": sum(p.numel() for p in base.method.parameters() if p.requires_grad),
        "settings": {
            **case._asdict(),
            "precision": arguments.precision,
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "device": device.type,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; none: all")
    parser.add_argument("--method", default="", help="a case of your own: this method")
    parser.add_argument("--set", action="append", default=[], help="its settings, KEY=VALUE")
    parser.add_argument("--base", default="mocov2", help="what it is compared with")
    parser.add_argument("--base-set", action="append", default=[], help="settings of that")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: the case's, else 224")
    parser.add_argument("--batch", type=int, default=0, help="photos; 0: the case's, else 16")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps per turn")
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-record", action="store_true", help="only print")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.cases) - set(CASES))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; known: {', '.join(CASES)}")
    if arguments.method:
        own = settings.apply_sets({}, arguments.set)
        base = settings.apply_sets({}, arguments.base_set)
        size, batch = arguments.size or 224, arguments.batch or 16
        case = Case(
            arguments.method, own, arguments.network, size, batch, None, arguments.base, base
        )
        chosen = {f"{arguments.method}_{arguments.network}_own": case}
    else:
        chosen = {name: CASES[name] for name in arguments.cases or CASES}
    device = runtime.pick_device(arguments.device)
    runtime.tune_allocator()
    for name, case in chosen.items():
        case = case._replace(size=arguments.size or case.size, batch=arguments.batch or case.batch)
        result = measure(name, case, arguments, device)
        print(json.dumps(result, indent=2))
        if not arguments.no_record:
            print("written:", record(f"method_cost_{name}", result).name)


if __name__ == "__main__":
    main()
