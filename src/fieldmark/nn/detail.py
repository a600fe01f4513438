"""What a network says of each place of a whole photo, finely enough to find a part of it.

An embedding looks at the middle square and forgets where things are. Here the whole photo is looked
at, in about its own proportions and larger, and every place keeps its own feature.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fieldmark.backbones.backbone import Backbone
from fieldmark.errors import InputError

SCALE = 1.5
"""How much longer than the encoder's own input a side is, where the network takes that."""
FINE = 16
"""Pixels per cell that tell parts apart; a last map that is coarser gets an earlier one beside it."""
MOST = 196
"""Cells per photo; finer grids are averaged down."""
_LONGEST = 3.0
"""Longer photos than this are pressed together rather than looked at in a few rows of cells."""


class Detail:
    """Features of places.

    Where a network's last map is coarser than 16 pixels a cell, each cell is the last map there,
    interpolated, side by side with the latest map that is fine enough, each of length 1: the last
    one knows what a part is, the earlier one where it is. On drawn birds the last map of
    mobilenetv2 alone finds the place of a mark less often than looking at the same place of the
    photo does (benchmarks/results/parts.json).

    Args:
        backbone: Held, not copied, and left in evaluation.

    Attributes:
        side: Of the square whose area photos are brought to, in pixels.
        stage: Which earlier map is taken; None where the last is fine enough or the only one.
        dim: Length of a cell's feature.
        cells: Per photo, at most.
        kind: In words, and equal when two of these look alike.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone.eval()
        self.side = backbone.larger_input(SCALE)
        strides = backbone.stage_strides
        fine = [index for index, stride in enumerate(strides) if stride <= FINE]
        coarse = bool(strides) and strides[-1] > FINE
        self.stage = fine[-1] if coarse and fine else None
        self.dim = backbone.token_dim + (
            0 if self.stage is None else backbone.stage_dims[self.stage]
        )
        self._step = 32 if not strides or 32 % strides[-1] == 0 else strides[-1]
        self._oblong = self.side % self._step == 0 and self._takes_oblong()
        square = self(torch.zeros(1, 3, self.side, self.side))
        self.cells = square.shape[1] * square.shape[2]
        self.kind = f"{self.side} px, {'whole' if self._oblong else 'pressed square'}, " + (
            "last map" if self.stage is None else f"last map and stage {self.stage}"
        )

    @torch.no_grad()
    def _takes_oblong(self) -> bool:
        frame = self.frame(2, 3, oblong=True)
        try:
            self(torch.zeros(1, 3, *frame))
        except (InputError, AssertionError, RuntimeError, ValueError, IndexError):
            # Some transformers and mixers are built for one shape.
            return False
        return True

    def frame(self, height: int, width: int, *, oblong: bool | None = None) -> tuple[int, int]:
        """Height and width that a photo is resized to, in pixels.

        Of all shapes in the network's steps with at most the area of the square, the one whose
        proportions are nearest to the photo's; a square where the network takes no other.

        Args:
            height: Of the photo.
            width: Of the photo.
            oblong: Whether other shapes are allowed; by default what was tried.
        """
        if not (self._oblong if oblong is None else oblong):
            return self.side, self.side
        count = self.side // self._step
        wanted = min(max(math.log(height / width), -math.log(_LONGEST)), math.log(_LONGEST))

        def loss(shape: tuple[int, int]) -> float:
            # A photo that is pressed a little loses less than one that is seen much smaller.
            pressed = abs(math.log(shape[0] / shape[1]) - wanted)
            return pressed + 0.5 * math.log(count**2 / (shape[0] * shape[1]))

        # For rows given, the loss falls up to the photo's proportions and rises behind them.
        shapes = set()
        for y in range(1, 2 * count + 1):
            fitting = math.floor(y / math.exp(wanted))
            most = count**2 // y
            shapes |= {(y, min(max(x, 1), most)) for x in (fitting, fitting + 1) if most}
        y, x = min(sorted(shapes), key=loss)
        return y * self._step, x * self._step

    def look(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "y x 3"]:
        """A whole photo, resized with antialiasing; fractions of it are fractions of the photo."""
        height, width = self.frame(*pixels.shape[:2])
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w D"]:
        """Cells of images in [0, 1] of one shape."""
        stages = () if self.stage is None else (self.stage,)
        features = self._backbone(images.to(self._backbone.mean.device), stages=stages)
        last = features.tokens.float().unflatten(1, features.shape)
        if stages:
            early: Any = features.stages[0].float()
            last = functional.interpolate(
                last.permute(0, 3, 1, 2), early.shape[2:], mode="bilinear", align_corners=False
            )
            parts = [functional.normalize(each, dim=1) for each in (last, early)]
            cells = torch.cat(parts, 1)
        else:
            cells = functional.normalize(last, dim=3).permute(0, 3, 1, 2)
        height, width = cells.shape[2:]
        if height * width > MOST:
            shrink = math.sqrt(MOST / (height * width))
            shape = (max(1, int(height * shrink)), max(1, int(width * shrink)))
            cells = functional.adaptive_avg_pool2d(cells, shape)
        return cells.permute(0, 2, 3, 1)
