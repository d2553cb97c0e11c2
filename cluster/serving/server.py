"""The HTTP server in this process: it listens before anything else starts, and drains when it is told to end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from cluster.training.stop_signals import stop_requests
from freqgan.errors import InputError

BACKLOG = 256
KEEP_ALIVE_S = 15
HIGHEST_PORT = 2**16 - 1


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``host`` and ``port``, a free one for 0.

    Raises:
        InputError: the address is in use, or not this machine's.

    """
    if not 0 <= port <= HIGHEST_PORT:
        raise InputError(f"--port {port}: ports are 0 (a free one) to {HIGHEST_PORT}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"--host {host} --port {port}: nothing can listen there ({reason}); give another port, or end what uses it"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return the URL that ``listener`` is asked at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(
    application: ASGIApp, listener: socket.socket, drain_s: float, on_start: Callable[[], None] = lambda: None
) -> None:
    """Answer requests until SIGTERM or SIGINT; then those that have come are answered, for ``drain_s`` at most.

    ``on_start`` is called before the first request is answered.
    """
    config = uvicorn.Config(
        application,
        lifespan="on",
        access_log=False,
        log_level=logging.ERROR,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    with stop_requests() as stopped:  # the server raises the signal that has ended it once more
        on_start()
        if not stopped.is_set():
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listener])
