"""``fieldmark search --region``: where in other photos is this part?"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from fieldmark.data.catalog import Catalog, Location, read_location
from fieldmark.data.decode import decode
from fieldmark.errors import ArtifactError, FieldmarkError, InputError, PhotoError
from fieldmark.explain.found import Found, found_sheet
from fieldmark.explain.sheet import check_out, write_sheet
from fieldmark.index.index import Index, Item
from fieldmark.index.match import STEPS, Region, cut_template, find_places
from fieldmark.index.parts import FILE, Basis, Parts, Reading
from fieldmark.index.places import Place, is_server, open_index, shown
from fieldmark.workflows.parts import detail_of, hash_of, read_cells
from fieldmark.workflows.spaces import choose_space, load_encoder

_REMEDY = "make them with fieldmark index ENCODER PHOTOS --out INDEX --parts."
_ENOUGH = 900
"""Short side of photos for the eye, in pixels."""


class PartHit(NamedTuple):
    """The best place of one photo."""

    item: Item
    score: float
    """In [-1, 1]; comparable within one search only."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1 as fractions of the photo."""


class PartAnswer(NamedTuple):
    """What was found for a region."""

    query: str
    region: Region
    hits: list[PartHit]
    searched: int
    """Photos whose cells were looked at."""
    without: int
    """Photos that the filter leaves, and that have no cells, damaged ones, or those of an older photo."""


def search_parts(
    index: Place,
    query: str,
    region: str,
    *,
    k: int = 10,
    where: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    sheet: Path | None = None,
) -> PartAnswer:
    """Photos of an index that show a part of a photo, and where.

    Args:
        index: Folder, from ``index_photos(…, parts=True)``.
        query: Photo file, or key of a photo in the index (which is then left out of its answer).
        region: ``x0,y0,x1,y1``: fractions of the query's width and height, from its upper left.
        k: How many.
        where: Filter (:mod:`fieldmark.index.where`).
        encoder: Whose parts, as for ``search_photos``.
        device: Where to compute.
        sheet: Also write a page or a picture that shows the places.

    Raises:
        ArtifactError: No index, no parts, none that can be believed, or no encoder.
        PhotoError: The query cannot be read.
        InputError: A region or filter that makes no sense.
        OutputError: The sheet cannot be written there.
    """
    box = Region.parse(region)
    if sheet is not None:
        check_out(sheet)
    if is_server(index):
        raise InputError(
            f"{shown(index)} is a server's index and keeps no places of photos; --region needs an index in a "
            "folder."
        )
    with open_index(index) as opened:
        space, loaded = choose_space(opened.stats(), index, encoder, device=device)
        current = space.identity
        with closing(Parts(Path(index) / FILE)) as parts:
            detail = detail_of(loaded or load_encoder(index, space, device=device))
            basis = basis_of(parts, current, detail.kind)
            inside = None if Path(query).is_file() else _item(opened, query)
            if inside is None:
                cells = basis.express(read_cells(detail, _file(query)))
            else:
                cells = stored_cells(parts, current, basis, inside)
            own = None if inside is None else inside.key
            found = search_cells(
                opened, parts, current, basis, cells, box, k=k, where=where, own=own
            )
            source = parts.source
    answer = PartAnswer(query, box, *found)
    if sheet is not None:
        _show(answer, inside is not None, source, sheet)
    return answer


class PartHits(NamedTuple):
    """Where a region was found; see :class:`PartAnswer`."""

    hits: list[PartHit]
    searched: int
    without: int


def basis_of(parts: Parts, identity: str, kind: str) -> Basis:
    """The directions that an encoder's cells are kept in.

    Args:
        parts: Open.
        identity: Of the encoder.
        kind: How its cells are read (``Detail.kind``).

    Raises:
        ArtifactError: None that can be read.
    """
    basis = parts.basis(identity, kind)
    if basis is None:
        raise ArtifactError(
            f"{parts.file.parent} holds no parts of its encoder {identity[:12]}… that can be read; {_REMEDY}"
        )
    return basis


def search_cells(
    index: Index,
    parts: Parts,
    identity: str,
    basis: Basis,
    cells: Float[np.ndarray, "h w D"],
    region: Region,
    *,
    k: int = 10,
    where: str | None = None,
    own: str | None = None,
) -> PartHits:
    """Photos whose cells look like those under a region.

    Args:
        index: Open.
        parts: Of the same index, open.
        identity: Encoder.
        basis: Of its cells.
        cells: Of the query, in that basis.
        region: In the query.
        k: How many.
        where: Filter.
        own: Key of the query, which is left out.

    Raises:
        ArtifactError: No photo has cells that can be believed.
        InputError: A filter that makes no sense.
    """
    template = cut_template(cells.astype(np.float32), region)
    hashes = {item.key: hash_of(item) for item in index.items(where)}
    hashes.pop(own or "", None)
    chunks = _Counted(parts.read(identity, basis.projection.shape[1], hashes))
    places = find_places(chunks, template, k)
    if hashes and not chunks.count:
        raise ArtifactError(
            f"none of the {len(hashes):,} photos that were asked for has parts that can be believed; "
            f"{_REMEDY}"
        )
    items = index.get([place.key for place in places])
    hits = [
        PartHit(item, place.score, place.box) for item, place in zip(items, places, strict=True)
    ]
    return PartHits(hits, chunks.count, len(hashes) - chunks.count)


class _Counted:
    """Chunks, and how many photos went by."""

    def __init__(self, readings: Iterator[Reading]) -> None:
        self._readings = readings
        self.count = 0

    def __iter__(self) -> Iterator[Reading]:
        for reading in self._readings:
            self.count += len(reading.keys)
            yield reading


def _item(index: Index, key: str) -> Item | None:
    try:
        return index.get([key])[0]
    except InputError:
        return None


def _file(path: str, enough: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    try:
        data, _ = read_location(Location(path))
        return decode(data, enough=enough).pixels
    except PhotoError as error:
        raise PhotoError(error.code, f"{path}: {error.detail}") from None


def stored_cells(
    parts: Parts, identity: str, basis: Basis, item: Item
) -> Float[np.ndarray, "h w D"]:
    """Cells of a photo of the index.

    Raises:
        ArtifactError: None that can be believed.
    """
    for _, grids in parts.read(identity, basis.projection.shape[1], {item.key: hash_of(item)}):
        return grids[0] / np.float32(STEPS)
    raise ArtifactError(
        f"{item.key} has no parts that can be believed; {_REMEDY} Or give the photo as a file."
    )


def _show(answer: PartAnswer, inside: bool, source: str | None, sheet: Path) -> None:
    try:
        if source is None:
            raise InputError("nobody knows where they are")
        catalog = Catalog.open(Path(source))
    except FieldmarkError as error:
        raise ArtifactError(
            f"the sheet shows photos, and those of the index cannot be opened in {source}: {error} Put them "
            "back, or run fieldmark index … --parts with where they are now."
        ) from None
    rows = {row.path: row.row for row in catalog.rows}

    def pixels(key: str) -> UInt8[np.ndarray, "H W 3"] | None:
        try:
            return decode(catalog.read(rows[key]), enough=_ENOUGH).pixels
        except (KeyError, PhotoError):
            return None

    shown = pixels(answer.query) if inside else _file(answer.query, _ENOUGH)
    if shown is None:
        raise ArtifactError(
            f"the sheet shows the query, and {answer.query} is not in {source} any more; give it as a file."
        )
    found = [
        Found(hit.item.key, pixels(hit.item.key), hit.box, hit.score, hit.item.label)
        for hit in answer.hits
    ]
    box = (answer.region.x0, answer.region.y0, answer.region.x1, answer.region.y1)
    query = Found(Path(answer.query).name, shown, box, 1.0, None)
    write_sheet(found_sheet(query, found, answer.searched, answer.without), sheet)
