"""Who may use a service: a file of names, scopes and hashes of tokens.

The tokens themselves are shown once, when they are made, and kept nowhere. They hold 256 bits of chance,
so a plain SHA-256 of them is as good as a slow hash: there is nothing to guess.
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
import tomllib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import tomli_w

from fieldmark import storage
from fieldmark.errors import ConfigError, InputError

PREFIX = "fm_"
"""How tokens begin, so that scanners for leaked secrets can know them."""
_NAME = re.compile(r"[^\W_][\w .@+-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST = 200


class Scope(StrEnum):
    """What a token allows; each holds those before it."""

    read = "read"
    label = "label"
    admin = "admin"

    def holds(self, other: "Scope") -> bool:
        """Whether who may do this may do the other too."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class Token(NamedTuple):
    """One line of the file."""

    name: str
    scope: Scope
    sha256: str
    """Of the token, in hex."""


def digest(secret: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def find(tokens: Iterable[Token], secret: str) -> Token | None:
    """Whose token this is; takes as long whichever it is, and when it is none."""
    given, found = digest(secret[:_LONGEST]), None
    for token in tokens:
        if hmac.compare_digest(token.sha256, given):
            found = token
    return found


def read_tokens(file: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        ConfigError: No such file, no token file, or one that others may change or read (who reads it
            cannot learn a token, but could sign a session of the page).
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = tomllib.load(opened)
    except FileNotFoundError:
        raise ConfigError(
            f"no token file {file}; make one with: fieldmark token add {file} NAME --scope label."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read as a token file: {error}.") from None
    loose = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH
    if os.name == "posix" and mode & loose:
        raise ConfigError(
            f"{file} has the mode {stat.S_IMODE(mode):o}, so that others may read or change it; "
            f"close it with: chmod 600 {file}."
        )
    return _parse(data, file)


def _parse(data: dict[str, object], file: Path) -> tuple[Token, ...]:
    lines = data.get("token", [])
    tokens: list[Token] = []
    if set(data) - {"token"} or not isinstance(lines, list):
        raise ConfigError(f"{file} is no token file; it holds tables called [[token]] only.")
    for number, line in enumerate(lines, 1):
        known = isinstance(line, dict) and set(line) == {"name", "scope", "sha256"}
        if not (
            known
            and all(isinstance(value, str) for value in line.values())
            and _NAME.fullmatch(line["name"])
            and line["scope"] in list(Scope)
            and _HASH.fullmatch(line["sha256"])
        ):
            raise ConfigError(
                f"token {number} of {file} cannot be read; each has a name, a scope "
                f"({', '.join(Scope)}) and a sha256 of 64 hex digits. Write it with fieldmark token add."
            )
        if line["name"] in {token.name for token in tokens}:
            raise ConfigError(f"{file} has two tokens called {line['name']!r}; remove one.")
        tokens.append(Token(line["name"], Scope(line["scope"]), line["sha256"]))
    return tuple(tokens)


def _write(file: Path, tokens: Iterable[Token]) -> None:
    lines = [{**token._asdict(), "scope": str(token.scope)} for token in tokens]
    text = tomli_w.dumps({"token": lines})
    # The file beside it is made for its owner alone, and takes the old one's place as a whole.
    before = os.umask(0o177)
    try:
        storage.write_text(file, text)
    finally:
        os.umask(before)


def add_token(file: Path, name: str, scope: Scope) -> str:
    """Make a token; the file is made where there is none.

    Args:
        file: Of tokens.
        name: Whose it is; stands in the history of labels.
        scope: What it allows.

    Returns:
        The token, which is kept nowhere.

    Raises:
        InputError: A name that is taken, or no name.
        ConfigError: As for :func:`read_tokens`.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is no name for a token; use up to 64 letters, digits, spaces and . @ + - _, "
            "beginning with a letter or digit."
        )
    tokens = read_tokens(file) if file.exists() else ()
    if name in {token.name for token in tokens}:
        raise InputError(
            f"{file} has a token called {name!r} already; remove that first, or take another name."
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    _write(file, [*tokens, Token(name, scope, digest(secret))])
    return secret


def remove_token(file: Path, name: str) -> None:
    """Take a token away; services that run notice it with the next request.

    Raises:
        InputError: No such name.
        ConfigError: As for :func:`read_tokens`.
    """
    tokens = read_tokens(file)
    left = [token for token in tokens if token.name != name]
    if len(left) == len(tokens):
        names = ", ".join(token.name for token in tokens) or "none"
        raise InputError(f"{file} has no token called {name!r}; it has: {names}.")
    _write(file, left)


class Keyring:
    """The tokens of a file as it is now: it is read again whenever it has changed.

    A file that cannot be read any more opens for nobody.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._tokens = read_tokens(file)
        self._stamp = self._look()

    def _look(self) -> tuple[int, ...] | None:
        try:
            told = self._file.stat()
        except OSError:
            return None
        return (told.st_ino, told.st_mtime_ns, told.st_ctime_ns, told.st_size, told.st_mode)

    def tokens(self) -> tuple[Token, ...]:
        """Those that count.

        Raises:
            ConfigError: As for :func:`read_tokens`.
        """
        stamp = self._look()
        with self._lock:
            if stamp is None or stamp != self._stamp:
                # Forgotten first, so that what cannot be read is tried again and nobody comes in.
                self._stamp, self._tokens = None, ()
                self._tokens = read_tokens(self._file)
                self._stamp = stamp
            return self._tokens
