"""A proxy in front of a real S3 server that deviates from AWS as other stores do.

A deviation may change a request before it is handed on, or answer it by itself, and change the answer. Each is one that
a store or a proxy is known for; :data:`DEVIATIONS` says which, and what must come of it.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from tests.support.faulty_s3 import ERROR, HOPS, Handler, Proxy, running_proxy


@dataclass
class Request:
    """What a client asks for; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)


@dataclass
class Answer:
    """What comes of it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @staticmethod
    def error(status: int, code: str) -> Answer:
        return Answer(status, {"content-type": "application/xml"}, ERROR.format(code=code).encode())


class Deviation:
    """A store like AWS's; the others differ from it in a method or two."""

    def before(self, request: Request) -> Answer | None:
        """Changes a request, or answers it."""
        return None

    def after(self, request: Request, answer: Answer) -> Answer | None:
        """Changes an answer; None closes the connection in place of one."""
        return answer


class ConditionsIgnored(Deviation):
    """s3rver, MinIO of before 2020, proxies that hand on only the headers they know."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def before(self, request: Request) -> Answer | None:
        for name in self.names:
            if request.method == "PUT":
                request.headers.pop(name, None)
        return None


class BareTags(Deviation):
    """Ceph radosgw 16: writes compare If-Match with the tag without its quotes."""

    def before(self, request: Request) -> Answer | None:
        tag = request.headers.get("if-match", "")
        if request.method == "PUT" and tag:
            if tag.startswith('"'):
                return Answer.error(412, "PreconditionFailed")
            request.headers["if-match"] = f'"{tag}"'
        return None


class WeakTags(Deviation):
    """Proxies that compress mark the tag as weak; a strong comparison never matches a weak tag (RFC 9110, 8.8.3.2)."""

    def before(self, request: Request) -> Answer | None:
        if request.headers.get("if-match", "").startswith("W/"):
            return Answer.error(412, "PreconditionFailed")
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        if "etag" in answer.headers:
            answer.headers["etag"] = f"W/{answer.headers['etag']}"
        return answer


class OnlyWeakTags(WeakTags):
    """One that wants its weak tags as it gave them."""

    def before(self, request: Request) -> Answer | None:
        tag = request.headers.get("if-match", "")
        if tag and not tag.startswith("W/"):
            return Answer.error(412, "PreconditionFailed")
        if tag:
            request.headers["if-match"] = tag.removeprefix("W/")
        return None


class OtherRefusal(Deviation):
    """409 where AWS says 412: a second write at the same time, on AWS as well."""

    def after(self, request: Request, answer: Answer) -> Answer:
        conditional = request.headers.keys() & {"if-match", "if-none-match"}
        if request.method == "PUT" and conditional and answer.status == 412:
            return Answer.error(409, "ConditionalRequestConflict")
        return answer


class FirstOneConflicts(Deviation):
    """AWS where two writes met: 409, and the same request succeeds when it comes again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def before(self, request: Request) -> Answer | None:
        condition = request.headers.get("if-match") or request.headers.get("if-none-match")
        name = f"{request.path} {condition}"
        if request.method == "PUT" and condition and ".storage-check-" not in name and name not in self.seen:
            self.seen.add(name)
            return Answer.error(409, "ConditionalRequestConflict")
        return None


class MissingIs404(Deviation):
    """AWS: If-Match of an object that is gone. Others say 412."""

    def after(self, request: Request, answer: Answer) -> Answer:
        missing = b"NoSuchKey" in answer.body or answer.status == 412
        if request.method == "PUT" and request.headers.get("if-match") and missing and "absent" in request.path:
            return Answer.error(404, "NoSuchKey")
        return answer


class NotImplementedCondition(Deviation):
    """GCS's XML interface, older MinIO: If-None-Match of a write is refused."""

    def before(self, request: Request) -> Answer | None:
        if request.method == "PUT" and "if-none-match" in request.headers:
            return Answer.error(501, "NotImplemented")
        return None


class NothingMatches(Deviation):
    """Gateways that refuse the right tag in every spelling."""

    def before(self, request: Request) -> Answer | None:
        if request.method == "PUT" and "if-match" in request.headers:
            return Answer.error(412, "PreconditionFailed")
        return None


class OtherTags(Deviation):
    """Tags that are no MD5 and have a dash, as those of uploads in parts and of encrypted objects."""

    def before(self, request: Request) -> Answer | None:
        if "if-match" in request.headers:
            request.headers["if-match"] = request.headers["if-match"].replace("-7", "")
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        if "etag" in answer.headers and "partNumber" not in request.query:
            answer.headers["etag"] = re.sub(r'"$', '-7"', answer.headers["etag"])
        return answer


class WritesWithoutTags(Deviation):
    """A proxy that drops the tag from the answer to a write."""

    def after(self, request: Request, answer: Answer) -> Answer:
        if request.method == "PUT" and "partNumber" not in request.query:
            answer.headers.pop("etag", None)
        return answer


class LostUploads(Deviation):
    """The answer that ends an upload in parts is lost, and the upload is not known any more when it is asked again."""

    def __init__(self) -> None:
        self.lost = 1

    def after(self, request: Request, answer: Answer) -> Answer | None:
        ends = request.method == "POST" and "uploadId" in request.query
        if ends and ".storage-check-" not in request.path and self.lost:
            self.lost -= 1
            return None
        if ends and not self.lost and answer.status == 200 and b"NoSuchUpload" in answer.body:
            return Answer.error(404, "NoSuchUpload")
        return answer


class ChecksumsRefused(Deviation):
    """GCS, older MinIO and Ceph: the checksums that botocore adds since 1.36 are not known."""

    def before(self, request: Request) -> Answer | None:
        checksum = any(name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"))
                       for name in request.headers)  # fmt: skip
        if request.method == "PUT" and checksum:
            return Answer.error(400, "InvalidArgument")
        return None


class ChunksStored(Deviation):
    """Stores that take the framing of checksums that come last ("aws-chunked") for data."""

    def before(self, request: Request) -> Answer | None:
        if request.method == "PUT" and any(name.startswith("x-amz-checksum") for name in request.headers):
            request.body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(request.body), request.body)
            for name in [name for name in request.headers if name.startswith(("x-amz-checksum", "x-amz-sdk"))]:
                del request.headers[name]
            request.headers["content-length"] = str(len(request.body))
        return None


class OldListings(Deviation):
    """A listing that does not show what was just written, as S3's own until 2020."""

    def after(self, request: Request, answer: Answer) -> Answer:
        if request.method == "GET" and "list-type" in request.query:
            answer.body = re.sub(rb"<Contents>.*?</Contents>", b"", answer.body, flags=re.DOTALL)
        return answer


class DeletesOne(Deviation):
    """Stores that want an MD5, which botocore does not send any more, where several objects are to be deleted."""

    def before(self, request: Request) -> Answer | None:
        if request.method == "POST" and "delete" in request.query:
            return Answer.error(400, "MissingContentMD5")
        return None


class VirtualHostOnly(Deviation):
    """Alibaba's OSS, newer buckets of Tencent's COS: the bucket must stand in the host name."""

    def before(self, request: Request) -> Answer | None:
        host = request.headers.get("host", "").partition(":")[0]
        bucket, _, rest = host.partition(".")
        if not re.fullmatch(VIRTUAL_HOST.format(port=r"\d+"), rest):
            return Answer.error(403, "SecondLevelDomainForbidden")
        path = urlsplit(request.path)
        request.path = f"/{bucket}{path.path}" + (f"?{path.query}" if path.query else "")
        return None


VIRTUAL_HOST = "store-{port}.example"
"""The host name of a store that knows buckets by host names; the proxy is asked for it as a web proxy."""

Outcome = Literal["works", "refused"]
DEVIATIONS: dict[str, tuple[type[Deviation], tuple[str, ...], Outcome, str]] = {
    "none": (Deviation, (), "works", ""),
    "conditions ignored": (ConditionsIgnored, ("if-match", "if-none-match"), "refused", "If-None-Match"),
    "If-Match ignored": (ConditionsIgnored, ("if-match",), "refused", "where it has changed"),
    "If-None-Match ignored": (ConditionsIgnored, ("if-none-match",), "refused", "where there is one"),
    "If-None-Match unknown": (NotImplementedCondition, (), "refused", "501 NotImplemented"),
    "bare tags": (BareTags, (), "works", ""),
    "weak tags": (WeakTags, (), "works", ""),
    "only weak tags": (OnlyWeakTags, (), "works", ""),
    "tags of parts": (OtherTags, (), "works", ""),
    "writes without tags": (WritesWithoutTags, (), "refused", "If-Match"),
    "nothing matches": (NothingMatches, (), "refused", "If-Match"),
    "409 for 412": (OtherRefusal, (), "works", ""),
    "409 at first": (FirstOneConflicts, (), "works", ""),
    "404 for a missing key": (MissingIs404, (), "works", ""),
    "lost end of an upload": (LostUploads, (), "works", ""),
    "checksums refused": (ChecksumsRefused, (), "works", ""),
    "framing of checksums stored": (ChunksStored, (), "works", ""),
    "old listings": (OldListings, (), "refused", "list what was just written"),
    "deletes one at a time": (DeletesOne, (), "works", ""),
    "buckets by host name": (VirtualHostOnly, (), "works", ""),
}


class DeviatingHandler(Handler):
    """One connection."""

    server: DeviatingProxy

    def _deviate(self) -> None:
        path = urlsplit(self.path)
        asked = f"{path.path}?{path.query}" if path.query else path.path  # of a web proxy, the whole URL is asked for
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, asked, headers, body)
        self.server.seen.append(request)
        answer: Answer | None = self.server.deviation.before(request) or self._upstream(request)
        answer = self.server.deviation.after(request, answer) if answer else None
        if answer is None:
            self.end(reset=True)
            return
        length = answer.headers.pop("content-length", None) if self.command == "HEAD" else None
        self.give(answer.status, list(answer.headers.items()), answer.body, length=length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _deviate  # noqa: N815  # their names there

    def _upstream(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        kept = {name: value for name, value in request.headers.items() if name not in HOPS - {"content-length"}}
        connection.request(request.method, request.path, request.body or None, kept | {"host": self.server.upstream})
        found = connection.getresponse()
        dropped = HOPS - ({"content-length"} if request.method == "HEAD" else set())
        headers = {name.lower(): value for name, value in found.getheaders() if name.lower() not in dropped}
        answer = Answer(found.status, headers, found.read())
        connection.close()
        return answer


class DeviatingProxy(Proxy):
    """Hands on to ``upstream`` what ``deviation`` makes of it, and remembers what it was asked."""

    def __init__(self, upstream: str, deviation: Deviation) -> None:
        super().__init__(upstream, DeviatingHandler)
        self.deviation = deviation
        self.seen: list[Request] = []


@contextmanager
def running_deviation(upstream: str, name: str) -> Iterator[tuple[DeviatingProxy, dict[str, str]]]:
    """The store that deviates as ``name`` says, and the variables that a client of it needs."""
    kind, arguments, _, _ = DEVIATIONS[name]
    with running_proxy(DeviatingProxy(upstream, kind(*arguments))) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.server_port}"
        if kind is VirtualHostOnly:
            host = VIRTUAL_HOST.format(port=proxy.server_port)
            yield proxy, {"AWS_ENDPOINT_URL": f"http://{host}", "HTTP_PROXY": endpoint, "NO_PROXY": ""}
        else:
            yield proxy, {"AWS_ENDPOINT_URL": endpoint}
