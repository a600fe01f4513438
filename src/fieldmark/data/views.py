"""Views of photos, made in batches on the device (docs/design.md, rule 5)."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmark import rng
from fieldmark.data.colour import compose
from fieldmark.data.resample import (
    Axis,
    Geometry,
    Photos,
    Pixels,
    blur_radius,
    fast_bfloat16,
    index_on_host,
    resample,
    whole_crop,
)
from fieldmark.data.sampling import Draws, Guide, MultiView, ViewSpec, draw_views, epoch_order
from fieldmark.errors import ConfigError, InputError
from fieldmark.types import Batch, View

__all__ = [
    "BatchSource",
    "Guide",
    "MultiView",
    "Photos",
    "ViewMaker",
    "ViewSpec",
    "center_views",
    "epoch_order",
]


class ViewMaker:
    """Makes random views of stored photos.

    Args:
        store: Photo store, or anything with its ``shapes``, ``data`` and ``offsets``.
        multi_view: Which views to make.
        seed: Part of the address of every random number.
        device: Where views are made and stay.
        dtype: Type of the images.
        products: Arithmetic of the matrix products; default: ``dtype``. In bfloat16, which is used
            only where the hardware multiplies it, views differ from float32 ones by less than
            1/255 on average and come out several times faster.
        guide: Optional places for the centres of crops; may be replaced between epochs.

    Example:
        >>> maker = ViewMaker(store, MultiView(specs=(ViewSpec(size=128, count=2),)), seed=0)
        >>> first, second = maker.make(np.array([3, 5]), epoch=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Photos,
        multi_view: MultiView,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        products: torch.dtype | None = None,
        guide: Guide | None = None,
    ) -> None:
        self.store = index_on_host(store)
        self.multi_view = multi_view
        self.seed = seed
        self.device = torch.device(device)
        self.dtype = dtype
        self.products = products
        self.guide = guide

    def make(self, rows: Int[np.ndarray, " B"], epoch: int) -> tuple[View, ...]:
        """Make every view of some photos; what a view shows depends on (seed, epoch, row, view).

        Raises:
            InputError: If a row has no stored photo.
        """
        shapes = _shapes(self.store, rows)
        views = []
        for index, spec in enumerate(self.multi_view.each()):
            draws = draw_views(
                spec, shapes, rows, seed=self.seed, epoch=epoch, view=index, guide=self.guide
            )
            images = render(
                self.store,
                rows,
                draws,
                spec,
                device=self.device,
                dtype=self.dtype,
                products=self.products,
            )
            views.append(_as_view(images, rows, draws, shapes))
        return tuple(views)


def render(
    store: Photos,
    rows: Int[np.ndarray, " B"],
    draws: Draws,
    spec: ViewSpec,
    *,
    device: torch.device,
    dtype: torch.dtype,
    products: torch.dtype | None = None,
) -> Float[Tensor, "B 3 size size"]:
    """Make one view per photo with given parameters.

    Args:
        store: Where pixels are.
        rows: Catalog rows.
        draws: What was drawn for each row.
        spec: What it was drawn for.
        device: Where to compute.
        dtype: Type of the images.
        products: Arithmetic of the matrix products; default: ``dtype``.

    Returns:
        RGB in [0, 1].
    """
    crops = draws.crops
    geometry = Geometry(
        y=whole_crop(crops.top, crops.height, spec.size),
        x=whole_crop(crops.left, crops.width, spec.size),
        flipped=draws.flipped,
        sigma=draws.sigma,
        radius=blur_radius(spec.blur_sigma[1], spec.size),
    )
    images = torch.empty(len(rows), 3, spec.size, spec.size, dtype=dtype, device=device)
    colour = _colour_maps(draws, device) if spec.jitters or spec.gray > 0 else None
    arithmetic = _product_type(device, products or dtype)
    for chunk, pixels in resample(
        store, rows, geometry, spec.size, device=device, dtype=arithmetic
    ):
        place = torch.from_numpy(chunk).to(device)
        unit = pixels.add_(128).div_(255) if colour is None else _recolour(pixels, colour[place])
        pixels = unit.clamp_(0, 1)
        solarized = np.flatnonzero(draws.solarized[chunk])
        if len(solarized):
            where = torch.from_numpy(solarized).to(device)
            chosen = pixels[where]
            pixels[where] = torch.where(chosen >= spec.solarize_threshold, 1 - chosen, chosen)
        _put(images, place, pixels)
    return images


def _put(
    images: Float[Tensor, "B 3 S S"], place: Int[Tensor, " b"], pixels: Float[Tensor, "b 3 S S"]
) -> None:
    """Write a chunk to its places, rounded to the type of the images."""
    if images.device.type == "cpu":
        # One pass: index_copy_ wants the same type on both sides and copies value by value.
        torch._foreach_copy_([images[i] for i in place.tolist()], list(pixels.unbind(0)))
    else:
        images.index_copy_(0, place, pixels.to(images.dtype))


def _colour_maps(draws: Draws, device: torch.device) -> Float[Tensor, "B 3 7"]:
    """M, D and the constant of ``M · pixel + D · mean``, for pixels on the scale −128 … 127."""
    of_pixel, of_mean = compose(draws.colour)
    constant = 128 * (of_pixel + of_mean).sum(axis=2, keepdims=True)
    packed = np.concatenate([of_pixel, of_mean, constant], axis=2) / 255
    return torch.from_numpy(packed.astype(np.float32)).to(device)


def _recolour(
    pixels: Float[Tensor, "b 3 S S"], maps: Float[Tensor, "b 3 7"]
) -> Float[Tensor, "b 3 S S"]:
    of_pixel, of_mean, constant = maps.split([3, 3, 1], dim=2)
    flat = pixels.flatten(2)
    offset = torch.baddbmm(constant, of_mean, flat.mean(2, keepdim=True))
    return torch.baddbmm(offset, of_pixel, flat).view(pixels.shape)


def center_views(
    store: Photos,
    rows: Int[np.ndarray, " B"],
    size: int,
    crop: float = 0.875,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> View:
    """The look at a photo that evaluation takes: resize, then cut the centre, as one linear map.

    Args:
        store: Photo store, or anything with its ``shapes``, ``data`` and ``offsets``.
        rows: Catalog rows.
        size: Side of the view in pixels.
        crop: The short side is resized to ``round(size / crop)``; in (0, 1].
        device: Where to compute.
        dtype: Type of the images.

    Raises:
        InputError: If a row has no stored photo.
        ValueError: If crop or size is out of range.
    """
    if not 0 < crop <= 1:
        raise ValueError(f"crop must be above 0 and at most 1, got {crop}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    device = torch.device(device)
    store = index_on_host(store)
    shapes = _shapes(store, rows)
    short = round(size / crop)
    # As torchvision: the long side is rounded down, the centre to the nearest pixel.
    resized = (short * shapes.astype(np.int64)) // shapes.min(axis=1, keepdims=True)
    axes, low, high = [], [], []
    for side in (0, 1):
        length = shapes[:, side].astype(np.int64)
        step = length / resized[:, side]
        skipped = np.rint((resized[:, side] - size) / 2)
        first = (skipped + 0.5) * step
        support = np.maximum(step, 1.0)
        start = np.clip(np.floor(first - support), 0, None).astype(np.int64)
        end = np.ceil(first + (size - 1) * step + support).astype(np.int64)
        axes.append(Axis(first - start, step, start, np.minimum(end, length) - start))
        low.append(skipped / resized[:, side])
        high.append((skipped + size) / resized[:, side])
    count = len(rows)
    geometry = Geometry(axes[0], axes[1], np.zeros(count, bool), np.zeros(count), 0)
    images = torch.empty(count, 3, size, size, dtype=dtype, device=device)
    for chunk, pixels in resample(
        store, rows, geometry, size, device=device, dtype=_product_type(device, dtype)
    ):
        place = torch.from_numpy(chunk).to(device)
        _put(images, place, pixels.add_(128).div_(255).clamp_(0, 1))
    boxes = np.stack([low[1], low[0], high[1], high[0]], axis=1)
    return _view(images, rows, boxes, np.zeros(count, bool))


class BatchSource:
    """Batches of views by step number: random access, so resuming needs no state.

    Args:
        store: Photo store.
        rows: Catalog rows to train on.
        multi_view: Which views to make.
        batch_size: Photos per optimiser step, over all micro-batches and processes.
        seed: Part of the address of every random number.
        device: Where views are made.
        dtype: Type of the images.
        guide: Optional places for the centres of crops.

    Raises:
        ConfigError: If there are fewer photos than one batch takes.
    """

    def __init__(
        self,
        store: Photos,
        rows: Int[np.ndarray, " N"],
        multi_view: MultiView,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        guide: Guide | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"train.batch_size must be at least 1, got {batch_size}.")
        if len(rows) < batch_size:
            raise ConfigError(
                f"one batch takes {batch_size} photos and usable are {len(rows)}; "
                f"add photos or lower train.batch_size to at most {len(rows)}."
            )
        self.rows = np.sort(np.asarray(rows, dtype=np.int64))
        self.batch_size = batch_size
        self.seed = seed
        self.maker = ViewMaker(
            store, multi_view, seed=seed, device=device, dtype=dtype, guide=guide
        )
        self._epoch = -1
        self._order = self.rows

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches per pass; the photos left over differ from epoch to epoch."""
        return len(self.rows) // self.batch_size

    def batch_rows(
        self, step: int, micro: int = 0, micros: int = 1, rank: int = 0, world: int = 1
    ) -> Int[np.ndarray, " B"]:
        """Catalog rows of one micro-batch of one process."""
        if self.batch_size % (micros * world):
            raise ConfigError(
                f"train.batch_size {self.batch_size} cannot be cut evenly into {micros} "
                f"micro-batches on {world} processes; choose a multiple of {micros * world}."
            )
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = epoch_order(self.rows, self.seed, epoch), epoch
        share = self.batch_size // (micros * world)
        begin = place * self.batch_size + (micro * world + rank) * share
        return self._order[begin : begin + share]

    def batch(
        self, step: int, micro: int = 0, micros: int = 1, rank: int = 0, world: int = 1
    ) -> Batch:
        """Make one micro-batch of one process.

        Args:
            step: Optimiser step from 0, over all epochs.
            micro: Which micro-batch of the step, of ``micros``.
            micros: Micro-batches per step (gradient accumulation).
            rank: Which process, of ``world``.
            world: Number of processes.

        Raises:
            ConfigError: If the batch cannot be cut evenly.
        """
        rows = self.batch_rows(step, micro, micros, rank, world)
        views = self.maker.make(rows, step // self.steps_per_epoch)
        key = rng.seed_of("method", self.seed, step, micro, rank)
        return Batch(views, torch.from_numpy(rows).to(self.maker.device), key)


def _product_type(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    # Emulated bfloat16 products are slower than float32 ones.
    if device.type == "cpu" and not (dtype == torch.bfloat16 and fast_bfloat16()):
        return torch.float32
    return dtype


def _shapes(store: Pixels, rows: Int[np.ndarray, " B"]) -> Int[np.ndarray, "B 2"]:
    shapes = store.shapes
    outside = (rows < 0) | (rows >= len(shapes))
    if outside.any():
        raise InputError(
            f"row {int(rows[outside][0])} is not in the photo store; rows 0 to "
            f"{len(shapes) - 1} are. Use the rows listed in the store's 'usable'."
        )
    chosen = shapes[rows]
    if (chosen < 1).any():
        row = int(rows[(chosen < 1).any(axis=1)][0])
        raise InputError(
            f"row {row} has no stored photo: it was refused or left out when the store was built. "
            "Use the rows listed in the store's 'usable'."
        )
    return chosen


def _as_view(
    images: Float[Tensor, "B 3 S S"],
    rows: Int[np.ndarray, " B"],
    draws: Draws,
    shapes: Int[np.ndarray, "B 2"],
) -> View:
    top, left, height, width = draws.crops
    high, wide = shapes.T.astype(np.float64)
    boxes = np.stack(
        [left / wide, top / high, (left + width) / wide, (top + height) / high], axis=1
    )
    return _view(images, rows, boxes, draws.flipped)


def _view(
    images: Float[Tensor, "B 3 S S"],
    rows: Int[np.ndarray, " B"],
    boxes: Float[np.ndarray, "B 4"],
    flipped: Bool[np.ndarray, " B"],
) -> View:
    device = images.device
    return View(
        images,
        torch.from_numpy(np.array(rows, dtype=np.int64)).to(device),
        torch.from_numpy(boxes.astype(np.float32)).to(device),
        torch.from_numpy(np.array(flipped)).to(device),
    )
