"""Whether the service lives, and whether it can work."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from fieldmark.app.access import Reader
from fieldmark.app.metrics import CONTENT_TYPE
from fieldmark.app.problems import described, without_paths
from fieldmark.app.service import Served
from fieldmark.errors import FieldmarkError

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """It answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """What each part says."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
    """``ok``, or what is wrong in words."""


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the process lives."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready."}})
def readyz(service: Served, response: Response) -> Readiness:
    """Whether every part can work; 503 where one cannot."""
    checks = {}
    for name, check in service.checks.items():
        try:
            checks[name] = without_paths(check(), service.settings)
        except (FieldmarkError, OSError) as error:
            checks[name] = without_paths(str(error), service.settings)
    ready = all(said == "ok" for said in checks.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not ready", checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}},
        **described(401, 403),
    },
)
def metrics(service: Served, _: Reader) -> Response:
    """What the service counts about itself, for Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)
