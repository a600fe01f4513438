"""Where an index is: a folder, or a database server's URL; one way to open either.

A URL may end in ``#NAME`` (letters, digits, _) where a database holds several indexes. Its password is for
the server alone: no text that is printed, logged or raised holds it.
"""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from fieldmark.errors import InputError
from fieldmark.index.index import Index
from fieldmark.index.sqlite import SqliteIndex

Place = str | Path
SCHEMES = ("postgresql://", "postgres://")
_NAME = "fieldmark"
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d*)?")
_HIDDEN = f"{SCHEMES[0]}…"


def is_server(place: Place) -> bool:
    """Whether a place is a server's URL.

    Raises:
        InputError: If it is a URL of something else, or one that became a path on the way.
    """
    text = str(place)
    if text.startswith(SCHEMES):
        return True
    if re.match(r"\w+:/", text) and not re.match(r"[A-Za-z]:/", text):
        raise InputError(
            f"{text.partition(':')[0]}:… is no place for an index; give a folder, or a server's URL that "
            "begins with postgresql:// (as a text: a Path loses one of the slashes)."
        )
    return False


def open_index(place: Place, *, create: bool = False) -> Index:
    """Open an index wherever it is.

    Args:
        place: Folder, or URL of a PostgreSQL server with pgvector.
        create: Make it where there is none.

    Raises:
        ArtifactError: No index there, no server, damaged, or of a newer fieldmark.
        InputError: A URL that cannot be read.
    """
    if not is_server(place):
        return SqliteIndex(Path(place), create=create)
    from fieldmark.index.postgres import PostgresIndex

    url, name = read_url(str(place))
    return PostgresIndex(url, name=name, create=create)


def read_url(text: str) -> tuple[str, str]:
    """What the server's library is given, and the index's name.

    Raises:
        InputError: What the library would read otherwise than meant, and then say a piece of the password.
    """
    rest = text.partition("://")[2]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    hosts = authority.rpartition("@")[2].split(",")
    if (
        rest.count("@") != authority.count("@")
        or authority.count("@") > 1
        or not all(_HOST.fullmatch(host) for host in hosts)
    ):
        raise InputError(
            "the server's URL cannot be read; it looks like postgresql://user:password@host:5432/database, "
            "with other characters than letters and digits in user and password written as %40 (for @), "
            "%2F (/), %3A (:), %23 (#), %3F (?), %25 (%). Or leave the password out and put it into "
            "~/.pgpass or PGPASSWORD."
        )
    url, _, name = text.partition("#")
    if name and not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise InputError(
            "what follows # in the server's URL is no name of an index; use letters, digits and _."
        )
    return url, name or _NAME


def shown(place: Place) -> str:
    """A place as it may be printed: a URL without its password."""
    if not str(place).startswith(SCHEMES):
        return str(place)
    try:
        read_url(str(place))
        parts = urlsplit(str(place))
        user, at, host = parts.netloc.rpartition("@")
        told = [
            (key, value)
            for key, value in parse_qsl(parts.query, keep_blank_values=True)
            if not re.search("password|secret", key, re.IGNORECASE)
        ]
        netloc = user.partition(":")[0] + at + host
        # The library takes no netloc for its own sockets; urlunsplit would lose the slashes.
        text = f"{parts.scheme}://{netloc}{parts.path}"
        text += f"?{urlencode(told, safe='/')}" * bool(told)
        return text + f"#{parts.fragment}" * bool(parts.fragment)
    except (InputError, ValueError):
        return _HIDDEN
