"""A small vision transformer that starts from what a convolutional network knows.

LoDisc reads the attention of a trained ViT, and none can be downloaded here. This makes one: it
learns to agree with the given network (MobileNetV2, trained with labels on ImageNet) about unlabelled
photos: on each cell of the map, on the pooled feature, and on which photos are alike. It is no
substitute for a ViT trained on ImageNet, and is called what it is: distilled.

    python benchmarks/distil_vit.py --data DIR --teacher WEIGHTS --out vit.safetensors [--minutes 15]
    python benchmarks/distil_vit.py --data DIR --teacher WEIGHTS --out vit.safetensors --only-test

It trains on the train halves of birds200, cars196 and cub50 and on the train shards of objects100, and
then tells how both networks retrieve on the test halves. Photos of birds200 and cub50 may overlap.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.splits import match_split
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import BatchSource
from fieldmark.encoder import Encoder
from fieldmark.nn.schedules import cosine
from fieldmark.nn.spec import EncoderSpec
from fieldmark.runtime import tune_allocator
from start_recipe import measures

LABELLED = ("birds200", "cars196", "cub50")
OBJECTS = "objects100"
TESTED = ("birds200", "cub50")
SMALL, SMALL_SHARE = 0.75, 0.65
"""Views of this share of the side, for this share of the time."""
STRIDE = 16
"""Pixels per cell of the teacher's map that each token is compared with: a patch."""


def train_photos(data: Path, sets: list[str], short_side: int, work: Path) -> MemoryPhotos:
    """Photos of every set's train half, in memory; labels are not looked at."""
    photos: list[np.ndarray] = []
    for name in sets:
        catalog = Catalog.open(data / name / "images" if name in LABELLED else data / name)
        if name in LABELLED:
            rows = match_split(catalog, data / name / "split.csv").train_rows
        else:
            rows = np.flatnonzero(np.array(catalog.splits) == "train")
        store = PhotoStore.build(
            catalog, work / name, short_side=short_side, rows=rows.tolist(), workers=1
        )
        photos += [store.photo(row).copy() for row in np.intersect1d(rows, store.usable)]
        print(f"{name}: {len(rows)} train photos", flush=True)
    return MemoryPhotos(photos)


class Lesson(nn.Module):
    """What the student must say to agree with its teacher; thrown away afterwards."""

    def __init__(self, student: Backbone, teacher: Backbone) -> None:
        super().__init__()
        self.student = student
        self.teacher = [teacher.eval().requires_grad_(False)]
        self.stage = max(i for i, s in enumerate(teacher.stage_strides) if s == STRIDE)
        self.to_cell = nn.Linear(student.token_dim, teacher.stage_dims[self.stage])
        self.to_map = nn.Linear(student.token_dim, teacher.token_dim)
        self.to_pooled = nn.Linear(student.dim, teacher.dim)
        for name, dim in (
            ("cell", self.to_cell.out_features),
            ("map", self.to_map.out_features),
            ("pooled", self.to_pooled.out_features),
        ):
            self.register_buffer(f"{name}_mean", torch.zeros(dim))
            self.register_buffer(f"{name}_std", torch.ones(dim))

    @torch.no_grad()
    def targets(self, images: Tensor) -> dict[str, Tensor]:
        """The teacher's cells, map and pooled feature, in float32."""
        shown = images.contiguous(memory_format=torch.channels_last)
        features = self.teacher[0](shown, stages=(self.stage,))
        return {
            "cell": features.stages[0].float().flatten(2).transpose(1, 2),
            "map": features.tokens.float(),
            "pooled": features.pooled.float(),
        }

    @torch.no_grad()
    def calibrate(self, batches: list[Tensor]) -> None:
        """Measure mean and spread of every target, so that all channels count alike."""
        found = [self.targets(images) for images in batches]
        for name in ("cell", "map", "pooled"):
            values = torch.cat([part[name].flatten(0, -2) for part in found])
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_std").copy_(values.std(0).clamp_min(1e-4))

    def standard(self, name: str, values: Tensor) -> Tensor:
        mean, std = getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")
        return (values - mean) / std

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """One minus cosine to each target, and the squared error of similarities between photos."""
        targets = self.targets(images)
        features = self.student(images)
        side = int(targets["map"].shape[1] ** 0.5)
        tokens = features.tokens.transpose(1, 2).unflatten(2, features.shape)
        coarse = functional.adaptive_avg_pool2d(tokens, side).flatten(2).transpose(1, 2)
        answers = {
            "cell": self.to_cell(features.tokens),
            "map": self.to_map(coarse),
            "pooled": self.to_pooled(features.pooled),
        }
        losses = {
            name: 1
            - functional.cosine_similarity(
                answer.float(), self.standard(name, targets[name]), dim=-1
            ).mean()
            for name, answer in answers.items()
        }
        # Retrieval compares plain features, so their own similarities must agree, not a map's.
        wanted = functional.normalize(targets["pooled"] - self.pooled_mean, dim=1)
        pooled = features.pooled.float()
        given = functional.normalize(pooled - pooled.mean(0), dim=1)
        losses["relations"] = 10 * (given @ given.T - wanted @ wanted.T).square().mean()
        return losses


@torch.no_grad()
def prepare(student: Backbone, images: Tensor) -> None:
    """Start from what is known of photos: patches by their principal parts, places by waves.

    A transformer has neither built in, and learning them takes most of a short training.
    """
    network: Any = student.network
    weight, patch = network.patch_embed.proj.weight, network.patch_embed.patch_size[0]
    pixels = functional.unfold((images.float() - student.mean) / student.std, patch, stride=patch)
    pixels = pixels.transpose(1, 2).flatten(0, 1)
    pixels = pixels - pixels.mean(0)
    values, vectors = torch.linalg.eigh(pixels.T @ pixels / len(pixels))
    values, vectors = values.flip(0)[: len(weight)], vectors.flip(1)[:, : len(weight)]
    # Between equal variances, which would be noise mostly, and the photos' own.
    scaled = vectors * (values.clamp_min(1e-6) ** -0.25)
    weight.copy_((0.5 * scaled / values.pow(0.25).mean()).T.reshape(weight.shape))
    place = network.pos_embed[:, student.layout.prefix :]
    side = int(place.shape[1] ** 0.5)
    steps = torch.arange(side) / side
    waves = torch.exp(torch.linspace(0, np.log(side), place.shape[2] // 4)) * np.pi
    one = torch.cat([(steps[:, None] * waves).sin(), (steps[:, None] * waves).cos()], 1)
    both = torch.cat([one[:, None].expand(-1, side, -1), one[None].expand(side, -1, -1)], 2)
    place.copy_(0.3 * both.flatten(0, 1))


def distil(
    lesson: Lesson, sources: list[BatchSource], minutes: float, wall: float, lr: float, half: bool
) -> dict[str, Any]:
    """Train for so many minutes of processor time; the rate falls with the share that is gone.

    The first source's small views take two thirds of it: they cost half as much.
    """
    decayed = [p for p in lesson.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in lesson.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    prepare(
        lesson.student, torch.cat([sources[-1].batch(step).views[0].images for step in range(9)])
    )
    lesson.student.train()
    began, busy, step, sums = time.perf_counter(), time.process_time(), 0, dict[str, float]()
    part = -1
    while True:
        # Processor time, so that other programs on the machine do not shorten the training.
        spent, passed = time.process_time() - busy, time.perf_counter() - began
        done = max(spent / (60 * minutes), passed / (60 * wall))
        if done >= 1:
            break
        if part != int(done > SMALL_SHARE):
            # A teacher's features of small views differ from those of large ones as a whole.
            part = int(done > SMALL_SHARE)
            lesson.calibrate([sources[part].batch(i).views[0].images for i in range(16)])
        images = sources[part].batch(step).views[0].images
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = lesson(images)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(lesson.parameters(), 1.0)
        rate = cosine(lr, lr / 100, done) * min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        sums = {name: sums.get(name, 0.0) + value.item() for name, value in losses.items()}
        if step % 50 == 0:
            means = {name: round(value / 50, 4) for name, value in sums.items()}
            print(f"{step} steps, {100 * done:.0f} %: {means}", flush=True)
            sums = {}
    return {
        "steps": step,
        "photos_seen": step * sources[0].batch_size,
        "processor_minutes": round((time.process_time() - busy) / 60, 1),
    }


def save(student: Backbone, out: Path, teacher: Path, sets: list[str]) -> None:
    config = student.config
    assert config.mean is not None
    assert config.std is not None
    metadata = {
        "arch": str(config.name),
        "arguments": json.dumps(config.arguments),
        "mean": ",".join(map(str, config.mean)),
        "std": ",".join(map(str, config.std)),
        "supervision": "distilled from a network trained with labels on ImageNet",
        "data": f"unlabelled train photos of {', '.join(sets)}",
        "labels_seen": "ImageNet-1k, through its teacher",
        "licence": "as its teacher's and its photos' (non-commercial research)",
        "source": f"benchmarks/distil_vit.py from {teacher.name}",
    }
    state = {name: value.contiguous() for name, value in student.network.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out, metadata=metadata)


def retrieval(data: Path, backbone: Backbone) -> dict[str, Any]:
    encoder = Encoder(EncoderSpec(backbone), device="cpu")
    found = {}
    for name in TESTED:
        catalog = Catalog.open(data / name / "images")
        split = match_split(catalog, data / name / "split.csv")
        files = [catalog.file(int(row)) for row in split.test_rows]
        found[name] = measures(encoder.embed(files), split.test_labels)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="weights to learn from")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--minutes", type=float, default=15, help="of processor time")
    parser.add_argument("--wall", type=float, default=60, help="minutes by the clock, at most")
    parser.add_argument("--photos", nargs="+", default=[*LABELLED, OBJECTS])
    parser.add_argument("--name", default="vit_tiny_patch16_224")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--width", type=int, default=192, help="a multiple of 64")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--work", type=Path, help="keep decoded photos here")
    parser.add_argument("--only-test", action="store_true", help="test an earlier result")
    options = parser.parse_args()
    tune_allocator()
    teacher = Backbone.build(BackboneConfig(weights=str(options.teacher)), size=options.size)
    facts: dict[str, Any] = {}
    if not options.only_test:
        torch.manual_seed(0)
        arguments: dict[str, bool | int | float | str] = {
            "depth": options.depth,
            "embed_dim": options.width,
            "num_heads": options.width // 64,
        }
        config = BackboneConfig(name=options.name, weights="random", arguments=arguments)
        student = Backbone.build(config, size=options.size)
        with tempfile.TemporaryDirectory() as aside:
            work = options.work or Path(aside)
            photos = train_photos(options.data, options.photos, round(1.15 * options.size), work)
        sources = []
        for size in (round(SMALL * options.size), options.size):
            views = ViewSpec(
                size=size, scale=(0.35, 1.0), saturation=0.2, hue=0.0, gray=0.05, blur=0.1
            )
            sources.append(
                BatchSource(
                    photos,
                    photos.usable,
                    MultiView(specs=(views,)),
                    batch_size=options.batch,
                    seed=0,
                    dtype=torch.bfloat16,
                )
            )
        half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        facts = distil(
            Lesson(student, teacher), sources, options.minutes, options.wall, options.lr, half
        )
        save(student, options.out, options.teacher, options.photos)
    student = Backbone.build(BackboneConfig(weights=str(options.out)), size=options.size)
    start = Backbone.build(
        student.config.model_copy(update={"weights": "random"}), size=options.size
    )
    result = {
        "network": student.config.dump() | {"weights": None},
        "size": options.size,
        "photos": options.photos,
        **facts,
        "provenance": student.provenance.sentence(),
        "test": {
            "distilled": retrieval(options.data, student),
            "random": retrieval(options.data, start),
            "teacher": retrieval(options.data, teacher),
        },
    }
    print(json.dumps(result, indent=2))
    print(record("distil_vit", result))


if __name__ == "__main__":
    main()
