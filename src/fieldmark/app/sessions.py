"""The page's cookie: who it is until when, signed with what is kept of their token.

Nothing is stored, so any replica with the same token file takes it; removing the token ends it.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable

from fieldmark.app.tokens import Token

COOKIE = "fieldmark_session"
SECONDS = 12 * 3600


def _sign(token: Token, until: int) -> str:
    said = f"fieldmark session\n{token.name}\n{token.scope}\n{until}".encode()
    return hmac.new(bytes.fromhex(token.sha256), said, hashlib.sha256).hexdigest()


def make_session(token: Token, now: float | None = None) -> str:
    """The cookie's value.

    Args:
        token: Whose session.
        now: Seconds since 1970; by default the clock's.
    """
    until = int(time.time() if now is None else now) + SECONDS
    name = base64.urlsafe_b64encode(token.name.encode()).decode().rstrip("=")
    return f"{name}.{until}.{_sign(token, until)}"


def find_session(tokens: Iterable[Token], value: str, now: float | None = None) -> Token | None:
    """Whose session it is; None where it is over, nobody's or made up.

    Args:
        tokens: Those that count.
        value: Of the cookie, as the browser sent it.
        now: Seconds since 1970; by default the clock's.
    """
    try:
        encoded, until_text, signature = value.split(".")
        name = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        until = int(until_text)
    except (ValueError, binascii.Error):
        return None
    token = next((each for each in tokens if each.name == name), None)
    if token is None or not signature.isascii():
        return None
    left = until - (time.time() if now is None else now)
    right = hmac.compare_digest(_sign(token, until), signature)
    return token if right and 0 < left <= SECONDS else None
