"""Photos of the service: decoded aside, embedded together, searched, shown."""

import asyncio
import math
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from fastapi import Request
from jaxtyping import Float, UInt8
from starlette.requests import ClientDisconnect

from fieldmark.app.batching import Batcher
from fieldmark.app.decoders import Decoders, Lane, Rate, Wish, busy
from fieldmark.app.indexed import Indexed
from fieldmark.app.library import MEDIA
from fieldmark.app.media import PICTURES, Media, Names, Shelf, Size, Store, cache_folder
from fieldmark.app.metrics import Metrics
from fieldmark.app.problems import HttpProblem
from fieldmark.app.queries import Queries, Query
from fieldmark.app.settings import Settings
from fieldmark.app.upload import Upload
from fieldmark.data.catalog import Location
from fieldmark.data.derive import Want
from fieldmark.data.looktensor import stack
from fieldmark.data.sandbox import Reply
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError
from fieldmark.index.index import Hit, Space
from fieldmark.index.match import Region
from fieldmark.index.parts import FILE, Parts
from fieldmark.index.places import is_server, open_index
from fieldmark.nn.detail import Detail
from fieldmark.runtime import processor_count, tune_allocator
from fieldmark.workflows.index import upload_of
from fieldmark.workflows.parts import cells_of, detail_of
from fieldmark.workflows.region import PartHits, basis_of, search_cells, stored_cells
from fieldmark.workflows.spaces import current_space, load_encoder

_LARGEST_BATCH = {"cpu": 32}
"""By device; elsewhere 64."""
_BATCH_SECONDS = {"cpu": 0.1}
"""Processor time of a batch, where that limits it: of a small network many photos together cost less, of a large
one they do not, and those behind them wait."""
_LOOK_SECONDS = 1.0
"""How often somebody who waits is looked after."""
_MOST_THREADS = 8
T = TypeVar("T")


class Embedded(NamedTuple):
    """A photo that was decoded and embedded."""

    reply: Reply
    vector: Float[np.ndarray, " D"]


class Eye(NamedTuple):
    """The encoder of the index, ready."""

    space: Space
    encoder: Encoder
    batcher: Batcher

    @property
    def look(self) -> Want:
        """What it wants of a photo."""
        return Want(look=(self.encoder.size, self.encoder.spec.crop))


class Photos:
    """What routes do with photos.

    Args:
        settings: Of the service.
        indexed: The index, and what is known of its photos.
        metrics: To count batches in.
        decoder: As of :class:`fieldmark.data.sandbox.DecodePool`, for tests.

    Raises:
        FieldmarkError: The index is empty, or its encoder is gone.
    """

    def __init__(
        self,
        settings: Settings,
        indexed: Indexed,
        metrics: Metrics,
        *,
        decoder: str | None = None,
    ) -> None:
        assert settings.place is not None
        self.settings = settings
        library = self.library = indexed.library
        self._metrics = metrics
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._in_flight = 0
        self._rate = Rate()
        self.folder = Path(tempfile.mkdtemp(prefix="fieldmark-"))
        folder = None if is_server(settings.place) else Path(settings.place)
        self._parts = None if folder is None else folder / FILE
        self._detail: tuple[Eye, Detail] | None = None
        self._index = open_index(settings.place)
        try:
            self._eye = self._open_eye()
        except BaseException:
            self._index.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.queries = Queries()
        self.decoders = Decoders(
            processor_count(),
            most=(settings.max_waiting, 1024, 16),
            folder=self.folder,
            decoder=decoder,
        )
        self.shelf = Shelf(
            self._names,
            indexed.photos,
            partial(upload_of, settings.place),
        )
        self.store = Store(cache_folder(folder, self.folder))
        self.media = Media(self.shelf, self.store, self.decoders, self._picture_of)
        library.on_photos.append(self._on_photos)
        metrics.waiting.set_function(lambda: self._in_flight)
        self._warmed = threading.Thread(target=self._warm_up, name="fieldmark-warm", daemon=True)
        self._warmed.start()

    def close(self) -> None:
        """Let go of processes, threads and files."""
        self.media.close()
        self.decoders.close()
        self._eye.batcher.close()
        self._warmed.join(timeout=30)
        self._index.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- the encoder

    @property
    def eye(self) -> Eye:
        """The encoder that the index uses."""
        return self._eye

    def _open_eye(self) -> Eye:
        place = self.settings.place
        assert place is not None
        space = current_space(self._index.stats(), place)
        encoder = load_encoder(place, space, device=self.settings.device)
        on_cpu = encoder.device.type == "cpu"
        threads = 1
        if on_cpu:
            # Side by side on a processor each: one batch on several waits for the slowest, and where
            # decoders and other programs work too that is ten times as slow (benchmarks/service.py).
            threads = min(processor_count(), _MOST_THREADS)
            tune_allocator()
            torch.set_num_threads(max(1, processor_count() // threads))
        batcher = Batcher(
            lambda looks: encoder.encode(stack(looks)).cpu().numpy(),
            largest=_LARGEST_BATCH.get(encoder.device.type, 64),
            seconds=_BATCH_SECONDS.get(encoder.device.type, math.inf),
            threads=threads,
            most=2 * self.settings.max_waiting,
            told=self._metrics.batch_photos.observe,
        )
        return Eye(space, encoder, batcher)

    def _on_photos(self) -> None:
        """The index has changed; when it went over to another encoder, so does the service."""
        if self.library.view().table.identity not in (None, self._eye.space.identity):
            threading.Thread(target=self._change_eye, name="fieldmark-encoder", daemon=True).start()

    def _change_eye(self) -> None:
        with self._changing:
            before = self._eye
            if self.library.view().table.identity == before.space.identity:
                return
            self._eye = self._open_eye()
        self.queries.clear()
        before.batcher.close()

    def _names(self) -> Names:
        table = self.library.view().table
        return Names(table.media, table.keys)

    def _warm_up(self) -> None:
        """Photos of the index decide the arithmetic, before anybody waits for it."""
        looks: list[Any] = []
        for media in self.shelf.all()[: 4 * 8 : 4]:
            key = self.shelf.key(media)
            try:
                if key is not None:
                    wish = Wish(self.shelf.place(key), self._eye.look)
                    reply = self.decoders.submit(wish, Lane.ahead).result(timeout=60)
                    if reply.derived is not None and reply.derived.look is not None:
                        looks.append(reply.derived.look)
            except Exception:
                continue
        # Whoever is closed while getting ready has nothing to get ready for.
        with suppress(CancelledError, HttpProblem):
            if looks:
                self._eye.batcher.call(lambda: self._eye.encoder.encode(stack(looks))).result()
            self.media.make_ahead()

    @property
    def detail(self) -> Detail | None:
        """How cells are read; None where the index has none."""
        if self._parts is None or not self._parts.is_file():
            return None
        eye = self._eye
        if self._detail is None or self._detail[0] is not eye:
            self._detail = eye, eye.batcher.call(lambda: detail_of(eye.encoder)).result()
        return self._detail[1]

    # -- photos that come

    def refuse_when_full(self) -> None:
        """Say so before a photo is taken that would not be.

        Raises:
            HttpProblem: 503 ``busy``.
        """
        if self._in_flight >= self.settings.max_waiting:
            raise busy(self._rate.seconds(self._in_flight))

    def embed(self, photo: bytes | Location, more: Want | None = None) -> "Future[Embedded]":
        """Decode and embed a photo; whoever cancels the future before its turn is passed over.

        The future fails with a PhotoError where the photo cannot be used.

        Args:
            photo: Its file's bytes, or where they lie.
            more: What else is wanted of it.

        Raises:
            HttpProblem: 503 ``busy``.
        """
        with self._lock:
            if self._in_flight >= self.settings.max_waiting:
                raise busy(self._rate.seconds(self._in_flight))
            self._in_flight += 1
        eye = self._eye
        answer: Future[Embedded] = Future()
        answer.add_done_callback(self._landed)
        want: Want = {**(more or {}), **eye.look}
        try:
            decoded = self.decoders.submit(Wish(photo, want))
        except HttpProblem as problem:
            answer.set_exception(problem)
            return answer
        _follow(answer, decoded, lambda reply: self._encode(eye, answer, reply))
        return answer

    def embed_file(self, file: Path) -> Float[np.ndarray, " D"]:
        """The vector of a photo's file; waits for it.

        Raises:
            PhotoError: It cannot be used.
            HttpProblem: 503 ``busy``.
        """
        return self.embed(Location(str(file))).result().vector

    def _encode(self, eye: Eye, answer: "Future[Embedded]", reply: Reply) -> None:
        assert reply.derived is not None
        look = np.asarray(reply.derived.look)
        vector = eye.batcher.submit(look)
        _follow(answer, vector, lambda found: _finish(answer, Embedded(reply, found)))

    def _landed(self, _: "Future[Embedded]") -> None:
        with self._lock:
            self._in_flight -= 1
            self._rate.count()

    def remember(self, upload: Upload) -> "Future[Query]":
        """Embed a photo and keep what later questions need; of its file nothing stays.

        Raises:
            HttpProblem: 503 ``busy``.
        """
        detail = self.detail
        want = Want(picture=PICTURES[Size.large])
        if detail is not None:
            want["pixels"] = 2 * detail.side
        answer: Future[Query] = Future()

        def keep(found: Embedded) -> None:
            reply, photo = found.reply, found.reply.photo
            assert reply.derived is not None
            assert photo is not None
            pixels = reply.derived.pixels
            query = Query(
                upload.sha256[:MEDIA],
                found.vector,
                np.asarray(reply.derived.look),
                None if detail is None or pixels is None else detail.look(pixels),
                reply.derived.picture or b"",
                photo.original[1],
                photo.original[0],
                photo.notes,
                photo.damage,
            )
            self.queries.put(query)
            _finish(answer, query)

        _follow(answer, self.embed(upload.photo, want), keep)
        return answer

    def query(self, name: str) -> Query:
        """An upload that is remembered.

        Raises:
            HttpProblem: 404 ``unknown_query``.
        """
        found = self.queries.get(name)
        if found is None:
            raise HttpProblem(
                404,
                "unknown_query",
                "this photo is not remembered any more; upload it again.",
            )
        return found

    def _picture_of(self, media: str) -> bytes | None:
        found = self.queries.get(media)
        return None if found is None else found.picture

    # -- photos that are there

    def media_name(self, key: str) -> str:
        """The name of an indexed photo's pictures.

        Raises:
            HttpProblem: 404 ``no_such_photo``.
        """
        view = self.library.view()
        (row,) = view.rows([key])
        return view.table.media[row]

    def decode(self, key: str, want: Want) -> "Future[Reply]":
        """An indexed photo, as it was indexed; reads files, so not for the event loop.

        Raises:
            HttpProblem: 404 ``missing``, 503 ``busy``.
        """
        return self.decoders.submit(Wish(self.shelf.place(key), want))

    def decode_bytes(self, photo: bytes, want: Want) -> "Future[Reply]":
        """The same of a photo in memory."""
        return self.decoders.submit(Wish(photo, want))

    # -- search

    def search(
        self,
        *,
        key: str | None = None,
        vector: Float[np.ndarray, " D"] | None = None,
        k: int = 10,
        where: str | None = None,
    ) -> list[Hit]:
        """Photos that look most like one: of the index by its key, else by its vector.

        Raises:
            InputError: No such key, or a filter that makes no sense.
        """
        identity = self._eye.space.identity
        if key is not None:
            return self._index.like([key], k, where=where, identity=identity)[0]
        assert vector is not None
        return self._index.search(vector[None], k, where=where, identity=identity)[0]

    def search_part(
        self,
        region: Region,
        *,
        key: str | None = None,
        whole: UInt8[np.ndarray, "y x 3"] | None = None,
        k: int = 10,
        where: str | None = None,
    ) -> PartHits:
        """Photos that show a part of one, and where.

        Args:
            region: The part.
            key: Of a photo of the index.
            whole: Or one that ``Detail.look`` has resized.
            k: How many.
            where: Filter.

        Raises:
            HttpProblem: 409 ``no_parts``.
            InputError: No such key, or a filter that makes no sense.
        """
        detail, identity = self.detail, self._eye.space.identity
        if detail is None or self._parts is None:
            raise no_parts()
        # SQLite's connection belongs to the thread that opened it.
        with closing(Parts(self._parts)) as parts:
            try:
                basis = basis_of(parts, identity, detail.kind)
                if key is not None:
                    cells = stored_cells(parts, identity, basis, self._index.get([key])[0])
                elif whole is not None:
                    found = self._eye.batcher.call(lambda: cells_of(detail, whole)).result()
                    cells = basis.express(found)
                else:
                    raise no_parts()
                return search_cells(
                    self._index, parts, identity, basis, cells, region, k=k, where=where, own=key
                )
            except ArtifactError as error:
                raise no_parts() from error

    # -- readiness

    def check_decoders(self) -> str:
        """``ok``, or what is wrong."""
        return self.decoders.broken or "ok"

    def check_encoder(self) -> str:
        """``ok``, or what is wrong."""
        return "getting ready" if self._warmed.is_alive() else "ok"


def no_parts() -> HttpProblem:
    """Search for parts where there are none."""
    return HttpProblem(
        409,
        "no_parts",
        "the index holds no parts of this photo; make them with fieldmark index … --parts.",
    )


async def finished(request: Request, future: "Future[T]") -> T:
    """What a future gives; given up when the client goes.

    Raises:
        ClientDisconnect: It has gone.
    """
    waiting = asyncio.wrap_future(future)
    while True:
        done, _ = await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
        if done:
            return waiting.result()
        if await request.is_disconnected():
            waiting.cancel()
            raise ClientDisconnect


def _follow(answer: "Future[Any]", step: "Future[T]", then: Callable[[T], object]) -> None:
    """Go on when a step is done; cancel the step when nobody wants the answer any more."""

    def done(step: "Future[T]") -> None:
        try:
            if not answer.cancelled():
                then(step.result())
        except BaseException as error:
            if not answer.done() and answer.set_running_or_notify_cancel():
                answer.set_exception(error)

    def given_up(answer: "Future[Any]") -> None:
        if answer.cancelled():
            step.cancel()

    answer.add_done_callback(given_up)
    step.add_done_callback(done)


def _finish(answer: "Future[T]", result: T) -> None:
    if answer.set_running_or_notify_cancel():
        answer.set_result(result)
