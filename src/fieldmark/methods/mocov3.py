"""MoCo v3: momentum contrast within the batch, both ways, with a predictor.

Chen, Xie and He 2021, arXiv:2104.02057. Defaults are the paper's for ViT; for ResNet-50 the
released settings are two layers in the projector, temperature 1 and crops from 0.2 up.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, byol_views
from fieldmark.methods.method import Method, Summary
from fieldmark.nn.heads import MLPHead
from fieldmark.nn.losses import batch_contrast, normalize
from fieldmark.nn.momentum import follow, frozen_copy
from fieldmark.nn.schedules import cosine
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress, View


class MoCoV3Config(Config):
    """Settings of MoCo v3."""

    dim: int = Field(default=256, ge=2)
    """Width of queries and keys."""
    hidden: int = Field(default=4096, ge=1)
    """Width of the hidden layers of projector and predictor."""
    projector_layers: int = Field(default=3, ge=1)
    """Linear layers of the projector; 3 for ViT, 2 for ResNet."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature; 0.2 for ViT, 1.0 for ResNet-50."""
    momentum: float = Field(default=0.99, ge=0, le=1)
    """Share of itself that the teacher keeps at the first step; rises to 1 by half a cosine."""
    smallest_crop: float = Field(default=0.08, gt=0, le=1)
    """Smallest crop as a share of the photo; 0.08 for ViT, 0.2 for ResNet-50."""
    freeze_patches: bool = True
    """Keep a transformer's patch embedding at its start (section 4.2 of the paper)."""


class MoCoV3(Method):
    """Each prediction finds the key of its photo's other view among the batch's keys."""

    config_type = MoCoV3Config
    summary = Summary(
        idea="each view predicts its photo's other view among the photos of the batch, both ways",
        needs="made for transformers, any network does; twice its memory; large batches",
        when="for a ViT from random weights; the base that LoDisc builds on",
        paper="Chen, Xie and He 2021 (ICCV), arXiv:2104.02057",
    )
    batch_coupled = True
    synced_statistics = True
    config: MoCoV3Config

    def __init__(self, config: MoCoV3Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if config.freeze_patches:
            for name, parameter in backbone.named_parameters():
                if "patch_embed" in name:
                    parameter.requires_grad_(False)
        hidden = [config.hidden] * (config.projector_layers - 1)
        dims = [backbone.dim, *hidden, config.dim]
        self.projector = MLPHead(dims, batch_norm=True, last_batch_norm=True)
        self.predictor = MLPHead(
            [config.dim, config.hidden, config.dim],
            batch_norm=True,
            last_batch_norm=backbone.is_transformer,
            bias=False,
        )
        self.teacher = frozen_copy(backbone)
        self.teacher_projector = frozen_copy(self.projector)

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """BYOL's two distributions: always blurred; seldom blurred and sometimes solarized."""
        return byol_views(size, config.smallest_crop)

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """Algorithm 1: ``ctr(q1, k2) + ctr(q2, k1)``."""
        first, second = batch.views
        query1, query2 = self._query(first), self._query(second)
        key1, key2 = self._key(first), self._key(second)
        offset = runtime.rank() * len(batch.rows)
        temperature = self.config.temperature
        loss = batch_contrast(query1, runtime.gather(key2), temperature, offset=offset)
        loss = loss + batch_contrast(query2, runtime.gather(key1), temperature, offset=offset)
        pair = ((query1 * key2).sum(1) + (query2 * key1).sum(1)) / 2
        return LossOutput(loss, {}, similarity=pair)

    def _query(self, view: View) -> Tensor:
        return normalize(self.predictor(self.projector(self.backbone(view.images).pooled)))

    @torch.no_grad()
    def _key(self, view: View) -> Tensor:
        return normalize(self.teacher_projector(self.teacher(view.images).pooled))

    def after_step(self, progress: Progress, carry: dict[str, Tensor]) -> None:
        """The teacher follows, more and more slowly."""
        momentum = cosine(self.config.momentum, 1.0, progress.fraction)
        follow(self.teacher, self.backbone, momentum)
        follow(self.teacher_projector, self.projector, momentum)

    def exports(self) -> dict[str, EncoderSpec]:
        """Student and momentum teacher, without projector and predictor."""
        return {"student": EncoderSpec(self.backbone), "teacher": EncoderSpec(self.teacher)}
