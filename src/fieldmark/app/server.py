"""The application: routes, guards and error texts put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import fieldmark
from fieldmark.app.problems import HttpProblem, on_fieldmark_error, on_problem
from fieldmark.app.routes import health, runs
from fieldmark.app.service import Service
from fieldmark.app.settings import Settings
from fieldmark.errors import FieldmarkError


def create_app(settings: Settings) -> FastAPI:
    """Build the service; what it needs is opened here, so that what is wrong is said at once.

    Raises:
        FieldmarkError: Index, encoder, photos or tokens cannot be used.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="fieldmark",
        version=fieldmark.__version__,
        summary="Search, sort, explain and label look-alikes.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.service = service
    app.add_exception_handler(FieldmarkError, on_fieldmark_error)
    app.add_exception_handler(HttpProblem, on_problem)
    app.include_router(health.router)
    app.include_router(runs.router)
    app.include_router(runs.media)
    return app
