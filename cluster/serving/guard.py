"""What every request passes: the token, the bound on the queue, and the record of method, path, status and seconds."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from http import HTTPStatus

from anyio import move_on_after
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.serving.answers import Refusal
from cluster.serving.limits import Limits
from cluster.serving.messages import RefusedError, error_response, refused, too_many
from cluster.serving.telemetry import Telemetry

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
"""Answered without the token: probes have none, and the page asks for it."""
STATIC = "/static/"
LIVE = "/run"
"""Below it is the live view of a run."""
POLLED = (STATIC, f"{LIVE}/", "/healthz", "/readyz", "/metrics")
"""Asked for again and again by open pages, probes and Prometheus: other requests would be lost among their lines."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
DISCARD_BYTES, DISCARD_S = 4 * 2**20, 2.0
"""How much of the body of a refused request is read and thrown away: who still sends does not read the answer."""
LONGEST_PATH = 100
BODIES_PER_PLACE = 8
"""For every request that is answered or waits, so many may be on their way; who sends slowly keeps nobody out."""

Log = Callable[[str], None]


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: that answers.
        token: that every request but those of OPEN_PATHS must carry; None for none, on loopback alone.
        limits: of the queue.
        telemetry: counts requests.
        log: gets a line for each, but for GET of what is POLLED for errors alone.

    """

    def __init__(self, app: ASGIApp, token: str | None, limits: Limits, telemetry: Telemetry, log: Log) -> None:
        self.app, self.limits, self.telemetry, self.log = app, limits, telemetry, log
        self._digest = None if token is None else _digest(token.encode())
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of HTTP; anything else is the application's."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun_s, status = time.perf_counter(), 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, send_noting)
        except Exception as error:
            self.log(f"{scope['method']} {_shown(scope)}: unexpected {type(error).__name__}")
            if not status:
                message = "the service failed at this request: ask for something else"
                await error_response(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, message))(scope, receive, send_noting)
        finally:
            seconds = time.perf_counter() - begun_s
            self.telemetry.requested(scope["path"], status, seconds)
            if status >= HTTPStatus.BAD_REQUEST or not _is_polled(scope):
                self.log(f"{scope['method']} {_shown(scope)} {status} {seconds:.3f} s")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, counts = Headers(scope=scope), scope["path"].startswith("/v1/") and scope["method"] == "POST"
        try:
            self._check_host(headers)
            self._check_token(scope["path"], headers)
            if counts and self._active >= BODIES_PER_PLACE * self.limits.queue:
                raise too_many(self._active)
        except RefusedError as error:
            await _discard(headers, receive)
            await error_response(error.refusal, error.headers)(scope, receive, send)
            return
        self._active += counts
        try:
            await self.app(scope, receive, send)
        finally:
            self._active -= counts

    def _check_token(self, path: str, headers: Headers) -> None:
        if self._digest is None or path in OPEN_PATHS or path.startswith(STATIC):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        matches = hmac.compare_digest(_digest(token.strip().encode("latin-1", "replace")), self._digest)
        if scheme.lower() != "bearer" or not matches:
            raise refused(
                HTTPStatus.UNAUTHORIZED,
                "the token is not there, or is another: send the header Authorization: Bearer TOKEN",
                WWW_Authenticate="Bearer",
            )

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this machine's own, where no token is asked for.

        A page of a browser may have its name point here.
        """
        if self._digest is None and _name(headers.get("host", "localhost")) not in LOOPBACK_NAMES:
            raise refused(
                HTTPStatus.FORBIDDEN,
                "without a token this service answers to localhost alone: ask for http://localhost, or start it with "
                "a token",
            )


def _name(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdecimal() else host).lower()


def _digest(token: bytes) -> bytes:
    """Return a hash of equal length for all tokens, so that comparing says nothing of that of the right one."""
    return hashlib.sha256(token).digest()


def _is_polled(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") and scope["path"].startswith(POLLED)


def _shown(scope: Scope) -> str:
    """Return the path without its query, printable and short."""
    return str(scope["path"])[:LONGEST_PATH].encode("unicode_escape").decode()


async def _discard(headers: Headers, receive: Receive) -> None:
    if "expect" in headers or not ("content-length" in headers or "transfer-encoding" in headers):
        return
    length, received = headers.get("content-length", ""), 0
    if length.isdecimal() and int(length) > DISCARD_BYTES:
        return
    with move_on_after(DISCARD_S):
        while received <= DISCARD_BYTES:
            message = await receive()
            received += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return
