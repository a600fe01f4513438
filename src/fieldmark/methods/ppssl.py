"""PP-SSL: contrast, guided by texts that say what matters and by where the loss looks in the image.

Li, Cai, Zhang, Zhang, Shu, Liu, Li and Liu 2024, "PP-SSL: Priority-Perception Self-Supervised
Learning for Fine-Grained Recognition" (arXiv:2412.00134). Two parts are added to a contrastive
method: AIS (``nn/distillation.py``) and IADM (``nn/guidance.py``); ``iadm = "faithful"`` does what
the released code does (docs/methods.md).
"""

from typing import Any, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.watched import watched
from fieldmark.data.views import center_views
from fieldmark.methods.method import Attached, AttachedConfig, Summary
from fieldmark.nn.attention import MaxOutAttention, weighted_average
from fieldmark.nn.distillation import TextConfig, TextDistillation, load_teacher_of
from fieldmark.nn.guidance import Guidance, GuidanceConfig, GuidanceForm, with_leaves
from fieldmark.nn.spec import EncoderSpec
from fieldmark.nn.text_teacher import embed_photos
from fieldmark.types import Batch, LossOutput, Progress


class PPSSLConfig(AttachedConfig, TextConfig, GuidanceConfig):
    """Settings of PP-SSL."""

    projections: int = Field(default=32, ge=1)
    """Linear looks of the max-out attention; 32 in the paper."""
    norm_scope: Literal["image", "batch"] = "image"
    """Whether attention is rescaled within each photo or over the batch (as released, and always
    with iadm = faithful)."""


class PPSSL(Attached):
    """Contrast, plus a teacher's judgement of texts, plus attention that fits the image's map."""

    config_type = PPSSLConfig
    config: PPSSLConfig
    # Batch-norm of the attention sees the batch.
    batch_coupled = True
    summary = Summary(
        idea="a frozen text-image model says what matters, and attention fits the loss's map of the image",
        needs="any network; what its base needs; for the text part a CLIP model and a bank of texts",
        when="where backgrounds mislead and a CLIP model is at hand; without one only the map is fitted",
        paper="Li et al. 2024, arXiv:2412.00134",
    )
    ablations = {
        "parts": {
            name: {"method": {"ais": ais, "iadm": iadm, "iadm_weight": weight}}
            for name, ais, iadm, weight in (
                ("neither", False, "none", 1.28),
                # What attention pooling does by itself, as "neither" ships without.
                ("attention not fitted", False, "coupled_feat", 0.0),
                ("IADM", False, "coupled_feat", 1.28),
                ("AIS", True, "none", 1.28),
                ("both", True, "coupled_feat", 1.28),
            )
        },
        "form": {form: {"method": {"iadm": form}} for form in get_args(GuidanceForm)},
        "layers": {
            # From the end: that is what networks of four, five or twelve stages have in common.
            name: {"method": {"layers": layers}}
            for name, layers in {
                "image": ["image"],
                **{f"stage {stage}": [stage] for stage in (-4, -3, -2, -1)},
                "image and stage -1": ["image", -1],
                "image and stages -4 to -1": ["image", -4, -3, -2, -1],
            }.items()
        },
        "texts": {
            str(n): {"method": {"ais": True, "text_count": n}} for n in (1, 2, 4, 6, 8, 10, 12, 16)
        },
        "kind of texts": {k: {"method": {"ais": True, "text_kind": k}} for k in ("fine", "coarse")},
        "AIS weight": {
            str(w): {"method": {"ais": True, "ais_weight": w}} for w in (0.4, 0.8, 1.2, 1.6, 2.4)
        },
        "IADM weight": {str(w): {"method": {"iadm_weight": w}} for w in (0.13, 0.4, 1.28, 4.0)},
    }

    def __init__(self, config: PPSSLConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        dim, looks = backbone.token_dim, config.projections
        self.distillation: TextDistillation | None = None
        if config.distils:
            self.distillation = TextDistillation(config, load_teacher_of(config), dim)
        # What nothing trains does not ship.
        trained = config.distils or config.iadm == "coupled_feat"
        scope = "batch" if config.iadm == "faithful" else config.norm_scope
        self.attention = MaxOutAttention(dim, looks, scope) if trained else None
        self.guidance: Guidance | None = None
        if config.iadm != "none":
            self.guidance = Guidance(config, backbone, looks, shared_norm=trained)
        texts = (config.why_off, config.what_takes_part, config.what_is_released)
        self.notes = tuple(text for text in texts if text)

    @classmethod
    def check(cls, config: Any) -> None:
        """The bank holds the texts that are asked for, and the teacher can be loaded."""
        if config.distils:
            config.words()
            load_teacher_of(config)

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """Eq. 9: contrast plus weighed AIS plus weighed IADM."""
        stages = () if self.guidance is None else self.guidance.stages
        with watched(self.backbone, stages) as passes:
            output = self.base(batch if self.guidance is None else with_leaves(batch), progress)
        tokens = [seen.features.tokens for seen in passes]
        weights = [] if self.attention is None else [self.attention.weights(x) for x in tokens]
        loss, parts = output.loss, {**output.parts, "contrast": output.loss.detach()}
        if self.guidance is not None:
            norm = None if self.attention is None else self.attention.norm
            total = self._total(output, len(batch.rows))
            fit = self.guidance(total, passes, weights, self.backbone, norm)
            loss = loss + self.config.iadm_weight * fit.loss
            parts |= {"iadm": fit.loss.detach(), "target_entropy": fit.entropy}
        if self.distillation is not None:
            pooled = [weighted_average(*pair) for pair in zip(tokens, weights, strict=True)]
            told = [
                self.distillation(feature, seen.images, batch.rows)
                for feature, seen in zip(pooled, passes, strict=True)
            ]
            ais = torch.stack(told).mean()
            loss = loss + self.config.ais_weight * ais
            parts["ais"] = ais.detach()
        return LossOutput(loss, parts, output.carry)

    def _total(self, output: LossOutput, photos: int) -> Tensor:
        if self.config.sign == "+score":
            assert output.similarity is not None
            return output.similarity.sum()
        return output.loss * (1 if self.config.iadm == "faithful" else photos)

    def start_epoch(self, progress: Progress, photos: Any) -> None:
        """Show the teacher each photo's middle square once, where it does not see crops."""
        super().start_epoch(progress, photos)
        part = self.distillation
        if part is None or self.config.teacher_views == "crop" or len(part.bank):
            return
        rows, maker = np.asarray(photos.rows), photos.maker
        # As sharp as the teacher takes it, whatever the student's input is.
        size = getattr(part.teacher, "size", self.backbone.size)
        batches = (
            center_views(maker.store, rows[at : at + 64], size, crop=1.0, device=maker.device)
            for at in range(0, len(rows), 64)
        )
        embedded = embed_photos(part.teacher, (view.images for view in batches))
        part.remember(torch.from_numpy(rows), embedded)

    def identity(self) -> dict[str, Any]:
        """The words of the texts, and where they lie under the teacher."""
        part = self.distillation
        if part is None:
            return {}
        # Two decimals: other arithmetic may round the last digits, another teacher changes the first.
        place = (part.texts.double() @ part.texts.double().T).mul(100).round().int().tolist()
        return {"texts": part.words, "teacher_text_similarity": place}

    def exports(self) -> dict[str, EncoderSpec]:
        """The base's encoders; with attention-weighted pooling, where that was trained."""
        if self.attention is None:
            return self.base.exports()
        return {
            who: EncoderSpec(spec.backbone, inserted={self.attention.kind: self.attention})
            for who, spec in self.base.exports().items()
        }
