"""Features smoothed over their neighbours: photos that choose each other share what they know."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmark.nn.measures import nearest

# Cosines are cubed, so that near neighbours count far more than the rest of the list.
_SHARPNESS = 3
# What a longer walk over the neighbours could still change.
_LEFT = 1e-6


@torch.no_grad()
def diffuse(features: Float[Tensor, "N D"], neighbours: int, share: float) -> Float[Tensor, "N D"]:
    """Mix every photo's vector with those of its mutual neighbours, and theirs, and so on.

    The result is ``(I - share * S)^-1 F``, one unit vector a row, with ``S`` the symmetrically
    normalised weights of the graph: the cube of the cosine where two photos are among each other's
    nearest, else 0. A photo that nobody chose back keeps its vector. Equal inputs give equal bits.

    Args:
        features: Unit vectors.
        neighbours: Nearest others that a photo may choose, >= 1.
        share: How much of a vector may come from neighbours, in [0, 1); 0 changes nothing.

    Returns:
        Smoothed unit vectors, rows in the same order.

    Raises:
        ValueError: If ``share`` or ``neighbours`` is out of range.

    Source:
        Zhou et al. 2004, "Learning with local and global consistency", closed form; the graph of
        Iscen et al. 2017, arXiv:1611.05113, section 3.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share}; typical: 0.6.")
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}; typical: 5.")
    if share == 0 or len(features) < 2:
        return features
    chosen, weights = _mutual(features, neighbours)
    # Summed as a series: every term is one step further over the graph.
    smooth = features
    for _ in range(math.ceil(math.log(_LEFT) / math.log(share))):
        smooth = features + share * _average(smooth, chosen, weights)
    return torch.nn.functional.normalize(smooth, dim=1)


def _mutual(
    features: Float[Tensor, "N D"], k: int
) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"]]:
    """Nearest others and their normalised weight, 0 where the choice is one-sided."""
    cosines, chosen = nearest(features, k)
    rows = torch.arange(len(features), device=features.device)[:, None]
    back = torch.stack([(chosen[column] == rows).any(1) for column in chosen.T], 1)
    weights = cosines.clamp(min=0) ** _SHARPNESS * back
    degree = weights.sum(1)
    scale = torch.where(degree > 0, degree, 1.0).rsqrt()
    return chosen, weights * scale[:, None] * scale[chosen]


def _average(
    values: Float[Tensor, "N D"], chosen: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N D"]:
    total = torch.zeros_like(values)
    for column, weight in zip(chosen.T, weights.T, strict=True):
        total += weight[:, None] * values[column]
    return total
