"""Folders on a disk and in a bucket behind one type; the only file that knows s3fs.

A name is relative to its folder and uses "/"; a write is seen whole or not at all, on a disk (a
temporary file, fsync, rename) as in a bucket (one put, or a multipart upload that is completed
last). Nothing is cached, so a listing shows what another process has just written. Endpoint,
region and credentials of a bucket come from the usual AWS variables and never stand in a URL.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from cluster.patience import USUAL_PATIENCE, Patience
from cluster.storage_errors import bucket_reason, disk_reason, endpoint, error_code, missing_is_fine
from freqgan.errors import FreqganError, InputError

READ_AHEAD_BYTES = 4 * 2**20
"""Block of a seekable bucket file: headers of small images share a GET, large images are skipped."""

LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey")
"""How a bucket says that somebody else was first; the last for an object that was to be replaced and is gone."""
_TIMEOUTS_S = {"connect_timeout": 10, "read_timeout": 20}
_UNFINISHED = re.compile(r"\..*\.part", re.DOTALL)

Names = list[str]


class Folder:
    """A folder on a disk or in a bucket; it need not exist. Made by :func:`open_folder`.

    ``url`` is an absolute path or "s3://bucket/prefix", without a slash at its end. Every method
    raises InputError (the user can mend it) or RunError (storage gave up) naming the object.
    """

    def __init__(self, path: str, is_local: bool) -> None:
        self._path = path
        self.is_local = is_local
        self.url = path if is_local else f"s3://{path}"

    def child(self, *parts: str) -> Folder:
        """The folder below this one."""
        return Folder(self._key("/".join(parts)), self.is_local)

    def read(self, name: str) -> bytes:
        """The whole object."""
        with self._storage("read", name) as files:
            return cast(bytes, files.cat_file(self._key(name)))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A seekable binary file for reading; errors of reads inside the ``with`` are translated too."""
        options = {} if self.is_local else {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"}
        with self._storage("read", name) as files, files.open(self._key(name), "rb", **options) as file:
            yield file

    def write(self, name: str, data: bytes) -> None:
        """Create or replace the object at once, with the folders above it."""
        with self._storage("write", name) as files:
            if self.is_local:
                _replace(Path(self._key(name)), lambda unfinished: unfinished.write_bytes(data))
            else:
                files.pipe_file(self._key(name), data)

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        """The whole object and a tag of its contents for :meth:`write_if`; None where there is no object."""
        with self._storage("read", name) as files, missing_is_fine():
            if self.is_local:
                data = Path(self._key(name)).read_bytes()
                return data, hashlib.sha256(data).hexdigest()
            bucket, _, key = self._key(name).partition("/")
            found = files.call_s3("get_object", Bucket=bucket, Key=key)
            return bytes(sync(files.loop, found["Body"].read)), str(found["ETag"])
        return None

    def write_if(self, name: str, data: bytes, tag: str | None) -> str | None:
        """Writes ``data`` if the object is still that of ``tag`` (None: if there is none); its tag, or None if not.

        Of several writers with one tag exactly one succeeds, if their data differ. On a disk they hold a lock.
        """
        with self._storage("write", name) as files:
            if self.is_local:
                return self._swap_on_disk(name, data, tag)
            return self._swap_in_bucket(files, name, data, tag)

    def _swap_on_disk(self, name: str, data: bytes, tag: str | None) -> str | None:
        path = Path(self._key(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f".{path.name}.lock.part"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            there = self.read_tagged(name)
            if (there and there[1]) != tag:
                return None
            _replace(path, lambda unfinished: unfinished.write_bytes(data))
            return hashlib.sha256(data).hexdigest()

    def _swap_in_bucket(self, files: Any, name: str, data: bytes, tag: str | None) -> str | None:
        bucket, _, key = self._key(name).partition("/")
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            return str(files.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)["ETag"])
        except Exception as error:
            if error_code(error) not in LOST:
                raise
        there = self.read_tagged(name)  # a put whose answer was lost is tried again, and then finds itself
        return there[1] if there and there[0] == data else None

    def exists(self, name: str) -> bool:
        """Whether ``name`` is an object (a folder is not)."""
        with self._storage("look for", name) as files, missing_is_fine():
            return bool(files.info(self._key(name))["type"] == "file")
        return False

    def is_there(self) -> bool:
        """Whether it is a folder on a disk, or anything in a bucket is below it."""
        return os.path.isdir(self._path) if self.is_local else bool(self._entries("file") or self.subfolders())

    def list(self, prefix: str = "") -> Names:
        """Sorted names of all objects below that begin with ``prefix``; [] when there is no such folder."""
        base = self._path.rstrip("/") + "/"
        top = base + prefix.rpartition("/")[0]
        with self._storage("list") as files:
            keys = _walk_disk(top) if self.is_local else files.find(top.rstrip("/"))
            return sorted(key[len(base) :] for key in keys if key.startswith(base + prefix) and key[-1] != "/")

    def files(self) -> Names:
        """Sorted names of the objects directly in the folder; [] when there is no such folder."""
        return [name for name in self._entries("file") if not _UNFINISHED.fullmatch(name)]

    def subfolders(self) -> Names:
        """Sorted names of the folders one level down; [] when there is no such folder."""
        return self._entries("directory")

    def _entries(self, kind: str) -> Names:
        with self._storage("list") as files, missing_is_fine():
            if self.is_local:  # links are what they lead to; fsspec takes them for neither
                with os.scandir(self._path) as found:
                    return sorted(x.name for x in found if (x.is_file() if kind == "file" else x.is_dir()))
            paths = (entry["name"].rstrip("/") for entry in files.ls(self._path, detail=True) if entry["type"] == kind)
            return sorted(path.rpartition("/")[2] for path in paths if path != self._path)
        return []

    def delete(self, name: str) -> None:
        """Remove the object; one that is not there is no error."""
        with self._storage("delete", name) as files, missing_is_fine():
            files.rm_file(self._key(name))

    def delete_tree(self) -> None:
        """Remove all objects below (and, on a disk, the folder)."""
        keys = [] if self.is_local else [self._key(name) for name in self.list()]
        with self._storage("delete") as files, missing_is_fine():
            if self.is_local:
                shutil.rmtree(self._path)
            elif keys:
                files.rm(keys)

    def delete_if_empty(self) -> None:
        """Remove the folder from a disk if nothing is in it; a bucket has no empty folders."""
        if self.is_local:
            with suppress(OSError):  # not there, not empty, or somebody else has begun to fill it
                os.rmdir(self._path)

    def rename(self, name: str, new_name: str) -> None:
        """Move an object within the folder, replacing; a bucket copies on the server, then deletes."""
        with self._storage("rename", name) as files:
            if self.is_local:
                os.replace(self._key(name), self._key(new_name))
                _sync(Path(self._key(new_name)).parent)
            else:
                files.cp_file(self._key(name), self._key(new_name))
                files.rm_file(self._key(name))

    def size(self, name: str) -> int:
        """Bytes of the object."""
        with self._storage("measure", name) as files:
            return int(files.info(self._key(name))["size"])

    def download(self, name: str, path: Path, patience: Patience = USUAL_PATIENCE) -> None:
        """Copy the object to a local file, which appears only when it is whole; see :mod:`cluster.bucket_reads`."""
        with self._storage("download", name) as files:
            bucket, _, key = self._key(name).partition("/")

            def fill(unfinished: Path) -> None:
                if self.is_local:
                    shutil.copyfile(self._key(name), unfinished)
                    return
                from s3fs.errors import translate_boto_error  # late, as s3fs itself: it takes a while to import

                from cluster.bucket_reads import read_object

                with unfinished.open("wb") as sink:
                    sync(files.loop, read_object, files, bucket, key, sink, patience, translate_boto_error)

            _replace(path, fill)

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to the object, which appears only when it is whole."""
        with self._storage(f"upload {path} to", name) as files:
            if self.is_local:
                _replace(Path(self._key(name)), lambda unfinished: shutil.copyfile(path, unfinished))
            else:
                files.put_file(str(path), self._key(name))

    def check_writable(self) -> None:
        """Write and delete an empty probe; InputError "cannot write to <url>: <cause>; <remedy>".

        Folders that were not there are not there afterwards.
        """
        new = self._missing_folders()
        probe = f".write-check-{secrets.token_hex(4)}"
        try:
            self.write(probe, b"")
            self.delete(probe)
            with suppress(OSError):  # somebody else has begun to fill it
                for path in new:
                    path.rmdir()
        except FreqganError as error:
            cause = str(error).removeprefix(f"cannot write {self._url_of(probe)}: ")
            raise InputError(f"cannot write to {self.url}: {cause}") from error

    def _missing_folders(self) -> tuple[Path, ...]:
        """Of a folder on a disk: itself and those above it that are not there, innermost first; of a bucket none."""
        if not self.is_local:
            return ()
        path = Path(self._path)
        return tuple(part for part in (path, *path.parents) if not os.path.isdir(part))

    def _key(self, name: str) -> str:
        """The path of ``name``, which stays inside the folder: it may come from a file somebody else wrote."""
        if not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise InputError(f"{name!r} is not a name inside {self.url}: write parts divided by '/', without '..'")
        return f"{self._path.rstrip('/')}/{name}"

    def _url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    @contextmanager
    def _storage(self, action: str, name: str = "") -> Iterator[Any]:
        """The file system of this process, with its errors translated for ``name``."""
        try:
            yield LocalFileSystem() if self.is_local else _bucket_files()
        except Exception as error:
            known = disk_reason(error) if self.is_local else bucket_reason(error, self._path.partition("/")[0])
            if known is None:
                raise
            raise known[0](f"cannot {action} {self._url_of(name)}: {known[1]}") from error


def open_folder(url: str) -> Folder:
    """The folder at a local path (made absolute, "~" expanded) or at "s3://bucket/prefix"; touches nothing."""
    scheme, separator, rest = url.partition("://")
    if not url or "\0" in url:
        raise InputError(f"{url!r} names no folder: give a path or s3://bucket/prefix")
    if not separator:
        return Folder(os.path.abspath(os.path.expanduser(url)), is_local=True)
    if scheme != "s3":
        raise InputError(f"storage of type {scheme}:// is not supported: give a path or s3://bucket/prefix")
    parts = [part for part in rest.split("/") if part]
    if not parts:
        raise InputError(f"{url!r} names no bucket: write s3://bucket/prefix")
    if "@" in parts[0]:
        raise InputError("credentials do not belong in a URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return Folder("/".join(parts), is_local=False)


def split_object(url: str) -> tuple[Folder, str]:
    """The folder and the name of one object: "s3://b/x/y.tar" is ("s3://b/x", "y.tar")."""
    folder_url, _, name = open_folder(url).url.rpartition("/")
    if folder_url in ("s3:/", "s3:") or not name:
        raise InputError(f"{url!r} names no object: write s3://bucket/name or a path to a file")
    return open_folder(folder_url or "/"), name


def _bucket_files() -> Any:
    """s3fs's file system; the constructor caches it per process and thread, so it is right after a fork.

    botocore reads neither AWS_REGION nor, before 1.31, AWS_ENDPOINT_URL: both are passed.
    """
    import s3fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return s3fs.S3FileSystem(
        endpoint_url=endpoint(),
        client_kwargs={"region_name": region} if region else {},
        config_kwargs=_TIMEOUTS_S,
        use_listings_cache=False,
    )


def _walk_disk(top: str) -> Iterator[str]:
    """All files below; unfinished ones are not seen, as an unfinished upload to a bucket is not."""

    def refuse(error: OSError) -> None:  # os.walk else skips what it may not read
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for folder, _, files in os.walk(top, onerror=refuse):
        yield from (os.path.join(folder, file) for file in files if not _UNFINISHED.fullmatch(file))


def _replace(path: Path, fill: Callable[[Path], object]) -> None:
    """Write ``path`` through a temporary file beside it, so that no reader and no crash sees a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        fill(unfinished)
        _sync(unfinished)
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
