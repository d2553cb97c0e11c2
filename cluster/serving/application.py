"""The HTTP application: its paths, and what they ask of the workers, a :mod:`cluster.serving.backend`; no Ray."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from cluster.serving.answers import JSON, Answer, Refusal
from cluster.serving.backend import Backend
from cluster.serving.bodies import (
    BodyError,
    DecomposeForm,
    EditForm,
    GenerationFields,
    ImagesBody,
    RequestBody,
    StyleForm,
    SuperResolveForm,
    parse_fields,
    parse_json,
)
from cluster.serving.guard import LIVE, Guard, Log
from cluster.serving.limits import Limits
from cluster.serving.messages import (
    PAGE_HEADERS,
    BodyMemory,
    answer_response,
    check_media_type,
    error_handlers,
    error_response,
    parse_form,
    read_body,
    too_many,
)
from cluster.serving.openapi import FORM, openapi_document
from cluster.serving.telemetry import CONTENT_TYPE, Telemetry
from cluster.serving.watch import Watch

FORMS: Mapping[str, type[RequestBody]] = {
    "/v1/super-resolve": SuperResolveForm,
    "/v1/edit": EditForm,
    "/v1/style": StyleForm,
    "/v1/decompose": DecomposeForm,
}
INDEX = "index.html"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>FreqGAN</title>
<h1>FreqGAN</h1>
<p>A trained model answers here. <a href="openapi.json">openapi.json</a> describes every field.</p>
<ul>
<li><code>POST /v1/images</code>: images that the model draws</li>
<li><code>POST /v1/super-resolve</code>, <code>/v1/edit</code>, <code>/v1/style</code>, <code>/v1/decompose</code>: an
image of yours, enlarged, changed, styled, taken apart</li>
<li><a href="v1/model"><code>GET /v1/model</code></a>: what is loaded</li>
<li><a href="healthz"><code>GET /healthz</code></a>, <a href="readyz"><code>/readyz</code></a>,
<a href="metrics"><code>/metrics</code></a></li>
</ul>
</html>
"""

Handler = Callable[[Request], Awaitable[Response]]


def create_application(
    backend: Backend,
    limits: Limits,
    *,
    token: str | None = None,
    static: Path | None = None,
    live: ASGIApp | None = None,
    telemetry: Telemetry | None = None,
    log: Log = lambda text: None,
    note: Log = lambda text: None,
    watch_s: float = 5.0,
) -> ASGIApp:
    """Return the application.

    Args:
        backend: answers.
        limits: of requests.
        token: that requests must carry; None for none.
        static: folder of files that are served below /static; its index.html is the page.
        live: answers what is below /run, for the part of the page that shows a training; None for none.
        telemetry: counts.
        log: gets a line for every request, but for those that pages and probes repeat: of them for errors alone.
        note: gets a line when another version answers, or cannot.
        watch_s: seconds between looks for that.

    """
    counts = telemetry or Telemetry()
    service = _Service(backend, limits, counts, static, has_token=token is not None, has_live=live is not None)
    routes: list[BaseRoute] = [
        Route("/v1/images", service.images, methods=["POST"]),
        *(Route(path, service.uploaded(kind), methods=["POST"]) for path, kind in FORMS.items()),
        Route("/v1/model", service.model),
        Route("/healthz", service.health),
        Route("/readyz", service.readiness),
        Route("/metrics", service.metrics),
        Route("/openapi.json", service.openapi),
        Route("/", service.page),
    ]
    if live is not None:
        routes.append(Mount(LIVE, live))
    if static is not None:
        routes.append(Mount("/static", StaticFiles(directory=static)))
    handlers = error_handlers("see /openapi.json for those that there are", "another method; see /openapi.json") | {
        BodyError: _body_error
    }
    watch = Watch(backend, counts, note, watch_s)
    application = Starlette(routes=routes, exception_handlers=handlers, lifespan=watch.lifespan)
    return Guard(application, token, limits, counts, log)


class _Service:
    """The answers to every path."""

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        telemetry: Telemetry,
        static: Path | None,
        *,
        has_token: bool,
        has_live: bool,
    ) -> None:
        self.has_token, self.has_live = has_token, has_live
        self.backend, self.limits, self.telemetry, self.static = backend, limits, telemetry, static
        self._waiting = 0
        self._bodies = BodyMemory(limits.queue * max(limits.body_bytes, limits.upload_bytes))
        self._openapi = json.dumps(openapi_document()).encode()

    async def images(self, request: Request) -> Response:
        check_media_type(request.headers, JSON)
        with self._bodies.part() as take:
            data = await read_body(request, self.limits.body_bytes, self.limits.seconds, take)
            body = parse_json(ImagesBody, data)
            self._check_count(body)
            self._check(body)
            with self._place():
                return self._respond(await self.backend.images(body, self.limits.seconds))

    def uploaded(self, kind: type[RequestBody]) -> Handler:
        async def answer(request: Request) -> Response:
            check_media_type(request.headers, FORM)
            with self._bodies.part() as take:
                data = await read_body(request, self.limits.upload_bytes, self.limits.seconds, take)
                form = parse_fields(kind, await parse_form(request.headers, data))
                self._check(form)
                with self._place():
                    return self._respond(await self.backend.upload(form, self.limits.seconds))

        return answer

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take a place in the queue for a while: a request whose body has come. Who sends slowly takes none."""
        if self._waiting >= self.limits.queue:
            raise too_many(self._waiting)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def model(self, _request: Request) -> Response:
        facts = await self.backend.facts(self.limits.seconds)
        if isinstance(facts, Refusal):
            return error_response(facts)
        self.telemetry.served(str(facts["version"]), str(facts["model"]))
        return JSONResponse(facts | {"limits": self.limits.values(), "live": self.has_live})

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive", "token": self.has_token})

    async def readiness(self, _request: Request) -> Response:
        facts = await self.backend.facts(min(5.0, self.limits.seconds))
        return error_response(facts) if isinstance(facts, Refusal) else JSONResponse({"status": "ready"})

    async def metrics(self, _request: Request) -> Response:
        return Response(self.telemetry.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, _request: Request) -> Response:
        return Response(self._openapi, media_type=JSON)

    async def page(self, _request: Request) -> Response:
        index = None if self.static is None else self.static / INDEX
        if index is not None and index.is_file():
            return FileResponse(index, headers=PAGE_HEADERS)
        return HTMLResponse(PAGE, headers=PAGE_HEADERS)

    def _check_count(self, body: ImagesBody) -> None:
        if body.count > self.limits.count:
            raise BodyError(f"count is {body.count}, and {self.limits.count} are the most: ask several times", "count")

    def _check(self, body: RequestBody) -> None:
        most = self.limits.evaluations
        if isinstance(body, GenerationFields) and body.evaluations is not None and body.evaluations > most:
            raise BodyError(f"evaluations is {body.evaluations}, and {most} are the most: ask for fewer", "evaluations")

    def _respond(self, answer: Answer | Refusal) -> Response:
        self.telemetry.answered(answer)
        return answer_response(answer)


async def _body_error(_request: Request, error: BodyError) -> Response:
    return error_response(Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), error.field))
