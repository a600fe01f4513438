"""LCR: learn where the contrastive loss looks with a branch too small to look elsewhere.

Shu, van den Hengel and Liu 2023, "Learning Common Rationale to Improve Self-Supervised
Representation for Fine-Grained Visual Recognition Problems" (CVPR). Defaults repair what the
released code leaves open; ``faithful`` does what it does (docs/methods.md).
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.watched import Pass, last_feeding, stage_cells, watched
from fieldmark.methods.method import Attached, AttachedConfig, Summary
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.cam import (
    Sign,
    activation_map,
    coarsen,
    gradients,
    map_divergence,
    map_entropy,
    rescale,
)
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress

_RELEASED: dict[str, Any] = {
    "sign": "+loss",
    "target": "raw",
    "softmax": "rows",
    "map_temperature": 1.0,
    "detach_target": False,
    "norm_scope": "batch",
}


def _studied(**changes: Any) -> dict[str, Any]:
    # Each variant says all that the study compares: its name must hold whatever else is set.
    compared = {"sign": "+score", "target": "minmax", "weight": 1.28, "faithful": False}
    return {"method": {**compared, **changes}}


class LCRConfig(AttachedConfig):
    """Settings of LCR."""

    projections: int = Field(default=32, ge=1)
    """Linear looks of the max-out attention; 32 in the paper."""
    weight: float = Field(default=1.28, ge=0)
    """Weight of the map's divergence, averaged over photos; the released 0.01 on a sum over 128
    photos is 1.28 here."""
    sign: Sign = "+score"
    """Which cells the gradient map keeps: those that raise the similarity of the two views (+score,
    as Grad-CAM is of a score), those that lower the loss (-loss), or those that raise it (+loss, as
    released: on whole photos of birds these lie on the background, docs/results.md)."""
    target: Literal["minmax", "raw"] = "minmax"
    """Whether each photo's gradient map is rescaled to [0, 1]; raw ones (as released, of the
    batch's mean) are so small that their softmax is even."""
    softmax: Literal["cells", "rows"] = "cells"
    """Softmax over all cells of a map, or over each row (as released)."""
    map_temperature: float = Field(default=0.4, gt=0)
    """Temperature of both softmaxes; 1 as released for MoCo, 0.4 in the BYOL form."""
    detach_target: bool = True
    """Whether the gradient map is a constant target; released code lets its activations learn."""
    norm_scope: Literal["image", "batch"] = "image"
    """Whether attention is rescaled within each photo or over the batch (as released)."""
    faithful: bool = False
    """Do what the released code does, whatever the settings from sign to norm_scope say."""

    def resolved(self) -> "LCRConfig":
        """Settings after ``faithful``."""
        return self.model_copy(update=_RELEASED) if self.faithful else self


class LCR(Attached):
    """The attention fits the gradient map of the contrastive loss, and pools the feature."""

    config_type = LCRConfig
    config: LCRConfig
    # Batch-norm of the attention sees the batch.
    batch_coupled = True
    summary = Summary(
        idea="a small attention learns which cells the contrastive loss rests on, and pools the feature",
        needs="a network whose feature passes through a map of cells; what its base needs",
        when="whole photos, in which the subject is a part; object-centred crops gain less",
        paper="Shu, van den Hengel and Liu 2023 (CVPR)",
    )
    ablations = {
        "map": {
            "raises the similarity": _studied(),
            "lowers the loss": _studied(sign="-loss"),
            "raises the loss": _studied(sign="+loss"),
            "raw target": _studied(target="raw"),
            "as released": _studied(faithful=True),
            "attention not fitted": _studied(weight=0.0),
        }
    }

    def __init__(self, config: LCRConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.attention = MaxOutAttention(
            backbone.token_dim, config.projections, config.resolved().norm_scope
        )
        self.stage = last_feeding(backbone)

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """Contrast plus divergence of attention from the contrast's own gradient map."""
        with watched(self.backbone, () if self.stage is None else (self.stage,)) as passes:
            output = self.base(batch, progress)
        settings = self.config.resolved()
        maps = self._maps(output, passes, len(batch.rows))
        rows, temperature = settings.softmax == "rows", settings.map_temperature
        fits, parts = [], []
        for features, target in zip([seen.features for seen in passes], maps, strict=True):
            fitted = self.attention.weights(features.tokens).unflatten(1, features.shape)
            fits.append(map_divergence(target, fitted, temperature=temperature, rows=rows))
            parts.append(map_entropy(target, temperature=temperature, rows=rows))
        fit = torch.stack(fits).mean()
        parts_of = {
            **output.parts,
            "contrast": output.loss.detach(),
            "map_fit": fit.detach(),
            "target_entropy": torch.stack(parts).mean(),
        }
        return LossOutput(output.loss + settings.weight * fit, parts_of, output.carry)

    def _maps(self, output: LossOutput, passes: list[Pass], photos: int) -> list[Tensor]:
        settings = self.config.resolved()
        raw = settings.target == "raw"
        if settings.sign == "+score":
            assert output.similarity is not None
            total = output.similarity.sum()
        else:
            total = output.loss * (1 if raw else photos)
        maps_of = ((*seen.stages, seen.features.last)[0] for seen in passes)
        sources = [source for source in maps_of if source is not None]
        maps = []
        for seen, source, gradient in zip(passes, sources, gradients(total, sources), strict=True):
            activation = source.detach() if settings.detach_target else source
            here, there = (
                stage_cells(x, self.backbone, self.stage, seen.features)
                for x in (activation, gradient)
            )
            found = coarsen(activation_map(here, there, settings.sign), seen.features.shape)
            maps.append(found if raw else rescale(found, "image"))
        return maps

    def exports(self) -> dict[str, EncoderSpec]:
        """The base's encoders with attention-weighted pooling."""
        return {
            who: EncoderSpec(spec.backbone, inserted={self.attention.kind: self.attention})
            for who, spec in self.base.exports().items()
        }
