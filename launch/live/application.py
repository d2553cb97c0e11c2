"""The live view as an HTTP application: paths below /run, and the page of ``freqgan watch``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from cluster.serving.answers import JSON, PNG, WEBP, Refusal
from cluster.serving.guard import LIVE, Guard, Log
from cluster.serving.limits import Limits
from cluster.serving.messages import PAGE_HEADERS, SAFE_HEADERS, error_handlers, error_response, refused
from cluster.serving.telemetry import Telemetry
from freqgan.errors import FreqganError, InputError
from launch.live.run_view import RunView

PAGE = "run.html"
LONGEST_CURSOR = 10_000
SMALLEST_PACKED = 1000
"""Bytes from which on an answer is sent compressed."""
MEDIA_TYPES = {"png": PNG, "webp": WEBP}
PATHS = f"below {LIVE}/ there are GET facts, metrics, scores, settings and samples/<images>.png"


def run_application(view: RunView) -> ASGIApp:
    """Return the answers to the paths below ``/run``, to be mounted there."""
    answers = _Answers(view)
    routes = [
        Route("/facts", answers.facts),
        Route("/metrics", answers.metrics),
        Route("/scores", answers.scores),
        Route("/settings", answers.settings),
        Route("/samples/{name}", answers.sample),
    ]
    packing = Middleware(GZipMiddleware, minimum_size=SMALLEST_PACKED)
    handlers = error_handlers(PATHS, "GET alone") | {FreqganError: _failed}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[packing])


def watch_application(
    view: RunView, static: Path, *, token: str | None = None, log: Log = lambda text: None
) -> ASGIApp:
    """Return the application of ``freqgan watch``: the page at /, its files, and the view, behind the service's guard.

    Args:
        view: of the run.
        static: folder of the files of the page.
        token: that requests must carry; None for none, on loopback alone.
        log: gets a line for every request, but for those that pages and probes repeat: of them for errors alone.

    """

    async def page(_request: Request) -> Response:
        return FileResponse(static / PAGE, headers=PAGE_HEADERS)

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "alive", "token": token is not None})

    routes = [
        Route("/", page),
        Route("/healthz", health),
        Mount(LIVE, run_application(view)),
        Mount("/static", StaticFiles(directory=static)),
    ]
    application = Starlette(routes=routes, exception_handlers=error_handlers(PATHS, "GET alone"))
    return Guard(application, token, Limits(), Telemetry(), log)


class _Answers:
    """The answers to every path; storage is read in threads."""

    def __init__(self, view: RunView) -> None:
        self.view = view

    async def facts(self, _request: Request) -> Response:
        return await _json(self.view.facts)

    async def metrics(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        if len(after) > LONGEST_CURSOR:
            raise refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, "after is no cursor of an earlier answer: leave it out", "after"
            )
        return await _json(lambda: self.view.metrics(after))

    async def scores(self, _request: Request) -> Response:
        return await _json(self.view.scores)

    async def settings(self, _request: Request) -> Response:
        return await _json(self.view.settings)

    async def sample(self, request: Request) -> Response:
        number, dot, ending = str(request.path_params["name"]).partition(".")
        images = -1
        with suppress(ValueError):
            images = int(number) if number.isdecimal() and number.isascii() and len(number) <= 18 else -1
        if images < 0 or not dot or ending not in MEDIA_TYPES:
            raise refused(HTTPStatus.NOT_FOUND, "there is no such grid: ask for samples/<images seen>.png")
        try:
            grid = await to_thread.run_sync(lambda: self.view.sample(images, ending))
        except InputError as error:
            raise refused(HTTPStatus.NOT_FOUND, str(error)) from error
        return Response(grid, headers=SAFE_HEADERS, media_type=MEDIA_TYPES[ending])


async def _json(answer: Callable[[], dict[str, Any]]) -> Response:
    """Return what ``answer`` gives in a thread, as JSON."""
    body = await to_thread.run_sync(lambda: json.dumps(answer(), separators=(",", ":"), allow_nan=False).encode())
    return Response(body, headers=SAFE_HEADERS, media_type=JSON)


async def _failed(_request: Request, error: FreqganError) -> Response:
    return error_response(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"the run cannot be read: {error}"))
