"""Contrastive losses: pure functions of unit vectors, computed in at least float32."""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor


def _check(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; typical: 0.07 to 0.5.")


def full(x: Tensor) -> Tensor:
    """At least float32."""
    # Half precision has 8 to 11 bits: logits of 1/temperature would lose the differences between
    # look-alikes.
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def normalize(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Unit vectors along the last axis, in at least float32."""
    return F.normalize(full(x), dim=-1)


def info_nce(
    query: Float[Tensor, "B D"],
    key: Float[Tensor, "B D"],
    negatives: Float[Tensor, "N D"],
    temperature: float,
    *,
    masked: Bool[Tensor, "B N"] | None = None,
    include_positive: bool = True,
) -> Float[Tensor, ""]:
    """Cross-entropy of each query's own key against shared negatives.

    Args:
        query: Unit vectors; gradients flow here.
        key: Unit vectors, row i matching query i; detached.
        negatives: Unit vectors; detached.
        temperature: Softmax temperature, > 0 (no unit).
        masked: Negatives to leave out per query, such as keys of the same photo.
        include_positive: Whether the query's own key is in the denominator; without it the loss can
            be negative (decoupled contrast, Yeh et al. 2022, arXiv:2110.06848, Eq. 6).

    Returns:
        Mean loss in nats. At random initialisation close to log(N + 1) for temperature 1.

    Raises:
        ValueError: If temperature is not positive.

    Source:
        He et al. 2020, arXiv:1911.05722, Eq. 1.

    Example:
        >>> x = torch.eye(2)
        >>> round(info_nce(x, x, -x, 1.0).item(), 3)
        0.408
    """
    _check(temperature)
    with torch.autocast(query.device.type, enabled=False):
        query, key, negatives = full(query), full(key), full(negatives)
        positive = (query * key).sum(1) / temperature
        others = query @ negatives.T / temperature
        if masked is not None:
            others = others.masked_fill(masked, -torch.inf)
        # log(e^p + sum e^n) - p, without joining the two: the joined copy would be B x (N + 1).
        denominator = others.logsumexp(1)
        if include_positive:
            denominator = torch.logaddexp(positive, denominator)
        return (denominator - positive).mean()


def batch_contrast(
    query: Float[Tensor, "B D"], keys: Float[Tensor, "N D"], temperature: float, *, offset: int = 0
) -> Float[Tensor, ""]:
    """Each query's own key against all keys of the batch, times twice the temperature.

    Args:
        query: Unit vectors; gradients flow here.
        keys: Unit vectors of the whole batch over all processes; detached.
        temperature: Softmax temperature, > 0. The factor 2 x temperature keeps the size of the
            gradient the same when the temperature changes.
        offset: Row of ``keys`` that matches query 0: rank x B.

    Raises:
        ValueError: If temperature is not positive.

    Source:
        Chen, Xie and He 2021, arXiv:2104.02057, Algorithm 1 (``ctr``).
    """
    _check(temperature)
    with torch.autocast(query.device.type, enabled=False):
        logits = full(query) @ full(keys).T / temperature
        target = torch.arange(len(query), device=query.device) + offset
        return 2 * temperature * F.cross_entropy(logits, target)


def nt_xent(
    first: Float[Tensor, "B D"],
    second: Float[Tensor, "B D"],
    temperature: float,
    *,
    all_first: Float[Tensor, "N D"] | None = None,
    all_second: Float[Tensor, "N D"] | None = None,
    offset: int = 0,
) -> Float[Tensor, ""]:
    """Each of 2B views finds its partner among the other 2N - 1 views of the batch.

    Args:
        first: Unit vectors of the first views.
        second: Unit vectors of the second views, row i from the same photo.
        temperature: Softmax temperature, > 0.
        all_first: First views of every process, with gradient; default ``first``.
        all_second: Second views of every process, with gradient; default ``second``.
        offset: Row of ``all_first`` that holds ``first``'s row 0: rank x B.

    Returns:
        Mean over the 2B views, in nats.

    Raises:
        ValueError: If temperature is not positive.

    Source:
        Chen et al. 2020, arXiv:2002.05709, Eq. 1 and Algorithm 1.
    """
    _check(temperature)
    with torch.autocast(first.device.type, enabled=False):
        first, second = full(first), full(second)
        all_first = first if all_first is None else full(all_first)
        all_second = second if all_second is None else full(all_second)
        everyone = torch.cat([all_first, all_second])
        logits = torch.cat([first, second]) @ everyone.T / temperature
        row = torch.arange(len(first), device=first.device) + offset
        itself = torch.cat([row, row + len(all_first)])
        partner = torch.cat([row + len(all_first), row])
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        return F.cross_entropy(logits, partner)
