"""Photos that are sent, and what is asked about photos."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

from fieldmark.app.access import Allowed, Direct, Reader, Scope
from fieldmark.app.derived import Working
from fieldmark.app.explainer import Asked, ClassReasons, PairReasons, PhotoReasons
from fieldmark.app.photos import Embedded, finished
from fieldmark.app.problems import HttpProblem, described
from fieldmark.app.service import Served, Service
from fieldmark.app.upload import Upload, received
from fieldmark.index.index import LONGEST_KEY, LONGEST_LABEL, Item
from fieldmark.index.match import Region

router = APIRouter(prefix="/api/v1", tags=["photos"])
MOST = 200
"""Photos in one answer."""
_TOP = 5
_RAW: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The photo's file, as it is. Its content decides what it is, not its type.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_BAD = (401, 403, 409, 413, 415, 422, 503)
Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
Media = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Label = Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]
Filter = Annotated[str, Field(max_length=2000)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Which(BaseModel):
    """A photo: of the index by its key, or an upload by its name."""

    key: Key | None = None
    query: Media | None = None

    @model_validator(mode="after")
    def _one(self) -> "Which":
        if (self.key is None) == (self.query is None):
            raise ValueError("give either key or query")
        return self

    def asked(self) -> Asked:
        """As the explainer takes it."""
        return Asked(self.key, self.query)


class Uploaded(BaseModel):
    """A photo that can be asked about for some time."""

    query: str
    """Its name, for questions and for /media."""
    width: int
    height: int
    notes: list[str]
    """Oddities that lose nothing."""
    damage: str | None
    """What of the picture is missing or wrong."""


class Embedding(BaseModel):
    """What the encoder makes of a photo."""

    identity: str
    """Of the encoder; embeddings of different ones cannot be compared."""
    dim: int
    embedding: list[float]
    """Of length 1."""
    notes: list[str]
    damage: str | None


class Question(Which):
    """What is looked for."""

    k: Annotated[int, Field(ge=1, le=MOST)] = 20
    where: Filter | None = None
    """Only photos for which this filter holds."""
    region: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    """x0 y0 x1 y1 as fractions of the upright photo: look for this part in others."""


class Found(BaseModel):
    """A photo that was found."""

    key: str
    media: str
    score: float
    """In [-1, 1]; of parts comparable within one answer only."""
    label: str | None
    missing: bool
    box: tuple[float, float, float, float] | None = None
    """Where the part is: x0 y0 x1 y1 as fractions of the photo."""


class About(BaseModel):
    """Whose like was looked for."""

    key: str | None = None
    query: str | None = None
    media: str


class Hits(BaseModel):
    """What was found, best first."""

    query: About | None
    hits: list[Found]
    searched: int | None
    """Photos that were looked at; null where that is not counted."""
    without: int
    """Photos that could not be looked at: without parts, or with those of an older photo."""


class Chance(BaseModel):
    """A label and its probability."""

    label: str
    probability: float


class Classified(BaseModel):
    """What a photo is taken for."""

    label: str
    probability: float
    set: list[str] | None
    """Labels that it may be of, most likely first; null where too few labels allow none."""
    unknown: bool
    """Whether it looks like none of the labels."""
    familiarity: float
    """Larger is more like the labelled photos."""
    probabilities: list[Chance]
    """The most likely five."""
    damage: str | None


class Pair(BaseModel):
    """Two photos."""

    first: Which
    second: Which


class Labels(BaseModel):
    """Two labels."""

    first: Label
    second: Label
    count: Annotated[int, Field(ge=2, le=20)] = 12
    """Photos of each."""


def _taken(request: Request, service: Service) -> AbstractAsyncContextManager[Upload]:
    photos = service.photos
    photos.refuse_when_full()
    return received(request, service.settings.max_upload_bytes, photos.folder)


async def _upload(request: Request, service: Served, _: Reader) -> AsyncIterator[Upload]:
    async with _taken(request, service) as upload:
        yield upload


Sent = Annotated[Upload, Depends(_upload)]


@router.post("/queries", status_code=201, responses=described(*_BAD), openapi_extra=_RAW)
async def remember(upload: Sent, request: Request, service: Served, _: Reader) -> Uploaded:
    """Take a photo to ask about; nothing of its file is kept but pixels, and those for an hour."""
    made = await run_in_threadpool(service.photos.remember, upload)
    query = await finished(request, made)
    return Uploaded(
        query=query.media,
        width=query.width,
        height=query.height,
        notes=list(query.notes),
        damage=query.damage,
    )


async def embed(request: Request) -> Response:
    """The embedding of a photo."""
    service: Service = request.app.state.service
    async with _taken(request, service) as upload:
        found = await finished(request, service.photos.embed(upload.photo))
    notes, damage = _told(found)
    told = Embedding(
        identity=service.photos.eye.space.identity,
        dim=len(found.vector),
        embedding=found.vector.tolist(),
        notes=notes,
        damage=damage,
    )
    return Response(told.model_dump_json(), media_type="application/json")


router.add_api_route(
    "/embed",
    embed,
    methods=["POST"],
    response_model=Embedding,
    responses=described(*_BAD),
    openapi_extra=_RAW,
    dependencies=[Depends(Allowed(Scope.read))],
    route_class_override=Direct,
)


@router.post("/search", responses=described(401, 403, 404, 409, 422, 503))
def search(question: Question, service: Served, _: Reader) -> Hits:
    """Photos that look most like one, or that show a part of it."""
    photos = service.photos
    key, query = question.key, None
    if key is not None:
        media = photos.media_name(key)
    else:
        query = photos.query(question.query or "")
        media = query.media
    about = About(key=key, query=question.query, media=media)
    if question.region is not None:
        region = Region.parse(",".join(f"{edge!r}" for edge in question.region))
        places = photos.search_part(
            region,
            key=key,
            whole=None if query is None else query.whole,
            k=question.k,
            where=question.where,
        )
        hits = [_found(hit.item, hit.score, hit.box) for hit in places.hits]
        return Hits(query=about, hits=hits, searched=places.searched, without=places.without)
    found = photos.search(
        key=key,
        vector=None if query is None else query.vector,
        k=question.k,
        where=question.where,
    )
    return _hits(service, about, [_found(hit.item, hit.score) for hit in found], question.where)


@router.post("/search/photo", responses=described(*_BAD), openapi_extra=_RAW)
async def search_photo(
    upload: Sent,
    request: Request,
    service: Served,
    _: Reader,
    k: Annotated[int, Query(ge=1, le=MOST)] = 20,
    where: Annotated[str | None, Query(max_length=2000)] = None,
) -> Hits:
    """Photos that look most like one that is sent, in one step; it is not remembered."""
    seen = await finished(request, service.photos.embed(upload.photo))
    found = await run_in_threadpool(service.photos.search, vector=seen.vector, k=k, where=where)
    return _hits(service, None, [_found(hit.item, hit.score) for hit in found], where)


@router.post("/classify/photo", responses=described(*_BAD), openapi_extra=_RAW)
async def classify(upload: Sent, request: Request, service: Served, _: Reader) -> Classified:
    """What a photo is, as far as the labels tell; 409 ``too_few_labels`` with fewer than two."""
    seen = await finished(request, service.photos.embed(upload.photo))
    return await run_in_threadpool(_classify, service, seen)


def _classify(service: Service, seen: Embedded) -> Classified:
    made = service.indexed.heads.current(service.indexed.library.view().labels.change)
    x = seen.vector[None]
    if made.n_features_in_ != x.shape[1]:
        raise HttpProblem(
            503,
            "not_ready",
            "the index goes over to another encoder; try again.",
            headers={"Retry-After": "2"},
        )
    probabilities = made.predict_proba(x)[0]
    order = np.argsort(-probabilities, kind="stable")
    names = [str(name) for name in made.classes_]
    return Classified(
        label=names[order[0]],
        probability=float(probabilities[order[0]]),
        set=None if made.sets_ is None else [str(name) for name in made.predict_set(x)[0]],
        unknown=bool(made.is_unknown(x)[0]),
        familiarity=float(made.familiarity(x)[0]),
        probabilities=[
            Chance(label=names[place], probability=float(probabilities[place]))
            for place in order[:_TOP]
        ],
        damage=_told(seen)[1],
    )


_MAKING: dict[int | str, dict[str, Any]] = {
    202: {"model": Working, "description": "It is being made; ask again."}
}


@router.post(
    "/explain/pair",
    responses=_MAKING | described(401, 403, 404, 409, 422, 503),
    response_model=PairReasons,
)
def explain_pair(pair: Pair, service: Served, _: Reader) -> PairReasons | Response:
    """Why two photos are found alike: maps over the encoder's squares, and parts that both have."""
    return _or_working(service.explainer.pair(pair.first.asked(), pair.second.asked()))


@router.post(
    "/explain/photo",
    responses=_MAKING | described(401, 403, 404, 409, 422, 503),
    response_model=PhotoReasons,
)
def explain_photo(which: Which, service: Served, _: Reader) -> PhotoReasons | Response:
    """What the encoder knows a photo by."""
    return _or_working(service.explainer.photo(which.asked()))


@router.post(
    "/explain/classes",
    responses=_MAKING | described(401, 403, 404, 409, 422, 503),
    response_model=ClassReasons,
)
def explain_classes(labels: Labels, service: Served, _: Reader) -> ClassReasons | Response:
    """What separates two labels, and where to look."""
    return _or_working(service.explainer.classes(labels.first, labels.second, labels.count))


def _or_working(answer: Any) -> Any:
    if isinstance(answer, Working):
        return Response(
            answer.model_dump_json(),
            status_code=202,
            media_type="application/json",
            headers={"Retry-After": "1"},
        )
    return answer


def _told(seen: Embedded) -> tuple[list[str], str | None]:
    photo = seen.reply.photo
    assert photo is not None
    return list(photo.notes), photo.damage


def _found(item: Item, score: float, box: tuple[float, float, float, float] | None = None) -> Found:
    digest = "" if item.stamp is None else item.stamp.sha256
    return Found(
        key=item.key,
        media=digest[:32],
        score=score,
        label=item.label,
        missing=item.missing,
        box=box,
    )


def _hits(service: Service, about: About | None, hits: list[Found], where: str | None) -> Hits:
    table = service.indexed.library.view().table
    searched = len(table.keys) if where is None else None
    return Hits(query=about, hits=hits, searched=searched, without=table.without)
