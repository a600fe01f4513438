"""What routes work with: made once when the service starts, closed when it stops."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from fastapi import Depends, Request
from jaxtyping import Float

from fieldmark.app.access import Access
from fieldmark.app.explainer import Explainer
from fieldmark.app.heads import Heads
from fieldmark.app.indexed import Indexed
from fieldmark.app.library import Library
from fieldmark.app.metrics import Metrics
from fieldmark.app.photos import Photos
from fieldmark.app.problems import HttpProblem
from fieldmark.app.runs import Runs
from fieldmark.app.settings import Settings
from fieldmark.data.catalog import Location

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
    runs: Runs = field(init=False)
    checks: dict[str, Callable[[], str]] = field(default_factory=dict)
    """By name, what /readyz asks of each part: ``ok``, or what is wrong in words."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the service is about to stop: whoever waits for something gives up."""
    _indexed: Indexed | None = field(init=False, default=None)
    _photos: Photos | None = field(init=False, default=None)
    _explainer: Explainer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.access = Access(self.settings)
        self.metrics = Metrics()
        self.runs = Runs(self.settings.runs)
        if self.settings.place is not None:
            self._open_index()

    def _open_index(self) -> None:
        self._indexed = Indexed(self.settings, stopping=self.stopping)
        try:
            self._photos = Photos(self.settings, self._indexed.library, self.metrics)
        except BaseException:
            self._indexed.close()
            raise
        self._explainer = Explainer(self._photos)
        self._indexed.embed = self._embed
        self.checks |= {
            "index": self._indexed.check,
            "encoder": self._photos.check_encoder,
            "photos": self._photos.shelf.check,
            "decoders": self._photos.check_decoders,
        }

    def _embed(self, file: Path) -> Float[np.ndarray, " D"]:
        return self.photos.embed(Location(str(file))).result().vector

    @property
    def indexed(self) -> Indexed:
        """What works on an index: library, labels, guesses, overviews."""
        return _there(self._indexed)

    @property
    def library(self) -> Library:
        """The index in memory."""
        return self.indexed.library

    @property
    def heads(self) -> Heads:
        """The classifier of its labels."""
        return self.indexed.heads

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
        for part in (self._explainer, self._photos, self._indexed):
            if part is not None:
                part.close()


def _there(part: T | None) -> T:
    if part is None:
        raise HttpProblem(
            409, "no_index", "this service shows runs; start it with an index for this."
        )
    return part


def _of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Served = Annotated[Service, Depends(_of)]
"""Parameter of a route that needs the service."""
