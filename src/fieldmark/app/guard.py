"""Which pages may talk to the service: the names it answers to, and the sites that requests come from.

A page of another site can send requests to an address of this machine, and with a name that it points there
(DNS rebinding) it may even read the answers. So the name that the browser believes to speak to (Host) must be
one of ours, and the page that speaks (Origin, Sec-Fetch-Site) must be ours, for every method and path. Programs
that are no browsers send neither Origin nor Sec-Fetch-Site.
"""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fieldmark.app.problems import HttpProblem, answer
from fieldmark.app.settings import Settings

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(\d{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"(https?)://([^/?#]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_PAGES = ("/api/", "/media/", "/metrics")


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether an address to listen at means every one of this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Name, without brackets and in small letters, and port of ``name:port``; None where it is neither."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    name, port = found.groups()
    return name.strip("[]").lower(), None if port is None else int(port)


class Names:
    """Refuses requests to names that are not the service's, and from pages that are not."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        bound = settings.host.strip("[]").lower()
        self._own = set() if is_wildcard(bound) else {bound}
        if is_loopback(bound) or is_wildcard(bound):
            self._own |= _LOCAL_NAMES
        self._open = not is_loopback(bound)
        self._given: dict[str, set[int | None]] = {}
        for text in settings.names:
            split = split_authority(text)
            if split is not None:
                name, port = split
                self._given.setdefault(name, set()).add(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or answer 421 or 403."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except HttpProblem as problem:
                await answer(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = split_authority(hosts[0]) if len(hosts) == 1 else None
        if host is None or not self._ours(host[0], host[1], scope):
            shown = f" {hosts[0]}" if host is not None else ""
            raise HttpProblem(
                421,
                "wrong_host",
                f"the service does not answer to the name{shown}; whoever runs it can add a name: "
                "fieldmark serve … --name NAME or NAME:PORT.",
            )
        for origin in headers.getlist("origin"):
            if not self._our_page(origin, scope):
                raise _foreign()
        site = headers.get("sec-fetch-site", "none")
        if site not in {"none", "same-origin"} and not _follows_link(scope, headers):
            raise _foreign()

    def _our_page(self, origin: str, scope: Scope) -> bool:
        found = _ORIGIN.fullmatch(origin)
        split = None if found is None else split_authority(found[2])
        if found is None or split is None:
            return False
        name, port = split
        return self._ours(name, port or _DEFAULT_PORTS[found[1].lower()], scope)

    def _ours(self, name: str, port: int | None, scope: Scope) -> bool:
        """Whether a name, and the port where one is told, is the service's."""
        server = scope.get("server") or ("", None)
        # Who connected to this very address knows it; a name could be anybody's, an address cannot.
        own = name in self._own or (self._open and name == server[0] and is_address(name))
        if own and port in {None, server[1]}:
            return True
        given = self._given.get(name, set())
        usual = {None, *_DEFAULT_PORTS.values(), server[1]}
        return port in given or (None in given and port in usual)


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _foreign() -> HttpProblem:
    return HttpProblem(
        403,
        "wrong_origin",
        "the service takes requests from its own page only, not from other sites.",
    )


def _follows_link(scope: Scope, headers: Headers) -> bool:
    """Whether a person comes from another site by a link; the page opens, and nothing else."""
    return (
        scope["method"] in {"GET", "HEAD"}
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and not str(scope["path"]).startswith(_NOT_PAGES)
    )
