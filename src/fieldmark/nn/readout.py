"""From features to one embedding per image."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fieldmark.errors import InputError
from fieldmark.types import Features

Pooling = Literal["network", "gap", "gem", "cls", "cls+gap"]


def gem(tokens: Float[Tensor, "B T D"], power: float) -> Float[Tensor, "B D"]:
    """Generalised mean over tokens: 1 is the average, infinity the maximum.

    Args:
        tokens: Features; negative values count as 0.
        power: Exponent, >= 1; 3 is usual.

    Source:
        Radenovic et al. 2019, arXiv:1711.02512, Eq. 3.

    Example:
        >>> gem(torch.tensor([[[1.0], [3.0]]]), 1.0).item()
        2.0
    """
    return tokens.float().clamp_min(1e-6).pow(power).mean(1).pow(1 / power)


class Readout(nn.Module):
    """Pools features; optionally appends earlier stages.

    Args:
        pooling: ``network``: the network's own pooled feature. ``gap``: average of tokens.
            ``gem``: generalised mean. ``cls``: class token. ``cls+gap``: both, concatenated.
        gem_power: Exponent of ``gem``, >= 1.
        stages: Earlier feature maps to append, averaged over the map.
        stage_weight: Length of each appended part; the main part has length 1.

    Raises:
        InputError: In ``forward``, if the network has no class token where one is asked for.
    """

    def __init__(
        self,
        pooling: Pooling = "network",
        *,
        gem_power: float = 3.0,
        stages: tuple[int, ...] = (),
        stage_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.gem_power = gem_power
        self.stages = stages
        self.stage_weight = stage_weight

    def forward(self, features: Features) -> Float[Tensor, "B E"]:
        """Return one vector per image, not normalised unless stages are appended."""
        main = self.pool(features)
        if not self.stages:
            return main
        parts = [functional.normalize(main.float(), dim=1)]
        for stage in features.stages:
            part = stage.float().mean((2, 3))
            parts.append(self.stage_weight * functional.normalize(part, dim=1))
        return torch.cat(parts, 1)

    def pool(self, features: Features) -> Float[Tensor, "B E"]:
        """The main part alone, not normalised."""
        if self.pooling == "network":
            return features.pooled
        if self.pooling == "gap":
            return features.tokens.mean(1)
        if self.pooling == "gem":
            return gem(features.tokens, self.gem_power)
        if features.cls is None:
            raise InputError(
                f"pooling '{self.pooling}' needs a class token and this network has none; "
                "use network, gap or gem."
            )
        if self.pooling == "cls":
            return features.cls
        return torch.cat([features.cls, features.tokens.mean(1)], 1)
