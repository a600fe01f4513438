"""A sheet that shows where a part was found."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fieldmark.explain.drawing import frame, part, square
from fieldmark.explain.sheet import Section, Sheet, Strip, Tile

_LARGE, _SMALL = 440, 300


class Found(NamedTuple):
    """A part of a photo."""

    name: str
    pixels: UInt8[np.ndarray, "H W 3"] | None
    """Upright; None where it cannot be read any more."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1 as fractions of the photo."""
    score: float
    label: str | None


def found_sheet(query: Found, hits: Sequence[Found], searched: int, without: int) -> Sheet:
    """The query with its region, and each hit with its place and the place enlarged.

    Args:
        query: With pixels.
        hits: Best first.
        searched: Photos that were looked at.
        without: Photos that could not be.
    """
    strips = tuple(_strip(hit, number) for number, hit in enumerate(hits, 1))
    lacking = (
        f" {without:,} photos of the index have no parts and were not searched; fieldmark index … "
        "--parts adds them."
        if without
        else ""
    )
    best = f"{hits[0].score:.2f}" if hits else "none"
    return Sheet(
        kind="Region search",
        title=f"Where else is this part of {query.name}?",
        lede=(
            f"The best place of each of {searched:,} photos was looked for; here are the {len(hits):,} "
            "most like the region."
        ),
        belief=(
            "A place is found in every photo, also where the part is not in it: scores say which are "
            f"alike, within this search only, and the best here is {best}.{lacking}"
        ),
        tone="flat",
        sections=(
            Section(
                "query",
                "The query",
                "The photo that was given, and the region in it.",
                (Strip(_tiles(query, None, _LARGE)),),
            ),
            Section(
                "found",
                "Found",
                "Each photo with its best place, best first, and that place enlarged.",
                strips,
                "halves",
            ),
        ),
        curves=None,
        facts=(
            ("Region", ", ".join(f"{edge:.3f}" for edge in query.box)),
            ("Photos searched", f"{searched:,}"),
            ("Photos without parts", f"{without:,}"),
        ),
        reading=(
            "Photos are cut to a square around the place; the whole photo was searched.",
            "The frame is as large as the region, measured in cells of the encoder's grid; it may lie half "
            "a cell beside what it means.",
            "A part that is mirrored counts as the same; one that is turned or of another size need not.",
        ),
    )


def _strip(hit: Found, number: int) -> Strip:
    folder, _, name = hit.name.rpartition("/")
    told = " · ".join(text for text in (f"{hit.score:.3f}", hit.label or folder) if text)
    if hit.pixels is None:
        return Strip((), name, f"{told} · the photo cannot be read any more", number)
    return Strip(_tiles(hit, number, _SMALL), name, told, number)


def _tiles(one: Found, number: int | None, side: int) -> tuple[Tile, ...]:
    if one.pixels is None:
        return ()
    picture, box = square(one.pixels, one.box, side)
    return (
        Tile(frame(picture, box, number), f"{one.name} with a frame around the place"),
        Tile(part(one.pixels, one.box, side), f"The place in {one.name}, enlarged"),
    )
