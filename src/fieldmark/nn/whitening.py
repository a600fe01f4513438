"""Whitening fitted without labels: rotate embeddings and even out their directions."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fieldmark.errors import InputError
from fieldmark.nn.losses import normalize

# Directions whose variance is below this share of the largest hold rounding only.
_FLOOR = 1e-6


class Whitening(nn.Module):
    """Centre and project; a linear map with no gradient.

    Attributes:
        mean: [D], subtracted first.
        projection: [D, K], directions as columns, scaled by their variance to ``-power``.
    """

    mean: Float[Tensor, " D"]
    projection: Float[Tensor, "D K"]

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim_in))
        self.register_buffer("projection", torch.eye(dim_in, dim_out))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Whiten unit vectors; the result is not normalised."""
        return (x.float() - self.mean) @ self.projection

    def directions(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B K"]:
        """Unit vectors in the whitened space, of vectors of any length, in at least float32."""
        x = normalize(x)
        return normalize((x - self.mean.to(x)) @ self.projection.to(x))

    @torch.no_grad()
    def take(self, fitted: "Whitening") -> None:
        """Become another map; directions beyond its own stay empty, as few photos span few."""
        self.mean.copy_(fitted.mean)
        self.projection.zero_()
        self.projection[:, : fitted.projection.shape[1]] = fitted.projection


def fit_whitening(
    embeddings: Float[Tensor, "N D"] | Iterable[Float[Tensor, "_ D"]], dim: int, power: float = 0.25
) -> Whitening:
    """Principal directions of unlabelled photos, each divided by its variance to a power.

    Args:
        embeddings: L2-normalised embeddings of unlabelled train photos, or chunks of them
            (read once, so any number of photos fits).
        dim: Directions to keep, >= 1; fewer are kept when photos span fewer.
        power: 0 only rotates, 0.5 whitens fully, 0.25 is between and usually best for retrieval.

    Returns:
        The map; apply it to unit vectors. Bits do not depend on the sign LAPACK chooses.

    Raises:
        InputError: If there are fewer than two photos or values are not finite.

    Source:
        Jegou and Chum 2012 (PCA and whitening); the power follows findings of this project.
    """
    mean, covariance, count = _moments(
        [embeddings] if isinstance(embeddings, Tensor) else embeddings
    )
    values, vectors = _directions(covariance)
    kept = _kept(values, dim, count - 1)
    return _whitening(mean, vectors[:, :kept] * values[:kept] ** -power)


def fit_instance_lda(
    views: Float[Tensor, "N V D"], dim: int | None, power: float = 0.5, shrinkage: float = 0.1
) -> Whitening:
    """Suppress directions in which views of one photo differ (instance LDA).

    The covariance within photos says what cropping and colour change; dividing by it keeps what
    tells photos apart. Then the principal directions of the result are kept.

    Args:
        views: L2-normalised embeddings of V >= 2 views of each unlabelled photo.
        dim: Directions to keep, >= 1; None keeps all, also those that no photo spans.
        power: Exponent on the within-photo variances; 0.5 whitens fully.
        shrinkage: Share of the mean variance mixed into each direction, in [0, 1].

    Raises:
        InputError: If there are fewer than two photos or fewer than two views.
    """
    if views.shape[0] < 2 or views.shape[1] < 2:
        raise InputError(
            f"instance LDA needs at least 2 photos with 2 views each, got {views.shape[0]} photos "
            f"with {views.shape[1]}; use whitening kind 'pca'."
        )
    centres = views.double().mean(1)
    _, within, _ = _moments(
        [(views[:, index].double() - centres) for index in range(views.shape[1])], centred=True
    )
    # V deviations from their own mean have V - 1 degrees of freedom.
    within = within * (views.shape[1] / (views.shape[1] - 1))
    values, vectors = _directions(within)
    values = (1 - shrinkage) * values + shrinkage * values.mean()
    values = values.clamp_min(_FLOOR * float(values.max()))
    first = vectors * values**-power
    mean, total, count = _moments([centres])
    if dim is None:
        return _whitening(mean, first)
    spread, turned = _directions(first.T @ total @ first)
    kept = _kept(spread, dim, count - 1)
    return _whitening(mean, first @ turned[:, :kept])


def _moments(
    chunks: Iterable[Tensor], *, centred: bool = False
) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"], int]:
    """Mean and covariance in float64, read chunk by chunk."""
    count = 0
    total: Tensor | None = None
    square: Tensor | None = None
    for chunk in chunks:
        x = chunk.detach().cpu().double()
        if not torch.isfinite(x).all():
            raise InputError(
                "whitening was given embeddings with NaN or infinity; check the weights."
            )
        if total is None or square is None:
            total = x.new_zeros(x.shape[1])
            square = x.new_zeros(x.shape[1], x.shape[1])
        total += x.sum(0)
        square.addmm_(x.T, x)
        count += x.shape[0]
    if total is None or square is None or count < 2:
        raise InputError(
            f"whitening needs at least 2 photos, got {count}; add photos or switch it off "
            "(whiten_dim = 0)."
        )
    mean = torch.zeros_like(total) if centred else total / count
    covariance = square / count - torch.outer(mean, mean)
    return mean, (covariance + covariance.T) / 2, count


def _directions(covariance: Tensor) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
    """Eigenvalues, largest first, and eigenvectors with the largest entry positive."""
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return values, vectors * torch.where(largest < 0, -1.0, 1.0)


def _kept(values: Tensor, dim: int, rank: int) -> int:
    if dim < 1:
        raise InputError(
            f"whiten_dim must be >= 1, got {dim}; leave it out to switch whitening off."
        )
    useful = int((values > _FLOOR * float(values[0])).sum())
    if useful == 0:
        raise InputError(
            "all embeddings are the same, so there is nothing to whiten: the photos all show the same "
            "picture, or the weights are broken; look at some photos, then check the weights."
        )
    return max(1, min(dim, rank, useful))


def _whitening(mean: Tensor, projection: Tensor) -> Whitening:
    result = Whitening(projection.shape[0], projection.shape[1])
    # One scale for all: lengths near 1 keep later float32 arithmetic well conditioned.
    scale = projection.norm(dim=0).mean().clamp_min(1e-30)
    result.mean.copy_(mean)
    result.projection.copy_(projection / scale)
    return result


def normalise(x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Scale rows to length 1 in float32."""
    return functional.normalize(x.float(), dim=1)
