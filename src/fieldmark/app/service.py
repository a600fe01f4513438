"""What routes work with: made once when the service starts, closed when it stops."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from fieldmark.app.access import Access
from fieldmark.app.explainer import Explainer
from fieldmark.app.heads import Heads
from fieldmark.app.library import Library
from fieldmark.app.metrics import Metrics
from fieldmark.app.photos import Photos
from fieldmark.app.problems import HttpProblem
from fieldmark.app.settings import Settings

T = TypeVar("T")


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
        self._library: Library | None = None
        self._photos: Photos | None = None
        self._explainer: Explainer | None = None
        if self.settings.place is not None:
            self._open_index(self.settings.place)

    def _open_index(self, place: str) -> None:
        self._library = Library(place)
        try:
            self._heads = Heads(self._library.labelled)
            self._library.on_photos.append(self._heads.forget)
            self._photos = Photos(self.settings, self._library, self.metrics)
        except BaseException:
            self._library.close()
            raise
        self._explainer = Explainer(self._photos)
        self.checks |= {
            "index": lambda: "ok" if self.library.problem is None else "cannot be read",
            "encoder": self._photos.check_encoder,
            "photos": self._photos.shelf.check,
            "decoders": self._photos.check_decoders,
        }

    @property
    def library(self) -> Library:
        """The index in memory; 404 where none is served."""
        return _there(self._library)

    @property
    def heads(self) -> Heads:
        """The classifier of its labels."""
        _there(self._library)
        return self._heads

    @property
    def photos(self) -> Photos:
        """What is done with photos."""
        return _there(self._photos)

    @property
    def explainer(self) -> Explainer:
        """Reasons."""
        return _there(self._explainer)

    def close(self) -> None:
        """Let go of processes, threads and files."""
        self.stopping.set()
        for part in (self._explainer, self._photos, self._library):
            if part is not None:
                part.close()


def _there(part: T | None) -> T:
    if part is None:
        raise HttpProblem(404, "no_index", "this service shows runs only; it has no index.")
    return part


def _of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Served = Annotated[Service, Depends(_of)]
"""Parameter of a route that needs the service."""
