"""Training runs: what there is, how it goes, what came of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from fieldmark.app.access import Reader
from fieldmark.app.problems import described
from fieldmark.app.runfolder import Lines, Pace, RunCard
from fieldmark.app.runreport import Ending
from fieldmark.app.service import Served
from fieldmark.evaluation.report import words

router = APIRouter(prefix="/api/v1", tags=["runs"])
media = APIRouter(prefix="/media", tags=["runs"])

RunId = Annotated[str, Path(pattern="^[0-9a-f]{24}$", description="Opaque id of the list of runs.")]
Content = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class Curve(BaseModel):
    """Name, meaning and healthy range of one curve of a run."""

    name: str
    """Key in the lines of the log."""
    label: str
    explanation: str
    better: str
    """``up``, ``down`` or ``steady``: where a healthy curve goes."""
    low: float | None
    """Healthy from this multiple of the start's value."""
    high: float | None
    """Healthy up to this multiple of the start's value."""
    absolute_low: float | None
    """Healthy from this value."""
    share: bool
    """A share in [0, 1], to be shown in percent."""


class RunDetails(BaseModel):
    """One run."""

    card: RunCard
    pace: Pace
    curves: list[Curve]
    ending: Ending | None
    """What came of it; None before the end."""


@router.get("/runs", responses=described(401, 403))
def runs(_: Reader, service: Served) -> list[RunCard]:
    """All runs: those that run first, then the newest."""
    return service.runs.cards()


@router.get("/runs/{run}", responses=described(401, 403, 404, 422))
def run_details(_: Reader, service: Served, run: RunId) -> RunDetails:
    """One run: how it goes, and what came of it."""
    card = service.runs.card(run)
    return RunDetails(
        card=card,
        pace=service.runs.pace(card),
        curves=[Curve(name=name, **curve._asdict()) for name, curve in words.HEALTH.items()],
        ending=service.runs.ending(card),
    )


@router.get("/runs/{run}/metrics", responses=described(401, 403, 404, 422))
def run_metrics(
    _: Reader, service: Served, run: RunId, since_line: Annotated[int, Query(ge=0, le=2**53)] = 0
) -> Lines:
    """The run's log from a line on, at most 5,000 lines an answer."""
    return service.runs.metrics(run, since_line)


@media.get(
    "/runs/{run}/report", response_class=HTMLResponse, responses=described(401, 403, 404, 422)
)
def run_report(_: Reader, service: Served, run: RunId, download: bool = False) -> Response:
    """The run's report as one page, shut off from the service."""
    page = service.runs.page(run)
    headers = {
        # The sandbox makes it a page of nobody: it sees no cookie and can ask the service nothing.
        "Content-Security-Policy": f"{page.policy}; frame-ancestors 'self'; sandbox allow-scripts",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if download:
        headers["Content-Disposition"] = 'attachment; filename="report.html"'
    return HTMLResponse(page.text, headers=headers)


@media.get(
    "/runs/{run}/photos/{photo}",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}, **described(401, 403, 404, 422)},
)
def run_photo(_: Reader, service: Served, run: RunId, photo: Content) -> Response:
    """A small photo of the report's look-alikes, by its content's hash."""
    kind, content = service.runs.small_photo(run, photo)
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=kind, headers=headers)
