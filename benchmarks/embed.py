"""Embedding photos with decoding: fieldmark against a plain timm evaluation loop.

Both read the same JPEG files, decode, resize, crop and embed them at 224 px. The plain loop is what
timm's documentation shows: a DataLoader with Pillow and torchvision transforms, fp32, default
memory layout. Runs alternate, so that a busy machine slows both.

    python benchmarks/embed.py                                      photos drawn here, 500 × 375
    python benchmarks/embed.py --photos FOLDER [--weights mobilenetv2_100=FILE]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from _record import record
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from store import draw

NETWORKS = ["mobilenetv2_100", "resnet50", "vit_small_patch16_224"]
TARGETS = dict(zip(NETWORKS, [3.5, 3.0, 1.7], strict=True))


class Files(Dataset):
    def __init__(self, files, backbone, size):
        config = backbone.config
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.Resize(round(size / 0.875)),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(config.mean, config.std),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def plain(network, data, batch_size, workers):
    parts = []
    with torch.inference_mode():
        for images in DataLoader(data, batch_size, num_workers=workers):
            parts.append(nn.functional.normalize(network(images)))
    return torch.cat(parts).numpy()


def measure(name, weights, files, arguments):
    config = BackboneConfig(name=name, weights=weights, seed=0)
    backbone = Backbone.build(config, size=arguments.size).eval()
    spec = EncoderSpec(backbone, PostConfig(crop=0.875))
    encoder = Encoder(spec, device="cpu")
    exact = Encoder(spec, device="cpu", precision="fp32").embed(files, batch_size=32)
    network = timm.create_model(name, num_classes=0, **backbone.config.arguments).eval()
    network.load_state_dict(backbone.network.state_dict())
    data = Files(files, backbone, arguments.size)
    encoder.embed(files[:16], batch_size=16)
    times = {"plain": [], "fieldmark": []}
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        plain(network, data, arguments.batch_size, arguments.workers)
        middle = time.perf_counter()
        fast = encoder.embed(files, batch_size=arguments.batch_size)
        times["plain"].append(middle - start)
        times["fieldmark"].append(time.perf_counter() - middle)
    ratios = [a / b for a, b in zip(times["plain"], times["fieldmark"], strict=True)]
    cosine = (fast * exact).sum(1)
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "target": TARGETS.get(name),
        "precision": encoder._runner.precision,
        "cosine_to_fp32_min": float(cosine.min()),
        "cosine_to_fp32_mean": float(np.mean(cosine)),
        "images_per_second": {k: len(files) / statistics.median(v) for k, v in times.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--weights", nargs="*", default=[], help="NAME=FILE; others are random")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    weights = dict(item.split("=", 1) for item in arguments.weights)
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.photos or draw(Path(place), arguments.count, 375, 500, 4.0)
        catalog = Catalog.open(folder)
        found = [catalog.file(row.row) for row in catalog.rows]
        files = [file for file in found if file is not None]
        files = files[:: max(1, len(files) // arguments.count)][: arguments.count]
        result = {"photos": len(files), "size": arguments.size, "batch_size": arguments.batch_size}
        result["source"] = "drawn, 500 × 375" if arguments.photos is None else folder.parent.name
        for name in arguments.networks:
            result[name] = measure(name, weights.get(name, "random"), files, arguments)
            print(name, result[name])
        print(record("embed", result))


if __name__ == "__main__":
    main()
