"""Pictures of photos, by the hash of their content."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from fieldmark.app.access import Reader
from fieldmark.app.media import Size
from fieldmark.app.photos import finished
from fieldmark.app.problems import described
from fieldmark.app.service import Served

router = APIRouter(tags=["photos"])
Name = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
_KEPT = "private, max-age=31536000, immutable"


@router.get(
    "/media/{media}/{size}",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "The picture that the caller has is the one."},
        **described(401, 403, 404, 409, 422, 503),
    },
)
async def picture(
    media: Name,
    size: Size,
    request: Request,
    service: Served,
    _: Reader,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """A photo, upright and without anything of its file but pixels.

    Its long side has at most 224 (small), 720 (medium) or 1440 pixels (large).
    """
    shown = service.photos.media
    headers = {"Cache-Control": _KEPT, "ETag": f'"{media}-{size.value}"'}
    if if_none_match is not None and shown.knows(media):
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        if headers["ETag"] in tags or "*" in tags:
            return Response(status_code=304, headers=headers)
    data = shown.at_hand(media, size)
    if data is None:
        made = await run_in_threadpool(shown.picture, media, size)
        data = made.result() if made.done() else await finished(request, made)
    return Response(data, media_type="image/jpeg", headers=headers)
