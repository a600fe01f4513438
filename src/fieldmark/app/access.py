"""Who may do what."""

from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer


class Scope(StrEnum):
    """What a token allows; each holds those before it."""

    read = "read"
    label = "label"
    admin = "admin"


_BEARER = HTTPBearer(auto_error=False, description="A token of fieldmark serve's token file.")


class Allowed:
    """Dependency of a route: the caller may do this."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(
        self,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
    ) -> str:
        """Who it is, for the history; raises 401 or 403."""
        return ""


Reader = Annotated[str, Depends(Allowed(Scope.read))]
Labeller = Annotated[str, Depends(Allowed(Scope.label))]
Admin = Annotated[str, Depends(Allowed(Scope.admin))]
"""Parameters that say who calls; every route under /api has one of these."""
