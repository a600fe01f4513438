"""What routes work with: made once when the service starts, closed when it stops."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from fieldmark.app.access import Access
from fieldmark.app.explainer import Explainer
from fieldmark.app.indexed import Indexed
from fieldmark.app.metrics import Metrics
from fieldmark.app.photos import Photos
from fieldmark.app.problems import HttpProblem
from fieldmark.app.runs import Runs
from fieldmark.app.settings import Settings
from fieldmark.errors import ArtifactError

_log = logging.getLogger("fieldmark.app")
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
            self._indexed = Indexed(self.settings, stopping=self.stopping)
            self.checks["index"] = self._indexed.check
            try:
                self._open_photos(self._indexed)
            except BaseException:
                self._indexed.close()
                raise

    def _open_photos(self, indexed: Indexed) -> None:
        if indexed.stats().current is None:
            return  # Empty: there is no encoder yet.
        try:
            photos = self._photos = Photos(self.settings, indexed, self.metrics)
        except ArtifactError as error:
            # Who labels needs no encoder.
            _log.warning("photos cannot be embedded: %s", error)
            self.checks["encoder"] = lambda: "the index's encoder cannot be loaded"
            return
        self._explainer = Explainer(photos)
        indexed.embed = photos.embed_file
        self.checks |= {
            "encoder": photos.check_encoder,
            "photos": photos.shelf.check,
            "decoders": photos.check_decoders,
        }

    @property
    def indexed(self) -> Indexed:
        """What works on an index.

        Raises:
            HttpProblem: 409 ``no_index`` where the service shows runs only.
        """
        if self._indexed is None:
            raise HttpProblem(
                409, "no_index", "this service shows runs; start it with an index for this."
            )
        return self._indexed

    @property
    def photos(self) -> Photos:
        """What is done with photos.

        Raises:
            HttpProblem: 409 ``no_index`` where the service shows runs only, 503 ``not_ready`` where there
                is no encoder.
        """
        _ = self.indexed
        return _there(self._photos)

    @property
    def explainer(self) -> Explainer:
        """Reasons.

        Raises:
            HttpProblem: As for photos.
        """
        _ = self.indexed
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
            503, "not_ready", "the service has no encoder to do this with; its log says why."
        )
    return part


async def _of(request: Request) -> Service:
    # A coroutine though it waits for nothing: FastAPI sends a plain function to another thread and back.
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Served = Annotated[Service, Depends(_of)]
"""Parameter of a route that needs the service."""
