"""Attention maps, dropped tokens and masked tokens of vision transformers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fieldmark.errors import InputError


def attention_layers(network: nn.Module) -> list[Any]:
    """The attention of each block, where it can be read; none for other networks."""
    stack = getattr(network, "blocks", None)
    if not isinstance(stack, (nn.Sequential, nn.ModuleList)):
        return []
    layers = [getattr(block, "attn", None) for block in stack]
    readable = all(isinstance(getattr(a, "attn_drop", None), nn.Module) for a in layers)
    return layers if readable else []


@contextlib.contextmanager
def capture_attention(
    network: nn.Module,
    blocks: Sequence[int],
    name: str,
    *,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Callable[[], list[Tensor]]]:
    """Record attention of some blocks while the context is open.

    Fused attention never forms the matrix, so it is switched off for those blocks.

    Args:
        network: A vision transformer.
        blocks: Which blocks, negative from the end.
        name: The network's name, for the error text.
        reduce: Applied to each map as it comes, so that not all of them stay in memory.

    Yields:
        A function that returns the maps, [B heads S S] each unless reduced, in the order asked for.

    Raises:
        InputError: If the network has no such blocks.
    """
    layers = attention_layers(network)
    count = len(layers)
    if not layers:
        raise InputError(
            f"'{name}' has no attention to return; ask a vision transformer such as "
            "vit_small_patch16_224, or leave attention empty."
        )
    if any(not -count <= index < count for index in blocks):
        raise InputError(f"'{name}' has {count} blocks; attention asked for {list(blocks)}.")
    found: dict[int, Tensor] = {}
    undo: list[Callable[[], None]] = []

    def watch(index: int) -> None:
        attention: Any = layers[index]

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[index] = inputs[0] if reduce is None else reduce(inputs[0])

        undo.append(attention.attn_drop.register_forward_pre_hook(keep).remove)
        if hasattr(attention, "fused_attn"):
            fused = attention.fused_attn
            attention.fused_attn = False
            undo.append(lambda: setattr(attention, "fused_attn", fused))

    try:
        for index in {index % count for index in blocks}:
            watch(index)
        yield lambda: [found[index % count] for index in blocks]
    finally:
        for action in undo:
            action()


def forward_tokens(
    network: nn.Module,
    x: Float[Tensor, "B 3 H W"],
    *,
    keep: Int[Tensor, "B K"] | None,
    mask: Bool[Tensor, "B T"] | None,
    mask_token: Float[Tensor, " D"] | None,
    name: str,
) -> tuple[Float[Tensor, "B S D"], tuple[int, int]]:
    """Run a vision transformer on some of its tokens.

    Source:
        He et al. 2022, arXiv:2111.06377 (keep); Zhou et al. 2022, arXiv:2111.07832 (mask).

    Raises:
        InputError: If the network is not a plain vision transformer or indices do not fit.
    """
    if not isinstance(network, VisionTransformer) or (
        network.cls_token is None and network.pos_embed is None
    ):
        raise InputError(
            f"'{name}' cannot drop or mask tokens; that needs a plain vision transformer such as "
            "vit_small_patch16_224."
        )
    tokens = network.patch_embed(x)
    grid = network.patch_embed.dynamic_feat_size(x.shape[-2:])
    total = grid[0] * grid[1]
    if mask is not None:
        if mask.shape[1] != total:
            raise InputError(
                f"mask has {mask.shape[1]} tokens per image where '{name}' has {total}."
            )
        token = torch.zeros(tokens.shape[-1]) if mask_token is None else mask_token
        where = mask.view(*tokens.shape[:-1], 1)
        tokens = torch.where(where, token.to(tokens), tokens)
    tokens = network._pos_embed(tokens)
    if keep is not None:
        if keep.numel() and (int(keep.min()) < 0 or int(keep.max()) >= total):
            raise InputError(f"keep must hold token numbers in [0, {total}) for '{name}'.")
        prefix = network.num_prefix_tokens
        index = (keep + prefix).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        tokens = torch.cat([tokens[:, :prefix], tokens.gather(1, index)], 1)
    tokens = network.norm_pre(tokens)
    tokens = network.blocks(tokens)
    return network.norm(tokens), grid
