"""Looks and torch: photos that are tensors, and batches of looks."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from fieldmark.data.look import short_side


def look_at_tensor(image: Float[Tensor, "3 H W"], size: int, crop: float) -> Float[Tensor, "3 S S"]:
    """The same for a photo that is a tensor with values in [0, 1]."""
    height, width = image.shape[1:]
    short = short_side(size, crop)
    resized = [short * length // min(height, width) for length in (height, width)]
    if resized != [height, width]:
        image = functional.interpolate(
            image[None].float(), resized, mode="bilinear", antialias=True, align_corners=False
        )[0]
    top, left = (int(np.rint((length - size) / 2)) for length in resized)
    return image[:, top : top + size, left : left + size].clamp(0, 1)


def stack(
    looks: list[UInt8[np.ndarray, "S S 3"] | Float[Tensor, "3 S S"]],
) -> Float[Tensor, "B 3 S S"]:
    """Join looks to a batch in [0, 1]; memory order is channels last."""
    if all(isinstance(look, np.ndarray) for look in looks):
        joined = torch.from_numpy(np.stack(looks))
        return joined.permute(0, 3, 1, 2).to(torch.float32).div_(255)
    parts = [
        torch.from_numpy(np.ascontiguousarray(look)).permute(2, 0, 1).float() / 255
        if isinstance(look, np.ndarray)
        else look.cpu().float()
        for look in looks
    ]
    return torch.stack(parts)
