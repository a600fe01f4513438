"""Crop, flip, antialiased resize and Gaussian blur as two matrices per view.

All four are linear and separable, so a view of photo X is ``A_y X A_xᵀ``: two batched matrix
products do the work of four image operations (docs/design.md, rule 5). The filter is the triangle
that torchvision's ``resize(antialias=True)`` uses: as wide as the pixels of the view when
shrinking, plain bilinear when enlarging, renormalised at the border of the crop.

Pixels are centred (−128 … 127) before the products: each value is then exact in bfloat16, and the
rounding of weights acts on deviations from mid-gray instead of on full brightness.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

# Chunks of windows: a few MB on a CPU, to stay near its caches, few launches on a GPU.
_CPU_BYTES = 1 << 22
_GPU_BYTES = 1 << 27
_BYTES_PER_VALUE = 2
_SIDE_STEP = 32
# Flipped, it turns 0 … 255 into −128 … 127, read as int8, while pixels are copied anyway.
_TOP_BIT = 128


@runtime_checkable
class Photos(Protocol):
    """What views need of a photo store."""

    @property
    def shapes(self) -> Any:
        """Height and width per catalog row, int [N, 2]; 0 where there is no photo."""

    @property
    def data(self) -> Any:
        """All pixels as one flat uint8 array (numpy, or a tensor on the device)."""

    @property
    def offsets(self) -> Any:
        """Where each row's H × 3 × W values start in ``data``, int64 [N]."""


class Pixels(NamedTuple):
    """A photo store with its index where slicing is cheap: in host memory, as plain arrays."""

    shapes: Int[np.ndarray, "N 2"]
    data: Any
    offsets: Int[np.ndarray, " N"]


def index_on_host(store: Photos) -> Pixels:
    """Bring a store's index to the host once, so that no batch waits for the device."""
    on_device = isinstance(store.data, Tensor) and store.data.device.type != "cpu"
    # Slicing a memmap object costs ten times as much as a plain array.
    data = store.data if on_device else np.asarray(store.data)
    return Pixels(_host(store.shapes), data, _host(store.offsets))


class Axis(NamedTuple):
    """Resampling of one axis of each view, in pixels of its window."""

    first: Float[np.ndarray, " B"]
    """Centre of the view's first pixel."""
    step: Float[np.ndarray, " B"]
    """Distance between centres; > 1 shrinks."""
    start: Int[np.ndarray, " B"]
    """Where the window begins in the photo."""
    length: Int[np.ndarray, " B"]
    """Pixels of the window; none outside is read."""


class Geometry(NamedTuple):
    """Resampling of each view."""

    y: Axis
    x: Axis
    flipped: np.ndarray
    sigma: Float[np.ndarray, " B"]
    """Standard deviation of the blur in pixels of the view; 0 for none."""
    radius: int
    """Pixels each side that the blur's kernel reaches."""


def whole_crop(start: Int[np.ndarray, " B"], length: Int[np.ndarray, " B"], size: int) -> Axis:
    """Stretch a crop over the whole view."""
    step = length / size
    return Axis(step / 2, step, start, length)


def blur_radius(largest_sigma: float, size: int) -> int:
    """Half-width of the blur's kernel: three standard deviations, and less than the view."""
    return min(math.ceil(3 * largest_sigma), size - 1)


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    try:
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def triangle_taps(
    first: Float[Tensor, "*B"],
    step: Float[Tensor, "*B"],
    length: Float[Tensor, "*B"],
    *,
    size: int,
    taps: int,
    flipped: Bool[Tensor, "*B"],
) -> tuple[Int[Tensor, "*B size taps"], Float[Tensor, "*B size taps"]]:
    """Which window pixels make each view pixel, and with what weights.

    Args:
        first: Centre of the view's first pixel, in window pixels.
        step: Distance between centres, in window pixels.
        length: Window pixels that exist.
        size: Pixels of the view.
        taps: Window pixels that one view pixel can touch, at least 2·max(step, 1) + 1.
        flipped: Whether the view runs backwards.

    Returns:
        Ascending window pixels, from 0 to at most max(length, taps) - 1, and their weights; those
        beyond the length weigh nothing.
    """
    place = torch.arange(size, device=first.device, dtype=first.dtype)
    place = torch.where(flipped[..., None], size - 1 - place, place)
    centre = torch.addcmul(first[..., None], place, step[..., None])
    support = step.clamp(min=1)[..., None]
    lowest = (centre - support + 0.5).floor_()
    # All taps lie in the padded window, each on a pixel of its own.
    lowest = lowest.clamp_(min=0).minimum((length - taps).clamp_(min=0)[..., None])
    index = lowest[..., None] + torch.arange(taps, device=first.device, dtype=first.dtype)
    weight = index - (centre - 0.5)[..., None]
    weight.abs_().div_(support[..., None]).neg_().add_(1).clamp_(min=0)
    ends = length[..., None, None]
    weight.masked_fill_(index >= ends, 0)
    weight /= weight.sum(-1, keepdim=True)
    return index.long(), weight


def gaussian_taps(
    sigma: Float[Tensor, " B"], *, size: int, radius: int
) -> tuple[Int[Tensor, "size taps"], Float[Tensor, "B taps"]]:
    """Blur with reflected border, kernel cut at ``radius`` and normalised (as torchvision's).

    Returns:
        Which pixels make each pixel, the same for all, and each view's weights. Views with sigma 0
        get weights that mean nothing.
    """
    reach = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (reach[None] / sigma[:, None]) ** 2)
    index = (torch.arange(size, device=sigma.device)[:, None] + reach).abs()
    index = torch.where(index >= size, 2 * (size - 1) - index, index)
    return index, kernel / kernel.sum(-1, keepdim=True)


def resample(
    store: Photos,
    rows: Int[np.ndarray, " B"],
    geometry: Geometry,
    size: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[tuple[Int[np.ndarray, " b"], Float[Tensor, "b 3 size size"]]]:
    """Apply the geometry, a chunk of similar windows at a time.

    Args:
        store: Where pixels are.
        rows: Catalog rows.
        geometry: One window and map per row.
        size: Side of the views, in pixels.
        device: Where to compute.
        dtype: Precision of the matrix products; the result is float32.

    Yields:
        Which of ``rows`` the chunk holds, and their pixels on the scale −128 … 127.
    """
    pixels = index_on_host(store)
    longest = max(1.0, float(np.max([geometry.y.step, geometry.x.step])))
    taps = math.ceil(2 * longest) + 1
    chunks = list(_chunks(geometry, device, taps))
    # The last chunk of a group is filled up with repeats, see _chunks. What is small is computed
    # for all chunks at once: a batch then costs few operations.
    order = np.concatenate([np.resize(chunk, many) for chunk, _, many in chunks])
    y, x = (Axis(*(part[order] for part in axis)) for axis in (geometry.y, geometry.x))
    numbers = np.stack([np.stack(pair) for pair in zip(y, x)]).astype(np.float32)
    first, step, _, length = torch.from_numpy(numbers).to(device)
    index, weight = triangle_taps(
        first,
        step,
        length,
        size=size,
        taps=taps,
        flipped=torch.from_numpy(
            np.stack([np.zeros(len(order), bool), geometry.flipped[order]])
        ).to(device),
    )
    sigma = geometry.sigma[order]
    reflected, kernel = gaussian_taps(
        torch.from_numpy(sigma.astype(np.float32)).to(device), size=size, radius=geometry.radius
    )
    begin = 0
    for chunk, side, many in chunks:
        part = slice(begin, begin + many)
        begin += many
        maps = _spread(index[:, part], weight[:, part], side, dtype)
        if sigma[part.start] > 0:  # A chunk is blurred as a whole or not at all.
            blur = torch.zeros(many, size, size, device=device)
            blur.scatter_add_(
                2, reflected.expand(many, -1, -1), kernel[part, None].expand(-1, size, -1)
            )
            both = blur.to(dtype).repeat(2, 1, 1)
            maps = torch.bmm(both, maps.flatten(0, 1)).view(maps.shape)
        window = _gather(
            pixels,
            rows[order[part]],
            Axis(*(field[part] for field in y)),
            Axis(*(field[part] for field in x)),
            side,
            device,
            dtype,
        )
        # [b, h·3, w] · [b, w, size], then [b, size, h] · [b, h, 3·size].
        half = torch.bmm(window.view(many, side * 3, side), maps[1].mT)
        full = torch.bmm(maps[0], half.view(many, side, 3 * size))
        yield (
            chunk,
            full.view(many, size, 3, size)[: len(chunk)]
            .transpose(1, 2)
            .to(torch.float32, memory_format=torch.contiguous_format),
        )


def _spread(
    index: Int[Tensor, "*B size taps"],
    weight: Float[Tensor, "*B size taps"],
    side: int,
    dtype: torch.dtype,
) -> Float[Tensor, "*B size side"]:
    """Write the taps of each view pixel into a row of its map."""
    values = weight.to(dtype)
    if dtype == torch.bfloat16:
        # torch scatters integers several times faster than what it takes for numbers.
        values = values.view(torch.int16)
    maps = torch.zeros(*index.shape[:-1], side, dtype=values.dtype, device=index.device)
    return maps.scatter_(-1, index, values).view(dtype)


def _chunks(
    geometry: Geometry, device: torch.device, taps: int
) -> Iterator[tuple[Int[np.ndarray, " b"], int, int]]:
    """Group views with windows of similar size, so that little is spent on padding.

    A CPU compiles a bfloat16 product for each new shape, which takes longer than the product. So
    windows are padded to squares of few sizes, none smaller than what one view pixel touches, and
    a size always comes in the same number.

    Yields:
        Views of the chunk, side of the padded windows, and how many windows to compute.
    """
    longest = np.maximum(geometry.y.length, geometry.x.length)
    blurred = geometry.sigma > 0
    for group in (np.flatnonzero(~blurred), np.flatnonzero(blurred)):
        group = group[np.argsort(-longest[group], kind="stable")]
        begin = 0
        while begin < len(group):
            side = -(-max(taps, int(longest[group[begin]])) // _SIDE_STEP) * _SIDE_STEP
            many = _how_many(side, device)
            chunk = group[begin : begin + many]
            while many >= 2 * len(chunk):
                many //= 2
            yield chunk, side, many
            begin += many


def _how_many(side: int, device: torch.device) -> int:
    budget = _CPU_BYTES if device.type == "cpu" else _GPU_BYTES
    fits = max(1, budget // (side * side * 3 * _BYTES_PER_VALUE))
    return 1 << min(fits.bit_length() - 1, 5 if device.type == "cpu" else 9)


def _gather(
    store: Pixels,
    rows: Int[np.ndarray, " b"],
    y: Axis,
    x: Axis,
    side: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Float[Tensor, "b side 3 side"]:
    """Centred pixels of each window; what lies beyond a window is arbitrary but finite."""
    if isinstance(store.data, Tensor):
        pixels = _gather_on_device(store, rows, y, x, side).to(device)
    else:
        pixels = torch.from_numpy(_gather_on_host(store, rows, y, x, side)).to(device)
    return pixels.view(torch.int8).to(dtype)


def _gather_on_host(
    store: Pixels, rows: Int[np.ndarray, " b"], y: Axis, x: Axis, side: int
) -> UInt8[np.ndarray, "b side 3 side"]:
    windows = np.empty((len(rows), side, 3, side), np.uint8)
    for window, row, top, h, left, w in zip(windows, rows, y.start, y.length, x.start, x.length):
        height, width = store.shapes[row]
        begin = int(store.offsets[row])
        photo = store.data[begin : begin + int(height) * int(width) * 3].reshape(height, 3, width)
        np.bitwise_xor(photo[top : top + h, :, left : left + w], _TOP_BIT, out=window[:h, :, :w])
    return windows


def _gather_on_device(
    store: Pixels, rows: Int[np.ndarray, " b"], y: Axis, x: Axis, side: int
) -> UInt8[Tensor, "b side 3 side"]:
    device = store.data.device
    width = store.shapes[rows, 1].astype(np.int64)
    numbers = np.stack([store.offsets[rows], width, y.start, y.length - 1, x.start, x.length - 1])
    begin, width_t, top, last_y, left, last_x = torch.from_numpy(numbers.astype(np.int64)).to(
        device
    )
    place = torch.arange(side, device=device)[None]
    i = torch.minimum(place, last_y[:, None]) + top[:, None]
    j = torch.minimum(place, last_x[:, None]) + left[:, None]
    line = (begin[:, None] + i * width_t[:, None] * 3)[:, :, None, None]
    channel = width_t[:, None] * torch.arange(3, device=device)
    return store.data[line + channel[:, None, :, None] + j[:, None, None, :]] ^ _TOP_BIT


def _host(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
