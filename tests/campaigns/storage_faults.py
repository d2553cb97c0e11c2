"""Faults between a reader of shards and a real S3 server: what comes of each, and how long it takes, as a table.

``python -m tests.campaigns.storage_faults`` (``make storage-faults``). Ends with 1 where an image was wrong, or an
outcome is not that which it should be.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from cluster.data.decoding import Pixels
from cluster.data.reader import BatchReader
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index, index_shards
from cluster.data.shards import ShardSet
from cluster.storage.folder import open_folder
from cluster.storage.timeouts import ReadTimeouts
from freqgan.errors import FreqganError, InputError, RunError
from tests.support.faulty_s3 import (
    Fault,
    Proxy,
    cut,
    flipped,
    replaced,
    reset_before_headers,
    running_proxy,
    short,
    stall,
    status,
    unchecked,
)
from tests.support.s3_server import BUCKET, aws_variables, running_s3_server
from tests.support.shards import shard_members, write_tar

IMAGES = 8
PATIENCE = ReadTimeouts(stall_s=1.0, budget_s=6.0)


@dataclass(frozen=True)
class Case:
    """``faults`` one after the other, then ``always``; whether the images come, or which error, and what it says."""

    name: str
    faults: Callable[[Callable[[], object]], list[Fault]]
    always: Fault | None = None
    error: type[FreqganError] | None = None
    says: str = ""
    most_s: float = 30.0


def times(count: int, fault: Fault) -> Callable[[object], list[Fault]]:
    return lambda _: [fault] * count


CASES = (
    Case("no fault", times(0, flipped)),
    Case("503 SlowDown, 3 times", times(3, status(503, "SlowDown"))),
    Case("429 TooManyRequests, 3 times", times(3, status(429, "TooManyRequests"))),
    Case("500 InternalError, 2 times", times(2, status(500, "InternalError"))),
    Case("reset before headers, 2 times", times(2, reset_before_headers)),
    Case("reset in mid-body, 3 times", times(3, cut(0.5, reset=True))),
    Case("close in mid-body, 3 times", times(3, cut(0.5, reset=False))),
    Case("stall in mid-body", times(1, stall(0.5))),
    Case("short body that says so", times(1, unchecked(short))),
    Case("the same, with the checksum of all of it", times(1, short)),
    Case("one bit flipped", times(1, unchecked(flipped))),
    Case("the same, with the checksum of before", times(1, flipped)),
    Case("short body, for ever", times(0, short), unchecked(short), RunError, "is damaged"),
    Case("one bit flipped, for ever", times(0, flipped), unchecked(flipped), RunError, "is damaged"),
    Case("the same, with the checksum of before", times(0, flipped), flipped, RunError, "came damaged 3 times"),
    Case("replaced in mid-read", lambda replace: [replaced(replace)], None, RunError, "is damaged"),
    Case("403 AccessDenied", times(0, short), status(403, "AccessDenied"), InputError, "denied.*AWS_ACCESS_KEY_ID", 3),
    Case(
        "400 ExpiredToken", times(0, short), status(400, "ExpiredToken"), InputError, "expired.*AWS_SESSION_TOKEN", 3
    ),
    Case("503, for ever", times(0, short), status(503, "SlowDown"), RunError, "nothing came from byte 0.*gave up"),
    Case("stall at once, for ever", times(0, short), stall(0.0), RunError, "nothing came from byte 0.*gave up"),
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Shards in a bucket behind the proxy; the images that they hold."""

    proxy: Proxy
    index: ShardSet
    right: Pixels
    spoil: Callable[[], object]
    mend: Callable[[], object]


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@contextmanager
def bench(endpoint: str) -> Iterator[Bench]:
    """One shard of pictures in the bucket of the server at ``endpoint``, which has to be there."""
    with tempfile.TemporaryDirectory() as temporary, running_proxy(Proxy(endpoint)) as proxy:
        path = write_tar(Path(temporary) / "shard.tar", shard_members(0, IMAGES))
        index_shards(temporary)
        with BatchReader(build_index(temporary), ImagePolicy(size=8), 0, DataSettings(shuffle=False)) as ingest:
            right = ingest.batch(0, IMAGES).images
        prefix = f"faults-{uuid.uuid4().hex}"
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")

        def put(body: bytes) -> object:
            return client.put_object(Bucket=BUCKET, Key=f"{prefix}/shard.tar", Body=body)

        other = path.read_bytes()[::-1]
        with environment(aws_variables(f"http://127.0.0.1:{proxy.server_port}")):
            folder = open_folder(f"s3://{BUCKET}/{prefix}")
            for file in Path(temporary).iterdir():
                folder.upload(file, file.name)
            index = build_index(folder.url)
            yield Bench(proxy, index, right, lambda: put(other), lambda: put(path.read_bytes()))


def outcome(case: Case, bench: Bench, patience: ReadTimeouts = PATIENCE) -> tuple[bool, str, float]:
    """Whether it is as it should be, in words, and seconds."""
    bench.mend()
    bench.proxy.faults, bench.proxy.always = case.faults(bench.spoil), case.always
    begun_s = time.monotonic()
    try:
        with BatchReader(bench.index, ImagePolicy(size=8), 0, DataSettings(shuffle=False), patience) as ingest:
            images = ingest.batch(0, IMAGES).images
    except FreqganError as error:
        seconds = time.monotonic() - begun_s
        said = case.error is not None and isinstance(error, case.error) and said_in(case.says, str(error))
        return said and seconds <= case.most_s, f"{type(error).__name__}: {error}", seconds
    finally:
        bench.proxy.faults, bench.proxy.always = [], None
    seconds = time.monotonic() - begun_s
    equal = bool((images == bench.right).all())
    words = f"{'right' if equal else 'WRONG'} images, fetched again {ingest.refetched} times"
    return equal and case.error is None and seconds <= case.most_s, words, seconds


def said_in(pattern: str, text: str) -> bool:
    """Whether an error says what it should, and where: bucket and object."""
    return re.search(pattern, text) is not None and f"s3://{BUCKET}/" in text and "shard.tar" in text


def main() -> int:
    """Prints a line for each case."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    holds = True
    with running_s3_server() as endpoint, environment(aws_variables(endpoint)):
        boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
        with bench(endpoint) as prepared:
            for case in CASES:
                right, words, seconds = outcome(case, prepared)
                holds &= right
                print(f"{'holds' if right else 'FAILS'}  {case.name:41} {seconds:6.2f} s  {words}", flush=True)
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
