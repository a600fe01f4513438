"""What each cell of the last map gives to an embedding, so that the parts sum to it.

An embedding is the end of a chain that is linear where it pools: the cells are averaged, a constant
is taken off and the result projected (whitening), and lengths are divided out. With the lengths
held at what they are for the photo, the embedding is a sum with one term per cell. Where two such
sums meet in a cosine, every pair of cells has its share of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Features

# Of the pooled feature's largest value: beyond it, it is not the sum that was tried.
_TOLERANCE = 1e-4


class Cells(NamedTuple):
    """Embeddings taken apart: ``parts.sum(1) + rest`` is ``embedding``."""

    parts: Float[Tensor, "B T E"]
    """What each cell gives, row-major."""
    rest: Float[Tensor, "B E"]
    """What no cell of the last map gives: a class token, heads that are not linear, and, on a grid
    finer than the network's own, what shifting changes."""
    embedding: Float[Tensor, "B E"]
    """L2-normalised."""
    tokens: Float[Tensor, "B T D"]
    """The cells' features."""
    shape: tuple[int, int]
    """Rows and columns of the grid."""
    pooling: str
    """How the cells are joined, in words; ``PLACELESS`` where that cannot be taken apart."""

    @property
    def exact(self) -> bool:
        """Whether the pooling could be taken apart."""
        return self.pooling != PLACELESS


PLACELESS = "a class token or a head that is no sum over cells"


class _Taken(NamedTuple):
    """One pass through the network, before whitening."""

    parts: Float[Tensor, "B T D"]
    rest: Float[Tensor, "B D"]
    shares: Float[Tensor, "B T"]
    """Weight of each cell in what is the same for all photos; sums to 1."""
    by_cells: Bool[Tensor, " D"]
    """Which numbers of the feature are sums over cells."""
    features: Features
    pooling: str


@torch.no_grad()
def read_cells(spec: EncoderSpec, images: Float[Tensor, "B 3 H W"], *, steps: int = 1) -> Cells:
    """Take embeddings apart into what each cell gives.

    With ``u_i`` what cell i adds to the pooled feature, ``n`` that feature's length, ``m`` and ``P``
    the whitening's mean and projection and ``l`` the length after it, cell i's part is
    ``(u_i / n - s_i m) P / l``. The mean is a constant that belongs to no place; it is handed out by
    ``s_i``, each cell's weight in the pooling: evenly where cells are averaged, so that a cell
    counts by how it differs from the average photo's average cell. Mirrored photos are turned back
    and added. Earlier stages are summed over each cell's area. The weights of a max-out attention
    and the statistics of a layer norm behind the average are held at what they are.

    Args:
        spec: An encoder.
        images: In [0, 1], of its size.
        steps: More than 1: also of the images shifted by fractions of a cell, which gives a grid so
            many times as fine; what the mean over the shifts differs by is in ``rest``.
    """
    cells = _read(spec, images)
    if steps <= 1:
        return cells
    parts = _interleave(
        [_read(spec, moved) for moved in shifted(images, cells.shape, steps)], steps
    )
    return parts._replace(
        rest=cells.embedding - parts.parts.sum(1), embedding=cells.embedding, pooling=cells.pooling
    )


def finer(shape: tuple[int, int], wanted: int = 16) -> int:
    """Steps that bring a grid to about ``wanted`` rows, at most 4; a sheet's usual choice."""
    return max(1, min(4, round(wanted / max(shape))))


def shifted(
    images: Float[Tensor, "B 3 H W"], shape: tuple[int, int], steps: int
) -> Iterator[Float[Tensor, "B 3 H W"]]:
    """The images moved by fractions of a cell, row by row of the finer grid; edges are repeated."""
    height, width = images.shape[2:]
    reach = [-(-side // (2 * cells)) for side, cells in zip((height, width), shape)]
    wide = functional.pad(images, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    rows, columns = (
        [round(((a + 0.5) / steps - 0.5) * side / cells) for a in range(steps)]
        for side, cells in zip((height, width), shape)
    )
    for y in rows:
        for x in columns:
            top, left = reach[0] + y, reach[1] + x
            yield wide[:, :, top : top + height, left : left + width]


def weave(maps: list[Float[Tensor, "B h w *D"]], steps: int) -> Float[Tensor, "B H W *D"]:
    """Join maps of shifted images, as ``shifted`` yields them, on the finer grid."""
    stacked = torch.stack(maps).unflatten(0, (steps, steps))
    # [a b B h w ...] to [B h a w b ...]
    order = (2, 3, 0, 4, 1, *range(5, stacked.ndim))
    return stacked.permute(order).flatten(1, 2).flatten(2, 3)


def soften(maps: Float[Tensor, "B h w"], share: float = 1 / 16) -> Float[Tensor, "B h w"]:
    """Spread each cell over its neighbourhood (Gaussian, of a share of the side), keeping sums.

    Neighbouring shifts see nearly the same part of the photo and differ by chance. Softening by about
    as much raised faithfulness from 0.063 to 0.073 on 40 photos of cub50.
    """
    rows, columns = (_blur(side, share).to(maps) for side in maps.shape[1:])
    return torch.einsum("ij,bjk,lk->bil", rows, maps, columns)


def _blur(side: int, share: float) -> Float[Tensor, "n n"]:
    """Columns sum to 1: what would leave over an edge is thrown back."""
    place = torch.arange(side, dtype=torch.float64)
    sigma = max(side * share, 1e-3)
    total = torch.zeros(side, side, dtype=torch.float64)
    # Mirrored at both edges, as far as a Gaussian reaches.
    for mirror in (place, -1 - place, 2 * side - 1 - place):
        total += torch.exp(-((place[:, None] - mirror) ** 2) / (2 * sigma**2))
    return total / total.sum(0, keepdim=True)


def _interleave(passes: list[Cells], steps: int) -> Cells:
    h, w = passes[0].shape
    parts, tokens = (
        weave([getattr(one, name).unflatten(1, (h, w)) for one in passes], steps).flatten(1, 2)
        for name in ("parts", "tokens")
    )
    return passes[0]._replace(parts=parts / steps**2, tokens=tokens, shape=(h * steps, w * steps))


def _read(spec: EncoderSpec, images: Float[Tensor, "B 3 H W"]) -> Cells:
    taken = _take(spec, images)
    if spec.post.flip:
        taken = _with_mirrored(taken, _take(spec, images.flip(3)))
    parts, rest = taken.parts, taken.rest
    embedding = parts.sum(1) + rest
    whitening = spec.whitening
    if whitening is not None:
        mean = whitening.mean.to(parts)
        by_cells = mean * taken.by_cells
        parts = (parts - taken.shares[:, :, None] * by_cells) @ whitening.projection
        rest = (rest - (mean - by_cells)) @ whitening.projection
        embedding = (embedding - mean) @ whitening.projection
    length = embedding.norm(dim=1).clamp_min(1e-12)
    return Cells(
        parts / length[:, None, None],
        rest / length[:, None],
        embedding / length[:, None],
        taken.features.tokens.float(),
        taken.features.shape,
        taken.pooling,
    )


def _take(spec: EncoderSpec, images: Float[Tensor, "B 3 H W"]) -> _Taken:
    """The unit vector before whitening as a sum over cells."""
    with _layer_norms(spec.backbone.network) as norms:
        features = spec.features(images)
    post, tokens = spec.post, features.tokens.float()
    count = tokens.shape[1]
    even = tokens.new_full(tokens.shape[:2], 1 / count)
    parts, rest, shares, pooling = tokens / count, None, even, "the average of the cells"
    whole = spec.readout.pool(features).float()
    if post.pooling == "gem":
        # Euler: a function of degree one is the sum of its inputs times its derivatives.
        powers = tokens.clamp_min(1e-6).pow(post.gem_power)
        parts = powers / powers.sum(1, keepdim=True) * whole[:, None]
        pooling = "a generalised mean of the cells, split by each cell's share of the powers"
    elif post.pooling == "cls+gap":
        parts = torch.cat([torch.zeros_like(parts), parts], 2)
        rest = torch.cat([whole[:, : whole.shape[1] // 2], torch.zeros_like(tokens[:, 0])], 1)
        pooling = "class token and average of the cells side by side; only the average has places"
    elif post.pooling in {"network", "cls"}:
        parts, shares, pooling = _network_parts(spec, features, whole, norms)
    by_cells = torch.ones_like(whole[0], dtype=torch.bool)
    if rest is None:
        rest = whole - parts.sum(1)
    if post.pooling == "cls+gap":
        by_cells[: whole.shape[1] // 2] = False
    if pooling == PLACELESS:
        by_cells[:] = False
    length = whole.norm(dim=1).clamp_min(1e-12)
    parts, rest = parts / length[:, None, None], rest / length[:, None]
    for stage in features.stages:
        piece = _stage_parts(stage.float(), features.shape, post.stage_weight)
        parts = torch.cat([parts, piece], 2)
        rest = torch.cat([rest, rest.new_zeros(len(rest), piece.shape[2])], 1)
        by_cells = torch.cat([by_cells, by_cells.new_ones(piece.shape[2])])
    total = (parts.sum(1) + rest).norm(dim=1).clamp_min(1e-12)
    return _Taken(
        parts / total[:, None, None], rest / total[:, None], shares, by_cells, features, pooling
    )


def _network_parts(
    spec: EncoderSpec,
    features: Features,
    whole: Float[Tensor, "B D"],
    norms: list[tuple[nn.LayerNorm, Tensor, Tensor]],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T"], str]:
    """The network's own pooling, told by what adds up to its result."""
    tokens = features.tokens.float()
    count = tokens.shape[1]
    even = tokens.new_full(tokens.shape[:2], 1 / count)
    if _same(tokens.mean(1), whole):
        return tokens / count, even, "the average of the cells"
    for module in spec.inserted.values():
        if isinstance(module, MaxOutAttention):
            weights = module.weights(features.tokens).float()
            parts = tokens * weights[:, :, None] / count
            if _same(parts.sum(1), whole):
                shares = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
                return parts, shares, "an average weighted by the attention, its weights held"
    for norm, before, after in norms:
        if _same(before, tokens.mean(1)) and _same(after, whole):
            spread = (before.var(1, correction=0) + norm.eps).sqrt()[:, None, None]
            parts = (tokens - tokens.mean(2, keepdim=True)) / count / spread
            if norm.weight is not None:
                parts = parts * norm.weight.float()
            if norm.bias is not None:
                parts = parts + norm.bias.float() / count
            return parts, even, "a layer norm of the cells' average, its statistics held"
    return tokens.new_zeros(*tokens.shape[:2], whole.shape[1]), even, PLACELESS


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= _TOLERANCE * b.abs().max().clamp_min(1e-12))


@contextmanager
def _layer_norms(network: nn.Module) -> Iterator[list[tuple[nn.LayerNorm, Tensor, Tensor]]]:
    """Input and output, one row per image, of layer norms behind the pooling."""
    seen: list[tuple[nn.LayerNorm, Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.LayerNorm) and inputs[0].flatten(1).shape[1] == output.shape[1]:
            seen.append((module, inputs[0].flatten(1).float(), output.flatten(1).float()))

    hooks = [
        layer.register_forward_hook(keep)
        for layer in network.modules()
        if isinstance(layer, nn.LayerNorm)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _stage_parts(
    stage: Float[Tensor, "B C y x"], shape: tuple[int, int], weight: float
) -> Float[Tensor, "B T C"]:
    """An earlier map's average, summed over the area of each cell of the last one."""
    rows, columns = (_overlap(n, m).to(stage) for n, m in zip(shape, stage.shape[2:]))
    summed = torch.einsum("bcyx,iy,jx->bijc", stage, rows, columns).flatten(1, 2)
    mean = summed.sum(1)
    return weight * summed / mean.norm(dim=1).clamp_min(1e-12)[:, None, None]


def _overlap(cells: int, fine: int) -> Float[Tensor, "n m"]:
    """Share of each finer row that lies in each cell; every column sums to 1."""
    edges, marks = torch.arange(cells + 1) / cells, torch.arange(fine + 1) / fine
    low = torch.maximum(edges[:-1, None], marks[None, :-1])
    high = torch.minimum(edges[1:, None], marks[None, 1:])
    return (high - low).clamp_min(0) * fine


def _with_mirrored(straight: _Taken, mirrored: _Taken) -> _Taken:
    shape = straight.features.shape

    def turn(x: Tensor) -> Tensor:
        return x.unflatten(1, shape).flip(2).flatten(1, 2)

    parts = straight.parts + turn(mirrored.parts)
    rest = straight.rest + mirrored.rest
    length = (parts.sum(1) + rest).norm(dim=1).clamp_min(1e-12)
    tokens = (straight.features.tokens + turn(mirrored.features.tokens)) / 2
    return straight._replace(
        parts=parts / length[:, None, None],
        rest=rest / length[:, None],
        shares=(straight.shares + turn(mirrored.shares)) / 2,
        features=straight.features._replace(tokens=tokens),
    )
