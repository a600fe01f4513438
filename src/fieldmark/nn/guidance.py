"""IADM of PP-SSL: attention is fitted to where the loss looks, seen from the image itself.

Li et al. 2024, arXiv:2412.00134, "Image-level Auxiliary Distilling Module". Attaches to any
contrastive method; nothing of it is needed for inference. What the released form does and does not
do is in docs/methods.md.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.normalization import SyncedBatchNorm
from fieldmark.backbones.watched import Pass, feeding, stage_cells
from fieldmark.config import Config
from fieldmark.errors import ConfigError, InputError
from fieldmark.nn.cam import (
    Sign,
    activation_map,
    coarsen,
    gradients,
    map_divergence,
    map_entropy,
    rescale,
)
from fieldmark.types import Batch

Layer = Literal["image"] | int
"""The image, or a stage: an index into the backbone's ``stage_dims``, negative from the end."""

GuidanceForm = Literal["coupled_feat", "second_order", "faithful", "none"]
"""How the map is fitted; see :class:`GuidanceConfig`."""


class GuidanceConfig(Config):
    """Settings of IADM."""

    iadm: GuidanceForm = "coupled_feat"
    """What fits the gradient map: the encoder's own attention (coupled_feat); an attention on the
    image, with second derivatives (second_order) or as released (faithful); or nothing."""
    iadm_weight: float = Field(default=1.28, ge=0)
    """Weight of the map's divergence, averaged over photos; the released 0.01 on a sum over 128
    photos is 1.28 here."""
    layers: tuple[Layer, ...] = Field(default=("image",), min_length=1)
    """Where the gradient map is taken: the image, or stages by number, negative from the end: -1
    is the last, -4 to -1 are layer1 to layer4 of a ResNet, the stages of ConvNeXt and Swin, and the
    last four blocks of a vision transformer (which refuses -1 where it pools its class token)."""
    sign: Sign = "+loss"
    """Which cells the map keeps: those that raise the loss (+loss, as released), those that lower
    it (-loss), or those that raise the similarity of the two views (+score)."""
    map_temperature: float = Field(default=0.4, gt=0)
    """Temperature of both softmaxes; faithful uses 1."""

    @property
    def what_is_released(self) -> str:
        """What the user should know of the released form; empty for others."""
        if self.iadm != "faithful":
            return ""
        return (
            "IADM is in its released form (method.iadm = 'faithful'): taken at the image, its loss "
            "gives the encoder no gradient; 'coupled_feat' does (docs/methods.md)."
        )


class Fit(NamedTuple):
    """What fitting one batch came to."""

    loss: Float[Tensor, ""]
    """Mean divergence over passes and layers, with gradient."""
    entropy: Float[Tensor, ""]
    """Of the targets, as a share of the largest possible; near 1 there is nothing to fit."""


def with_leaves(batch: Batch) -> Batch:
    """The same batch, of whose images derivatives can be taken."""
    return batch._replace(
        views=tuple(
            view._replace(
                images=view.images.detach()
                .to(torch.promote_types(view.images.dtype, torch.float32))
                .requires_grad_()
            )
            for view in batch.views
        )
    )


def layer_cells(
    x: Float[Tensor, "B ..."], layer: Layer, backbone: Backbone, seen: Pass
) -> Float[Tensor, "B h w D"]:
    """Bring what a layer holds, or a derivative of it, into one layout."""
    if layer == "image":
        return x.permute(0, 2, 3, 1)
    return stage_cells(x, backbone, layer, seen.features)


def guidance_maps(
    total: Float[Tensor, ""],
    passes: Sequence[Pass],
    layers: Sequence[Layer],
    backbone: Backbone,
    *,
    sign: Sign = "+loss",
    create_graph: bool = False,
) -> list[list[Float[Tensor, "B h w"]]]:
    """Where a loss looks, at several layers at once: gradient times activation (Eq. 5 and 6).

    Args:
        total: Per-sample *sum* of a loss or score, or a mean where the released scale is wanted.
        passes: What :func:`fieldmark.backbones.watched.watched` recorded, with the stages among
            ``layers`` in their order; images are leaves that need gradient.
        layers: Where to take maps.
        backbone: The network that was watched.
        sign: See :class:`GuidanceConfig`.
        create_graph: Whether the maps carry gradient.

    Returns:
        For each pass, a map per layer, >= 0, as fine as the layer is; the image's as fine as it.

    Raises:
        InputError: If a layer takes no part in ``total``.
    """
    sources = [_source(seen, layers, layer) for seen in passes for layer in layers]
    found = iter(gradients(total, sources, create_graph=create_graph))
    maps = []
    for seen in passes:
        row = []
        for layer in layers:
            source = _source(seen, layers, layer).detach()
            if layer == "image":
                # The map is of the normalised image (x - m) / s, whose derivative is s times that
                # of x: the spread cancels.
                source = source - backbone.mean.to(source)
            activation = layer_cells(source, layer, backbone, seen)
            gradient = layer_cells(next(found), layer, backbone, seen)
            row.append(activation_map(activation, gradient, sign))
        maps.append(row)
    return maps


def _source(seen: Pass, layers: Sequence[Layer], layer: Layer) -> Tensor:
    return seen.images if layer == "image" else seen.stages[stages_of(layers).index(layer)]


def stages_of(layers: Sequence[Layer]) -> tuple[int, ...]:
    """The stages among some layers, in their order."""
    return tuple(layer for layer in layers if layer != "image")


class Guidance(nn.Module):
    """Fits attention to the loss's own gradient map.

    Args:
        config: Settings.
        backbone: The student's network; it is not held.
        projections: Linear looks of the attention on the image.
        shared_norm: Whether ``forward`` will be given the batch-norm that ``faithful`` shares.

    Raises:
        ConfigError: If second derivatives are asked for and the network has none.
        InputError: If the network lacks a stage that is asked for, or its feature is not computed
            from that stage's cells.
    """

    def __init__(
        self,
        config: GuidanceConfig,
        backbone: Backbone,
        projections: int,
        *,
        shared_norm: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.stages = stages_of(config.layers)
        self.coupled = config.iadm == "coupled_feat"
        self.second_order = config.iadm == "second_order"
        self.faithful = config.iadm == "faithful"
        # Refused now rather than at the first step.
        for stage, feeds in zip(self.stages, feeding(backbone, self.stages), strict=True):
            if not feeds:
                raise InputError(
                    f"method.layers holds {stage}, but '{backbone.config.name}' does not compute "
                    "its feature from the cells of that stage (it reads a class token), so no "
                    "gradient arrives there; choose an earlier stage such as -2, or the image."
                )
        if self.second_order:
            _refuse_fused(backbone)
        self.branches = nn.ModuleList()
        if not self.coupled:
            for layer in config.layers:
                dim = 3 if layer == "image" else backbone.stage_dims[layer]
                self.branches.append(nn.Linear(dim, projections, bias=False))
        # Of its own unless faithful: pixels and features have other statistics.
        without = self.coupled or (self.faithful and shared_norm)
        self.norm = None if without else SyncedBatchNorm(projections)

    def forward(
        self,
        total: Float[Tensor, ""],
        passes: Sequence[Pass],
        weights: Sequence[Float[Tensor, "B T"]],
        backbone: Backbone,
        norm: nn.Module | None = None,
    ) -> Fit:
        """Divergence of attention from the gradient map, at every pass and layer.

        Args:
            total: What the map explains: the batch's *sum*; the mean when ``faithful``.
            passes: See :func:`guidance_maps`.
            weights: The encoder's attention in each pass, >= 0.
            backbone: The network that was watched.
            norm: Batch-norm of the encoder's attention, which the released code uses on the image
                too; used only where this module has none of its own.
        """
        config = self.config
        maps = guidance_maps(
            total,
            passes,
            config.layers,
            backbone,
            sign=config.sign,
            create_graph=self.second_order,
        )
        losses, entropies = [], []
        temperature = 1.0 if self.faithful else config.map_temperature
        for place, (seen, row) in enumerate(zip(passes, maps, strict=True)):
            for index, fine in enumerate(row):
                target = coarsen(fine, seen.features.shape)
                if self.coupled:
                    fitted = weights[place].unflatten(1, seen.features.shape)
                else:
                    fitted = self._attention(index, seen, backbone, norm)
                if not self.faithful:
                    target = rescale(target, "image")
                told = {"temperature": temperature, "rows": self.faithful}
                losses.append(map_divergence(target, fitted, **told))  # type: ignore[arg-type]
                entropies.append(map_entropy(target, **told))  # type: ignore[arg-type]
        return Fit(torch.stack(losses).mean(), torch.stack(entropies).mean())

    def _attention(
        self, index: int, seen: Pass, backbone: Backbone, norm: nn.Module | None
    ) -> Float[Tensor, "B h w"]:
        """Max-out attention on what a layer holds, as coarse as the grid (Eq. 7)."""
        layer = self.config.layers[index]
        source = _source(seen, self.config.layers, layer)
        if layer == "image":
            source = source.detach()
            source = (source - backbone.mean.to(source)) / backbone.std.to(source)
        cells = layer_cells(source, layer, backbone, seen)
        used = self.norm or norm
        assert used is not None
        looks = used(self.branches[index](cells).flatten(0, 2)).relu().amax(1)
        found = rescale(looks.view(cells.shape[:3]), "batch" if self.faithful else "image")
        return coarsen(found, seen.features.shape)


def _refuse_fused(backbone: Backbone) -> None:
    if any(getattr(module, "fused_attn", False) for module in backbone.modules()):
        raise ConfigError(
            "method.iadm = 'second_order' takes second derivatives, and the fused attention of "
            f"'{backbone.config.name}' has none; set TIMM_FUSED_ATTN=0 in the environment, or use "
            "method.iadm = 'coupled_feat'."
        )
