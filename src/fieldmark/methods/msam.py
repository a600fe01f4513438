"""MSAM-CL: momentum contrast with multi-scale attention inside the encoder.

Lin, Tseng, Wu, Huang and Lai 2025. As printed its update, sign, anchor and denominator do not work;
each is repaired by default and a switch brings the print back (docs/methods.md).
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.methods.method import Method, Summary
from fieldmark.nn.heads import MLPHead
from fieldmark.nn.losses import info_nce, normalize
from fieldmark.nn.momentum import follow, frozen_copy
from fieldmark.nn.msam import Form, insert_msam, mean_gate
from fieldmark.nn.queue import KeyQueue
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress, View

PRINTED: dict[str, Any] = {"update": "printed", "sign": "printed", "anchor": "momentum"}
PRINTED |= {"include_positive": False, "module": "stem", "module_rate": 1.0}


class MSAMConfig(Config):
    """Settings of MSAM-CL."""

    faithful: bool = False
    """Everything as printed: update, sign, anchor, include_positive, module and module_rate take
    the paper's value unless they are set themselves."""
    module: Form = "block"
    """Multi-scale attention after stages, over stages, on the image, or not at all."""
    stages: tuple[int, ...] = ()
    """Stages of block and pyramid, negative from the end; empty: the last four (block: not the last),
    or what the network has of them."""
    per_channel: bool = False
    """Weigh each channel of a scale by itself, not each scale of an image."""
    module_rate: float = Field(default=10.0, gt=0)
    """Learning rate of the inserted module relative to the network's: what is new has no start to
    keep, and at the network's own gentle rate its gate hardly opens; 1: the paper names one rate."""
    contrast: bool = True
    """Without: nothing trains, and the start is exported with the module untrained."""
    update: Literal["ema", "printed"] = "ema"
    """ema: the teacher keeps the share ``momentum``; printed: that share is overwritten."""
    sign: Literal["minimise", "printed"] = "minimise"
    """printed: without the minus, so that minimising drives the two views apart."""
    anchor: Literal["query", "momentum"] = "query"
    """Which feature is compared with the negatives: the student's, or the teacher's."""
    include_positive: bool = True
    """Whether the positive is in the denominator; printed: it is not."""
    negatives: Literal["queue", "in_batch"] = "queue"
    """Teacher's features of earlier batches, or of the other photos of this one."""
    queue_size: int = Field(default=64, ge=1)
    """Negatives in the queue."""
    symmetric: bool = False
    """Swap the two views and average; twice the cost."""
    dim: int = Field(default=128, ge=2)
    """Width of the compared features."""
    temperature: float = Field(default=0.1, gt=0)
    """Softmax temperature."""
    momentum: float = Field(default=0.999, ge=0, le=1)
    """The paper's tau of the update: "close to 1"."""

    @model_validator(mode="before")
    @classmethod
    def _as_printed(cls, data: Any) -> Any:
        return {**PRINTED, **data} if isinstance(data, dict) and data.get("faithful") else data


class MSAM(Method):
    """Each view finds its photo's other view; scales are weighed anew for each image."""

    config_type = MSAMConfig
    batch_coupled = True  # by the modules' batch-norm, and by in_batch negatives
    synced_statistics = True
    summary = Summary(
        idea="momentum contrast with 64 negatives; maps of four scales inside the encoder, weighed per image",
        needs="a network with stages, or a vision transformer; twice its memory; an encoder some larger",
        when="details of very different size; photos and epochs enough to train a new module",
        paper="Lin, Tseng, Wu, Huang and Lai 2025 (zenodo 15232950)",
    )
    ablations = {
        "module": {
            "block": {"method": {"module": "block", "contrast": True}},
            "pyramid": {"method": {"module": "pyramid", "contrast": True}},
            "stem": {"method": {"module": "stem", "contrast": True}},
            "without module": {"method": {"module": "none", "contrast": True}},
            # One epoch: it computes nothing.
            "without contrast": {
                "method": {"module": "block", "contrast": False},
                "train": {"epochs": 1},
            },
        }
    }
    config: MSAMConfig

    def __init__(self, config: MSAMConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        insert_msam(
            backbone,
            config.module,
            config.stages,
            per_channel=config.per_channel,
            rate=config.module_rate,
        )
        self.head = MLPHead((backbone.dim, backbone.dim, config.dim))
        self.teacher = frozen_copy(backbone)
        self.teacher_head = frozen_copy(self.head)
        self.queue = KeyQueue(config.queue_size, config.dim)
        if not config.contrast:
            # Frozen: weight decay would move what has a gradient, even one of 0. The loop still
            # needs something to train.
            self.requires_grad_(False)
            self.idle = nn.Parameter(torch.zeros(()))

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """Crops, flips and colours, as the paper names; their strength is MoCo v2's."""
        spec = ViewSpec(count=2, size=size, scale=(0.2, 1.0), hue=0.1, gray=0, blur=0)
        return MultiView(specs=(spec,))

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """``-log(e^{s(q,k)/T} / (e^{s(q,k)/T} + sum_j e^{s(q,k_j)/T}))``, as repaired."""
        if not self.config.contrast:
            return LossOutput(0.0 * self.idle, {})
        first, second = batch.views
        loss, keys = self._contrast(first, second)
        if self.config.symmetric:
            other, more = self._contrast(second, first)
            loss, keys = (loss + other) / 2, torch.stack([keys, more], 1)
        gate = mean_gate(self.backbone)
        parts = {} if gate is None else {"gate": gate}
        return LossOutput(loss, parts, {"keys": keys, "rows": batch.rows})

    def _contrast(self, queries: View, keys: View) -> tuple[Tensor, Tensor]:
        config = self.config
        query = normalize(self.head(self.backbone(queries.images).pooled))
        with torch.no_grad():
            key = normalize(self.teacher_head(self.teacher(keys.images).pooled))
        negatives, own = self.queue.keys, None
        if config.negatives == "in_batch":
            negatives = runtime.gather(key)
            own = torch.eye(len(negatives), dtype=torch.bool, device=key.device)
            own = own[runtime.rank() * len(key) :][: len(key)]
        anchor, other = (query, key) if config.anchor == "query" else (key, query)
        loss = info_nce(
            anchor, other, negatives, config.temperature,
            masked=own, include_positive=config.include_positive,
        )  # fmt: skip
        return (loss if config.sign == "minimise" else -loss), key

    def after_step(self, progress: Progress, carry: dict[str, Tensor]) -> None:
        """The teacher follows; the newest keys replace the oldest."""
        momentum = self.config.momentum
        kept = momentum if self.config.update == "ema" else 1.0 - momentum
        follow(self.teacher, self.backbone, kept)
        follow(self.teacher_head, self.head, kept)
        if carry:
            keys = carry["keys"].reshape(-1, self.config.dim)
            self.queue.push(keys, carry["rows"].repeat_interleave(len(keys) // len(carry["rows"])))

    def exports(self) -> dict[str, EncoderSpec]:
        """Student and momentum teacher with their modules, without heads."""
        return {"student": EncoderSpec(self.backbone), "teacher": EncoderSpec(self.teacher)}
