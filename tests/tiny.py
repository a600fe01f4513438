"""The smallest network, photos and methods that behave like real ones, in milliseconds."""

import numpy as np
import torch
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.insertion import Place
from fieldmark.backbones.layout import Layout
from fieldmark.backbones.provenance import Provenance
from fieldmark.data.layout import unpack
from fieldmark.data.sampling import MultiView
from fieldmark.data.views import BatchSource
from fieldmark.encoder import Encoder
from fieldmark.methods import METHODS
from fieldmark.nn.spec import EncoderSpec
from fieldmark.nn.texts import text_bank
from fieldmark.nn.towers import Towers, TowersConfig, split_words
from fieldmark.training.loop import TrainConfig
from fieldmark.types import Features

SIZE = 16
SMALL = {"queue_size": 64, "hidden": 32, "dim": 16, "projector_layers": 2, "head_dropout": 0.0}


class TinyBackbone(Backbone):
    """Three convolutions; without batch-norm by default, so that every photo counts alone."""

    def __init__(self, dim=16, *, batch_norm=False, seed=0):
        nn.Module.__init__(self)
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d if batch_norm else lambda width: nn.Identity()
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 4, 4),
            norm(16),
            nn.GELU(),
            nn.Conv2d(16, 32, 2, 2),
            norm(32),
            nn.GELU(),
            nn.Conv2d(32, dim, 1),
        )
        mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        self.config = BackboneConfig(
            name="tiny", weights="random", mean=mean, std=std, normalization="train"
        )
        self.provenance = Provenance(how="random")
        self.mean, self.std = (torch.tensor(x).view(1, 3, 1, 1) for x in (mean, std))
        self.size = SIZE
        self.dim = self.token_dim = dim
        self.stage_dims, self.stage_strides = (16, 32, dim), (4, 8, 8)
        self.layout = Layout(
            "NCHW", 0, has_cls=False, dim=dim, token_dim=dim, stage_dims=self.stage_dims,
            stage_strides=self.stage_strides,
        )  # fmt: skip
        self.insertions = nn.ModuleDict()
        self.is_transformer = False
        self.first_trained, self.stage_count = 0, 1
        self._stage_of = {name: 0 for name, _ in self.network.named_parameters()}

    def train(self, mode=True):
        return nn.Module.train(self, mode)

    def _places(self):
        return [Place("2", "NCHW"), Place("5", "NCHW"), Place("6", "NCHW")]

    def forward(self, images, *, stages=(), attention=(), keep=None, mask=None, mask_token=None):
        # Fused for inference, the first layer no longer shows its weight.
        x = (images.to(self.compute_dtype or self.network[0].weight.dtype) - 0.5) / 0.25
        if "image" in self.insertions:
            x = self.insertions["image"](x)
        maps = []
        for index, layer in enumerate(self.network):
            x = layer(x)
            if index in {2, 5, 6}:
                maps.append(x)
        tokens = x.flatten(2).transpose(1, 2)
        features = Features(tokens.mean(1), tokens, (x.shape[2], x.shape[3]), last=x)
        if "features" in self.insertions:
            module = self.insertions["features"]
            needed = tuple(maps[stage] for stage in getattr(module, "stages", ()))
            features = module(features._replace(stages=needed))
        return features._replace(stages=tuple(maps[stage] for stage in stages))


class ArrayStore:
    """Photos in memory, the way the photo store keeps them."""

    def __init__(self, count=32, side=20, seed=0):
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        photos = coarse.repeat(side // 4, 1).repeat(side // 4, 2)
        self.shapes = np.full((count, 2), side, dtype=np.int32)
        self.offsets = np.arange(count, dtype=np.int64) * photos[0].size
        self.data = photos.transpose(0, 1, 3, 2).reshape(-1).copy()
        self.usable = np.arange(count)
        self.short_side = side

    def __len__(self):
        return len(self.offsets)

    def photo(self, row):
        height, width = self.shapes[row].tolist()
        begin = self.offsets[row]
        return unpack(self.data[begin : begin + height * width * 3], height, width)


def config(name, **settings):
    """Small settings of a method: whichever of ``SMALL`` it knows, then ``settings``.

    What a method that attaches to another does not know itself goes to the one underneath.
    """
    fields = METHODS[name].config_type.model_fields
    own = {key: value for key, value in {**SMALL, **settings}.items() if key in fields}
    rest = {key: value for key, value in settings.items() if key not in fields}
    if "base" in fields:
        own["contrast"] = config(own.get("base", fields["base"].default), **rest)
    elif rest:
        own.update(rest)  # refused with its name
    return METHODS[name].config_type(**own)


def method(name, *, batch_norm=False, seed=0, kind=None, dim=16, **settings):
    torch.manual_seed(seed)
    backbone = TinyBackbone(dim, batch_norm=batch_norm, seed=seed)
    return (kind or METHODS[name])(config(name, **settings), backbone)


def fitting(name, base=None, **settings):
    """A method in float64 and a batch to match: what plain loops are compared with.

    Args:
        name: Key of the table of methods.
        base: Whose photos and views the batch has; of a method that attaches, its base.
        settings: Of the method.
    """
    if base is not None:
        settings["base"] = base
    fitted = method(name, **settings).double()
    batch = source(base or name).batch(0)
    views = tuple(view._replace(images=view.images.double()) for view in batch.views)
    return fitted, batch._replace(views=views)


def exact_method(name):
    """In float64, so that only a mistake can make two ways of computing differ.

    Batch-norm over a few photos that look alike divides by a small spread, and what rounding adds
    in float32 doubles every few steps.
    """
    return method(name, batch_norm=METHODS[name].synced_statistics).double()


def text_teacher(folder):
    """Settings that turn AIS on, with a small text-image teacher of random weights."""
    bank = text_bank("birds")
    texts = [*bank.select(16, "fine"), *bank.select(16, "coarse")]
    words = tuple(sorted({word for text in texts for word in split_words(text)}))
    torch.manual_seed(5)
    Towers(TowersConfig(words=words, size=16, dim=12, width=4)).save(folder)
    return {"teacher": f"fieldmark:{folder}", "texts": "birds"}


def views(name):
    """The method's views without blur and colour, which tiny photos do not stand."""
    specs = [
        spec.model_copy(update={"size": SIZE, "scale": (0.4, 1.0), "blur": 0.0, "hue": 0.0})
        for spec in METHODS[name].views(config(name), SIZE).specs
    ]
    return MultiView(specs=tuple(specs))


class RememberingSource(BatchSource):
    """Makes each batch once per test session: shape checks make views slow."""

    made = {}

    def batch(self, step, micro=0, micros=1, rank=0, world=1):
        key = (self.name, len(self.rows), self.batch_size, self.seed, self.maker.dtype)
        key += (step, micro, micros, rank, world)
        if key not in self.made:
            self.made[key] = super().batch(step, micro, micros, rank, world)
        return self.made[key]


def source(name="mocov2", *, batch_size=8, photos=32, seed=0):
    result = RememberingSource(
        ArrayStore(photos), np.arange(photos), views(name), batch_size=batch_size, seed=seed
    )
    result.name = name
    return result


def train_config(**settings):
    """Float32, no extras: exact and fast."""
    base = {
        "epochs": 2,
        "batch_size": 8,
        "lr": 0.05,
        "precision": "fp32",
        "tensorboard": False,
        "channels_last": False,
        "checkpoint_seconds": 3600,
    }
    return TrainConfig(**{**base, **settings})


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def largest_difference(first, second):
    """Largest absolute difference over all tensors of two states."""
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def save_encoder(folder, seed=0):
    """A tiny network with random weights as an encoder's folder."""
    config = BackboneConfig(name="test_resnet", weights="random", seed=seed)
    Encoder(EncoderSpec(Backbone.build(config, size=32)), device="cpu").save(folder)
    return folder
