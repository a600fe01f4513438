"""SimCLR: contrast within the batch, without teacher or queue.

Chen et al. 2020, arXiv:2002.05709. Defaults are the paper's.
"""

from typing import Any

from pydantic import Field

from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.methods.method import Method, Summary
from fieldmark.nn.heads import MLPHead
from fieldmark.nn.losses import normalize, nt_xent
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress


class SimCLRConfig(Config):
    """Settings of SimCLR."""

    dim: int = Field(default=128, ge=2)
    """Width of the projections."""
    hidden: int = Field(default=0, ge=0)
    """Width of the head's hidden layer; 0: that of the backbone's feature, as in the paper."""
    head_bn: bool = True
    """Batch-norm after both layers of the head, as in the released code."""
    temperature: float = Field(default=0.1, gt=0)
    """Softmax temperature; 0.1 at the paper's batch of 4,096, 0.5 for short runs (Appendix B)."""
    strength: float = Field(default=1.0, ge=0, le=1.25)
    """Strength of the colour distortion (Appendix A)."""


class SimCLR(Method):
    """Each of 2B views finds its partner among all views of the batch."""

    config_type = SimCLRConfig
    summary = Summary(
        idea="two views of a photo find each other among the photos of the batch",
        needs="any network; no teacher and no queue; large batches",
        when="the simplest baseline; where memory for a second network is short",
        paper="Chen et al. 2020 (ICML), arXiv:2002.05709",
    )
    batch_coupled = True
    synced_statistics = True
    config: SimCLRConfig

    def __init__(self, config: SimCLRConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        dims = (backbone.dim, config.hidden or backbone.dim, config.dim)
        self.head = MLPHead(dims, batch_norm=config.head_bn, last_batch_norm=config.head_bn)

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """Two views from one distribution, with strong colour distortion (Appendix A)."""
        strong = 0.8 * config.strength
        return MultiView(
            specs=(
                ViewSpec(
                    count=2,
                    size=size,
                    scale=(0.08, 1.0),
                    brightness=strong,
                    contrast=strong,
                    saturation=strong,
                    hue=0.2 * config.strength,
                    blur=0.5,
                ),
            )
        )

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """NT-Xent (Eq. 1) over the batch of all processes."""
        first, second = (
            normalize(self.head(self.backbone(view.images).pooled)) for view in batch.views
        )
        loss = nt_xent(
            first,
            second,
            self.config.temperature,
            all_first=runtime.gather_with_gradient(first),
            all_second=runtime.gather_with_gradient(second),
            offset=runtime.rank() * len(first),
        )
        return LossOutput(loss, {}, similarity=(first * second).sum(1))

    def exports(self) -> dict[str, EncoderSpec]:
        """The student, without its head."""
        return {"student": EncoderSpec(self.backbone)}
