"""A real S3 server over HTTP for the tests, on 127.0.0.1 and a free port.

moto in a thread, or, where ``FREQGAN_TEST_STORE`` is ``radosgw``, a Ceph object store (:mod:`tests.support.radosgw`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.support.radosgw import LOOPBACK, running_radosgw

BUCKET = "freqgan-test"
STORE_VARIABLE = "FREQGAN_TEST_STORE"


@contextmanager
def running_s3_server(address: str = LOOPBACK) -> Iterator[str]:
    """The endpoint's URL, at an address of this machine; the server and its bucket are gone afterwards."""
    if os.environ.get(STORE_VARIABLE) == "radosgw":
        with running_radosgw(address) as endpoint:
            yield endpoint
        return
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def aws_variables(endpoint: str) -> dict[str, str]:
    """What a process needs in its environment to use the server; no other credentials are looked for."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint's URL, with the AWS variables set for the session and an empty bucket BUCKET made."""
    with running_s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(endpoint).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield endpoint
