"""The browser app's files, held in memory from the start: what a client asks for is looked up, never opened."""

import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fieldmark.errors import ArtifactError
from fieldmark.storage import sha256_bytes

STATIC = Path(__file__).parent / "static"
VIEWS = ("/", "/explore", "/search", "/label", "/train", "/species")
"""Paths that the page makes of its own; all of them are its index.html."""
_HASHED = re.compile(r".*[.-][\w-]{8,}\.\w+")
_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
_FOREVER = "public, max-age=31536000, immutable"
_TEXTS = {".js": "text/javascript", ".map": "application/json", ".webmanifest": "application/json"}


@dataclass(frozen=True)
class Asset:
    """One file, as it is and as it was compressed when the page was built."""

    content: bytes
    media_type: str
    cache: str
    tag: str
    encoded: dict[str, bytes]

    async def respond(self, request: Request) -> Response:
        """The file, in the smallest form that the client takes; 304 where it has it."""
        headers = {"Cache-Control": self.cache, "ETag": self.tag, "Vary": "Accept-Encoding"}
        known = request.headers.get("if-none-match", "")
        if self.tag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=304, headers=headers)
        accepted = {
            each.partition(";")[0].strip()
            for each in request.headers.get("accept-encoding", "").lower().split(",")
            if "q=0" not in each.replace(" ", "").split(".")[0].replace("q=0.", "")
        }
        for name, content in self.encoded.items():
            if name in accepted:
                headers["Content-Encoding"] = name
                return Response(content, headers=headers, media_type=self.media_type)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_page(folder: Path = STATIC) -> dict[str, Asset]:
    """Every file of a built page by the path that it is asked for with.

    Args:
        folder: Where ``index.html`` is; files that end in .br or .gz are forms of those beside them.

    Raises:
        ArtifactError: No page there.
    """
    if not (folder / "index.html").is_file():
        raise ArtifactError(
            "this copy of fieldmark has no page built into it; serve the API alone with --api."
        )
    assets = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.endswith((".br", ".gz")):
            name = file.relative_to(folder).as_posix()
            assets[f"/{name}"] = _asset(file, hashed=name.startswith("assets/"))
    index = assets.pop("/index.html")
    return assets | dict.fromkeys(VIEWS, index)


def _asset(file: Path, *, hashed: bool) -> Asset:
    content = file.read_bytes()
    media_type = _TEXTS.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    encoded = {}
    for name, ending in _ENCODINGS:
        beside = file.with_name(file.name + ending)
        if beside.is_file():
            encoded[name] = beside.read_bytes()
    return Asset(
        content,
        media_type or "application/octet-stream",
        _FOREVER if hashed and _HASHED.fullmatch(file.name) else "no-cache",
        f'"{sha256_bytes(content)[:32]}"',
        encoded,
    )


def page_routes(folder: Path = STATIC) -> list[Route]:
    """A route for each path of the page."""
    return [
        Route(path, asset.respond, methods=["GET"], include_in_schema=False)
        for path, asset in read_page(folder).items()
    ]
