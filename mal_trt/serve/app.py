"""The application of `mal-trt serve`: its parts put together."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mal_trt.base.errors import InputError, MalTrtError
from mal_trt.base.processor import usable_cores
from mal_trt.base.version import __version__
from mal_trt.serve import api, health, label_studio, reference, workspace_routes
from mal_trt.serve.answers import NotFound, NotKept, OtherWork, UnknownKind, error_answer
from mal_trt.serve.counting import Counting
from mal_trt.serve.desk import Desk
from mal_trt.serve.inference import Inference
from mal_trt.serve.metrics import Metrics
from mal_trt.serve.pictures import Pictures
from mal_trt.serve.queues import Overloaded
from mal_trt.serve.security import Guard, TooLarge
from mal_trt.serve.settings import ServeSettings
from mal_trt.serve.state import State

STATUSES: dict[type[InputError], int] = {NotFound: 404, OtherWork: 412, TooLarge: 413, UnknownKind: 415}
STATIC = Path(__file__).parent / "static"
log = logging.getLogger(__name__)


def create_app(settings: ServeSettings) -> FastAPI:
    """The whole server as an ASGI application. The model is opened here, and freed at the end of its lifespan.

    InputError or RunError if the model or the pictures cannot be used.
    """
    pictures = Pictures(settings.images, settings.limits.pixels)
    metrics = Metrics()
    inference = Inference(settings, metrics.batch)
    metrics.watch_waiting(lambda: inference.waiting)
    pool = ThreadPoolExecutor(max(2, settings.threads or usable_cores()), "mal-trt-serve")
    state = State(settings, inference, pictures, metrics, pool, Desk(settings, inference, pool))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.stopping = True
        state.desk.close()
        inference.close(settings.limits.stop)
        pool.shutdown(cancel_futures=True)

    app = FastAPI(
        title="mal-trt",
        version=__version__,
        description="Turns bounding boxes into instance masks.",
        lifespan=lifespan,
        docs_url=None,  # its page takes scripts from elsewhere
        redoc_url=None,
    )
    app.state.serve = state
    app.include_router(health.router)
    app.include_router(api.router)
    app.include_router(label_studio.router)
    app.include_router(workspace_routes.router)
    app.include_router(reference.router)
    _add_page(app)
    _add_errors(app)
    app.add_middleware(Counting, metrics=metrics)
    app.add_middleware(Guard, settings=settings)
    return app


def _add_page(app: FastAPI) -> None:
    if STATIC.is_dir():
        app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        index = STATIC / "index.html"
        if os.path.isfile(index):
            return FileResponse(index, headers={"cache-control": "no-cache"})
        return PlainTextResponse("mal-trt serve: see /openapi.json\n")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def bad_input(request: Request, error: InputError) -> Response:
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 400)
        return error_answer(status, str(error))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return error_answer(400, "the client has gone")

    @app.exception_handler(Overloaded)
    async def overloaded(request: Request, error: Overloaded) -> Response:
        return error_answer(503, str(error), retry_after=error.retry_after)

    @app.exception_handler(MalTrtError)
    async def failed(request: Request, error: MalTrtError) -> Response:
        log.error("%s", error)
        return error_answer(507 if isinstance(error, NotKept) else 500, str(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        answer = error_answer(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return error_answer(422, f"{where}: {first['msg']}")

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return error_answer(500, f"internal error ({type(error).__name__}); the server's log has more")
