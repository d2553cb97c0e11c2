"""A proxy in front of a real S3 server that breaks the answers to chosen requests, as networks and servers do.

Requests are handed on as they come, with their Host, so that signatures hold. Faults are those of answers to GETs of
objects that end in ``.tar``, in the order in which they were ordered; when there are none left, all goes through.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import urlsplit

Answer = tuple[int, list[tuple[str, str]], bytes]
Fault = Callable[["Handler", Answer], None]
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} by the proxy</Message></Error>"
HOPS = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Proxy(ThreadingHTTPServer):
    """Hands on to ``upstream``; ``faults`` are applied one by one, ``always`` for ever after."""

    daemon_threads = True

    def __init__(self, upstream: str, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.upstream = urlsplit(upstream).netloc
        self.lock, self.faults = threading.Lock(), list[Fault]()
        self.always: Fault | None = None
        self.requests = 0
        self.over = threading.Event()

    def next_fault(self) -> Fault | None:
        """What is to happen to the next answer."""
        with self.lock:
            self.requests += 1
            return self.faults.pop(0) if self.faults else self.always


AnyProxy = TypeVar("AnyProxy", bound=Proxy)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Headers and body are sent one after the other: the body would wait 40 ms for the client to acknowledge them."""
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:  # its name there
        """Nothing."""

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOPS or name.lower() == "content-length":
                upstream.putheader(name, value)
        upstream.endheaders(body or None)
        found = upstream.getresponse()
        headers = [(name, value) for name, value in found.getheaders() if name.lower() not in HOPS]
        length = found.getheader("Content-Length", "0") if self.command == "HEAD" else None
        answer = found.status, headers, found.read()
        upstream.close()
        wanted = self.command == "GET" and urlsplit(self.path).path.endswith(".tar")
        fault = self.server.next_fault() if wanted else None
        if fault is None:
            self.give(*answer, length=length)
        else:
            fault(self, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _hand_on  # noqa: N815  # their names there

    def give(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
        """An answer; ``length`` is what it says of its length, where that is not that of ``body``."""
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def end(self, *, reset: bool) -> None:
        """Closes the connection, or resets it: then what is under way is lost as well."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close() if reset else self.connection.shutdown(socket.SHUT_RDWR)


def status(number: int, code: str) -> Fault:
    """An error of the server's."""
    return lambda handler, _: handler.give(
        number, [("Content-Type", "application/xml")], ERROR.format(code=code).encode()
    )


def reset_before_headers(handler: Handler, _: Answer) -> None:
    """The connection goes before there is an answer."""
    handler.end(reset=True)


def cut(share: float, *, reset: bool) -> Fault:
    """The connection goes after a share of the body."""

    def fault(handler: Handler, answer: Answer) -> None:
        code, headers, body = answer
        handler.give(code, headers, body[: int(share * len(body))], length=str(len(body)))
        handler.end(reset=reset)

    return fault


def stall(share: float) -> Fault:
    """Nothing more comes after a share of the body, and the connection stays."""

    def fault(handler: Handler, answer: Answer) -> None:
        code, headers, body = answer
        handler.give(code, headers, body[: int(share * len(body))], length=str(len(body)))
        handler.server.over.wait(120)
        handler.end(reset=True)

    return fault


def short(handler: Handler, answer: Answer) -> None:
    """Half of the body, and headers that say that this is all."""
    code, headers, body = answer
    handler.give(code, headers, body[: len(body) // 2])


def flipped(handler: Handler, answer: Answer) -> None:
    """One bit of the body is another."""
    code, headers, body = answer
    middle = len(body) // 2
    handler.give(code, headers, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])


def unchecked(fault: Fault) -> Fault:
    """``fault`` of a server that sends no checksums, as most but AWS's own do not."""

    def without(handler: Handler, answer: Answer) -> None:
        code, headers, body = answer
        fault(handler, (code, [(n, v) for n, v in headers if not n.lower().startswith("x-amz-checksum")], body))

    return without


def replaced(replace: Callable[[], object]) -> Fault:
    """The connection goes after half of the body, and ``replace`` puts another object in its place."""
    half = cut(0.5, reset=False)

    def fault(handler: Handler, answer: Answer) -> None:
        replace()
        half(handler, answer)

    return fault


@contextmanager
def running_proxy(proxy: AnyProxy) -> Iterator[AnyProxy]:
    """The proxy, answering at ``http://127.0.0.1:{proxy.server_port}``."""
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
