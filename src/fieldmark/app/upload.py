"""A photo in the body of a request: taken in pieces, and never under a name that the client chose."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from fieldmark.app.problems import HttpProblem
from fieldmark.data.catalog import Location

_IN_MEMORY = 2**20
"""Bytes up to which a photo waits in memory; larger ones go to a file."""


class Upload:
    """A photo that has arrived.

    Attributes:
        photo: Its bytes, or where they lie until the request is answered.
        sha256: Of its content, hex.
    """

    def __init__(self, photo: bytes | Location, sha256: str, size: int) -> None:
        self.photo = photo
        self.sha256 = sha256
        self.size = size


@asynccontextmanager
async def received(request: Request, most: int, folder: Path) -> AsyncIterator[Upload]:
    """Take a request's body; what was written is gone when the block ends.

    Args:
        request: Its body is the photo's file, whatever the headers call it.
        most: Bytes that are taken.
        folder: Private folder for large photos.

    Raises:
        HttpProblem: 413 ``too_large``, 415 ``wrong_type``, or 400 ``ends_early`` where the client
            has gone.
    """
    _check_headers(request, most)
    digest = hashlib.sha256()
    parts: list[bytes] = []
    held = size = 0
    with contextlib.ExitStack() as stack:
        file: int | None = None
        place: Path | None = None
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise too_large(most)
                parts.append(chunk)
                held += len(chunk)
                if held > _IN_MEMORY:
                    if file is None:
                        file, place = stack.enter_context(_private_file(folder))
                    await asyncio.to_thread(_write, file, digest, parts)
                    parts, held = [], 0
        except ClientDisconnect:
            raise HttpProblem(400, "ends_early", "the photo did not arrive whole.") from None
        if file is None or place is None:
            data = b"".join(parts)
            yield Upload(data, hashlib.sha256(data).hexdigest(), size)
            return
        await asyncio.to_thread(_write, file, digest, parts)
        yield Upload(Location(str(place)), digest.hexdigest(), size)


def too_large(most: int) -> HttpProblem:
    """More than is taken."""
    return HttpProblem(
        413, "too_large", f"the photo is too large; at most {most:,} bytes are taken."
    )


def _check_headers(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise too_large(most)
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise HttpProblem(
            415,
            "wrong_type",
            "the body must be the photo's bytes alone, not a form; as curl --data-binary @photo.jpg sends "
            "them.",
        )


@contextlib.contextmanager
def _private_file(folder: Path) -> Iterator[tuple[int, Path]]:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix="upload-")
    try:
        yield descriptor, Path(name)
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _write(file: int, digest: "hashlib._Hash", parts: list[bytes]) -> None:
    data = memoryview(b"".join(parts))
    digest.update(data)
    while data:
        data = data[os.write(file, data) :]
