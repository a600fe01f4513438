"""How salient a network finds each cell of an image, and masks made of it.

Transformers are read by their attention, as LoDisc does. Convolutional networks have none: the
length of a cell's feature vector stands in for it, which is ours, not the paper's.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.tokens import capture_attention
from fieldmark.types import Features

Layers = Literal["fused", "last"]
Selection = Literal["attention", "random", "inverse"]

_COARSEST_FUSED = 16
"""Stride in pixels of the finest map of a convolutional network that is fused."""


def look(
    backbone: Backbone, images: Float[Tensor, "B 3 H W"], layers: Layers = "fused"
) -> tuple[Features, Float[Tensor, "B h w"]]:
    """Features, and the saliency of each cell, from one pass.

    Args:
        backbone: Any network; unfused attention is computed in this pass only.
        images: RGB in [0, 1].
        layers: How transformers' attention, where it is between cells, or else energy is taken.
            ``fused``: all blocks (for convolutional networks all maps with a stride of 16
            pixels or more); ``last``: the last one only.

    Returns:
        The backbone's features and scores whose order matters, not their size.

    Source:
        Shi et al. 2024, arXiv:2403.04066; the form for convolutional networks is ours.
    """
    if not (backbone.is_transformer and backbone.attention_blocks):
        return _look_at_energy(backbone, images, layers)
    blocks = tuple(range(backbone.attention_blocks)) if layers == "fused" else (-1,)
    name = str(backbone.config.name)
    # Heads are averaged as they come: all heads of all blocks would fill the memory.
    with capture_attention(backbone.network, blocks, name, reduce=_mean_of_heads) as maps:
        features = backbone(images)
        count = features.tokens.shape[1]
        if any(attention.shape[1] != count + backbone.layout.prefix for attention in maps()):
            # Not between cells, such as XCiT's, which is between channels.
            return features, energy([features.tokens.transpose(1, 2).unflatten(2, features.shape)])
        by_class = features.cls is not None and _pools_class_token(backbone)
        rows = [attention_row(attention, count, by_class=by_class) for attention in maps()]
    return features, fuse(rows).unflatten(1, features.shape)


def _look_at_energy(
    backbone: Backbone, images: Tensor, layers: Layers
) -> tuple[Features, Float[Tensor, "B h w"]]:
    strides = backbone.stage_strides if layers == "fused" else ()
    stages = tuple(i for i, stride in enumerate(strides) if stride >= _COARSEST_FUSED)
    features = backbone(images, stages=stages)
    maps = [*features.stages]
    # In most networks the last stage is the last map, which would count twice.
    if not maps or not _same_memory(maps[-1], features.last):
        maps.append(features.tokens.transpose(1, 2).unflatten(2, features.shape))
    return features, energy(maps)


def _same_memory(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.data_ptr() == other.data_ptr()


def _pools_class_token(backbone: Backbone) -> bool:
    """Whether the pooled feature is made of the class token; BEiT and EVA-02 average the cells."""
    return getattr(backbone.network, "global_pool", "token") in ("token", "")


def _mean_of_heads(attention: Float[Tensor, "B heads S S"]) -> Float[Tensor, "B S S"]:
    half = attention.dtype in (torch.float16, torch.bfloat16)
    return (attention.float() if half else attention).mean(1)


def attention_row(
    attention: Float[Tensor, "B S S"], cells: int, *, by_class: bool
) -> Float[Tensor, "B T"]:
    """What the image's summary attends to: the class token's row, its own columns left out.

    Args:
        attention: One block's attention, averaged over heads; rows sum to 1.
        cells: T, the grid's cells; they come last, after class and register tokens.
        by_class: Whether the summary is the class token, the first one. Else the mean of the cells'
            own rows is taken: such networks pool cells evenly, so it is what their summary attends to.
    """
    prefix = attention.shape[2] - cells
    if by_class and prefix > 0:
        return attention[:, 0, prefix:]
    return attention[:, prefix:, prefix:].mean(1)


def fuse(layers: Sequence[Float[Tensor, "B T"]]) -> Float[Tensor, "B T"]:
    """Sum of logarithms over layers.

    The paper multiplies the layers' maps; in the logarithm the order is the same and twelve
    factors of 1/196 do not underflow.

    Args:
        layers: At least one map of numbers >= 0; 0 counts as the smallest positive number.
    """
    return torch.stack([x.clamp_min(torch.finfo(x.dtype).tiny).log() for x in layers]).sum(0)


def energy(maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B h w"]:
    """Length of each cell's feature vector, fused over maps on the first one's grid.

    Ours: where a convolutional network responds strongly, the mean over cells that is its summary
    is decided.

    Args:
        maps: Feature maps, the finest first.
    """
    lengths = []
    for features in maps:
        half = features.dtype in (torch.float16, torch.bfloat16)
        length = (features.float() if half else features).norm(dim=1, keepdim=True)
        if length.shape[2:] != maps[0].shape[2:]:
            length = functional.interpolate(length, size=maps[0].shape[2:], mode="bilinear")
        lengths.append(length.flatten(1))
    return fuse(lengths).unflatten(1, maps[0].shape[2:])


def keep_cells(
    saliency: Float[Tensor, "B h w"], share: float, *, inclusive: bool = False
) -> Bool[Tensor, "B h w"]:
    """Keep the most salient cells.

    Args:
        saliency: Scores; ties are broken row by row, so that the count is exact.
        share: Share of cells to keep, in (0, 1]; at least one cell is kept.
        inclusive: Whether the cell at the threshold stays too. The threshold is the value at rank
            floor(share x cells), counted from 0: of 196 cells at 0.3 "greater" keeps 58,
            "greater or equal" 59.

    Raises:
        ValueError: If share is outside (0, 1].

    Example:
        >>> keep_cells(torch.rand(1, 14, 14), 0.3).sum().item()
        58
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must be in (0, 1], got {share}; LoDisc keeps 0.3.")
    flat = saliency.flatten(1)
    cells = flat.shape[1]
    # 0.29 x 100 is a little below 29 in floating point.
    count = min(cells, max(1, math.floor(share * cells + 1e-9) + inclusive))
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    kept = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, True)
    return kept.unflatten(1, saliency.shape[1:])


def order_cells(
    saliency: Float[Tensor, "B h w"], selection: Selection, seed: int
) -> Float[Tensor, "B h w"]:
    """Scores by which cells are kept: the saliency, its opposite, or random ones.

    Args:
        saliency: Scores.
        selection: ``attention`` keeps the most salient, ``inverse`` the least, ``random`` any.
        seed: Of the random scores; the same on every device.
    """
    if selection == "attention":
        return saliency
    if selection == "inverse":
        return -saliency
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(saliency.shape, generator=generator).to(saliency.device)


def show_cells(
    images: Float[Tensor, "B 3 H W"],
    kept: Bool[Tensor, "B h w"],
    colour: Float[Tensor, "1 3 1 1"],
) -> Float[Tensor, "B 3 H W"]:
    """Paint everything but the kept cells in one colour.

    Args:
        images: RGB in [0, 1].
        kept: Cells that stay, each a rectangle of pixels.
        colour: The network's mean colour: exactly zero once the network has normalised it.
    """
    grid = kept[:, None].to(torch.uint8)
    shown = functional.interpolate(grid, size=images.shape[2:], mode="nearest").bool()
    # Not cast to the images' type: a rounded mean would not become zero.
    return torch.where(shown, images, colour)


class MaskHits(NamedTuple):
    """How a mask and a box lie to each other, per image; all in [0, 1]."""

    inside: Float[Tensor, " B"]
    """Share of the kept area that lies in the box."""
    covered: Float[Tensor, " B"]
    """Share of the box that is kept."""
    area: Float[Tensor, " B"]
    """Share of the image that the box takes: what a blind mask has inside, on average."""
    kept: Float[Tensor, " B"]
    """Share of the image that is kept: what a blind mask covers, on average."""


def mask_hits(kept: Bool[Tensor, "B h w"], boxes: Float[Tensor, "B 4"]) -> MaskHits:
    """Compare masks with boxes; cells on the border count by the area that is inside.

    Args:
        kept: Cells that stay.
        boxes: x0 y0 x1 y1 as fractions of the image; what lies beyond it does not count.

    Returns:
        Shares. The lift over a blind mask is ``inside / area``, which equals ``covered / kept``.
        ``inside`` is 0 for empty masks and ``covered`` 0 for empty boxes.

    Example:
        >>> hits = mask_hits(torch.eye(2).bool()[None], torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
        >>> hits.inside.item(), hits.covered.item()
        (0.5, 0.5)
    """
    boxes = boxes.double()
    columns = _overlap(kept.shape[2], boxes[:, 0], boxes[:, 2])
    rows = _overlap(kept.shape[1], boxes[:, 1], boxes[:, 3])
    within = rows[:, :, None] * columns[:, None, :]
    both = (within * kept).sum((1, 2))
    area, total = within.sum((1, 2)), kept.double().mean((1, 2))
    tiny = torch.finfo(torch.float64).tiny
    return MaskHits(both / total.clamp_min(tiny), both / area.clamp_min(tiny), area, total)


def _overlap(
    cells: int, low: Float[Tensor, " B"], high: Float[Tensor, " B"]
) -> Float[Tensor, "B cells"]:
    """Length of each cell of [0, 1] that lies between two bounds."""
    edges = torch.arange(cells + 1, dtype=low.dtype, device=low.device) / cells
    last = torch.minimum(edges[1:], high[:, None])
    return (last - torch.maximum(edges[:-1], low[:, None])).clamp_min(0)
