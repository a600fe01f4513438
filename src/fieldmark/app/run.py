"""Start the service: where it listens, what it refuses to do, how it stops."""

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from fieldmark.app.guard import is_address, is_loopback, is_wildcard, split_authority
from fieldmark.app.protocol import HEAD_BYTES, protocol_for
from fieldmark.app.server import create_app
from fieldmark.app.service import Service
from fieldmark.app.settings import Settings
from fieldmark.app.tokens import read_tokens
from fieldmark.errors import ConfigError, InputError, OutputError

_BACKLOG = 4_096
"""Connections that wait in the system to be taken."""
_AT_ONCE = 64
"""Connections that are taken before those that are there are read again: in a flood of silent ones nobody who
speaks at once shall be the oldest silent one before he was heard."""
OFFLINE_VARIABLE = "FIELDMARK_OFFLINE"
"""As in :mod:`fieldmark.nn.places`, which would load torch before the port is known to be free."""
_OTHER_FILES = 256
"""Files that the process needs besides connections."""


def check_exposure(settings: Settings) -> None:
    """Refuse to be reached from other machines without tokens, before anything is opened.

    Raises:
        InputError: What is wrong with host, names or tokens.
        ConfigError: The token file cannot be used.
    """
    for name in settings.names:
        if split_authority(name) is None:
            raise InputError(
                f"--name {name!r} is no host name; give NAME or NAME:PORT, without https://."
            )
    if settings.tokens is not None:
        if not read_tokens(settings.tokens):
            raise ConfigError(
                f"{settings.tokens} has no token, so nobody could come in; add one with: "
                f"fieldmark token add {settings.tokens} NAME --scope label."
            )
        return
    host = settings.host.strip("[]")
    if not is_loopback(host):
        raise InputError(
            f"--host {settings.host} can be reached from other machines, and without tokens everybody there "
            "could see and change everything. Make a token (fieldmark token add tokens.toml NAME --scope "
            "label) and give the file with --tokens tokens.toml, or leave --host out to serve this machine "
            "alone."
        )


def listen(settings: Settings) -> socket.socket:
    """Take the address; connections are not accepted yet.

    Raises:
        OutputError: Another program has it, or this machine has no such address.
    """
    host = settings.host.strip("[]")
    try:
        found = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise OutputError(f"--host {settings.host} is not known here: {error.strerror}.") from None
    family, kind, protocol, _, address = found[0]
    if settings.tokens is None and not is_loopback(str(address[0])):
        # A name of the hosts file may mean anything.
        raise InputError(f"--host {settings.host} is {address[0]}, which other machines reach.")
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        raise OutputError(
            f"cannot listen at {settings.host} port {settings.port}: {error.strerror}. Is another fieldmark "
            "serve running? Give another --port, or --port 0 for any free one."
        ) from None
    return taken


def url_of(settings: Settings, port: int) -> str:
    """Where a browser of this machine finds the service.

    Args:
        settings: Of the service.
        port: That it listens at.
    """
    host = settings.host.strip("[]")
    if is_wildcard(host):
        host = "127.0.0.1"
    shown = f"[{host}]" if is_address(host) and ":" in host else host
    return f"http://{shown}:{port}/"


def serve(settings: Settings, *, ready: Callable[[str], None]) -> None:
    """Serve until a signal stops it; requests that are being answered are finished first.

    Args:
        settings: Of the service.
        ready: Told the URL as soon as requests are answered.

    Raises:
        FieldmarkError: It cannot start; nothing was changed then.
    """
    check_exposure(settings)
    # What answers requests fetches nothing, whatever the shell allows its commands.
    os.environ[OFFLINE_VARIABLE] = "1"
    taken = listen(settings)
    with contextlib.closing(taken):
        app = create_app(settings)
        url = url_of(settings, int(taken.getsockname()[1]))
        # Half a million objects of modules and tables live as long as the process. Looking through them for
        # garbage stops every request for a third of a second, again and again.
        gc.collect()
        gc.freeze()
        try:
            make_server(settings, app, lambda: ready(url)).run(sockets=[taken])
        finally:
            gc.unfreeze()


def most_connections(settings: Settings) -> int:
    """As many as asked for, or as the system lets this process have."""
    try:
        import resource
    except ImportError:
        return min(settings.max_connections, 400)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return settings.max_connections
    return max(1, min(settings.max_connections, soft - _OTHER_FILES))


def make_server(settings: Settings, app: FastAPI, ready: Callable[[], None]) -> uvicorn.Server:
    """Uvicorn as the service needs it.

    Args:
        settings: Of the service.
        app: The application.
        ready: Called when requests are answered.
    """
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=protocol_for(
            settings,
            most_connections(settings),
            lambda code: service.metrics.refused.labels(code).inc(),
        ),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # The name of a proxy's client would be believed of anybody.
        proxy_headers=False,
        backlog=_AT_ONCE,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=settings.stop_seconds,  # type: ignore[arg-type]
    )
    return _Server(config, service, ready)


class _Server(uvicorn.Server):
    """Says when it is ready, tells the service before it waits for requests, and ends by a signal in peace."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for taken in sockets or ():
                # asyncio has one number for both.
                taken.listen(_BACKLOG)
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stopping.set()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again when all is done, and a stop that was asked for look like a crash.
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
