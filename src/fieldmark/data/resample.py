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

# Chunks of windows: near the size of the second-level cache on a CPU, few launches on a GPU.
_CPU_BYTES = 1 << 20
_GPU_BYTES = 1 << 27
_BYTES_PER_VALUE = 2


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
        """Where each row's H × W × 3 pixels start in ``data``, int64 [N]."""


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


def triangle_matrices(
    first: Float[Tensor, "B 2"],
    step: Float[Tensor, "B 2"],
    length: Float[Tensor, "B 2"],
    *,
    size: int,
    padded: tuple[int, int],
    taps: int,
    flipped: Bool[Tensor, " B"],
) -> Float[Tensor, "B size both"]:
    """Weights of each window pixel in each view pixel, for both axes side by side.

    Args:
        first: Centre of the view's first pixel along y and x, in window pixels.
        step: Distance between centres, in window pixels.
        length: Window pixels that exist.
        size: Pixels of the view.
        padded: Columns of either axis, at least the largest length.
        taps: Window pixels that one view pixel can touch, at least 2·max(step, 1) + 1.
        flipped: Views to mirror left to right.
    """
    device = first.device
    place = torch.arange(size, device=device, dtype=first.dtype)[None, :, None]
    # Mirroring walks the x axis backwards.
    back = torch.stack([torch.zeros_like(flipped), flipped], 1)[:, None]
    place = torch.where(back, size - 1 - place, place)
    centre = torch.addcmul(first[:, None], place, step[:, None])
    support = step.clamp(min=1)[:, None]
    lowest = (centre - support + 0.5).floor_()
    index = lowest[..., None] + torch.arange(taps, device=device, dtype=first.dtype)
    weight = index - (centre - 0.5)[..., None]
    weight.abs_().div_(support[..., None]).neg_().add_(1).clamp_(min=0)
    ends = length[:, None, :, None]
    weight.masked_fill_((index < 0) | (index >= ends), 0)
    weight /= weight.sum(-1, keepdim=True)
    # Taps outside the window have weight 0 and may land on any valid column.
    index.clamp_(min=0).clamp_(max=ends - 1)
    index[:, :, 1] += padded[0]
    matrix = torch.zeros(len(first), size, sum(padded), device=device, dtype=first.dtype)
    return matrix.scatter_add_(2, index.flatten(2).long(), weight.flatten(2))


def gaussian_matrix(
    sigma: Float[Tensor, " B"], *, size: int, radius: int
) -> Float[Tensor, "B size size"]:
    """Blur with reflected border, kernel cut at ``radius`` and normalised (as torchvision's)."""
    reach = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (reach[None] / sigma[:, None]) ** 2)
    kernel /= kernel.sum(-1, keepdim=True)
    index = (torch.arange(size, device=sigma.device)[:, None] + reach).abs()
    index = torch.where(index >= size, 2 * (size - 1) - index, index)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrix.scatter_add_(
        2, index.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, size, -1)
    )


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
    for chunk in _chunks(geometry, device):
        y, x = (Axis(*(part[chunk] for part in axis)) for axis in (geometry.y, geometry.x))
        high, wide = _padded(int(y.length.max())), _padded(int(x.length.max()))
        window = _gather(pixels, rows[chunk], y, x, high, wide, device, dtype)
        numbers = np.stack([np.stack(pair, 1) for pair in zip(y, x)]).astype(np.float32)
        first, step, _, length = torch.from_numpy(numbers).to(device)
        maps = triangle_matrices(
            first,
            step,
            length,
            size=size,
            padded=(high, wide),
            taps=math.ceil(2 * max(1.0, float(numbers[1].max()))) + 1,
            flipped=torch.from_numpy(geometry.flipped[chunk]).to(device),
        ).to(dtype)
        if geometry.sigma[chunk[0]] > 0:  # A chunk is blurred as a whole or not at all.
            sigma = torch.from_numpy(geometry.sigma[chunk].astype(np.float32)).to(device)
            maps = gaussian_matrix(sigma, size=size, radius=geometry.radius).to(dtype) @ maps
        count = len(chunk)
        # [b, h·3, w] · [b, w, size], then [b, size, h] · [b, h, 3·size].
        half = torch.bmm(window.view(count, high * 3, wide), maps[:, :, high:].mT)
        full = torch.bmm(maps[:, :, :high], half.view(count, high, 3 * size))
        yield (
            chunk,
            full.view(count, size, 3, size)
            .transpose(1, 2)
            .to(torch.float32, memory_format=torch.contiguous_format),
        )


def _padded(length: int) -> int:
    # Multiples of 16 keep matrix units full.
    return -(-length // 16) * 16


def _chunks(geometry: Geometry, device: torch.device) -> Iterator[Int[np.ndarray, " b"]]:
    """Group views with windows of similar size, so that little is spent on padding."""
    high, wide = geometry.y.length, geometry.x.length
    budget = _CPU_BYTES if device.type == "cpu" else _GPU_BYTES
    blurred = geometry.sigma > 0
    for group in (np.flatnonzero(~blurred), np.flatnonzero(blurred)):
        group = group[np.argsort(np.maximum(high[group], wide[group]), kind="stable")]
        begin = 0
        while begin < len(group):
            # Tall and wide windows meet in one chunk, so both maxima count.
            left = group[begin:]
            sizes = np.maximum.accumulate(high[left]) * np.maximum.accumulate(wide[left])
            many = np.arange(1, len(sizes) + 1) * sizes * 3 * _BYTES_PER_VALUE > budget
            end = begin + max(1, int(many.argmax()) if many.any() else len(many))
            yield group[begin:end]
            begin = end


def _gather(
    store: Pixels,
    rows: Int[np.ndarray, " b"],
    y: Axis,
    x: Axis,
    high: int,
    wide: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Float[Tensor, "b high 3 wide"]:
    """Centred pixels of each window; what lies beyond a window is arbitrary but finite."""
    if isinstance(store.data, Tensor):
        pixels = _gather_on_device(store, rows, y, x, high, wide).to(device)
    else:
        pixels = torch.from_numpy(_gather_on_host(store, rows, y, x, high, wide)).to(device)
    # Flipping the top bit turns 0 … 255 into −128 … 127 before the one widening pass.
    return pixels.bitwise_xor_(128).view(torch.int8).to(dtype)


def _gather_on_host(
    store: Pixels, rows: Int[np.ndarray, " b"], y: Axis, x: Axis, high: int, wide: int
) -> UInt8[np.ndarray, "b high 3 wide"]:
    windows = np.empty((len(rows), high, 3, wide), np.uint8)
    for window, row, top, h, left, w in zip(windows, rows, y.start, y.length, x.start, x.length):
        height, width = store.shapes[row]
        begin = int(store.offsets[row])
        photo = store.data[begin : begin + int(height) * int(width) * 3].reshape(height, width, 3)
        window[:h, :, :w] = photo[top : top + h, left : left + w].transpose(0, 2, 1)
    return windows


def _gather_on_device(
    store: Pixels, rows: Int[np.ndarray, " b"], y: Axis, x: Axis, high: int, wide: int
) -> UInt8[Tensor, "b high 3 wide"]:
    device = store.data.device
    width = store.shapes[rows, 1].astype(np.int64)
    numbers = np.stack([store.offsets[rows], width, y.start, y.length - 1, x.start, x.length - 1])
    begin, width_t, top, last_y, left, last_x = torch.from_numpy(numbers.astype(np.int64)).to(
        device
    )
    i = torch.minimum(torch.arange(high, device=device)[None], last_y[:, None]) + top[:, None]
    j = torch.minimum(torch.arange(wide, device=device)[None], last_x[:, None]) + left[:, None]
    line = (begin[:, None] + i * width_t[:, None] * 3)[:, :, None, None]
    channel = torch.arange(3, device=device)[None, None, :, None]
    return store.data[line + channel + (j * 3)[:, None, None, :]]


def _host(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
