"""The same on a GPU as on the CPU: views, training, resuming, embedding (``make test-gpu``)."""

import numpy as np
import pytest
import torch

import tiny
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.store import StoredTensors
from fieldmark.data.views import ViewMaker
from fieldmark.encoder import Encoder
from fieldmark.methods import METHODS
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.log import read_metrics
from fieldmark.training.loop import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


def on_gpu(store):
    return StoredTensors(torch.from_numpy(store.data).cuda(), store.offsets, store.shapes)


def losses(run):
    return [line["loss"] for line in read_metrics(run, "train")]


@pytest.mark.parametrize("stored", ["host", "device"])
def test_views_are_the_same(stored):
    store = tiny.ArrayStore(12, side=40)
    rows = np.array([3, 0, 7, 11])
    views = METHODS["mocov2"].views(tiny.config("mocov2"), 32)
    expected = ViewMaker(store, views, seed=0).make(rows, 1)
    source = store if stored == "host" else on_gpu(store)
    found = ViewMaker(source, views, seed=0, device="cuda").make(rows, 1)
    for cpu, gpu in zip(expected, found, strict=True):
        assert gpu.images.device.type == "cuda"
        torch.testing.assert_close(gpu.images.cpu(), cpu.images, atol=1e-4, rtol=0)
        torch.testing.assert_close(gpu.boxes.cpu(), cpu.boxes)


@pytest.mark.parametrize("name", list(METHODS))
def test_training_follows_the_cpu(name, tmp_path):
    for device in ("cpu", "cuda"):
        source = tiny.source(name)
        source.maker.device = torch.device(device)
        source.name = f"{name}-{device}"
        config = tiny.train_config(epochs=2, lr=0.005)
        fit(tiny.method(name), source, config, tmp_path / device, device=torch.device(device))
    cpu, gpu = losses(tmp_path / "cpu"), losses(tmp_path / "cuda")
    np.testing.assert_allclose(gpu, cpu, rtol=5e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_and_goes_on(precision, tmp_path):
    for epochs in (1, 2):
        source = tiny.source()
        source.maker.device = torch.device("cuda")
        source.name = f"cuda-{precision}"
        config = tiny.train_config(epochs=epochs, lr=0.005, precision=precision)
        found = fit(
            tiny.method("mocov2"), source, config, tmp_path / "run", device=torch.device("cuda")
        )
    assert found.resumed_from == source.steps_per_epoch
    assert np.isfinite(losses(tmp_path / "run")).all()


def test_embeddings_are_the_same():
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    photos = [np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8) for i in range(5)]
    cpu = Encoder(EncoderSpec(backbone), device="cpu").embed(photos)
    gpu = Encoder(EncoderSpec(backbone), device="cuda").embed(photos)
    assert (cpu * gpu).sum(1).min() > 0.999
