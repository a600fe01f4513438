"""Photos per second of the training loop against a bare step on tensors in memory.

    python benchmarks/loop.py --network mobilenetv2_100 --size 128 --batch 128
    python benchmarks/loop.py --against lightly --network resnet18

Loop and bare step are measured in turns, pair by pair, so that a change of the machine's mood hits
both. The bare step has the same networks, allocator, arithmetic, layout, teacher pass, optimiser and
moving average; it lacks what a loop adds: views, checks for NaN, log, order, checkpoints, health.

``--against lightly`` measures a MoCo v2 training script put together from lightly's parts with its
documented defaults instead (its transform on PIL images in a DataLoader, its memory bank), when
lightly is installed. It runs in a process of its own, with the allocator as the system has it.
"""

import argparse
import copy
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from _record import record
from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.layout import unpack
from fieldmark.data.views import BatchSource
from fieldmark.methods import METHODS
from fieldmark.nn.losses import info_nce, normalize
from fieldmark.nn.momentum import follow
from fieldmark.training.log import Observer
from fieldmark.training.loop import TrainConfig, fit
from fieldmark.training.optim import build_optimizer
from fieldmark.training.precision import autocast


class Photos:
    """Random photos in memory, of the size that the photo store would choose."""

    def __init__(self, count, side):
        self.shapes = np.full((count, 2), side, dtype=np.int32)
        self.offsets = np.arange(count, dtype=np.int64) * side * side * 3
        generator = np.random.default_rng(0)
        coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        repeat = -(-side // 8)
        photos = coarse.repeat(repeat, 1).repeat(repeat, 2)[:, :side, :side]
        self.data = photos.transpose(0, 1, 3, 2).reshape(-1)
        self.usable, self.short_side = np.arange(count), side

    def __len__(self):
        return len(self.usable)

    def photo(self, row):
        side = self.short_side
        return unpack(self.data[self.offsets[row] :][: side * side * 3], side, side)


def photos(arguments):
    return Photos(max(512, 2 * arguments.batch), round(arguments.size / 0.2**0.5 / 8) * 8)


def build(arguments, device):
    torch.manual_seed(0)
    weights = BackboneConfig(name=arguments.network, weights="random", normalization="train")
    backbone = Backbone.build(weights, size=arguments.size)
    kind = METHODS["mocov2"]
    config = kind.config_type(queue_size=arguments.queue)
    store = photos(arguments)
    # Images in the type that the networks compute in: views are made in it on fast processors.
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    source = BatchSource(
        store,
        store.usable,
        kind.views(config, arguments.size),
        batch_size=arguments.batch,
        seed=0,
        device=device,
        dtype=dtype,
    )
    if arguments.products:
        source.maker.products = torch.bfloat16
    return kind(config, backbone), source


class Clock(Observer):
    """Seconds of every step, without the first ones."""

    def __init__(self, device):
        self.device, self.last, self.seconds = device, None, []

    def step(self, report):
        runtime.synchronise(self.device)
        now = time.perf_counter()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now


def loop_seconds(method, source, arguments, device, steps):
    """Median seconds of a step inside ``fit``."""
    clock = Clock(device)
    epochs = -(-steps // source.steps_per_epoch)
    config = train_config(arguments, epochs)
    with tempfile.TemporaryDirectory() as run:
        fit(method, source, config, Path(run), observer=clock, device=device)
    return statistics.median(clock.seconds)


def train_config(arguments, epochs=1):
    return TrainConfig(
        epochs=epochs,
        batch_size=arguments.batch,
        precision=arguments.precision,
        tensorboard=False,
        compile=arguments.compile,
        checkpoint_seconds=60,
    )


def bare_seconds(method, source, arguments, device, steps):
    """Median seconds of the plainest step that computes the same."""
    batch = source.batch(0)
    first, second = (
        view.images.contiguous(memory_format=torch.channels_last) for view in batch.views
    )
    optimizer = build_optimizer(method, train_config(arguments))
    config, seconds = method.config, []
    method.train()
    for _ in range(steps):
        runtime.synchronise(device)
        began = time.perf_counter()
        with autocast(arguments.precision, device):
            query = normalize(method.head(method.backbone(first).pooled))
            with torch.no_grad():
                key = normalize(method.teacher_head(method.teacher(second).pooled))
            loss = info_nce(query, key, method.queue.keys, config.temperature)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        follow(method.teacher, method.backbone, config.momentum)
        follow(method.teacher_head, method.head, config.momentum)
        method.queue.push(key, batch.rows)
        runtime.synchronise(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def lightly_seconds(arguments, store, steps):
    """Median seconds of a step of a MoCo v2 script made of lightly's parts, its defaults."""
    import timm
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import MoCoV2Transform
    from PIL import Image

    class Pictures(torch.utils.data.Dataset):
        transform = MoCoV2Transform(input_size=arguments.size)

        def __len__(self):
            return len(store)

        def __getitem__(self, row):
            return self.transform(Image.fromarray(store.photo(row)))

    torch.manual_seed(0)
    backbone = timm.create_model(arguments.network, num_classes=0)
    dim = backbone(torch.zeros(2, 3, arguments.size, arguments.size)).shape[1]
    head = MoCoProjectionHead(dim, dim, 128)
    teacher, teacher_head = copy.deepcopy(backbone), copy.deepcopy(head)
    deactivate_requires_grad(teacher)
    deactivate_requires_grad(teacher_head)
    criterion = NTXentLoss(memory_bank_size=(4096, 128))
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.06)
    loader = torch.utils.data.DataLoader(
        Pictures(),
        batch_size=arguments.batch,
        shuffle=True,
        drop_last=True,
        num_workers=runtime.processor_count(),
    )
    seconds, last = [], None
    while len(seconds) < steps:
        for views in loader:
            now = time.perf_counter()
            if last is not None:
                seconds.append(now - last)
            last = now
            if len(seconds) >= steps:
                break
            update_momentum(backbone, teacher, 0.99)
            update_momentum(head, teacher_head, 0.99)
            query = head(backbone(views[0]))
            with torch.no_grad():
                key = teacher_head(teacher(views[1]))
            loss = criterion(query, key)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return statistics.median(seconds[1:])


def lightly_in_its_own_process(arguments):
    """As its users run it: nothing that fieldmark sets for itself is set there."""
    command = [sys.executable, __file__, "--lightly-turn"]
    for name in ("network", "size", "batch", "steps"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--against", default="bare", choices=["bare", "lightly"])
    parser.add_argument("--pairs", type=int, default=3, help="turns of loop and opponent")
    parser.add_argument("--steps", type=int, default=8, help="steps per turn")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--name", default="", help="name of the result file")
    parser.add_argument("--lightly-turn", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.lightly_turn:
        print(lightly_seconds(arguments, photos(arguments), arguments.steps))
        return
    if arguments.against == "lightly" and not importlib.util.find_spec("lightly"):
        parser.error("lightly is not installed; install it in a throw-away environment")
    device = runtime.pick_device(arguments.device)
    runtime.tune_allocator()
    asked = arguments.precision
    # What the loop itself does when the arithmetic is left to it.
    arguments.products = asked == "auto" and device.type == "cpu"
    method, source = build(arguments, device)
    if asked == "auto":
        from fieldmark.training.precision import decide

        layout = torch.channels_last
        method.to(device=device, memory_format=layout)
        batch = source.batch(0)
        arguments.precision, measured = decide("auto", method, batch, device)
        print("arithmetic:", arguments.precision, measured)
        method, source = build(arguments, device)
    method.to(device=device, memory_format=torch.channels_last)
    ratios, rates = [], []
    for turn in range(arguments.pairs):
        ours = loop_seconds(method, source, arguments, device, arguments.steps)
        if arguments.against == "bare":
            other = bare_seconds(method, source, arguments, device, arguments.steps)
        else:
            other = lightly_in_its_own_process(arguments)
        ratios.append(other / ours)
        rates.append((arguments.batch / ours, arguments.batch / other))
        print(f"turn {turn + 1}: loop {rates[-1][0]:.1f}, {arguments.against} {rates[-1][1]:.1f} "
              f"images/s, ratio {ratios[-1]:.3f}")  # fmt: skip
    target = 0.95 if device.type == "cuda" else 0.9
    if arguments.against == "lightly":
        target = 2.0 if arguments.network == "resnet18" else 1.6
    result = {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "target": target,
        "images_per_second": round(statistics.median(rate[0] for rate in rates), 1),
        "opponent_images_per_second": round(statistics.median(rate[1] for rate in rates), 1),
        "settings": {**vars(arguments), "precision_asked": asked, "device": str(device)},
    }
    del result["settings"]["name"], result["settings"]["lightly_turn"]
    name = arguments.name or f"loop_{arguments.against}_{arguments.network}_{arguments.size}"
    print(json.dumps(result, indent=2))
    print("written:", record(name, result).name)


if __name__ == "__main__":
    main()
