"""What routes work with: made once when the service starts, closed when it stops."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from fieldmark.app.runs import Runs
from fieldmark.app.settings import Settings


@dataclass
class Service:
    """Parts of a running service."""

    settings: Settings
    runs: Runs = field(init=False)

    def __post_init__(self) -> None:
        self.runs = Runs(self.settings.runs)

    def close(self) -> None:
        """Let go of processes, threads and files."""


def _of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Served = Annotated[Service, Depends(_of)]
"""Parameter of a route that needs the service."""
