"""How requests to a bucket are written; the only file that knows s3fs.

S3 is a family of dialects. Some stores know a bucket by the host name alone ("virtual"), and some refuse, or store
among the data, the checksums that botocore adds since 1.36. What a bucket needs is learnt once per process, endpoint
and bucket: the addressing by one listing before the first request, the checksums by :mod:`cluster.storage.s3_probe`.
Endpoint, region and credentials come from the usual AWS variables and never stand in a URL.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from cluster.storage.errors import endpoint, error_code, status_code
from cluster.storage.timeouts import ReadTimeouts

_TIMEOUTS_S = {"connect_timeout": 10, "read_timeout": 20}
_UNKNOWN_BY_PATH = (400, 404, 405, 501)
"""Statuses of a store that does not know a bucket by its path; 403 is one too where its code speaks of domains."""


@dataclass(frozen=True)
class Access:
    """How requests are written.

    ``addressing``: the bucket stands in the path, or wherever botocore puts it ("auto"), or in the host name.
    ``checksums``: botocore's ``request_checksum_calculation`` and ``response_checksum_validation``.
    """

    addressing: Literal["auto", "virtual"] = "auto"
    checksums: Literal["when_supported", "when_required"] = "when_supported"


_known: dict[tuple[str | None, str], Access] = {}


def access_of(bucket: str) -> Access:
    """Return the access that is known to work for ``bucket``.

    The first call may list the bucket, to learn the addressing.
    """
    place = endpoint(), bucket
    if place not in _known:
        _known[place] = Access(_addressing(bucket))
    return _known[place]


def remember_access(bucket: str, access: Access) -> None:
    """Make ``access`` that of all later requests of this process to ``bucket``."""
    _known[endpoint(), bucket] = access


def bucket_files(bucket: str, access: Access | None = None, *, once: bool = False) -> Any:
    """Return s3fs's file system for ``bucket``; s3fs caches it per process and thread, so it is right after a fork.

    With ``once`` botocore does not try again where nobody answers: for names that may not exist.
    botocore reads neither AWS_REGION nor, before 1.31, AWS_ENDPOINT_URL: both are passed.
    """
    import s3fs

    access = access or access_of(bucket)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config: dict[str, Any] = dict(_TIMEOUTS_S)
    if once:
        config["retries"] = {"max_attempts": 0}
    if access.addressing == "virtual":
        config["s3"] = {"addressing_style": "virtual"}
    if access.checksums == "when_required":
        config |= {
            "request_checksum_calculation": access.checksums,
            "response_checksum_validation": access.checksums,
        }
    return s3fs.S3FileSystem(
        endpoint_url=endpoint(),
        client_kwargs={"region_name": region} if region else {},
        config_kwargs=config,
        use_listings_cache=False,
        local_expiry_check=True,  # tags are compared here: there are stores that refuse their own in a condition
    )


def await_on(files: Any, work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of ``work`` on the event loop of ``files``, which runs in a thread of its own."""
    return asyncio.run_coroutine_threadsafe(work, files.loop).result()


def get_object(files: Any, bucket: str, key: str, **options: str) -> dict[str, Any]:
    """Return the answer to a GET, its ``Body`` read to the end as bytes."""
    answer: dict[str, Any] = files.call_s3("get_object", Bucket=bucket, Key=key, **options)
    return {**answer, "Body": bytes(await_on(files, answer["Body"].read()))}


def object_age_s(files: Any, bucket: str, key: str) -> float:
    """Return how many seconds ago an object was written.

    The store tells both moments: its clock may be another than ours.
    """
    answer = files.call_s3("head_object", Bucket=bucket, Key=key)
    return seconds_before(answer, answer["LastModified"])


def seconds_before(answer: dict[str, Any], moment: datetime) -> float:
    """Return the seconds from ``moment`` to when the store gave ``answer``, by its clock."""
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - moment).total_seconds()


def copy_object_to(files: Any, bucket: str, key: str, unfinished: Path, timeouts: ReadTimeouts) -> None:
    """Copy an object to a local file; see :mod:`cluster.storage.s3_reads`."""
    from s3fs.errors import translate_boto_error  # late, as s3fs itself: it takes a while to import

    from cluster.storage.s3_reads import read_object

    with unfinished.open("wb") as sink:
        await_on(files, read_object(files, bucket, key, sink, timeouts, translate_boto_error))


def may_be_virtual(bucket: str) -> bool:
    """Return whether a store elsewhere than AWS could know ``bucket`` as a part of its host name.

    At a bare address none can.
    """
    host = urlsplit(endpoint() or "").hostname
    if host is None or host == "localhost":  # AWS: botocore does it by itself
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return not host.startswith(f"{bucket}.")
    return False


def _addressing(bucket: str) -> Literal["auto", "virtual"]:
    if not may_be_virtual(bucket):
        return "auto"
    try:
        _list_one(bucket, Access())
    except Exception as error:
        if not _denies_path_style(error):
            return "auto"  # whoever asked for more meets the error again, and says so
    else:
        return "auto"
    try:
        _list_one(bucket, Access("virtual"))
    except Exception:
        return "auto"  # the first way is the usual one, and its error the one to be read
    return "virtual"


def _denies_path_style(error: Exception) -> bool:
    status, code = status_code(error), error_code(error)
    return status in _UNKNOWN_BY_PATH or (status == 403 and any(word in code for word in ("Domain", "PathStyle")))


def _list_one(bucket: str, access: Access) -> None:
    bucket_files(bucket, access, once=True).call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)


def without_checksums(access: Access) -> Access:
    """Return ``access`` with the checksums that operations demand, and no others."""
    return replace(access, checksums="when_required")
