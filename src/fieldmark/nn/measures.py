"""Measures of features that need no labels: pure functions of unit vectors, one row per photo."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Pairs of photos compared at a time, which bounds memory to 128 MiB.
_PAIRS = 2**25


def feature_spread(features: Float[Tensor, "N D"]) -> float:
    """Standard deviation over photos, mean over dimensions, times the square root of D.

    Source:
        Chen and He 2021, arXiv:2011.10566, section 4.1: std of unit vectors is 1/sqrt(D) when
        they fill the sphere and 0 when they have collapsed.
    """
    return float(features.std(0, correction=0).mean() * features.shape[1] ** 0.5)


def effective_rank(features: Float[Tensor, "N D"]) -> float:
    """Exponential of the entropy of the singular values (RankMe).

    Source:
        Garrido et al. 2023, arXiv:2210.02885, Eq. 1.
    """
    wide = features.double()
    gram = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def alignment(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> float:
    """Mean squared distance between two views of the same photo.

    Source:
        Wang and Isola 2020, arXiv:2005.10242, Eq. 4 with alpha 2.
    """
    return float((first - second).square().sum(1).mean())


def uniformity(features: Float[Tensor, "N D"]) -> float:
    """Logarithm of the mean Gaussian potential between photos.

    Source:
        Wang and Isola 2020, arXiv:2005.10242, Eq. 5 with t = 2.
    """
    squared = (2 - 2 * features @ features.T).clamp(min=0)
    upper = torch.triu(torch.ones_like(squared, dtype=torch.bool), diagonal=1)
    return float((-2 * squared[upper]).exp().mean().log())


def view_recall(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> float:
    """Share of first views whose nearest second view is their own photo's.

    Equal similarities count as misses, so a collapsed network scores 0.
    """
    similarity = first @ second.T
    own = similarity.diagonal().clone()
    similarity.fill_diagonal_(-torch.inf)
    return float((own > similarity.max(1).values).float().mean())


def nearest(
    features: Float[Tensor, "N D"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """Cosines and rows of the ``k`` nearest other photos, nearest first; all others if fewer."""
    k, at_once = min(k, len(features) - 1), max(1, _PAIRS // len(features))
    cosines, rows = [], []
    for begin in range(0, len(features), at_once):
        similarity = features[begin : begin + at_once] @ features.T
        own = torch.arange(len(similarity), device=features.device)
        similarity[own, own + begin] = -torch.inf
        found = similarity.topk(k)
        cosines.append(found.values)
        rows.append(found.indices)
    return torch.cat(cosines), torch.cat(rows)


def neighbours(features: Float[Tensor, "N D"], k: int) -> Int[Tensor, "N K"]:
    """Rows of the ``k`` nearest other photos by cosine."""
    return nearest(features, k)[1]


def neighbours_kept(before: Int[Tensor, "N K"], after: Int[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """Share of each photo's neighbours that two lists have in common."""
    return (before[:, :, None] == after[:, None, :]).any(2).float().mean(1)


def neighbour_agreement(before: Int[Tensor, "N K"], after: Int[Tensor, "N K"]) -> float:
    """Mean share of neighbours that two lists have in common."""
    return float(neighbours_kept(before, after).mean())
