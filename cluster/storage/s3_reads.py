"""Objects of a bucket into local files, through resets, stalls and servers that are busy.

A read that is cut off goes on where it was, from the very object that it began with: all answers must carry the entity
tag of the first. (It is no condition of the request, for there are stores that refuse their own tags.) An object that
was replaced meanwhile is read from its start. Whether the bytes are the right
ones is for those to check who know what they should be: a body that is short and says so is whole as far as HTTP goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import aiohttp
from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from cluster.storage.timeouts import ReadTimeouts

CHUNK_BYTES = 2**20
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
"""Between tries: at random up to the first, doubled from one to the next, up to the last: "full jitter"."""
MOST_DAMAGED = 3
"""Times that an object may come with another checksum than the server says it has."""
BEYOND_THE_END = ("InvalidRange", "416")
TRANSIENT = (
    ConnectionError,
    TimeoutError,
    asyncio.TimeoutError,
    aiohttp.ClientError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
BUSY_CODES = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "InternalError")


async def read_object(
    files: Any,
    bucket: str,
    key: str,
    sink: BinaryIO,
    timeouts: ReadTimeouts,
    translate: Callable[[ClientError], BaseException | None],
) -> None:
    """Copy an object to ``sink``, from its present position on.

    Args:
        files: s3fs's file system.
        bucket: of the object.
        key: of the object.
        sink: a file that can be cut.
        timeouts: of storage that gives nothing.
        translate: a refusal of the server's to s3fs's own error.

    Raises:
        OSError: storage refused, or has given nothing for ``timeouts.budget_s``; as s3fs words it, with the bytes that
            are missing.

    """
    await files.set_session()
    read = _Read(await files.get_s3(bucket), bucket, key, sink, timeouts)
    tries = AsyncRetrying(
        stop=read.is_over,
        wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        retry=retry_if_exception(_passes),
        reraise=True,
    )
    try:
        await tries(read.go_on)
    except ClientError as error:
        if _passes(error):
            raise OSError(f"{read.missing()}: {error}") from error
        raise (translate(error) or error) from error
    except TRANSIENT as error:
        raise OSError(f"{read.missing()}: {str(error) or type(error).__name__}") from error
    except FlexibleChecksumError as error:
        raise OSError(f"it came damaged {MOST_DAMAGED} times ({error})") from error


class _Read:
    """How far one object has come."""

    def __init__(self, client: Any, bucket: str, key: str, sink: BinaryIO, timeouts: ReadTimeouts) -> None:
        self.client, self.bucket, self.key, self.sink, self.timeouts = client, bucket, key, sink, timeouts
        self.start, self.done, self.farthest, self.total = sink.tell(), 0, 0, -1
        self.tag: str | None = None
        self.progress_s, self.tries, self.damaged = time.monotonic(), 0, 0

    def is_over(self, _: RetryCallState) -> bool:
        """Return whether the budget is spent."""
        return self.damaged >= MOST_DAMAGED or time.monotonic() - self.progress_s > self.timeouts.budget_s

    def missing(self) -> str:
        """Return of which range nothing came, how often it was asked for, and for how long."""
        end = "its end" if self.total < 0 else f"{self.total} bytes"
        idle_s = time.monotonic() - self.progress_s
        return f"nothing came from byte {self.done} to {end} for {idle_s:.0f} s (tries: {self.tries})"

    async def go_on(self) -> None:
        """Read from where it was to the end; raise where that is not reached."""
        self.tries += 1
        rest = {} if self.tag is None else {"Range": f"bytes={self.done}-"}
        try:
            answer = await self.client.get_object(Bucket=self.bucket, Key=self.key, **rest)
        except ClientError as error:
            if error.response["Error"]["Code"] in BEYOND_THE_END:
                self._begin_again()
                raise ConnectionError("the object was replaced by a shorter one while it was read") from error
            raise
        body = answer["Body"]
        try:
            if self.tag is not None and answer["ETag"] != self.tag:
                self._begin_again()
                raise ConnectionError("the object was replaced while it was read")
            if self.done and not str(answer.get("ContentRange", "")).startswith(f"bytes {self.done}-"):
                self._begin_again()  # one that knows no ranges, and gives all of it
            self.tag, self.total = answer["ETag"], self.done + answer["ContentLength"]
            while chunk := await asyncio.wait_for(body.read(CHUNK_BYTES), self.timeouts.stall_s):
                self.take(chunk)
        except FlexibleChecksumError:
            self.damaged += 1
            self._begin_again()
            raise
        finally:
            body.close()
        if self.done < self.total:
            raise ConnectionError(f"the connection was closed after {self.done} of {self.total} bytes")

    def take(self, chunk: bytes) -> None:
        """Write what has come; bytes that had come before are no progress, or one that begins again never ends."""
        self.sink.write(chunk)
        self.done += len(chunk)
        if self.done > self.farthest:
            self.farthest, self.progress_s, self.tries = self.done, time.monotonic(), 0

    def _begin_again(self) -> None:
        self.sink.seek(self.start)
        self.sink.truncate()
        self.done, self.total, self.tag = 0, -1, None


def _passes(error: BaseException) -> bool:
    """Return whether another try may succeed: the network's or the server's fault, not that of what was asked for."""
    if not isinstance(error, ClientError):
        return isinstance(error, (*TRANSIENT, FlexibleChecksumError))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status >= 500 or status == 429 or error.response["Error"]["Code"] in BUSY_CODES
