"""How a timm network lays out its last feature map: found by running it once."""

import math
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.errors import InputError


class Layout(NamedTuple):
    """Facts about a network that hold for every image of one size."""

    kind: Literal["NCHW", "NHWC", "tokens"]
    prefix: int
    """Class and register tokens at the front; 0 for maps."""
    has_cls: bool
    dim: int
    """Length of the pooled feature."""
    token_dim: int
    """Channels of the last feature map."""
    stage_dims: tuple[int, ...]
    """Channels of each map that ``stages`` can ask for, input to output."""
    stage_strides: tuple[int, ...]
    """Pixels per cell of each of those maps."""


def last(output: Any) -> Tensor:
    """The feature map of networks that return several (CoaT, CrossViT): the last one."""
    while isinstance(output, (list, tuple)):
        output = output[-1]
    return output


def split_tokens(
    x: Tensor, layout: Layout, grid: tuple[int, int] | None = None
) -> tuple[Float[Tensor, "B T D"], tuple[int, int], Float[Tensor, "B D"] | None]:
    """Turn a network's last output into row-major tokens, grid shape and class token."""
    if layout.kind == "NCHW":
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3]), None
    if layout.kind == "NHWC":
        return x.flatten(1, 2), (x.shape[1], x.shape[2]), None
    tokens = x[:, layout.prefix :]
    return tokens, grid or _grid(tokens.shape[1]), x[:, 0] if layout.has_cls else None


def _grid(count: int) -> tuple[int, int]:
    side = math.isqrt(count)
    return (side, side) if side * side == count else (1, count)


@torch.no_grad()
def probe(network: nn.Module, name: str, size: int) -> Layout:
    """Run a network once on an empty image.

    Raises:
        InputError: If the network cannot take images of this size.
    """
    network.eval()
    image = torch.zeros(1, 3, size, size)
    try:
        output = network.forward_features(image)  # type: ignore[operator]
        pooled = network.forward_head(output)  # type: ignore[operator]
    except (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        config = getattr(network, "pretrained_cfg", {})
        made_for = config.get("input_size", (3, 224, 224))[-1]
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
        step = patch[0] if isinstance(patch, (tuple, list)) else 32
        near = max(step, round(size / step) * step)
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"'{name}' cannot take images of {size} px ({reason}); it was made for {made_for} px; "
            f"try a multiple of {step} such as {near}, or {made_for}."
        ) from None
    x = last(output)
    dims, strides = _stages(network, image)
    attribute = getattr(network, "output_fmt", None)
    channels = getattr(network, "num_features", None)
    if x.ndim == 4:
        by_last = str(attribute).endswith("NHWC") or (x.shape[1] != channels == x.shape[3])
        kind: Literal["NCHW", "NHWC"] = "NHWC" if by_last else "NCHW"
        return Layout(kind, 0, False, pooled.shape[1], x.shape[3 if by_last else 1], dims, strides)
    if x.ndim != 3:
        raise InputError(f"'{name}' has no map of features, so it cannot be used as a backbone.")
    prefix = getattr(network, "num_prefix_tokens", None)
    if prefix is None:
        square = math.isqrt(x.shape[1]) ** 2 == x.shape[1]
        prefix = 0 if square or math.isqrt(x.shape[1] - 1) ** 2 != x.shape[1] - 1 else 1
        has_cls = prefix > 0
    else:
        has_cls = prefix > 0 and getattr(network, "cls_token", None) is not None
    return Layout("tokens", prefix, has_cls, pooled.shape[1], x.shape[2], dims, strides)


def _stages(network: nn.Module, image: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not hasattr(network, "forward_intermediates"):
        return (), ()
    maps = network.forward_intermediates(image, intermediates_only=True)  # type: ignore[operator]
    size = image.shape[-1]
    return (
        tuple(item.shape[1] for item in maps),
        tuple(max(1, round(size / item.shape[-1])) for item in maps),
    )
