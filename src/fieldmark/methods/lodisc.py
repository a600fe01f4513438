"""LoDisc: MoCo v3, and beside it the same contrast with only the salient third of the photo.

Shi, Wei, Nie and Huang 2024, arXiv:2403.04066. The form for convolutional networks is ours.
"""

from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from fieldmark import rng, runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.normalization import statistics_held
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, byol_views
from fieldmark.methods.method import Method, Summary
from fieldmark.nn import saliency
from fieldmark.nn.heads import MLPHead, PooledHead
from fieldmark.nn.losses import batch_contrast, normalize
from fieldmark.nn.momentum import follow, frozen_copy
from fieldmark.nn.schedules import cosine
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress, View

_RELEASE = {"projector": False, "keep_threshold": False, "ema_repeats": 4, "ships": "prediction"}


class LoDiscConfig(Config):
    """Settings of LoDisc."""

    faithful: bool = False
    """As released: no projector, no keep_threshold, ema_repeats = 4, ships = "prediction"."""
    hidden: int = Field(default=4096, ge=1)
    """Width of the hidden layers of projector and predictor; both end as wide as the feature."""
    projector: bool = True
    """Whether features pass the projector; the released code builds it and never runs it."""
    head_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the heads' hidden outputs that is dropped while training."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature."""
    momentum: float = Field(default=0.99, ge=0, le=1)
    """Share of itself that the teacher keeps at the first step; rises to 1 by half a cosine."""
    ema_repeats: int = Field(default=1, ge=1)
    """Teacher updates per step; 4 in the released code, which is a momentum to the fourth power."""
    smallest_crop: float = Field(default=0.08, gt=0, le=1)
    """Smallest crop as a share of the photo."""
    branches: Literal["both", "global", "local"] = "both"
    """Keys of whole views, of masked ones or both; ``global`` is MoCo v3 with LoDisc's heads."""
    local_weight: float = Field(default=1.0, gt=0)
    """Weight of the local branch's loss beside the global one's."""
    keep: float = Field(default=0.3, gt=0, le=1)
    """Share of cells that the masked view shows."""
    keep_threshold: bool = False
    """Whether the cell at the threshold is shown too: 59 of 196 instead of 58."""
    selection: saliency.Selection = "attention"
    """Which cells are shown: the most salient, any, or the least salient."""
    layers: saliency.Layers = "fused"
    """Attention multiplied over all layers, or the last layer's."""
    ships: Literal["pooled", "prediction"] = "pooled"
    """Export the feature, or what student's predictor and teacher's projector make of it."""

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("faithful"):
            return data
        if any(data.get(key, value) != value for key, value in _RELEASE.items()):
            raise ValueError(f"faithful = true means {_RELEASE}; drop what contradicts it")
        return {**data, **_RELEASE}


class LoDisc(Method):
    """Each prediction finds its photo's other view among the batch's keys, whole and masked."""

    config_type = LoDiscConfig
    batch_coupled = True
    synced_statistics = True
    config: LoDiscConfig
    summary = Summary(
        idea="a view in which only the salient third is left must find the photo's other view too",
        needs="a vision transformer that has learnt something, or a convolutional network; batches of 32",
        when="whole photos, in which the thing takes a part of the picture; less on tight crops",
        paper="Shi, Wei, Nie and Huang 2024, arXiv:2403.04066",
    )
    ablations = {
        "branches": {b: {"method": {"branches": b}} for b in ("global", "local", "both")},
        "selection": {s: {"method": {"selection": s}} for s in ("attention", "random", "inverse")},
        "keep": {f"{k}%": {"method": {"keep": k / 100}} for k in (10, 30, 50, 70)},
        "layers": {layers: {"method": {"layers": layers}} for layers in ("fused", "last")},
    }

    def __init__(self, config: LoDiscConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        dim, hidden, drop = backbone.dim, config.hidden, config.head_dropout
        head = partial(MLPHead, batch_norm=True, last_batch_norm=True, dropout=drop)
        self.projector = head([dim, hidden, hidden, dim]) if config.projector else nn.Identity()
        self.predictor = head([dim, hidden, dim])
        self.teacher = frozen_copy(backbone)
        self.teacher_projector = frozen_copy(self.projector)

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """BYOL's two distributions: always blurred; seldom blurred and sometimes solarized."""
        return byol_views(size, config.smallest_crop)

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """``L_g + L_l`` in six encoder passes: the keys' own passes give the attention."""
        query1, query2 = (self._query(view) for view in batch.views)
        keys = [self._keys(view, rng.seed_of(batch.key, i)) for i, view in enumerate(batch.views)]
        loss, parts = query1.new_zeros(()), {}
        for branch, (key1, key2) in zip(("global", "local"), zip(*keys), strict=True):
            if self.config.branches in (branch, "both"):
                part = self._contrast(query1, key2) + self._contrast(query2, key1)
                loss = loss + part * (self.config.local_weight if branch == "local" else 1.0)
                parts[branch] = part.detach()
        return LossOutput(loss, parts)

    def _contrast(self, query: Tensor, key: Tensor) -> Float[Tensor, ""]:
        offset = runtime.rank() * len(query)
        return batch_contrast(query, runtime.gather(key), self.config.temperature, offset=offset)

    def _query(self, view: View) -> Tensor:
        return normalize(self.predictor(self.projector(self.backbone(view.images).pooled)))

    @torch.no_grad()
    def _keys(self, view: View, seed: int) -> tuple[Tensor, Tensor]:
        """Keys of the view and of the view with all but its salient cells masked."""
        config = self.config
        if config.branches == "global":
            key = normalize(self.teacher_projector(self.teacher(view.images).pooled))
            return key, key
        features, scores = saliency.look(self.teacher, view.images, config.layers)
        scores = saliency.order_cells(scores, config.selection, seed)
        kept = saliency.keep_cells(scores, config.keep, inclusive=config.keep_threshold)
        whole = normalize(self.teacher_projector(features.pooled))
        shown = saliency.show_cells(view.images, kept, self.teacher.mean)
        # The teacher ships, and photos that it will see are not mostly one colour.
        with statistics_held(self.teacher, self.teacher_projector):
            return whole, normalize(self.teacher_projector(self.teacher(shown).pooled))

    def after_step(self, progress: Progress, carry: dict[str, Tensor]) -> None:
        """The teacher follows, more and more slowly."""
        momentum = cosine(self.config.momentum, 1.0, progress.fraction) ** self.config.ema_repeats
        follow(self.teacher, self.backbone, momentum)
        follow(self.teacher_projector, self.projector, momentum)

    def exports(self) -> dict[str, EncoderSpec]:
        """Student and momentum teacher; with their heads where ``ships`` says so."""
        plain = self.config.ships == "pooled"
        student = {} if plain else PooledHead.inserted(self.projector, self.predictor)
        teacher = {} if plain else PooledHead.inserted(self.teacher_projector)
        return {
            "student": EncoderSpec(self.backbone, inserted=student),
            "teacher": EncoderSpec(self.teacher, inserted=teacher),
        }
