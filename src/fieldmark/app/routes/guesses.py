"""What the labels make of the rest: guesses, and where another label would help."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from fieldmark.app.access import Reader
from fieldmark.app.answers import pack
from fieldmark.app.derived import Working
from fieldmark.app.guesses import Guesses
from fieldmark.app.problems import HttpProblem, described
from fieldmark.app.routes.labels import BEHIND_SECONDS, table_download
from fieldmark.app.routes.library import WORKING, Filter, reply
from fieldmark.app.service import Served
from fieldmark.data.tables import csv_text
from fieldmark.index.index import LONGEST_KEY, LONGEST_LABEL

router = APIRouter(prefix="/api/v1", tags=["guesses"])
_PATIENCE_SECONDS = 10.0
Label = Annotated[str, Query(min_length=1, max_length=LONGEST_LABEL)]


class ClassAccuracy(BaseModel):
    """How often photos of one label are guessed right."""

    label: str
    estimate: float
    low: float
    high: float
    photos: int


class Accuracy(BaseModel):
    """How often guesses are right, with a 95 % interval."""

    estimate: float
    low: float
    high: float
    photos: int
    """That were held out."""
    how: str
    """How it was measured, and what it does not say."""
    labels: list[ClassAccuracy]


class GuessesTold(BaseModel):
    """What every photo is taken for, in the order of the table."""

    change: int
    snapshot: str
    why: str | None
    """Why there are no guesses."""
    classes: list[str]
    guess: list[int]
    """-1 for none."""
    probability: list[float]
    second: list[int]
    second_probability: list[float]
    unknown: list[int] | None
    """1 where a photo seems to be of no label; null where there are too few labels to say."""
    set_size: list[int] | None
    """Labels that a photo may have, at 90 %; null where there are too few labels to say."""
    accuracy: Accuracy | None
    coverage: float | None
    """Share of photos that labelled ones stand for; null until it is computed."""
    seconds: float
    final: bool
    """False while better guesses for the same labels are on their way: ask again in some seconds."""


class NextPhoto(BaseModel):
    """A photo whose label would help."""

    key: str
    media: str
    guess: str | None
    probability: float | None
    gain: float


class NextTold(BaseModel):
    """Photos to label, the most useful first."""

    change: int
    photos: list[NextPhoto]
    covered: float


class Between(BaseModel):
    """A photo that may be of either of two labels."""

    key: str
    media: str
    first: float
    second: float
    other: float


class Typical(BaseModel):
    """Keys of photos that stand for two labels."""

    first: list[str]
    second: list[str]


class Pair(BaseModel):
    """Two labels that are hard to tell apart."""

    first: str
    second: str
    photos: list[Between]
    typical: Typical


class PairsTold(BaseModel):
    """Look-alikes to settle, the hardest first."""

    change: int
    pairs: list[Pair]


class SuspectPhoto(BaseModel):
    """A photo whose label is probably wrong."""

    key: str
    media: str
    label: str
    suggested: str
    score: float
    """Logarithm of how much likelier the suggested label is."""


class SuspectsTold(BaseModel):
    """Labels that are probably wrong, surest first."""

    change: int
    judged: int
    photos: list[SuspectPhoto]


class Shown(BaseModel):
    """A photo."""

    key: str
    media: str


class Near(BaseModel):
    """A label that is like another."""

    label: str
    likeness: float
    """Cosine of their middles, what all photos share taken out."""
    confused: float | None
    """Share of held-out photos of either that were taken for the other; null where none were."""


class SpeciesTold(BaseModel):
    """One label."""

    label: str
    photos: int
    typical: list[Shown]
    odd: list[Shown]
    nearest: list[Near]
    taxonomy: dict[str, str] | None = None


def _busy() -> Working:
    return Working(done=0, total=0, what="classifying photos")


@router.get(
    "/guesses",
    response_model=GuessesTold,
    responses=described(401, 403, 409, 422, 503) | WORKING,
)
async def guesses(
    request: Request,
    service: Served,
    _: Reader,
    change: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """Guesses for all photos that know of a change of labels, or of a later one."""
    live, library = service.indexed.live, service.indexed.library
    if change > library.view().labels.change:
        await library.wait(change - 1, None, BEHIND_SECONDS)
    loop = asyncio.get_running_loop()
    future = asyncio.wrap_future(await loop.run_in_executor(None, live.ask, change))
    done, _pending = await asyncio.wait({future}, timeout=_PATIENCE_SECONDS)
    if not done:
        return reply(request, _busy())
    return reply(request, await loop.run_in_executor(None, live.pack, future.result()))


@router.get(
    "/next", response_model=NextTold, responses=described(401, 403, 409, 422, 503) | WORKING
)
def next_(
    request: Request,
    service: Served,
    _: Reader,
    count: Annotated[int, Query(ge=1, le=200)] = 20,
    where: Filter | None = None,
    skip: Annotated[
        list[Annotated[str, Query(max_length=LONGEST_KEY)]] | None, Query(max_length=500)
    ] = None,
) -> Response:
    """The photos whose labels would help most."""
    found = service.indexed.live.next(count, where, skip or [])
    return reply(request, found if isinstance(found, Working) else pack(found))


@router.get(
    "/pairs", response_model=PairsTold, responses=described(401, 403, 409, 422, 503) | WORKING
)
def pairs(
    request: Request,
    service: Served,
    _: Reader,
    count: Annotated[int, Query(ge=1, le=50)] = 10,
    photos: Annotated[int, Query(ge=1, le=100)] = 12,
) -> Response:
    """Labels that are hard to tell apart, with photos without a label that may be of either."""
    found = service.indexed.live.pairs(count, photos)
    return reply(request, _busy() if found is None else pack(found))


@router.get(
    "/suspects",
    response_model=SuspectsTold,
    responses=described(401, 403, 409, 503) | WORKING,
)
def suspects(request: Request, service: Served, _: Reader) -> Response:
    """Labels that a head which has not seen the photo takes for wrong."""
    found = service.indexed.live.suspects()
    return reply(request, found if isinstance(found, Working) else pack(found))


@router.get("/species", responses=described(401, 403, 404, 409, 422))
def species(service: Served, _: Reader, label: Label) -> SpeciesTold:
    """A label: photos that are typical and odd, and the labels that it is mixed up with."""
    return SpeciesTold(**service.indexed.species(label))


@router.get(
    "/classified.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **described(401, 403, 409, 503)},
)
def classified(service: Served, _: Reader) -> Response:
    """A guess for every photo, with labels where there are some."""
    made = service.indexed.live.now(60.0)
    if made is None:
        raise HttpProblem(
            503, "busy", "photos are being classified; try again.", headers={"Retry-After": "2"}
        )
    if made.fit is None:
        raise HttpProblem(409, "too_few_labels", made.why or "there are too few labels.")
    header = ["path", "label", "guess", "probability", "unknown", "set_size"]
    return table_download("classified.csv", csv_text(header, _lines(made)))


def _lines(made: Guesses) -> Iterator[list[object]]:
    view = made.view
    for row, key in enumerate(view.table.keys):
        best = int(made.best[row])
        yield [
            key,
            view.label(row),
            made.classes[best],
            f"{made.probabilities[row, best]:.4f}",
            None if made.unknown is None else str(bool(made.unknown[row])).lower(),
            None if made.sets is None else int(made.sets[row]),
        ]
