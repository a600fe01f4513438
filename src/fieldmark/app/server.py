"""The application: routes, guards and error texts put together."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

import fieldmark
from fieldmark.app.bodies import Bodies
from fieldmark.app.description import describe
from fieldmark.app.guard import Names
from fieldmark.app.page import page_routes
from fieldmark.app.problems import (
    HttpProblem,
    on_fieldmark_error,
    on_http_error,
    on_invalid,
    on_problem,
)
from fieldmark.app.routes import (
    changing,
    guesses,
    health,
    labels,
    library,
    media,
    photos,
    runs,
    session,
)
from fieldmark.app.service import Service
from fieldmark.app.settings import Settings
from fieldmark.app.watch import Watch
from fieldmark.errors import FieldmarkError

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    photos.router,
    media.router,
    session.router,
    library.router,
    labels.router,
    guesses.router,
    changing.router,
    runs.router,
    runs.media,
)
"""Every subject of the API, those that are asked most often first: routes are tried one after another."""
_COMPRESSED_FROM = 2_000


def create_app(settings: Settings) -> FastAPI:
    """Build the service; what it needs is opened here, so that what is wrong is said at once.

    Raises:
        FieldmarkError: Index, encoder, photos or tokens cannot be used.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Guards read it, and it takes a fifth of a second to make: not the first request's. Nor a thread's:
        # FastAPI changes the filters of warnings meanwhile, which are those of all threads.
        app.openapi()
        yield
        service.close()

    app = FastAPI(
        title="fieldmark",
        version=fieldmark.__version__,
        summary="Search, sort, explain and label look-alikes.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    app.add_exception_handler(FieldmarkError, on_fieldmark_error)
    app.add_exception_handler(HttpProblem, on_problem)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    for router in ROUTERS:
        app.include_router(router)
    page = page_routes() if settings.page else []
    app.router.routes.extend(page)
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    app.state.routes = [*routes, *page]

    describing = threading.Lock()

    def description() -> dict[str, Any]:
        with describing:
            return describe(app, routes, guarded=service.access.guarded)

    app.openapi = description  # type: ignore[method-assign]
    # The last one added is the outermost.
    app.add_middleware(GZipMiddleware, minimum_size=_COMPRESSED_FROM, compresslevel=4)
    app.add_middleware(Bodies, settings=settings, access=service.access, description=description)
    app.add_middleware(Names, settings=settings)
    app.add_middleware(Watch, metrics=service.metrics)
    return app
