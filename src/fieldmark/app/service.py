"""What routes work with: made once when the service starts, closed when it stops."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from fieldmark.app.access import Access
from fieldmark.app.metrics import Metrics
from fieldmark.app.settings import Settings


@dataclass
class Service:
    """Parts of a running service.

    Raises:
        FieldmarkError: One of them cannot be used.
    """

    settings: Settings
    access: Access = field(init=False)
    metrics: Metrics = field(init=False)
    checks: dict[str, Callable[[], str]] = field(default_factory=dict)
    """By name, what /readyz asks of each part: ``ok``, or what is wrong in words."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the service is about to stop: whoever waits for something gives up."""

    def __post_init__(self) -> None:
        self.access = Access(self.settings)
        self.metrics = Metrics()

    def close(self) -> None:
        """Let go of processes, threads and files."""
        self.stopping.set()


def _of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Served = Annotated[Service, Depends(_of)]
"""Parameter of a route that needs the service."""
