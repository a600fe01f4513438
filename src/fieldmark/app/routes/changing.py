"""Photos that come, go, and are looked for again."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from fieldmark.app.access import Admin
from fieldmark.app.problems import described
from fieldmark.app.routes.labels import Key
from fieldmark.app.service import Served
from fieldmark.app.uploads import LONGEST_NAME, Scan

router = APIRouter(prefix="/api/v1/index", tags=["index"])
_PHOTO = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Added(BaseModel):
    """A photo that the index has now."""

    key: str
    media: str
    new: bool
    """False where the same content was there already, perhaps under another key."""


class Gone(BaseModel):
    """Photos to forget."""

    keys: Annotated[list[Key], Field(min_length=1, max_length=10_000)]


class Removed(BaseModel):
    """What was done."""

    removed: int


@router.post(
    "/photos", openapi_extra=_PHOTO, responses=described(401, 403, 409, 413, 422, 503, 507)
)
async def add(
    request: Request,
    service: Served,
    _: Admin,
    name: Annotated[str, Query(max_length=LONGEST_NAME)] = "",
) -> Added:
    """Keep a photo in the index's folder and add it; the body is the photo."""
    kept = await service.indexed.uploads.take(request.stream(), name)
    return Added(**kept._asdict())


@router.delete("/photos", responses=described(401, 403, 404, 409, 413, 422))
def remove(gone: Gone, service: Served, _: Admin) -> Removed:
    """Forget photos, their vectors and labels for good; all or none."""
    return Removed(removed=service.indexed.uploads.remove(list(dict.fromkeys(gone.keys))))


@router.post("/scan", status_code=202, responses=described(401, 403, 409, 422, 503))
def begin(service: Served, _: Admin, response: Response) -> Scan:
    """Look again at the photos' place, in the background: new, changed and missing photos."""
    response.headers["Retry-After"] = "1"
    return service.indexed.uploads.begin_scan()


@router.get("/scan", responses=described(401, 403, 409))
def state(service: Served, _: Admin) -> Scan:
    """How far the last look is, or what it found."""
    return service.indexed.uploads.scan()
