"""Maps of photos: what the feature is made of, where attention lies, what speaks for a direction."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmark.backbones.layout import split_tokens
from fieldmark.backbones.tokens import attention_layers
from fieldmark.errors import InputError
from fieldmark.explain.cells import Cells, read_cells, shifted, soften, weave
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.cam import gradients
from fieldmark.nn.contributions import contributions
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Features


class Toward(NamedTuple):
    """What each cell adds to ``embedding · direction``: a cosine, or a decision between classes."""

    maps: Float[Tensor, "B h w"]
    """Signed; ``maps.sum((1, 2)) + rest`` is ``total``."""
    rest: Float[Tensor, " B"]
    """What no cell adds."""
    total: Float[Tensor, " B"]
    """``embedding · direction``."""
    exact: bool
    """Whether the sum was taken apart; else it is of first order."""


class PhotoMaps(NamedTuple):
    """Maps of single photos, which need no second one."""

    added: Float[Tensor, "B h w"]
    """Length of each cell's feature, times its attention weight where there is one; >= 0."""
    own: Float[Tensor, "B h w"]
    """What each cell adds to the embedding's own direction: signed, sums to 1 less a rest."""
    attention: Float[Tensor, "B h w"] | None
    """Where the network or an inserted attention looks; None where there is none."""
    exact: bool
    """Whether ``own`` was taken apart; else it is of first order."""


def photo_maps(spec: EncoderSpec, images: Float[Tensor, "B 3 H W"], *, steps: int = 1) -> PhotoMaps:
    """What single photos' embeddings are made of.

    Args:
        spec: An encoder.
        images: In [0, 1], of its size.
        steps: How many times as fine as the network's own grid, by shifting the images.
    """
    cells = read_cells(spec, images)
    moved = list(shifted(images, cells.shape, steps)) if steps > 1 else [images]
    own = toward(spec, images, cells.embedding, steps=steps)

    def join(maps: list[Tensor]) -> Tensor:
        return soften(weave(maps, steps)) if steps > 1 else maps[0]

    added = join([contributions(spec, one).clone() for one in moved])
    looks = [attention_map(spec, one) for one in moved]
    attention = None if looks[0] is None else join([look for look in looks if look is not None])
    return PhotoMaps(added, own.maps, attention, own.exact)


@torch.no_grad()
def attention_map(
    spec: EncoderSpec, images: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B h w"] | None:
    """Weights of an inserted attention, else the last block's attention; None without either.

    Of a transformer: what the class token reads, or what all cells read on average where there is
    none, mean over heads.
    """
    for module in spec.inserted.values():
        if isinstance(module, MaxOutAttention):
            features = spec.backbone(images)
            return module.weights(features.tokens).float().unflatten(1, features.shape)
    backbone = spec.backbone
    if not attention_layers(backbone.network):
        return None
    features = backbone(images, attention=(-1,))
    mean = features.attention[0].float().mean(1)
    prefix = mean.shape[2] - features.tokens.shape[1]
    read = mean[:, 0] if features.cls is not None else mean.mean(1)
    return read[:, prefix:].unflatten(1, features.shape)


def toward(
    spec: EncoderSpec,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    *,
    steps: int = 1,
) -> Toward:
    """What each cell adds to each photo's ``embedding · direction``.

    Exact where the pooling is a sum over cells (:func:`read_cells`); else gradient times input with
    the lengths held, whose gap is in ``rest``.

    Args:
        spec: An encoder.
        images: In [0, 1], of its size.
        directions: One per photo: another photo's embedding, or what tells two classes apart.
        steps: How many times as fine as the network's own grid; finer maps are softened.
    """
    cells = read_cells(spec, images, steps=steps)
    return toward_of(spec, images, cells, directions, steps=steps)


def toward_of(
    spec: EncoderSpec,
    images: Float[Tensor, "B 3 H W"],
    cells: Cells,
    directions: Float[Tensor, "B E"],
    *,
    steps: int = 1,
) -> Toward:
    """:func:`toward` for cells that were read already, with the same ``steps``."""
    total = (cells.embedding * directions).sum(1)
    if cells.exact:
        maps = torch.einsum("bte,be->bt", cells.parts, directions).unflatten(1, cells.shape)
        maps = soften(maps) if steps > 1 else maps
    else:
        maps = gradient_maps(spec, images, directions, lengths="held", steps=steps)
    return Toward(maps, total - maps.sum((1, 2)), total, cells.exact)


def gradient_maps(
    spec: EncoderSpec,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    *,
    lengths: Literal["free", "held"] = "free",
    steps: int = 1,
) -> Float[Tensor, "B h w"]:
    """Derivative of ``embedding · direction`` times the last map, summed over channels.

    Works for every network. Of a network that reads its class token only, the map is that of the
    cells which its last block takes.

    Args:
        spec: An encoder.
        images: In [0, 1], of its size.
        directions: One per photo.
        lengths: ``free``: of the cosine itself, which a longer feature does not raise, so that maps
            of averages sum to about 0. ``held``: with the lengths that are divided out held as they
            are, and the whitening's constant handed out evenly; of averages exactly what
            :func:`toward` gives.
        steps: How many times as fine as the network's own grid.

    Source:
        Selvaraju et al. 2017, arXiv:1610.02391, cell by cell, without the ReLU.
    """
    if steps > 1:
        shape = read_cells(spec, images[:1]).shape
        passes = [
            gradient_maps(spec, moved, directions, lengths=lengths)
            for moved in shifted(images, shape, steps)
        ]
        return soften(weave(passes, steps) / steps**2)
    found = _gradients(spec, images, directions, lengths, inside=False)
    if found is None or not bool(found.abs().max() > 0):
        found = _gradients(spec, images, directions, lengths, inside=True)
    if found is None:
        raise InputError(
            f"no map can be taken of '{spec.backbone.config.name}': its feature passes neither "
            "through its last map nor through blocks of tokens; choose another network, such as "
            "mobilenetv2_100 or vit_small_patch16_224."
        )
    return found


def _gradients(
    spec: EncoderSpec,
    images: Float[Tensor, "B 3 H W"],
    directions: Float[Tensor, "B E"],
    lengths: Literal["free", "held"],
    *,
    inside: bool,
) -> Float[Tensor, "B h w"] | None:
    blocks = getattr(spec.backbone.network, "blocks", None)
    if inside and blocks is None:
        return None
    looks = [images, images.flip(3)] if spec.post.flip else [images]
    sources: list[Tensor] = []

    def start(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sources.append(inputs[0].detach().requires_grad_())
        return (sources[-1], *inputs[1:])

    def unit(x: Tensor) -> Tensor:
        length = x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return x / (length.detach() if lengths == "held" else length)

    hook = blocks[-1].register_forward_pre_hook(start) if inside and blocks is not None else None
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            found: list[Features] = []
            for look in looks:
                # The graph begins at the image, as the weights are frozen.
                found.append(spec.features(look.clone().requires_grad_(not inside)))
            if not inside:
                sources = [one.last for one in found if one.last is not None]
            shape = found[0].shape
            result = sum((unit(spec.readout(one).float()) for one in found), torch.zeros(()))
            result = unit(result) if len(looks) > 1 else result
            constant = images.new_zeros(len(images))
            if spec.whitening is not None:
                result = (result - spec.whitening.mean) @ spec.whitening.projection
                length = result.norm(dim=1, keepdim=True).detach()
                shift = spec.whitening.mean @ spec.whitening.projection
                constant = -(shift * directions / length).sum(1)
                result = unit(result)
            if not result.requires_grad:
                return None
            try:
                slopes = gradients((result * directions).sum(), sources)
            except InputError:
                return None
    finally:
        if hook is not None:
            hook.remove()
    total = torch.zeros(len(images), *shape, device=images.device)
    for index, (source, slope) in enumerate(zip(sources, slopes)):
        product = (source.detach().float() * slope).float()
        cells = _cells(spec, product, shape).sum(2).unflatten(1, shape)
        total = total + (cells.flip(2) if index else cells)
    if lengths == "held":
        total = total + constant[:, None, None] / (shape[0] * shape[1])
    return total


def _cells(spec: EncoderSpec, x: Tensor, shape: tuple[int, int]) -> Float[Tensor, "B T D"]:
    return split_tokens(x, spec.backbone.layout, shape)[0]
