"""Do maps find the field marks of drawn birds, whose places are known?"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from fieldmark.data.aviary import Aviary
from fieldmark.errors import InputError
from fieldmark.explain.classes import explain_classes
from fieldmark.nn.spec import EncoderSpec


class DrawnMarks(NamedTuple):
    """How often the strongest place of a two-class map is a drawn mark that differs."""

    rate: float
    """Share of photos, 0 to 1."""
    chance: float
    """The same for a place drawn at random from the photo."""
    on_bird: float
    """The same for a place drawn at random from the bird's box."""
    right: float
    """Share of photos on the right side of a line drawn without them."""
    photos: int


def find_drawn_marks(
    spec: EncoderSpec,
    aviary: Aviary,
    species: tuple[int, int],
    *,
    slack: float = 0.05,
) -> DrawnMarks:
    """Explain two species of an aviary and look whether the maps' maxima lie in a mark's box.

    Args:
        spec: An encoder whose input is as large as the aviary's photos.
        aviary: Drawn birds.
        species: Labels of the two.
        slack: By how much of the side boxes grow on each side: marks are small, and a
            map's cells are not. Chance knows of it.

    Raises:
        InputError: If the photos are not of the encoder's size.
    """
    if aviary.config.size != spec.size:
        raise InputError(
            f"the encoder takes {spec.size} px and the birds are drawn at {aviary.config.size} px; draw "
            "them with size = the encoder's."
        )
    rows = np.flatnonzero(np.isin(aviary.labels, species))
    images = torch.from_numpy(aviary.images[rows]).permute(0, 3, 1, 2).float() / 255
    first = torch.from_numpy(aviary.labels[rows] == species[0])
    found = explain_classes(spec, images.to(spec.backbone.mean.device), first)
    shape = (found.maps.shape[1], found.maps.shape[2])
    inside = _near_marks(aviary, rows, species, shape, slack)
    best = found.maps.flatten(1).argmax(1).cpu().numpy()
    kept = inside.any(axis=1)
    hits = inside[np.arange(len(rows)), best]
    bird = _in_boxes(aviary.boxes[rows][:, None] / aviary.config.size, shape, 0.0)
    on_bird = (inside & bird).sum(axis=1) / np.maximum(bird.sum(axis=1), 1)
    return DrawnMarks(
        float(hits[kept].mean()),
        float(inside[kept].mean()),
        float(on_bird[kept].mean()),
        found.right,
        int(kept.sum()),
    )


def _near_marks(
    aviary: Aviary,
    rows: Int64[np.ndarray, " N"],
    species: tuple[int, int],
    shape: tuple[int, int],
    slack: float,
) -> Bool[np.ndarray, "N T"]:
    """Cells whose middle lies in the box of a visible mark that differs."""
    forms = [aviary.species[label].forms for label in species]
    differ = np.array([a != b for a, b in zip(*forms)])
    boxes = aviary.mark_boxes[rows][:, differ] / aviary.config.size
    visible = aviary.mark_visible[rows][:, differ] > 0.5
    return _in_boxes(np.where(visible[:, :, None], boxes, -9.0), shape, slack)


def _in_boxes(
    boxes: Float[np.ndarray, "N M 4"], shape: tuple[int, int], slack: float
) -> Bool[np.ndarray, "N T"]:
    y, x = ((np.arange(count) + 0.5) / count for count in shape)
    grown = np.asarray(boxes, np.float64) + slack * np.array([-1, -1, 1, 1])
    x0, y0, x1, y1 = (grown[:, :, None, None, side] for side in range(4))
    across = (x[None, None, None, :] >= x0) & (x[None, None, None, :] <= x1)
    down = (y[None, None, :, None] >= y0) & (y[None, None, :, None] <= y1)
    inside = across & down & (x1 > x0)
    return inside.any(axis=1).reshape(len(boxes), -1)
