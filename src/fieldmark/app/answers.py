"""Large answers: JSON that is written and packed once for everybody who asks."""

import gzip
import json
from typing import Any, NamedTuple

from fastapi import Request, Response

_LEVEL = 1
"""Of gzip: larger ones take several times as long for a tenth less."""
_PACKED_FROM = 1024


class Packed(NamedTuple):
    """One answer."""

    plain: bytes
    gzip: bytes | None
    """None where it is not worth it."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.plain) + len(self.gzip or b"")


def pack(value: Any) -> Packed:
    """Write as JSON; NaN is refused."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return pack_bytes(text.encode())


def pack_bytes(plain: bytes) -> Packed:
    """Of JSON that is written already."""
    small = len(plain) < _PACKED_FROM
    return Packed(plain, None if small else gzip.compress(plain, _LEVEL, mtime=0))


def send(request: Request, packed: Packed) -> Response:
    """As the caller takes it."""
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
    taken = request.headers.get("accept-encoding", "")
    body = packed.plain
    if packed.gzip is not None and "gzip" in {
        part.partition(";")[0].strip().lower() for part in taken.split(",")
    }:
        body = packed.gzip
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=headers)
