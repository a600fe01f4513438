"""Labels: who said what, and saying it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from fieldmark.app.access import Labeller, Reader
from fieldmark.app.labels import MOST, Changed, Done
from fieldmark.app.problems import HttpProblem, Problem, described
from fieldmark.app.service import Served, Service
from fieldmark.data.tables import csv_text
from fieldmark.index.index import LONGEST_KEY, LONGEST_LABEL

router = APIRouter(prefix="/api/v1", tags=["labels"])
_LINES = 1000
"""Of the history, in one answer."""
_BIGGEST = 2**53
BEHIND_SECONDS = 3.0
"""How long a change of labels that another process made may be on its way here."""
Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]
Number = Annotated[int, Field(ge=0, le=_BIGGEST)]
Conflict: dict[int | str, dict[str, Any]] = {409: {"model": Changed | Problem}}


class Line(BaseModel):
    """One change of a label."""

    number: int
    key: str
    before: str | None
    after: str | None
    by: str
    at: str
    """UTC, ISO 8601."""
    version: int
    """Of the photo after it."""


class Changes(BaseModel):
    """What happened since."""

    change: int
    """Number to go on from: of the last line here, or of the last there is where these are all."""
    snapshot: str
    changes: list[Line]


class Wanted(BaseModel):
    """Labels to set."""

    labels: Annotated[dict[Key, Name | None], Field(min_length=1, max_length=MOST)]
    """By key; null takes a label away."""
    expected: Annotated[dict[Key, Number], Field(max_length=MOST)] = Field(default_factory=dict)
    """Versions that the caller has seen; a photo that has another one refuses all."""
    by: Annotated[str, Field(max_length=100)] = ""
    """Who says so; only where callers have no tokens, which say who they are."""


class Set(BaseModel):
    """What was done."""

    change: int
    versions: dict[str, int]
    before: dict[str, str | None]


class Rename(BaseModel):
    """Another name for a label."""

    source: Name = Field(alias="from")
    target: Name = Field(alias="to")
    by: Annotated[str, Field(max_length=100)] = ""


class Renamed(BaseModel):
    """What was done."""

    change: int
    photos: int


class Count(BaseModel):
    """A label, and how many photos have it."""

    name: str
    photos: int


class Names(BaseModel):
    """All labels, by name."""

    labels: list[Count]
    change: int


def _who(service: Service, caller: str, told: str) -> str:
    """Where callers have tokens these say who they are, and nobody can be somebody else."""
    return caller if service.access.guarded else told or caller


def _count(service: Service, done: Done) -> None:
    service.metrics.label_changes.inc(len(done.versions))


@router.get("/labels", responses=described(401, 403, 409))
def labels(service: Served, _: Reader) -> Names:
    """Labels, and how many photos have each."""
    held = service.indexed.library.view().labels
    counts = [int((held.of == place).sum()) for place in range(len(held.names))]
    told = [Count(name=n, photos=c) for n, c in zip(held.names, counts, strict=True)]
    return Names(labels=told, change=held.change)


@router.put("/labels", responses=described(401, 403, 404, 413, 422, 503) | Conflict)
def set_labels(wanted: Wanted, service: Served, caller: Labeller) -> Set:
    """Label photos, all or none; durable once it is answered."""
    foreign = [key for key in wanted.expected if key not in wanted.labels]
    if foreign:
        raise HttpProblem(
            422, "bad_input", "expected names a photo that labels does not.", keys=foreign[:1000]
        )
    done = service.indexed.editor.set(
        wanted.labels, wanted.expected, by=_who(service, caller, wanted.by)
    )
    _count(service, done)
    return Set(**done._asdict())


@router.post("/labels/rename", responses=described(401, 403, 404, 409, 422, 503))
def rename(wanted: Rename, service: Served, caller: Labeller) -> Renamed:
    """Give all photos of a label another one, in one step; two labels become one where both are used."""
    done = service.indexed.editor.rename(
        wanted.source, wanted.target, by=_who(service, caller, wanted.by)
    )
    _count(service, done)
    return Renamed(change=done.change, photos=len(done.versions))


@router.get("/labels/changes", responses=described(401, 403, 409, 422))
async def changes(
    service: Served,
    _: Reader,
    since: Annotated[int, Query(ge=0, le=_BIGGEST)],
    wait: Annotated[float, Query(ge=0, le=25)] = 0,
    snapshot: Annotated[str | None, Query(max_length=64)] = None,
) -> Changes:
    """Changes of labels after one, by anybody; waits for the first where there is none yet.

    With ``snapshot`` it also returns when photos were added, removed or changed.
    """
    library = service.indexed.library
    if wait and since > library.view().labels.change:
        # Told by another replica, perhaps, and on its way here; or of another index.
        await library.wait(since - 1, snapshot, min(wait, BEHIND_SECONDS))
    elif wait:
        await library.wait(since, snapshot, wait)
    view, found = await run_in_threadpool(library.changes, since, _LINES)
    return Changes(
        # Somebody who is far behind asks again at once.
        change=found[-1].line.number if len(found) == _LINES else view.labels.change,
        snapshot=view.table.snapshot,
        changes=[Line(**each.line._asdict(), version=each.version) for each in found],
    )


@router.get(
    "/labels.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **described(401, 403, 409)},
)
def download(service: Served, _: Reader) -> Response:
    """``path,label`` of every labelled photo, as every command of fieldmark reads it."""
    view = service.indexed.library.view()
    rows = ((view.table.keys[row], view.label(row)) for row in view.labelled.nonzero()[0].tolist())
    return table_download("labels.csv", csv_text(["path", "label"], rows))


def table_download(name: str, text: str) -> Response:
    """A table to keep; never shown by the browser.

    Cells stay as they are, also where a spreadsheet would take one for a formula: programs read these
    tables back, and a label that was changed on the way is another label.
    """
    return Response(
        text.encode(),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )
