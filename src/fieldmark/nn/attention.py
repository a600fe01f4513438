"""Low-capacity max-out attention: a few linear looks at each cell, the strongest one counts.

Shu, van den Hengel and Liu 2023 ("Learning common rationale", LCR), also in SAM, PP-SSL and LEAD.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.backbones.normalization import SyncedBatchNorm
from fieldmark.nn.cam import rescale
from fieldmark.types import Features


class MaxOutAttention(nn.Module):
    """Weighs each cell of the last map; ships in the encoder as attention-weighted pooling.

    ``a = max over k of ReLU(BN(W_k x))`` per cell, rescaled to [0, 1]; the feature is the average
    over cells of ``a * x``.

    Args:
        dim: Channels of the last map.
        projections: Number K of linear looks; 32 in LCR, 16 in SAM.
        norm_scope: Whether a map is rescaled by its own smallest and largest value (``image``) or
            by the batch's (``batch``, as released; an embedding then depends on its neighbours).

    Source:
        LCR, section 3.2 and released code; K = 32.
    """

    kind: ClassVar[str] = "max_out_attention"

    def __init__(
        self, dim: int, projections: int = 32, norm_scope: Literal["image", "batch"] = "image"
    ) -> None:
        super().__init__()
        self.dim = dim
        self.norm_scope = norm_scope
        self.project = nn.Linear(dim, projections, bias=False)
        self.norm = SyncedBatchNorm(projections)

    def scores(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        """Strongest of the K looks at each cell, >= 0."""
        looks = self.norm(self.project(tokens).flatten(0, 1)).relu()
        return looks.amax(1).unflatten(0, tokens.shape[:2])

    def weights(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        """Weight of each cell in [0, 1]; the largest is 1."""
        return rescale(self.scores(tokens), self.norm_scope)

    def forward(self, features: Features) -> Features:
        """Replace the pooled feature by the attention-weighted average of the cells."""
        weights = self.weights(features.tokens)
        return features._replace(pooled=weighted_average(features.tokens, weights))

    def describe(self) -> dict[str, Any]:
        """Settings to build it from."""
        return {
            "dim": self.dim,
            "projections": self.project.out_features,
            "norm_scope": self.norm_scope,
        }


def weighted_average(
    tokens: Float[Tensor, "B T D"], weights: Float[Tensor, "B T"]
) -> Float[Tensor, "B D"]:
    """Average over cells of weight times feature (LCR: GAP of the Hadamard product)."""
    return torch.einsum("btd,bt->bd", tokens, weights.to(tokens.dtype)) / tokens.shape[1]
