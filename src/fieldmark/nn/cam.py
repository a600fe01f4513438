"""Gradient maps: where a loss looks, as one coarse map per image.

Selvaraju et al. 2017, arXiv:1610.02391, in the form of Shu, van den Hengel and Liu 2023 (LCR):
gradient times activation, cell by cell, without averaging the gradient first. The rules they obey
are in docs/design.md, "Gradient maps".
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fieldmark.errors import InputError
from fieldmark.nn.losses import full

Sign = Literal["+loss", "-loss", "+score"]
"""Which cells a map keeps: those that raise the loss, those that lower it, or those that raise the
similarity of a photo's two views."""

# Half precision loses gradients below 6e-8; a factor that is taken out again in float32 does not.
_SCALE = 1024.0


def gradients(
    total: Float[Tensor, ""], sources: Sequence[Tensor], *, create_graph: bool = False
) -> list[Tensor]:
    """First derivatives of a per-sample *sum*, in float32.

    The graph is kept: the loss is propagated back again later.

    Args:
        total: Sum over the batch of what is explained, so that a map does not depend on how many
            photos share the batch.
        sources: Tensors of the graph.
        create_graph: Whether the derivatives may be differentiated again.

    Raises:
        InputError: If one of them takes no part in ``total``.
    """
    with torch.autocast(total.device.type, enabled=False):
        found = torch.autograd.grad(
            full(total) * _SCALE,
            list(sources),
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    if any(gradient is None for gradient in found):
        raise InputError(
            "a gradient map was asked for of a layer that this network's feature does not pass "
            "through; choose other layers (the last map and the image always work)."
        )
    return [full(gradient) / _SCALE for gradient in found]


def activation_map(
    activation: Float[Tensor, "B h w D"], gradient: Float[Tensor, "B h w D"], sign: Sign = "+loss"
) -> Float[Tensor, "B h w"]:
    """``ReLU(sum over channels of activation x gradient)``, the gradient's sign turned if asked.

    Source:
        LCR as released (``+loss``); PP-SSL (arXiv:2412.00134), Eq. 6, on the image's channels.
    """
    product = (activation.to(gradient.dtype) * gradient).sum(-1)
    return functional.relu(-product if sign == "-loss" else product)


def rescale(x: Float[Tensor, "B ..."], scope: Literal["image", "batch"]) -> Float[Tensor, "B ..."]:
    """Shift and scale to [0, 1], each image alone or the whole batch by one minimum and maximum.

    An even map becomes all ones: it prefers nothing.

    Source:
        LCR as released normalises the batch (methods as ``batch``); one image's map then depends
        on which others happen to be beside it.
    """
    flat = x.flatten(1)
    if scope == "image":
        low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    else:
        low, high = flat.amin().reshape(1, 1), flat.amax().reshape(1, 1)
    spread = high - low
    even = spread <= 1e-7 * high.abs().clamp_min(1e-30)
    scaled = torch.where(even, torch.ones_like(flat), (flat - low) / (spread + 1e-7 * even))
    return scaled.view_as(x)


def coarsen(x: Float[Tensor, "B H W"], shape: tuple[int, int]) -> Float[Tensor, "B h w"]:
    """Largest value of each cell of a coarser grid (PP-SSL: max-pooling 224 px to 7 x 7)."""
    return functional.adaptive_max_pool2d(x[:, None], shape)[:, 0]


def log_shares(
    x: Float[Tensor, "B h w"], temperature: float, *, rows: bool
) -> Float[Tensor, "B _ _"]:
    """Logarithm of ``softmax(x/t)``: over each row [B h w], or over all cells [B 1 h*w]."""
    cells = x if rows else x.flatten(1)[:, None]
    return functional.log_softmax(cells / temperature, dim=-1)


def map_divergence(
    target: Float[Tensor, "B h w"],
    fitted: Float[Tensor, "B h w"],
    *,
    temperature: float = 0.4,
    rows: bool = False,
) -> Float[Tensor, ""]:
    """How far a map is from the one it is to fit: ``KL(softmax(target/t) || softmax(fitted/t))``.

    Args:
        target: What to fit.
        fitted: The map that learns.
        temperature: Softmax temperature, > 0.
        rows: Softmax over each row of cells instead of all cells, as LCR's and PP-SSL's released
            code does; an image's target then sums to the number of rows.

    Returns:
        Sum over cells, mean over images, in nats: times the batch size it is the ``sum`` reduction
        of the released code.

    Raises:
        ValueError: If the temperature is not positive.

    Source:
        LCR, weight 0.01 on the sum over a batch of 128, so 1.28 here.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; LCR's BYOL form uses 0.4.")
    log_p, log_q = (log_shares(x, temperature, rows=rows) for x in (target, fitted))
    return (log_p.exp() * (log_p - log_q)).sum((1, 2)).mean()


def map_entropy(
    target: Float[Tensor, "B h w"], *, temperature: float = 0.4, rows: bool = False
) -> Float[Tensor, ""]:
    """Entropy of what is to be fitted, as a share of the largest possible; 1 says: nothing.

    A target near 1 is even, and fitting it only flattens the attention (docs/methods.md).
    """
    # Not every device has doubles.
    wide = torch.float32 if target.device.type == "mps" else torch.float64
    log_p = log_shares(target.detach().to(wide), temperature, rows=rows)
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    return (entropy / math.log(max(2, log_p.shape[-1]))).float()
