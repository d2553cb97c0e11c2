"""Requests and answers as ASGI has them: bodies read within bounds of bytes and time, errors in one form."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from anyio import fail_after
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cluster.serving.answers import JSON, Answer, Refusal

MOST_FILES = 4
MOST_FIELDS = 32
FIELD_BYTES = 64 * 2**10
RETRY_AFTER_S = {HTTPStatus.TOO_MANY_REQUESTS: 1, HTTPStatus.SERVICE_UNAVAILABLE: 2, HTTPStatus.GATEWAY_TIMEOUT: 5}
"""Seconds after which a client is to ask again."""
SAFE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
    "Referrer-Policy": "no-referrer",
}
"""Of a page: nothing of another host, and no script or style within it."""


class RefusedError(Exception):
    """A request that is not answered, and why."""

    def __init__(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal, self.headers = refusal, dict(headers or {})


def refused(status: HTTPStatus, message: str, field: str | None = None, **headers: str) -> RefusedError:
    """Return the error that refuses a request with ``status``; ``headers`` are named with underscores."""
    return RefusedError(Refusal(status, message, field), {n.replace("_", "-"): value for n, value in headers.items()})


def error_response(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    """Return the one form of errors: {"error": {"message": ..., "field": ...}}."""
    body = json.dumps({"error": {"message": refusal.message, "field": refusal.field}}).encode()
    seconds = RETRY_AFTER_S.get(HTTPStatus(refusal.status))
    own = {} if seconds is None else {"Retry-After": str(seconds)}
    return Response(body, refusal.status, {**SAFE_HEADERS, **own, **(headers or {})}, JSON)


def error_handlers(paths: str, methods: str) -> dict[Any, Any]:
    """Return what answers, in the form that all errors have, for wrong paths and methods, and what was refused.

    ``paths`` says which paths there are, ``methods`` how they are asked.
    """

    async def of_http(_request: Request, error: HTTPException) -> Response:
        messages = {
            HTTPStatus.NOT_FOUND: f"there is nothing at this path; {paths}",
            HTTPStatus.METHOD_NOT_ALLOWED: f"this path takes {methods}",
        }
        message = messages.get(HTTPStatus(error.status_code), str(error.detail))
        return error_response(Refusal(error.status_code, message), error.headers)

    async def of_refusal(_request: Request, error: RefusedError) -> Response:
        return error_response(error.refusal, error.headers)

    return {HTTPException: of_http, RefusedError: of_refusal}


def too_many(active: int) -> RefusedError:
    """Return the refusal of a request beside ``active`` others."""
    return refused(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{active} requests are being answered or wait, as many as may: try again in a moment",
    )


def answer_response(answer: Answer | Refusal) -> Response:
    """Return an answer of a worker, or its refusal, as HTTP has it."""
    if isinstance(answer, Refusal):
        return error_response(answer)
    return Response(answer.body, HTTPStatus.OK, {**SAFE_HEADERS, **answer.headers}, answer.media_type)


class BodyMemory:
    """The memory for the bodies of all requests that are being read or answered, of ``most_bytes`` bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._free_bytes = most_bytes

    @contextmanager
    def part(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes so many bytes more for one request; all that it has taken is free again in the end.

        Raises:
            RefusedError: from that call, where there are not so many.

        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if count > self._free_bytes:
                raise refused(
                    HTTPStatus.TOO_MANY_REQUESTS, "bodies of other requests fill the memory for them: try again soon"
                )
            self._free_bytes, taken = self._free_bytes - count, taken + count

        try:
            yield take
        finally:
            self._free_bytes += taken


async def read_body(request: Request, most_bytes: int, most_s: float, take: Callable[[int], None]) -> bytes:
    """Return the body of ``request``; ``take`` is asked for the memory of each piece.

    Raises:
        RefusedError: it has more than ``most_bytes`` bytes, or is not there after ``most_s`` seconds.

    """
    too_large = refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {most_bytes:,} bytes: send less",
        Connection="close",
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        with fail_after(most_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > most_bytes:
                    raise too_large
                take(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise refused(
            HTTPStatus.REQUEST_TIMEOUT, f"the body was not there after {most_s:g} s: send it again", Connection="close"
        ) from error
    except ClientDisconnect as error:
        raise refused(HTTPStatus.BAD_REQUEST, "the body ended early: send it again") from error
    return bytes(body)


def check_media_type(headers: Headers, wanted: str) -> None:
    """Raise RefusedError unless the body is ``wanted``, a media type."""
    media_type = headers.get("content-type", "")
    if media_type.partition(";")[0].strip().lower() != wanted:
        raise refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is to be of Content-Type {wanted}: send it with this header"
        )


async def parse_form(headers: Headers, body: bytes) -> dict[str, str | bytes]:
    """Return the fields of a multipart form: texts, and files as bytes. Nothing is written to a disk.

    Raises:
        RefusedError: it is no such form, is cut off, or has a field twice.

    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        headers,
        stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=FIELD_BYTES,
    )
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
        items = [(n, await v.read() if isinstance(v, UploadFile) else v) for n, v in form.multi_items()]
    except MultiPartException as error:
        raise _bad_form(error.message) from error
    except (FormParserError, ValueError, LookupError, KeyError) as error:
        raise _bad_form("it is damaged") from error
    values: dict[str, str | bytes] = {}
    for name, value in items:
        if name in values:
            raise refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name[:100]} is there twice: give it once", name[:100])
        values[name] = value
    _check_end(headers, body)
    return values


def _check_end(headers: Headers, body: bytes) -> None:
    """Refuse a form without its closing boundary: the parser takes what came before for the whole."""
    boundary = headers.get("content-type", "").partition("boundary=")[2].partition(";")[0].strip().strip('"')
    if f"--{boundary}--".encode() not in body:
        raise _bad_form("its end is not there")


def _bad_form(reason: str) -> RefusedError:
    text = reason.encode("utf-8", "backslashreplace").decode()[:200]
    return refused(
        HTTPStatus.BAD_REQUEST, f"the body is no multipart form ({text}): send it as `curl -F name=@file` does"
    )
