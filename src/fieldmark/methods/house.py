"""The house method: a photo seen small is to say what the start says of it seen large.

The frozen start looks at each photo several times at a larger input, and mirrored. The mean of its
embeddings in a space whitened by instance LDA, mixed with those of the photo's neighbours, is what
the student must find from one crop at the small input. Fieldmark's own: see docs/methods.md.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fieldmark import rng
from fieldmark.backbones.backbone import Backbone
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.views import ViewMaker
from fieldmark.methods.method import Method, Summary
from fieldmark.nn.bank import PhotoBank
from fieldmark.nn.diffusion import diffuse
from fieldmark.nn.inference import Runner, embed_views
from fieldmark.nn.losses import normalize
from fieldmark.nn.momentum import frozen_copy
from fieldmark.nn.spec import EncoderSpec
from fieldmark.nn.whitening import Whitening, fit_instance_lda
from fieldmark.types import Batch, LossOutput, Progress

# What the ablation compares; every variant says all of it.
_COMPARED = {"diffusion": 0.6, "teacher_scales": (1.5, 1.75)}
_BLENDED = {"backbone": {"blend": 0.85}}


class HouseConfig(Config):
    """Settings of the house method."""

    teacher_scales: tuple[Annotated[float, Field(ge=1)], ...] = Field((1.5, 1.75), min_length=1)
    """Inputs of the teacher, as multiples of the student's, 192 and 224 px for 128; in steps of 32
    and no larger than the network was made for."""
    looks: int = Field(default=4, ge=2)
    """Crops of each photo that the teacher sees at each input, each of them mirrored too."""
    look_scale: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest crop of the teacher, as share of the photo's area."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """The same for the student: near to how photos are embedded later."""
    dim: int = Field(default=512, ge=2)
    """Directions of the whitened space that embeddings are compared in."""
    power: float = Field(default=0.5, ge=0, le=1)
    """Exponent of the whitening; 0.5 whitens fully."""
    neighbours: int = Field(default=5, ge=1)
    """Nearest photos that a photo may share its target with, where the choice is mutual."""
    diffusion: float = Field(default=0.6, ge=0, lt=1)
    """How much of a target may come from such neighbours, and theirs, and so on; 0: none."""
    fit_photos: int = Field(default=4_000, ge=2)
    """Photos that the whitening is fitted on, at most."""


class House(Method):
    """Small crops of a photo find the frozen start's embedding of the same photo seen large."""

    config_type = HouseConfig
    summary = Summary(
        idea="the network at its small input learns to say what it says of the photo seen large",
        needs="trained weights worth keeping; some 1.7 times the memory of evaluating them; small batches do",
        when="first, with trained weights; where left and right differ (text, X-rays, parts) with views.override.flip=0",
        paper="fieldmark's own, benchmarks/house",
    )
    ablations = {
        "parts": {
            "all": {"method": _COMPARED, **_BLENDED},
            "targets not shared": {"method": {**_COMPARED, "diffusion": 0.0}, **_BLENDED},
            "one input": {"method": {**_COMPARED, "teacher_scales": (1.75,)}, **_BLENDED},
            "all the way": {"method": _COMPARED, "backbone": {"blend": 1.0}},
        }
    }
    config: HouseConfig

    def __init__(self, config: HouseConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.teacher = frozen_copy(backbone)
        self.whitening = Whitening(backbone.dim, config.dim)
        self.bank = PhotoBank(config.dim)
        self.notes = tuple(_void_premises(config, backbone))

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """Two crops; colours stay as they are, for they tell look-alikes apart."""
        return MultiView(specs=(_crops(config.crop_scale, 2, size),))

    @classmethod
    def further_looks(cls, config: Any, backbone: Backbone) -> tuple[ViewSpec, ...]:
        """What the teacher sees of each photo, each look mirrored too."""
        sizes = dict.fromkeys(map(backbone.larger_input, config.teacher_scales))
        return tuple(_crops(config.look_scale, config.looks, size) for size in sizes)

    def start_epoch(self, progress: Progress, photos: Any) -> None:
        """Ask the teacher about every photo, once in a run."""
        if len(self.bank):
            return
        device = photos.maker.device
        # What the student must not ignore (a mirrored part, a stretched one), its teacher must not.
        own, least = photos.maker.multi_view.specs[0], photos.maker.multi_view.least_scale
        scale = tuple(max(end, least) for end in self.config.look_scale)
        protected = {"flip": own.flip, "ratio": own.ratio, "scale": scale}
        looks = self.further_looks(self.config, self.backbone)
        views = MultiView(specs=tuple(look.model_copy(update=protected) for look in looks))
        seed = rng.seed_of("house", "teacher", photos.seed)
        maker = ViewMaker(
            photos.maker.store, views, seed=seed, device=device, products=torch.bfloat16
        )
        runner = Runner(EncoderSpec(self.teacher), device)
        order = np.argsort(rng.mix("house", "fit", photos.seed, photos.rows), kind="stable")
        first, rest = np.split(photos.rows[order], [self.config.fit_photos])
        chunks = [[rows[i : i + 32] for i in range(0, len(rows), 32)] for rows in (first, rest)]
        asked = self.telling("asking the teacher", chunks[0] + chunks[1])
        seen = (embed_views(runner, maker.make(rows, 0), mirrored=own.flip > 0) for rows in asked)
        fitted_on = torch.cat(list(islice(seen, len(chunks[0]))))
        self.whitening.take(fit_instance_lda(fitted_on, self.config.dim, self.config.power))
        targets = [self._centre(fitted_on), *map(self._centre, seen)]
        # Photos that find each other are mostly of one kind, and together know more than each alone.
        smooth = diffuse(torch.cat(targets), self.config.neighbours, self.config.diffusion)
        self.bank.fill(torch.from_numpy(photos.rows[order]), smooth)

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """One minus the cosine between each crop's embedding and the teacher's of its photo."""
        pooled = self.backbone(torch.cat([view.images for view in batch.views])).pooled
        target = self._target(batch)
        with torch.autocast(pooled.device.type, enabled=False):
            found = self.whitening.directions(pooled).unflatten(0, (len(batch.views), -1))
            loss = (1 - (found * target).sum(-1)).mean()
        return LossOutput(loss, {})

    @torch.no_grad()
    def _target(self, batch: Batch) -> Float[Tensor, "B K"]:
        if len(self.bank):
            return self.bank.of(batch.rows)
        # Outside a run, as when the loop times one step, the crops themselves are all there is.
        looks = [self.teacher(view.images).pooled for view in batch.views]
        with torch.autocast(looks[0].device.type, enabled=False):
            return self._centre(normalize(torch.stack(looks, 1)))

    def _centre(self, looks: Float[Tensor, "B V D"]) -> Float[Tensor, "B K"]:
        return normalize(self.whitening.directions(looks.to(self.whitening.mean.device)).mean(1))

    def exports(self) -> dict[str, EncoderSpec]:
        """The student; the teacher is the start."""
        return {"student": EncoderSpec(self.backbone)}


def _void_premises(config: HouseConfig, backbone: Backbone) -> Iterator[str]:
    if backbone.provenance.how == "random":
        yield (
            "The start's weights are random, so it has nothing to teach: train from scratch with "
            "--recipe simclr or --recipe mocov2, or give trained weights with --weights."
        )
    elif max(look.size for look in House.further_looks(config, backbone)) <= backbone.size:
        yield (
            f"The teacher sees no more than what it teaches: at {backbone.size} px the network takes "
            "no larger input; lower --size, or take --recipe gentle where it takes one size only."
        )


def _crops(scale: tuple[float, float], count: int, size: int) -> ViewSpec:
    return ViewSpec(
        count=count, size=size, scale=scale, jitter_probability=0, hue=0, gray=0, blur=0
    )
