"""Objects of a bucket from bytes, under a condition or in parts, through answers that are lost on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from cluster.storage.errors import error_code, missing_is_fine
from cluster.storage.s3_access import get_object, seconds_before
from cluster.storage.s3_probe import TagForm, opaque_tag, spelled

LOST = ("PreconditionFailed", "ConditionalRequestConflict", "OperationAborted", "412", "409", "NoSuchKey", "404")
"""How a bucket says that somebody else was first; the last two for an object that was to be replaced and is gone."""
MOST_TRIES = 12
"""Tries of a conditional write that is refused though its condition holds, and of a change that others do faster."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 1.0
"""Between them: at random up to the first, doubled from one to the next, up to the last ("full jitter")."""
MOST_DELETED = 1000
"""Objects that S3 deletes in one request."""
UPLOADS = 3
"""Times that an upload in parts is begun: where an answer was lost, the next one is that there is no such upload."""

Result = TypeVar("Result")


def get_tagged(files: Any, bucket: str, key: str) -> tuple[bytes, str] | None:
    """Return the bytes of an object, and the tag of them for :func:`put_if`; None where there is no object."""
    with missing_is_fine():
        answer = get_object(files, bucket, key)
        return answer["Body"], opaque_tag(str(answer["ETag"]))
    return None


def put_if(files: Any, bucket: str, key: str, data: bytes, tag: str | None, form: TagForm) -> str | None:
    """Write ``data`` if the object is still that of ``tag`` (None: if there is none); its tag, or None if not.

    It is tried again where the condition was refused and holds: 409 tells that two writes met, not which one won.
    Raises what s3fs raises, and OSError where an unchanged object is refused as changed every time.
    """
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": spelled(tag, form)}

    def once() -> tuple[str | None] | None:
        try:
            answer = files.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
            return (opaque_tag(str(answer["ETag"])),)
        except Exception as error:
            if error_code(error) not in LOST:
                raise
        current = get_tagged(files, bucket, key)
        if current and current[0] == data:  # a put whose answer was lost was tried again, and met itself
            return (current[1],)
        return None if (current and current[1]) == tag else (None,)

    try:
        return patiently(once)[0]
    except RetryError as error:
        raise OSError(f"it was refused as changed {MOST_TRIES} times and is unchanged") from error


def upload(begin: Callable[[], object]) -> None:
    """Upload by ``begin``, in parts where it is large; once more where the answer to its last request was lost."""
    for remaining in reversed(range(UPLOADS)):
        try:
            begin()
            return
        except FileNotFoundError as error:
            if error_code(error) != "NoSuchUpload" or not remaining:
                raise


def delete_objects(files: Any, bucket: str, keys: Sequence[str]) -> None:
    """Delete objects, many in a request; OSError naming the first that the store keeps.

    s3fs's own ``rm`` takes names for patterns: of a folder ``run[12]`` it would delete what lies in ``run1``.
    """
    for first in range(0, len(keys), MOST_DELETED):
        objects = [{"Key": key} for key in keys[first : first + MOST_DELETED]]
        answer = files.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := answer.get("Errors"):
            raise OSError(f"{len(errors)} objects were not deleted, the first is {errors[0].get('Key')}: {errors[0]}")


def abort_uploads(files: Any, bucket: str, prefix: str, older_s: float) -> None:
    """Abort uploads in parts, to keys that begin with ``prefix``, that the store says began longer ago than that."""
    answer = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    for upload in answer.get("Uploads", ()):
        if seconds_before(answer, upload["Initiated"]) > older_s:
            files.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def patiently(once: Callable[[], Result | None]) -> Result:
    """Return what ``once`` returns, called again while that is None; RetryError after MOST_TRIES."""
    tries = Retrying(
        retry=retry_if_result(lambda result: result is None),
        wait=wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
        stop=stop_after_attempt(MOST_TRIES),
    )
    result = tries(once)
    assert result is not None, "a None is tried again"
    return result
