"""The application: routes, door, page, life."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from scrd.errors import ScrdError
from scrd.serve import routes_results, routes_score, routes_state
from scrd.serve.guard import Guard
from scrd.serve.service import Service, Settings
from scrd.serve.store import Store
from scrd.serve.uploads import Refused
from scrd.system.version import __version__

log = logging.getLogger("scrd.serve")
PAGE = Path(__file__).parent / "page"


def make_app(
    store: Store, settings: Settings, on_fatal: Callable[[], None] = lambda: None
) -> FastAPI:
    """The application of a service.

    Args:
        store: held by the caller.
        settings: of the service.
        on_fatal: called when a model that it was started with cannot be loaded.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    service = Service(store, settings, on_fatal)
    app = FastAPI(
        title="scrd",
        version=__version__,
        description="Unsupervised anomaly detection. For research use only; not a medical device.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.service = service
    app.add_middleware(Guard, service=lambda: service)
    for routes in (routes_score, routes_results, routes_state):
        app.include_router(routes.router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(KeyError, _unknown)
    app.add_exception_handler(ScrdError, _cannot)
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html; charset=utf-8")

    return app


async def _refused(_: Request, error: Any) -> JSONResponse:
    headers = {} if error.retry is None else {"retry-after": str(error.retry)}
    return JSONResponse({"detail": error.reason}, error.status, headers)


async def _unknown(_: Request, __: Any) -> JSONResponse:
    return JSONResponse({"detail": "there is nothing of this name"}, 404)


async def _cannot(_: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)
