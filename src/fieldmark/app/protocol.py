"""One connection: how long its head may take, how large it may be, and how it ends.

uvicorn answers requests; what it leaves open is closed here. A head must be there within its time (slowloris), a
body may not come in pieces of a few bytes, a connection that nothing is heard of makes room for a new one, and
one that ends with its client still sending is read a little longer, so that the answer arrives before the reset.
"""

import asyncio
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fieldmark.app.problems import MEDIA_TYPE
from fieldmark.app.settings import Settings

HEAD_BYTES = 16_384
"""Largest head of a request; at most twice as much is read."""
_READ_BYTES = 32_768
_FREE_PIECES = 1_000
_PIECE_BYTES = 64
"""A body's pieces must hold this much on average, beside the first."""
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 524_288
_log = logging.getLogger(__name__)
_room = threading.local()

_WORDS = {
    400: ("bad_request", "this is no request of HTTP."),
    408: ("too_slow", "the head of the request came too slowly."),
    431: ("too_large", f"the head of the request is larger than {HEAD_BYTES:,} bytes."),
    503: ("busy", "too many connections; try again."),
}


class _Pieces(h11.Connection):
    """Refuses a body in pieces of a few bytes, each of which costs as much as one of many thousand."""

    pieces = size = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.pieces = self.size = 0
        elif isinstance(event, h11.Data):
            self.pieces += 1
            self.size += len(event.data)
            if self.pieces > _FREE_PIECES + self.size / _PIECE_BYTES:
                raise h11.RemoteProtocolError("body in tiny pieces")
        return event


class Guarded(H11Protocol, asyncio.BufferedProtocol):
    """A connection of :func:`protocol_for`."""

    settings: Settings
    silent: "OrderedDict[Guarded, None]"
    """Connections without a request, the one that was heard of longest ago first."""
    most: int
    refused: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Pieces(h11.SERVER, HEAD_BYTES)
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_left: int | None = None
        self._lost = False

    # -- reading: never more at a time than a head may be large

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go: one place for all connections of a thread, emptied at once."""
        if not hasattr(_room, "buffer"):
            _room.buffer = bytearray(_READ_BYTES)
        return _room.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        self.data_received(bytes(_room.buffer[:nbytes]))

    # -- a connection's life

    def connection_made(self, transport: Any) -> None:
        """A client is there: its first head's time runs."""
        super().connection_made(_Outgoing(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > self.most:
            oldest = next(iter(self.silent), None)
            if oldest is None:
                self._refuse(503)
                return
            oldest.transport.abort()
            self.silent.pop(oldest, None)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went, or was sent away."""
        self._lost = True
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or body."""
        if self._linger_left is not None:
            self._linger(len(data))
            return
        if self._head_timer is None and self._between_requests():
            self._await_head()
        super().data_received(data)
        if not self._between_requests():
            self._head_is_there()

    def on_response_complete(self) -> None:
        """An answer is out: the next head's time runs from its first byte, until then keep-alive's."""
        super().on_response_complete()
        if not self.transport.is_closing() and self._between_requests():
            self.silent[self] = None
            if self.conn.trailing_data[0]:
                self._await_head()

    def _between_requests(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _await_head(self) -> None:
        self.silent[self] = None
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self.settings.header_seconds, self._head_is_late
            )

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408)
        else:
            # Browsers open connections ahead and say nothing; there is nothing to answer.
            self.transport.abort()

    def _head_is_there(self) -> None:
        self.silent.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    # -- refusing

    def send_400_response(self, msg: str) -> None:
        """What h11 could not read."""
        in_body = self.cycle is not None and self.cycle.more_body
        large = len(self.conn.trailing_data[0]) >= HEAD_BYTES
        self._refuse(431 if large and not in_body else 400)

    def _refuse(self, status: int) -> None:
        """Say why, where nothing was said yet, and end the connection."""
        self._head_is_there()
        self._unset_keepalive_if_required()
        type(self).refused(_WORDS[status][0])
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(_answer(status))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.linger()

    @property
    def lingers(self) -> bool:
        """Whether the last word was said."""
        return self._linger_left is not None

    @property
    def has_more_to_hear(self) -> bool:
        """Whether the client is still sending a body."""
        return not self._lost and self.conn.their_state is h11.SEND_BODY

    def linger(self) -> None:
        """Close for writing, and read on for a moment what the client is still sending."""
        if self.lingers or self._lost:
            return
        self._linger_left = _LINGER_BYTES
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        except OSError:
            # The client's reset is here before the loop has heard of it.
            self.transport.abort()
            return
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def _linger(self, size: int) -> None:
        assert self._linger_left is not None
        self._linger_left -= size
        if self._linger_left < 0:
            self.transport.abort()


class _Outgoing:
    """A transport whose end waits for a client that is still sending.

    Closing a socket with unread bytes resets it, and the answer may be lost on the client's side.
    """

    def __init__(self, transport: Any, connection: Guarded) -> None:
        self._transport, self._connection = transport, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._connection.lingers or self._transport.is_closing()

    def close(self) -> None:
        if self._connection.has_more_to_hear:
            self._connection.linger()
        else:
            self._transport.close()


def _answer(status: int) -> bytes:
    code, words = _WORDS[status]
    told = {"status": status, "code": code, "detail": words, "keys": []}
    body = json.dumps(told).encode()
    phrase = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}.get(
        status, "Request Header Fields Too Large"
    )
    head = [
        f"HTTP/1.1 {status} {phrase}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status == 503:
        head.append("Retry-After: 1")
    return "\r\n".join([*head, "", ""]).encode() + body


def protocol_for(settings: Settings, most: int, refused: Callable[[str], None]) -> type[Guarded]:
    """The connections of one server.

    Args:
        settings: Of the service.
        most: Connections at a time.
        refused: Told the code of every answer that no route and no guard gave.
    """
    members = {"settings": settings, "most": most, "silent": OrderedDict()}
    return type("Guarded", (Guarded,), {**members, "refused": staticmethod(refused)})
