"""What happens to a photo: settings of views, and their random parameters drawn by address.

Every number depends on (seed, epoch, row, view) alone (docs/design.md, rule 4), so neither batch
composition nor the number of workers can change a view.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator

from fieldmark import rng
from fieldmark.config import Config

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0)]

TRIES = 10
"""Crops tried before falling back to a central one, as in torchvision's RandomResizedCrop."""


class ViewSpec(Config):
    """One kind of random view. Defaults are MoCo v2's (arXiv:2003.04297)."""

    count: int = Field(default=1, ge=1)
    """How many views of this kind each photo gets."""
    size: int = Field(ge=8, le=2048)
    """Side of the square view, in pixels."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest crop, as share of the photo's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest crop, width ÷ height; log-uniform between."""
    flip: Probability = 0.5
    """Chance to mirror left to right."""
    jitter_probability: Probability = 0.8
    """Chance of brightness, contrast, saturation and hue changes, in random order."""
    brightness: Strength = 0.4
    """Brightness is multiplied by 1 ± this."""
    contrast: Strength = 0.4
    """Contrast is multiplied by 1 ± this."""
    saturation: Strength = 0.4
    """Saturation is multiplied by 1 ± this."""
    hue: float = Field(default=0.1, ge=0.0, le=0.5)
    """Hue turns by ± this share of the colour circle."""
    gray: Probability = 0.2
    """Chance to drop all colour."""
    blur: Probability = 0.5
    """Chance of Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view; uniform."""
    solarize: Probability = 0.0
    """Chance to invert pixels above the threshold."""
    solarize_threshold: Probability = 0.5
    """Values at or above this are inverted when solarizing."""

    @model_validator(mode="after")
    def _check(self) -> "ViewSpec":
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                "scale must be (low, high) with 0 < low <= high <= 1, such as (0.2, 1)"
            )
        low, high = self.ratio
        if not 0 < low <= high:
            raise ValueError("ratio must be (low, high) with 0 < low <= high, such as (0.75, 1.33)")
        low, high = self.blur_sigma
        if not 0 < low <= high:
            raise ValueError(
                "blur_sigma must be (low, high) with 0 < low <= high, such as (0.1, 2)"
            )
        return self

    @property
    def jitters(self) -> bool:
        """Whether colours can change other than by dropping them."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        return self.jitter_probability > 0 and any(strength > 0 for strength in strengths)


class MultiView(Config):
    """All views a method asks for of each photo; sizes may differ."""

    specs: tuple[ViewSpec, ...] = Field(min_length=1)
    """Kinds of view, in the order the method reads them."""
    least_scale: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of a photo that any further look, such as a teacher's, may show; 0: any."""

    @property
    def count(self) -> int:
        """Number of views of each photo."""
        return sum(spec.count for spec in self.specs)

    @property
    def smallest_scale(self) -> float:
        """Smallest share of a photo that any view shows."""
        return min(spec.scale[0] for spec in self.specs)

    @property
    def largest_size(self) -> int:
        """Side of the largest view, in pixels."""
        return max(spec.size for spec in self.specs)

    def each(self) -> tuple[ViewSpec, ...]:
        """One spec per view, in the order of the views."""
        return tuple(spec for spec in self.specs for _ in range(spec.count))


def byol_views(size: int, smallest_crop: float) -> MultiView:
    """Two distributions: always blurred; seldom blurred and sometimes solarized.

    Args:
        size: Side of the views, in pixels.
        smallest_crop: As a share of the photo.

    Source:
        Grill et al. 2020, arXiv:2006.07733, Table 6; colours as in MoCo v3 and LoDisc.
    """
    common = ViewSpec(size=size, scale=(smallest_crop, 1.0), saturation=0.2, hue=0.1)
    second = {"blur": 0.1, "solarize": 0.2}
    return MultiView(
        specs=(common.model_copy(update={"blur": 1.0}), common.model_copy(update=second))
    )


class Crops(NamedTuple):
    """Where each view is cut, in whole pixels of the stored photo."""

    top: Int[np.ndarray, " B"]
    left: Int[np.ndarray, " B"]
    height: Int[np.ndarray, " B"]
    width: Int[np.ndarray, " B"]


class ColourDraws(NamedTuple):
    """What happens to the colours of each view; neutral values where nothing does."""

    factors: Float[np.ndarray, "B 4"]
    """Brightness, contrast and saturation factors, and hue shift in turns."""
    order: Int[np.ndarray, "B 4"]
    """The order in which the four are applied; entries index ``factors``."""
    gray: Bool[np.ndarray, " B"]


class Guide(NamedTuple):
    """Where crops should be centred, per catalog row (for ContrastiveCrop and its kin).

    Exactly one of the two is given; row ``r`` of the array belongs to catalog row ``r``. Sizes and
    shapes of crops keep their distribution; a crop that would leave the photo is pushed back in.
    """

    boxes: Float[np.ndarray, "N 4"] | None = None
    """x0 y0 x1 y1 as fractions: the crop's centre is uniform inside."""
    maps: Float[np.ndarray, "N h w"] | None = None
    """Coarse density over the photo, >= 0: a cell is drawn by weight, the centre uniform in it."""


class Draws(NamedTuple):
    """All random parameters of one view per photo."""

    crops: Crops
    flipped: Bool[np.ndarray, " B"]
    colour: ColourDraws
    sigma: Float[np.ndarray, " B"]
    """Blur's standard deviation in pixels, 0 where there is none."""
    solarized: Bool[np.ndarray, " B"]


def draw_views(
    spec: ViewSpec,
    shapes: Int[np.ndarray, "B 2"],
    rows: Int[np.ndarray, " B"],
    *,
    seed: int,
    epoch: int,
    view: int,
    guide: Guide | None = None,
) -> Draws:
    """Draw the parameters of one view per photo.

    Args:
        spec: What to draw from.
        shapes: Height and width of each stored photo, in pixels, > 0.
        rows: Catalog rows: part of the address.
        seed: The run's seed.
        epoch: Which pass over the photos.
        view: Index of the view among all views of the photo.
        guide: Optional places for the centres of crops.
    """

    def uniform(count: int, what: str) -> Float[np.ndarray, "B count"]:
        return rng.uniform(count, "view", what, seed, epoch, rows, view)

    flip, jitter, gray, blur, solarize, sigma = uniform(6, "chances").T
    strengths = uniform(4, "jitter")
    reach = np.array([spec.brightness, spec.contrast, spec.saturation])
    low = np.maximum(0.0, 1.0 - reach)
    factors = np.concatenate(
        [low + strengths[:, :3] * (1.0 + reach - low), spec.hue * (2 * strengths[:, 3:] - 1)],
        axis=1,
    )
    factors[jitter >= spec.jitter_probability] = (1.0, 1.0, 1.0, 0.0)
    smallest, largest = spec.blur_sigma
    return Draws(
        crops=draw_crops(spec, shapes, rows, seed=seed, epoch=epoch, view=view, guide=guide),
        flipped=flip < spec.flip,
        colour=ColourDraws(
            factors, np.argsort(uniform(4, "order"), axis=1, kind="stable"), gray < spec.gray
        ),
        sigma=np.where(blur < spec.blur, smallest + sigma * (largest - smallest), 0.0),
        solarized=solarize < spec.solarize,
    )


def draw_crops(
    spec: ViewSpec,
    shapes: Int[np.ndarray, "B 2"],
    rows: Int[np.ndarray, " B"],
    *,
    seed: int,
    epoch: int,
    view: int,
    guide: Guide | None = None,
) -> Crops:
    """Draw crops with the distribution of torchvision's RandomResizedCrop.

    Ten candidates are drawn; the first that fits the photo is taken, else the largest central crop
    of allowed shape.
    """
    height, width = shapes[:, :1].astype(np.float64), shapes[:, 1:].astype(np.float64)
    draws = rng.uniform(2 * TRIES + 3, "crop", seed, epoch, rows, view)
    area = height * width * (spec.scale[0] + draws[:, :TRIES] * (spec.scale[1] - spec.scale[0]))
    narrow, wide = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    aspect = np.exp(narrow + draws[:, TRIES : 2 * TRIES] * (wide - narrow))
    w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, photo = fits.argmax(axis=1), np.arange(len(rows))
    central_h, central_w = _largest_central(spec.ratio, height[:, 0], width[:, 0])
    any_fits = fits.any(axis=1)
    h = np.where(any_fits, h[photo, first], central_h)
    w = np.where(any_fits, w[photo, first], central_w)
    free_y, free_x = height[:, 0] - h, width[:, 0] - w
    if guide is None:
        top = np.floor(draws[:, -2] * (free_y + 1))
        left = np.floor(draws[:, -1] * (free_x + 1))
    else:
        x, y = _guided_centre(guide, rows, draws[:, -3:])
        top = np.clip(np.rint(y * height[:, 0] - h / 2), 0, free_y)
        left = np.clip(np.rint(x * width[:, 0] - w / 2), 0, free_x)
    top = np.where(any_fits, top, free_y // 2)
    left = np.where(any_fits, left, free_x // 2)
    return Crops(*(part.astype(np.int64) for part in (top, left, h, w)))


def _largest_central(
    ratio: tuple[float, float], height: Float[np.ndarray, " B"], width: Float[np.ndarray, " B"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    shape = width / height
    h = np.where(shape < ratio[0], np.minimum(height, np.rint(width / ratio[0])), height)
    w = np.where(shape > ratio[1], np.minimum(width, np.rint(height * ratio[1])), width)
    # A strip one pixel thin would otherwise round to nothing.
    return np.maximum(h, 1.0), np.maximum(w, 1.0)


def _guided_centre(
    guide: Guide, rows: Int[np.ndarray, " B"], draws: Float[np.ndarray, "B 3"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    if (guide.boxes is None) == (guide.maps is None):
        raise ValueError("a guide holds either boxes or maps, and not both")
    if guide.boxes is not None:
        x0, y0, x1, y1 = guide.boxes[rows].T
        return x0 + draws[:, 2] * (x1 - x0), y0 + draws[:, 1] * (y1 - y0)
    assert guide.maps is not None
    maps = guide.maps[rows].astype(np.float64)
    count, cells_y, cells_x = maps.shape
    # A photo without any salient cell is sampled evenly.
    cumulative = np.cumsum(maps.reshape(count, -1) + 1e-12, axis=1)
    reached = cumulative <= draws[:, :1] * cumulative[:, -1:]
    cell = np.minimum(reached.sum(axis=1), cells_y * cells_x - 1)
    return (cell % cells_x + draws[:, 2]) / cells_x, (cell // cells_x + draws[:, 1]) / cells_y


def epoch_order(rows: Int[np.ndarray, " N"], seed: int, epoch: int) -> Int[np.ndarray, " N"]:
    """Shuffle rows for one epoch; the order of ``rows`` itself does not matter."""
    rows = np.sort(rows)
    return rows[np.argsort(rng.mix("order", seed, epoch, rows), kind="stable")]
