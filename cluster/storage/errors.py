"""What storage says when it fails, as errors with cause and remedy."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from freqgan.errors import FreqganError, InputError, RunError


def endpoint() -> str | None:
    """Return the URL of the S3 service; None for AWS's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def plain_endpoint() -> str:
    """Return the endpoint for messages: without credentials, "AWS" for AWS's own."""
    return re.sub(r"//[^/@]*@", "//", endpoint() or "AWS")


def error_code(error: BaseException) -> str:
    """Return the server's error code behind an exception of s3fs, or ""."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def status_code(error: BaseException) -> int:
    """Return the HTTP status behind an exception of s3fs, or 0."""
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _response(error: BaseException) -> dict[str, Any]:
    """Return what botocore parsed of the server's answer; s3fs keeps it in the cause of its own error."""
    return getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}


@contextmanager
def missing_is_fine() -> Iterator[None]:
    """Leave the block when the object or folder is not there; a missing bucket stays an error."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if error_code(error) == "NoSuchBucket":
            raise


def bucket_reason(error: Exception, bucket: str) -> tuple[type[FreqganError], str] | None:
    """Return the class and the wording, cause and remedy, of what s3fs or botocore raised; None for anything else."""
    package = type(error).__module__.partition(".")[0]
    if not isinstance(error, OSError) and package not in ("botocore", "aiobotocore", "aiohttp", "fsspec", "asyncio"):
        return None
    if isinstance(error, OSError) and error.errno in _OF_A_FULL_DISK:  # the local end of a download
        return _DISK_REASONS[error.errno]
    where = plain_endpoint()
    name, code = type(error).__name__, error_code(error)
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"):
        return InputError, f"no credentials for bucket {bucket}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return InputError, f"bucket {bucket} does not exist at {where}; create it, or correct URL or AWS_ENDPOINT_URL"
    if code == "InvalidBucketName" or name == "ParamValidationError":
        return InputError, f"{bucket!r} cannot be a bucket's name; write s3://bucket/prefix"
    if isinstance(error, FileNotFoundError):
        return InputError, f"no such object in bucket {bucket}"
    if code in ("ExpiredToken", "TokenRefreshRequired", "RequestExpired"):
        remedy = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN anew"
        return InputError, f"the credentials for bucket {bucket} have expired ({error}); {remedy}"
    if isinstance(error, PermissionError):
        remedy = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"
        return InputError, f"access to bucket {bucket} is denied ({error}); {remedy}"
    if name in ("EndpointConnectionError", "ConnectTimeoutError"):
        return RunError, f"{where} does not answer; check AWS_ENDPOINT_URL and the network"
    return RunError, re.sub(r"//[^/@\s]*@", "//", f"{error or name}; the storage at {where} gave up, try again")


_OF_A_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_DISK_REASONS: dict[int | None, tuple[type[FreqganError], str]] = {
    errno.ENOENT: (InputError, "no such file or folder; check the path"),
    errno.EACCES: (InputError, "permission denied; give this user access or name another folder"),
    errno.EPERM: (InputError, "the operation is not permitted; name another folder"),
    errno.ENOTDIR: (InputError, "a part of the path is a file, not a folder; name another folder"),
    errno.EEXIST: (InputError, "a part of the path is a file, not a folder; name another folder"),
    errno.EISDIR: (InputError, "it is a folder, not a file; check the path"),
    errno.EROFS: (InputError, "the file system is read-only; name another folder"),
    errno.ENOSPC: (RunError, "no space is left on the disk; free some or name another folder"),
    errno.ENAMETOOLONG: (InputError, "the name is too long for this file system; choose a shorter one"),
    errno.ELOOP: (InputError, "its symbolic links lead back to themselves; correct them or name another folder"),
    errno.ENOLCK: (InputError, "the file system has no locks, and a run needs them; name a folder on another one"),
    errno.EOPNOTSUPP: (InputError, "the file system lacks an operation that is needed; name a folder on another one"),
    errno.EDQUOT: (RunError, "no space is left of this user's quota; free some or name another folder"),
    errno.EFBIG: (RunError, "files may not grow that large here; raise the limit (ulimit -f) or name another folder"),
}


def disk_reason(error: Exception) -> tuple[type[FreqganError], str] | None:
    """Return the class and the wording of what the operating system raised; None for anything else."""
    otherwise = RunError, f"{error}; check the disk"
    return _DISK_REASONS.get(error.errno, otherwise) if isinstance(error, OSError) else None


@contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Raise what the operating system raises in the block as "cannot <action>: <cause>; <remedy>"."""
    try:
        yield
    except OSError as error:
        known = disk_reason(error)
        if known is None:
            raise
        raise known[0](f"cannot {action}: {known[1]}") from error
