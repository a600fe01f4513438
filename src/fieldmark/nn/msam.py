"""Multi-scale attention: feature maps of several scales, weighed anew for each image.

Lin, Tseng, Wu, Huang and Lai 2025 give ``F = sum_i alpha_i F_i`` and no more: kernel sizes, the form
of the attention and where it is inserted are our reading (docs/methods.md). All three forms leave
the network as it was at step 0: what they add is multiplied by ``gamma``, which starts at 0.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.insertion import as_tokens
from fieldmark.errors import InputError
from fieldmark.types import Features

DILATIONS = (0, 1, 2, 3)
"""Of each branch's depthwise 3x3 convolution; 0: 1x1. Receptive fields 1, 3, 5, 7."""


class ScaleWeights(nn.Module):
    """How much each scale counts: ``alpha = softmax_i(w2_i . ReLU(W1 GAP(F_i)))``.

    Args:
        scales: Number of maps.
        channels: Channels of each map.
        per_channel: One weight per scale and channel, as SK-Net has, not per scale.
    """

    def __init__(self, scales: int, channels: int, *, per_channel: bool = False) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        self.first = nn.Linear(channels, hidden)
        wide = channels if per_channel else 1
        self.second = nn.Parameter(torch.randn(scales, wide, hidden) / hidden**0.5)

    def forward(self, maps: list[Float[Tensor, "B C h w"]]) -> Float[Tensor, "B n _"]:
        """Weights >= 0 that sum to 1 over scales [B n 1], or [B n C] per channel."""
        pooled = torch.stack([item.mean((2, 3)) for item in maps], 1)
        hidden = functional.relu(self.first(pooled))
        scores = torch.einsum("bnd,ncd->bnc", hidden, self.second.to(hidden.dtype))
        return scores.float().softmax(1).to(pooled.dtype)


def _fuse(
    maps: list[Float[Tensor, "B C h w"]], alpha: Float[Tensor, "B n _"]
) -> Float[Tensor, "B C h w"]:
    """``F = sum_i alpha_i F_i`` (section 2.1 of the paper)."""
    return sum(  # type: ignore[return-value]
        weight[:, :, None, None] * item for weight, item in zip(alpha.unbind(1), maps, strict=True)
    )


def _layer(wide: int, narrow: int, **settings: Any) -> nn.Sequential:
    conv = nn.Conv2d(wide, narrow, bias=False, **settings)
    return nn.Sequential(conv, nn.BatchNorm2d(narrow), nn.ReLU())


class Gated(nn.Module):
    """What is added to a network, multiplied by ``gamma``, which starts at 0.

    Attributes:
        rate: Learning rate relative to the network's. No property of an encoder: not exported.
    """

    gamma: nn.Parameter
    rate: float = 1.0

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser, as backbones tell it."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {
                "params": [p for p in trained if (p.ndim > 1) == decay],
                "lr_ratio": self.rate,
                "decay": decay,
                "name": f"msam{'' if decay else '.no_decay'}",
            }
            for decay in (False, True)
        ]


class MSAMBlock(Gated):
    """Adds to a map what four receptive fields see, weighed per image: ``X + gamma BN(W F)``.

    Args:
        channels: Channels of the map.
        width: Channels inside; 0: a quarter, at least 4.
        per_channel: Weigh each channel of a scale by itself.
    """

    kind: ClassVar[str] = "msam_block"

    def __init__(self, channels: int, *, width: int = 0, per_channel: bool = False) -> None:
        super().__init__()
        self.settings = {"channels": channels, "width": width, "per_channel": per_channel}
        width = width or max(4, channels // 4)
        self.reduce = _layer(channels, width, kernel_size=1)
        self.branches = nn.ModuleList(
            _layer(width, width, kernel_size=3, dilation=step, padding=step, groups=width)
            if step
            else _layer(width, width, kernel_size=1, groups=width)
            for step in DILATIONS
        )
        self.weights = ScaleWeights(len(DILATIONS), width, per_channel=per_channel)
        self.expand = nn.Conv2d(width, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The map with what the scales add; the map itself while gamma is 0."""
        reduced = self.reduce(x)
        maps = [branch(reduced) for branch in self.branches]
        fused = _fuse(maps, self.weights(maps))
        return x + (self.gamma * self.norm(self.expand(fused))).to(x.dtype)

    def describe(self) -> dict[str, Any]:
        """Plain settings to build it anew."""
        return dict(self.settings)


class MSAMStem(MSAMBlock):
    """The block on the image before the encoder, as the paper's section 2.1 says literally.

    Args:
        width: Channels inside; more cost much, for the map is as large as the image.
        per_channel: Weigh each channel of a scale by itself.
    """

    kind: ClassVar[str] = "msam_stem"

    def __init__(self, *, width: int = 8, per_channel: bool = False) -> None:
        super().__init__(3, width=width, per_channel=per_channel)
        del self.settings["channels"]


class MSAMPyramid(Gated):
    """Adds to the last map what earlier stages hold, weighed per image: ``C5 + gamma W F``.

    Each stage is averaged to the last map's grid, then brought to one width; the other order, which
    the reconstruction has, computes the same and costs more. The pooled feature gains
    ``gamma GAP(W F)``: exactly the average of the new map where the network's own is an average.

    Args:
        stages: Which stages, negative from the end.
        dims: Channels of each.
        dim: Channels of the last map, and length of the pooled feature.
        width: Channels of the maps that are weighed; 0: a quarter of ``dim``, 512 for ResNet-50.
        per_channel: Weigh each channel of a stage by itself.
    """

    kind: ClassVar[str] = "msam_pyramid"

    def __init__(
        self,
        stages: Sequence[int],
        dims: Sequence[int],
        dim: int,
        *,
        width: int = 0,
        per_channel: bool = False,
    ) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.settings = {
            "stages": list(stages),
            "dims": list(dims),
            "dim": dim,
            "width": width,
            "per_channel": per_channel,
        }
        width = width or max(4, dim // 4)
        self.laterals = nn.ModuleList(_layer(wide, width, kernel_size=1) for wide in dims)
        self.weights = ScaleWeights(len(dims), width, per_channel=per_channel)
        self.expand = nn.Conv2d(width, dim, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, features: Features) -> Features:
        """Features whose last map and pooled feature hold what the stages add."""
        maps = [
            lateral(functional.adaptive_avg_pool2d(stage, features.shape))
            for lateral, stage in zip(self.laterals, features.stages, strict=True)
        ]
        fused = self.gamma * self.expand(_fuse(maps, self.weights(maps)))
        return features._replace(
            pooled=features.pooled + fused.mean((2, 3)).to(features.pooled.dtype),
            tokens=features.tokens + as_tokens(fused).to(features.tokens.dtype),
        )

    def describe(self) -> dict[str, Any]:
        """Plain settings to build it anew."""
        return dict(self.settings)


Form = Literal["block", "pyramid", "stem", "none"]


def insert_msam(
    backbone: Backbone,
    form: Form,
    stages: tuple[int, ...] = (),
    *,
    per_channel: bool = False,
    rate: float = 1.0,
) -> None:
    """Put multi-scale attention into a backbone.

    Args:
        backbone: Changed in place.
        form: ``block``: one after each of some stages. ``pyramid``: some stages fused into the last
            map. ``stem``: on the image. ``none``: nothing.
        stages: Indices of ``stage_dims``, negative from the end. Empty: the last four, for blocks
            without the last (ResNet-50's layer1 to layer3), as far as the network has them.
        per_channel: Weigh each channel of a scale by itself.
        rate: Learning rate of what is put in, relative to the network's, > 0.

    Raises:
        InputError: If the network has no such stages, or no last map that the pyramid can add to.
    """
    if form == "stem":
        backbone.insert("image", MSAMStem(per_channel=per_channel))
    elif form == "block":
        for stage in _stages(backbone, stages, (-4, -3, -2)):
            block = MSAMBlock(backbone.stage_dims[stage], per_channel=per_channel)
            backbone.insert(f"stage{stage}", block)
    elif form == "pyramid":
        if backbone.dim != backbone.token_dim:
            raise InputError(
                f"the pyramid adds to the pooled feature, which in '{backbone.config.name}' is "
                f"{backbone.dim} numbers and no average of the last map's {backbone.token_dim}; "
                "use the form 'block', or a network such as resnet50."
            )
        chosen = _stages(backbone, stages, (-4, -3, -2, -1))
        dims = [backbone.stage_dims[stage] for stage in chosen]
        backbone.insert(
            "features", MSAMPyramid(chosen, dims, backbone.dim, per_channel=per_channel)
        )
    for module in gated(backbone):
        module.rate = rate


def gated(backbone: Backbone) -> list[Gated]:
    """The modules of this kind that a backbone holds, in the order in which they were put in."""
    return [module for module in backbone.insertions.values() if isinstance(module, Gated)]


def mean_gate(backbone: Backbone) -> Float[Tensor, ""] | None:
    """How far the gates have opened: the mean of ``|gamma|``; 0 at the start, None without."""
    gates = [module.gamma.detach().abs() for module in gated(backbone)]
    return torch.stack(gates).mean() if gates else None


def _stages(backbone: Backbone, stages: tuple[int, ...], default: tuple[int, ...]) -> list[int]:
    count = len(backbone.stage_dims)
    if count == 0:
        raise InputError(
            f"'{backbone.config.name}' has no stages of feature maps to work on; use the form "
            "'stem', or a network with stages such as resnet50, mobilenetv2_100 or convnext_tiny."
        )
    # Shallow networks have fewer than the default names.
    chosen = stages or tuple(stage for stage in default if stage >= -count) or (-1,)
    if any(not -count <= stage < count for stage in chosen):
        raise InputError(
            f"'{backbone.config.name}' has {count} stages, {-count} to {count - 1}; asked for "
            f"{list(chosen)}."
        )
    return sorted({stage % count for stage in chosen})


@torch.no_grad()
def scale_weights(
    backbone: Backbone, images: Float[Tensor, "B 3 H W"]
) -> dict[str, Float[Tensor, "B n"]]:
    """What each inserted module makes of each image: the paper's alpha, by place.

    Nothing is changed: the network runs in evaluation mode and is put back. Weights per channel
    are averaged over channels.

    Args:
        backbone: With modules inserted; the result is empty without.
        images: RGB in [0, 1].

    Returns:
        Weights >= 0 whose sum over the n scales is 1: receptive fields 1, 3, 5, 7 of a block,
        stages of a pyramid.
    """
    found: dict[str, Tensor] = {}
    hooks = []

    def watch(place: str, weights: nn.Module) -> None:
        def keep(module: nn.Module, inputs: tuple[Any, ...], alpha: Tensor) -> None:
            found[place] = alpha.mean(2)

        hooks.append(weights.register_forward_hook(keep))

    for place, module in backbone.insertions.items():
        if isinstance(module, (MSAMBlock, MSAMPyramid)):
            watch(place, module.weights)
    modes = {part: part.training for part in backbone.modules()}
    try:
        backbone.eval()
        backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes.items():
            part.training = training
    return found
