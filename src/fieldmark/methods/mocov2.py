"""MoCo v2: momentum contrast with a queue of keys.

He et al. 2020, arXiv:1911.05722; Chen et al. 2020, arXiv:2003.04297. Defaults are the paper's.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fieldmark.backbones.backbone import Backbone
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.methods.method import Method, Summary, batch_statistics, shuffled
from fieldmark.nn.heads import MLPHead
from fieldmark.nn.losses import info_nce, normalize
from fieldmark.nn.momentum import follow, frozen_copy
from fieldmark.nn.queue import KeyQueue
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress, View


class MoCoV2Config(Config):
    """Settings of MoCo v2."""

    dim: int = Field(default=128, ge=2)
    """Width of queries and keys."""
    hidden: int = Field(default=0, ge=0)
    """Width of the head's hidden layer; 0: that of the backbone's feature, as in the paper."""
    head_bn: bool = False
    """Batch-norm in the head; the paper has none."""
    queue_size: int = Field(default=65_536, ge=1)
    """Keys kept as negatives. With fewer photos than this, a photo's own old keys are among them."""
    mask_same_image: bool = False
    """Leave a photo's own keys out of its negatives."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature; typical values are 0.07 to 0.5."""
    momentum: float = Field(default=0.999, ge=0, le=1)
    """Share of itself that the teacher keeps at each step."""
    symmetric: bool = False
    """Use each view once as query and once as key, and average the two losses; twice the cost."""


class MoCoV2(Method):
    """Each query finds the key of its photo's other view among a queue of other photos' keys."""

    config_type = MoCoV2Config
    summary = Summary(
        idea="each view finds its photo's other view among a queue of earlier photos",
        needs="any network; twice its memory for the teacher; small batches do",
        when="the plain baseline, and the base that LCR and PP-SSL build on; from a good start gently",
        paper="He et al. 2020 (CVPR); Chen et al. 2020, arXiv:2003.04297",
    )
    ablations = {
        "own-keys": {
            "kept": {"method": {"mask_same_image": False}},
            "masked": {"method": {"mask_same_image": True}},
        },
        "queue": {str(k): {"method": {"queue_size": k}} for k in (64, 1024, 4096, 65536)},
    }
    config: MoCoV2Config

    def __init__(self, config: MoCoV2Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        dims = (backbone.dim, config.hidden or backbone.dim, config.dim)
        self.head = MLPHead(dims, batch_norm=config.head_bn)
        self.teacher = frozen_copy(backbone)
        self.teacher_head = frozen_copy(self.head)
        self.queue = KeyQueue(config.queue_size, config.dim)

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """Two views from one distribution: MoCo v2's "aug+"."""
        return MultiView(specs=(ViewSpec(count=2, size=size, scale=(0.2, 1.0), hue=0.1, blur=0.5),))

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """Eq. 1 of MoCo, against the queue as it was before this step."""
        first, second = batch.views
        same = self.queue.same_photo(batch.rows) if self.config.mask_same_image else None
        loss, keys, pair = self._contrast(first, second, same, progress.step)
        if self.config.symmetric:
            other, more, back = self._contrast(second, first, same, progress.step)
            loss, pair = (loss + other) / 2, (pair + back) / 2
            # Both keys of a photo side by side: rows stay in the order of the batch.
            keys = torch.stack([keys, more], 1)
        return LossOutput(loss, {}, {"keys": keys, "rows": batch.rows}, pair)

    def _contrast(
        self, queries: View, keys: View, same: Tensor | None, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        query = normalize(self.head(self.backbone(queries.images).pooled))
        key = normalize(self._encode_key(keys.images, step))
        loss = info_nce(query, key, self.queue.keys, self.config.temperature, masked=same)
        return loss, key, (query * key).sum(1)

    @torch.no_grad()
    def _encode_key(self, images: Tensor, step: int) -> Tensor:
        if batch_statistics(self.teacher):
            return shuffled(self._encode, images, step)
        return self._encode(images)

    def _encode(self, images: Tensor) -> Tensor:
        return self.teacher_head(self.teacher(images).pooled)

    def after_step(self, progress: Progress, carry: dict[str, Tensor]) -> None:
        """The teacher follows; the newest keys replace the oldest."""
        follow(self.teacher, self.backbone, self.config.momentum)
        follow(self.teacher_head, self.head, self.config.momentum)
        keys, rows = carry["keys"], carry["rows"]
        if keys.ndim == 3:
            keys, rows = keys.flatten(0, 1), rows.repeat_interleave(2)
        self.queue.push(keys, rows)

    def exports(self) -> dict[str, EncoderSpec]:
        """Student and momentum teacher, without heads."""
        return {"student": EncoderSpec(self.backbone), "teacher": EncoderSpec(self.teacher)}
