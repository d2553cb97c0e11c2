"""What the store behind a bucket can do, tried out on scratch objects before anything is trusted to it.

A run in a bucket rests on conditional writes: of two trainings of one run exactly one may commit. Stores differ in
just these. Ceph radosgw 16 compares ``If-Match`` with the entity tag without its quotes, older MinIO and some proxies
ignore conditions, others answer 409 where AWS answers 412, or know no ``If-None-Match``. So the conditions are tried:
those that must hold, those that must not, in every spelling; the first spelling that is right in all of them is used.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from cluster.storage.errors import endpoint, error_code, plain_endpoint, status_code
from cluster.storage.s3_access import (
    Access,
    access_of,
    bucket_files,
    get_object,
    may_be_virtual,
    remember_access,
    without_checksums,
)
from freqgan.errors import InputError

SCRATCH = ".storage-check-"
"""How the names of scratch objects begin; they lie beside what is to be written."""
REFUSED = (409, 412)
"""Statuses of a condition that does not hold. 404 is one too, for a tag of an object that is not there."""

TagForm = Literal["quoted", "bare", "weak"]
TAG_FORMS: tuple[TagForm, ...] = ("quoted", "bare", "weak")
_DEFINITE = ("InvalidAccessKeyId", "ExpiredToken", "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed")
"""Codes of refusals that no other way to write the request would change."""


def opaque_tag(header: str) -> str:
    """Return the entity tag of an ``ETag`` header without quotes and mark of weakness.

    That is what all spellings have in common.
    """
    return re.sub(r'^(W/)?"?(.*?)"?$', r"\2", header.strip())


def spelled(tag: str, form: TagForm) -> str:
    """Return ``tag`` as the value of an ``If-Match`` header."""
    return {"quoted": f'"{tag}"', "bare": tag, "weak": f'W/"{tag}"'}[form]


@dataclass(frozen=True)
class Capability:
    """One thing that was tried: whether the store does it, and what it said or did."""

    name: str
    holds: bool
    detail: str = ""
    needed: bool = True


@dataclass(frozen=True)
class BucketProfile:
    """What a store can do, and how it wants to be spoken to.

    Attributes:
        store: the endpoint, with the name that the server gives itself.
        access: how its requests are written.
        tag_form: the spelling of entity tags in ``If-Match``; None where no spelling is right.
        uploads_parts: whether large objects can be uploaded in parts.
        deletes_many: whether one request deletes several objects.
        capabilities: all that was tried, in order.

    """

    store: str
    access: Access
    tag_form: TagForm | None
    uploads_parts: bool
    deletes_many: bool
    capabilities: tuple[Capability, ...]

    @property
    def missing(self) -> list[Capability]:
        """What a run needs and the store does not do."""
        return [capability for capability in self.capabilities if capability.needed and not capability.holds]

    def require_conditions(self, url: str) -> TagForm:
        """Return the spelling of tags.

        Raises:
            InputError: ``url`` cannot hold a run; the message names the store, what it lacks and the remedy.

        """
        if self.missing:
            first = self.missing[0]
            raise InputError(
                f"{url}: the store at {self.store} lacks what a run needs: {first.name} ({first.detail}); keep the run "
                "on a store that honours If-Match and If-None-Match, or on a disk; `freqgan storage check "
                f"{url}` shows what was tried"
            )
        assert self.tag_form is not None, "a needed capability says so"
        return self.tag_form


_profiles: dict[tuple[str | None, str], BucketProfile] = {}
_lock = threading.Lock()


def profile_of(bucket: str, prefix: str) -> BucketProfile:
    """Return the profile of ``bucket``, tried out below ``prefix`` by the first call of this process.

    Raises what s3fs raises where nothing can be written at all.
    """
    place = endpoint(), bucket
    with _lock:
        if place not in _profiles:
            _profiles[place] = probe(bucket, prefix)
        return _profiles[place]


def probe(bucket: str, prefix: str) -> BucketProfile:
    """Try everything, on objects below ``prefix`` that are gone afterwards; raise as :func:`profile_of`."""
    key = f"{prefix.rstrip('/')}/{SCRATCH}{secrets.token_hex(6)}".lstrip("/")
    access, written = _negotiated(bucket, key)
    remember_access(bucket, access)
    trial = _Trial(bucket_files(bucket, access), bucket, key)
    try:
        return trial.profile(access, written)
    finally:
        trial.clean()


def _negotiated(bucket: str, key: str) -> tuple[Access, Capability]:
    """Return the first access with which what is written is read again; the error of the first where there is none."""
    first: Exception | None = None
    wrong = ""
    known = access_of(bucket)
    for access in _accesses(bucket, known):
        try:
            files = bucket_files(bucket, access)
            files.call_s3("put_object", Bucket=bucket, Key=key, Body=b"0123456789")
            body = get_object(files, bucket, key)["Body"]
        except Exception as error:
            first = first or error
            if not _is_answer(error) or error_code(error) in _DEFINITE:
                break
            continue
        if body == b"0123456789":
            plain = access.checksums == "when_required"
            return access, Capability("write, and read what was written", True, "without checksums" if plain else "")
        wrong = wrong or f"{len(body)} bytes came back for 10 written, beginning with {body[:10]!r}"
    if first is not None and not wrong:
        raise first
    return known, Capability("write, and read what was written", False, wrong)


def _accesses(bucket: str, known: Access) -> Iterator[Access]:
    yield known
    yield without_checksums(known)
    if known.addressing == "auto" and may_be_virtual(bucket):
        yield replace(known, addressing="virtual")
        yield without_checksums(replace(known, addressing="virtual"))


class _Trial:
    """The requests of a probe, on ``key`` and on names that begin with it."""

    def __init__(self, files: Any, bucket: str, key: str) -> None:
        self.files, self.bucket, self.key = files, bucket, key
        self.rows: list[Capability] = []
        self.server = ""
        self.names = {key}

    def profile(self, access: Access, written: Capability) -> BucketProfile:
        self.rows.append(written)
        self._reading()
        self._put_if_absent()
        form = self._put_if_match()
        parts = self._uploading_parts()
        many = self._deleting()
        store = plain_endpoint() + (f" ({self.server})" if self.server else "")
        return BucketProfile(store, access, form, parts, many, tuple(self.rows))

    def clean(self) -> None:
        for name in self.names:
            with suppress(Exception):  # what could not be deleted was told
                self.files.call_s3("delete_object", Bucket=self.bucket, Key=name)

    # -- the trials ----------------------------------------------------------------------------

    def _reading(self) -> None:
        with self._row("list what was just written") as row:
            answer = self._call("list_objects_v2", None, Prefix=self.key)
            keys = [entry["Key"] for entry in answer.get("Contents", ())]
            row(self.key in keys, f"{len(keys)} objects are listed, and not this one")
        with self._row("read a range") as row:
            answer = get_object(self.files, self.bucket, self.key, Range="bytes=2-5")
            self.server = self.server or _server_of(answer)
            row(answer["Body"] == b"2345", f"{answer['Body'][:20]!r} came for bytes 2 to 5 of 0123456789")
            tag = str(answer["ETag"])
        with self._row("read a range of an object whose tag is still the same", needed=False) as row:
            body = get_object(self.files, self.bucket, self.key, Range="bytes=2-5", IfMatch=tag)["Body"]
            row(body == b"2345", f"{body[:20]!r} came")

    def _put_if_absent(self) -> None:
        new = self._name("new")
        with self._row("write if there is no such object (If-None-Match: *)") as row:
            row(self._put(new, b"first", IfNoneMatch="*") is not None, "refused where there is none")
        with self._row("refuse that where there is one") as row:
            done = self._put(new, b"second", IfNoneMatch="*")
            row(done is None and self._body(new) == b"first", "the condition is ignored: the object was overwritten")

    def _put_if_match(self) -> TagForm | None:
        """Return the first spelling that is right in everything; each is tried on an object of its own."""
        results = {form: self._tries_of(form) for form in TAG_FORMS}
        best = min(TAG_FORMS, key=lambda form: sum(map(bool, results[form].values())))  # the first of equals
        detail = "" if best == "quoted" else f"the tag is written {best}"
        for name, fault in results[best].items():
            self.rows.append(Capability(name, not fault, fault or (detail if name == _MATCH else "")))
        return None if any(results[best].values()) else best

    def _tries_of(self, form: TagForm) -> dict[str, str]:
        """Return, for each thing that is tried with tags of that spelling, what was wrong with it: "" for nothing."""
        name, faults = self._name(form), dict.fromkeys((_MATCH, _STALE, _MISSING), "not tried: nothing was written")
        try:
            tag = self._put(name, b"first")
            read_tag = self._tag(name)
            if tag is None or tag != read_tag:
                return faults | {_MATCH: f"a write gives {tag or 'no tag'}, and a read {read_tag}"}
            second = self._put(name, b"second", IfMatch=spelled(tag, form))
            faults[_MATCH] = _unless(second is not None and self._body(name) == b"second", f"{form} tags are refused")
            stale = self._put(name, b"third", IfMatch=spelled(tag if second else "0" * 32, form))
            faults[_STALE] = _unless(stale is None and self._body(name) != b"third", "the condition is ignored")
            absent = self._put(self._name(f"absent-{form}"), b"x", IfMatch=spelled(tag, form))
            faults[_MISSING] = _unless(absent is None, "the condition is ignored")
        except Exception as error:
            if not _is_answer(error):
                raise
            return {what: fault and _answer_text(error) for what, fault in faults.items()}
        return faults

    def _uploading_parts(self) -> bool:
        with self._row("upload in parts", needed=False) as row:
            name = self._name("parts")
            upload = self._call("create_multipart_upload", name)["UploadId"]
            part = self._call("upload_part", name, UploadId=upload, PartNumber=1, Body=b"a part")
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            self._call("complete_multipart_upload", name, UploadId=upload, MultipartUpload=parts)
            row(self._body(name) == b"a part", "another object came of it")
        return self.rows[-1].holds

    def _deleting(self) -> bool:
        with self._row("delete several objects at once", needed=False) as row:
            names = {self._name("many-1"), self._name("many-2")}
            for name in names:
                self._put(name, b"x")
            answer = self._call("delete_objects", None, Delete={"Objects": [{"Key": name} for name in names]})
            row(not answer.get("Errors"), f"{answer.get('Errors')}")
        many = self.rows[-1].holds
        with self._row("delete, and find it gone") as row:
            self._call("delete_object", self.key)
            row(self._tag(self.key) is None, "it can still be read")
        return many

    # -- requests ------------------------------------------------------------------------------

    @contextmanager
    def _row(self, name: str, *, needed: bool = True) -> Iterator[Callable[[bool, str], None]]:
        """Yield a function that adds a row; a refusal by the store that ends the block adds one too."""

        def add(holds: bool, otherwise: str) -> None:
            self.rows.append(Capability(name, holds, "" if holds else otherwise, needed))

        try:
            yield add
        except Exception as error:
            if not _is_answer(error):
                raise
            add(False, _answer_text(error))

    def _name(self, suffix: str) -> str:
        self.names.add(f"{self.key}-{suffix}")
        return f"{self.key}-{suffix}"

    def _call(self, method: str, name: str | None, **options: Any) -> Any:
        where = {} if name is None else {"Key": name}
        return self.files.call_s3(method, Bucket=self.bucket, **where, **options)

    def _put(self, name: str, data: bytes, **condition: str) -> str | None:
        """Return the tag of what was written, "" where the store gives none; None where the condition did not hold."""
        try:
            return opaque_tag(str(self._call("put_object", name, Body=data, **condition).get("ETag", "")))
        except Exception as error:
            if status_code(error) in REFUSED or ("IfMatch" in condition and status_code(error) == 404):
                return None
            raise

    def _body(self, name: str) -> bytes:
        return bytes(get_object(self.files, self.bucket, name)["Body"])

    def _tag(self, name: str) -> str | None:
        try:
            return opaque_tag(str(get_object(self.files, self.bucket, name).get("ETag", "")))
        except Exception as error:
            if status_code(error) == 404:
                return None
            raise


_MATCH = "write if the object is still the same (If-Match)"
_STALE = "refuse that where it has changed"
_MISSING = "refuse that where it is gone"


def _unless(right: bool, fault: str) -> str:
    return "" if right else fault


def _is_answer(error: Exception) -> bool:
    """Return whether it tells what the store can do: not the network, nor a server that is busy or broken just now."""
    return 0 < status_code(error) < 500 or status_code(error) == 501


def _answer_text(error: Exception) -> str:
    return f"the answer is {status_code(error)} {error_code(error)}".rstrip()


def _server_of(answer: dict[str, Any]) -> str:
    """Return the name that a server gives itself."""
    return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("server", ""))
