"""The photos of the index: what there is, and all of it at once."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from fieldmark.app.access import Reader
from fieldmark.app.answers import Packed, send
from fieldmark.app.derived import Working
from fieldmark.app.problems import described
from fieldmark.app.service import Served
from fieldmark.index.index import LONGEST_KEY

router = APIRouter(prefix="/api/v1", tags=["library"])
Snapshot = Annotated[str | None, Query(max_length=64)]
"""That the caller has a table of; another one than the service's is answered 409 ``snapshot_gone``."""
Filter = Annotated[str, Query(min_length=1, max_length=2000)]
WORKING: dict[int | str, dict[str, Any]] = {
    202: {"model": Working, "description": "It is being computed; ask again."}
}


class EncoderTold(BaseModel):
    """An encoder that the index has vectors of."""

    identity: str
    network: str | None
    size: int | None
    """Side of what it sees, in pixels."""
    weights: str | None
    """How they were made."""
    vectors: int


class FieldTold(BaseModel):
    """Something that is known of photos besides labels."""

    name: str
    kind: Literal["text", "number", "bool"]
    values: list[str | float | bool]
    """The 50 most frequent."""


class LibraryTold(BaseModel):
    """What the index holds."""

    index: str
    photos: int
    missing: int
    labelled: int
    encoder: EncoderTold | None
    encoders: list[EncoderTold]
    fields: list[FieldTold]
    parts: bool
    """Whether regions can be searched for."""
    photos_found: bool
    """Whether the folder of the photos is there."""
    taxonomy: list[str]
    """Fields that name coarser levels, coarsest first."""
    snapshot: str
    change: int
    search: dict[str, Any]
    without: int
    """Photos that have no vector of this encoder; they are in no table."""


class TableTold(BaseModel):
    """All photos, column by column."""

    snapshot: str
    change: int
    keys: list[str]
    media: list[str]
    labels: list[str]
    """Names that ``label`` points at."""
    label: list[int]
    """-1 for none."""
    version: list[int]
    missing: list[int]


class RowsTold(BaseModel):
    """Rows that a filter chooses."""

    snapshot: str
    rows: list[int]


class HistoryLine(BaseModel):
    """One change of a photo's label."""

    number: int
    before: str | None
    after: str | None
    by: str
    at: str


class PhotoTold(BaseModel):
    """One photo."""

    key: str
    media: str | None
    label: str | None
    version: int
    meta: dict[str, Any]
    missing: bool
    history: list[HistoryLine]


class MapTold(BaseModel):
    """Where photos lie, in the order of the table."""

    snapshot: str
    how: str
    final: bool
    """Whether a better map is not being made."""
    x: list[float]
    y: list[float]


class ClusterTold(BaseModel):
    """Photos that are alike."""

    name: str
    size: int
    medoid: int
    """Row of the most typical photo."""
    label: str | None
    """The commonest of its photos."""


class MergeTold(BaseModel):
    """Two clusters that may be one."""

    first: int
    second: int
    cosine: float


class ClustersTold(BaseModel):
    """Photos in more groups than there are kinds."""

    snapshot: str
    kinds: int
    """Estimated."""
    clusters: list[ClusterTold]
    assigned: list[int]
    merges: list[MergeTold]


class OutliersTold(BaseModel):
    """Photos that belong least, the oddest first."""

    snapshot: str
    change: int
    usual: float | None
    rows: list[int]
    scores: list[float]
    nearest: list[str | None]


class GroupTold(BaseModel):
    """Photos that are there more than once, or nearly."""

    kind: Literal["exact", "same", "burst", "alike"]
    rows: list[int]
    """The largest file first."""
    cosine: float
    """Of the least alike to the first."""


class DuplicatesTold(BaseModel):
    """Copies."""

    snapshot: str
    checked: bool
    """Whether pixels were compared."""
    unreadable: int
    groups: list[GroupTold]


def reply(request: Request, found: Packed | Working) -> Response:
    """An answer, or 202 with how far it is."""
    if isinstance(found, Packed):
        return send(request, found)
    return Response(
        found.model_dump_json(),
        status_code=202,
        media_type="application/json",
        headers={"Retry-After": "1", "Cache-Control": "no-store"},
    )


@router.get("/library", responses=described(401, 403, 409))
def library(service: Served, _: Reader) -> LibraryTold:
    """What the index holds."""
    return LibraryTold(**service.indexed.describe())


@router.get("/table", response_model=TableTold, responses=described(401, 403, 409))
def table(request: Request, service: Served, _: Reader, snapshot: Snapshot = None) -> Response:
    """All photos with their labels, column by column."""
    view = service.indexed.library.view(snapshot)
    return send(request, service.indexed.tables.pack(view))


@router.get("/rows", responses=described(401, 403, 409, 422))
def rows(service: Served, _: Reader, where: Filter, snapshot: Snapshot = None) -> RowsTold:
    """Rows of photos for which a filter holds."""
    view = service.indexed.library.view(snapshot)
    found = service.indexed.library.chosen(where, view)
    return RowsTold(snapshot=view.table.snapshot, rows=found.tolist())


@router.get("/photo", responses=described(401, 403, 404, 409, 422))
def photo(
    service: Served,
    _: Reader,
    key: Annotated[str, Query(min_length=1, max_length=LONGEST_KEY)],
) -> PhotoTold:
    """One photo, and who labelled it what."""
    item, history = service.indexed.editor.item(key)
    return PhotoTold(
        key=item.key,
        media=service.indexed.media_of(item),
        label=item.label,
        version=item.version,
        meta=item.meta,
        missing=item.missing,
        history=[
            HistoryLine(**{name: getattr(line, name) for name in HistoryLine.model_fields})
            for line in history[-1000:]
        ],
    )


@router.get("/map", response_model=MapTold, responses=described(401, 403, 409))
def map_(request: Request, service: Served, _: Reader, snapshot: Snapshot = None) -> Response:
    """Places of photos such that look-alikes lie together; a plain map until that is made."""
    view = service.indexed.library.view(snapshot)
    return send(request, service.indexed.overview.map(view))


@router.get(
    "/clusters",
    response_model=ClustersTold,
    responses=described(401, 403, 409, 422, 503) | WORKING,
)
def clusters(
    request: Request,
    service: Served,
    _: Reader,
    snapshot: Snapshot = None,
    count: Annotated[int | None, Query(ge=1, le=5000)] = None,
) -> Response:
    """Photos in more groups than there are kinds, and which groups may be one."""
    view = service.indexed.library.view(snapshot)
    return reply(request, service.indexed.overview.clusters(view, count))


@router.get(
    "/outliers",
    response_model=OutliersTold,
    responses=described(401, 403, 409, 422, 503) | WORKING,
)
def outliers(
    request: Request,
    service: Served,
    _: Reader,
    snapshot: Snapshot = None,
    by_label: bool = False,
) -> Response:
    """The 500 photos that are least like the rest, or least like their own label's."""
    view = service.indexed.library.view(snapshot)
    return reply(request, service.indexed.overview.outliers(view, by_label=by_label))


@router.get(
    "/duplicates",
    response_model=DuplicatesTold,
    responses=described(401, 403, 409, 503) | WORKING,
)
def duplicates(request: Request, service: Served, _: Reader, snapshot: Snapshot = None) -> Response:
    """Photos that are there more than once."""
    view = service.indexed.library.view(snapshot)
    return reply(request, service.indexed.overview.duplicates(view))
