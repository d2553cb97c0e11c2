"""Folders on a disk and in a bucket behind one type.

A name is relative to its folder and uses "/"; a write is seen whole or not at all, on a disk (a
temporary file, fsync, rename) as in a bucket (one put, or a multipart upload that is completed
last). Nothing is cached, so a listing shows what another process has just written. How a bucket is spoken to, and
whether it can be trusted with conditional writes, is tried out before the first write: see
:mod:`cluster.storage.s3_probe`.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem
from tenacity import RetryError

from cluster.storage.disk_writes import read_file, replace_file, replace_if, sync
from cluster.storage.errors import bucket_reason, disk_reason, error_code, missing_is_fine, plain_endpoint
from cluster.storage.s3_access import bucket_files, copy_object_to, object_age_s
from cluster.storage.s3_probe import BucketProfile, profile_of
from cluster.storage.s3_writes import MOST_TRIES, abort_uploads, delete_objects, get_tagged, patiently, put_if, upload
from cluster.storage.timeouts import USUAL_PATIENCE, ReadTimeouts
from freqgan.errors import FreqganError, InputError, RunError

READ_AHEAD_BYTES = 4 * 2**20
"""Block of a seekable bucket file: headers of small images share a GET, large images are skipped."""

PART_BYTES = 50 * 2**20
"""Size of a part of an upload, bytes; what is smaller than two is uploaded at once."""
LARGEST_PUT_BYTES = 5 * 2**30
"""What S3 takes in one request: the way for a store that takes no parts."""

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
        """Return the folder below this one."""
        return Folder(self._key("/".join(parts)), self.is_local)

    def read(self, name: str) -> bytes:
        """Return the whole object."""
        with self._storage("read", name) as files:
            return cast(bytes, files.cat_file(self._key(name)))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a seekable binary file for reading; errors of reads inside the ``with`` are translated too."""
        options = {} if self.is_local else {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"}
        with self._storage("read", name) as files, files.open(self._key(name), "rb", **options) as file:
            yield file

    def write(self, name: str, data: bytes) -> None:
        """Create or replace the object at once, with the folders above it."""
        with self._storage("write", name, writes=True) as files:
            if self.is_local:
                replace_file(Path(self._key(name)), lambda unfinished: unfinished.write_bytes(data))
            else:
                upload(lambda: files.pipe_file(self._key(name), data, chunksize=self._part_bytes()))

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        """Return the whole object and a tag of its contents for :meth:`write_if`; None where there is no object."""
        with self._storage("read", name) as files, missing_is_fine():
            if self.is_local:
                return read_file(Path(self._key(name)))
            return get_tagged(files, *self._bucket_and_key(name))
        return None

    def write_if(self, name: str, data: bytes, tag: str | None) -> str | None:
        """Write ``data`` if the object is still that of ``tag`` (None: if there is none).

        Return its new tag, or None if it was another object.

        Of several writers with one tag exactly one succeeds, if their data differ. On a disk they hold a lock.

        Raises:
            InputError: the store ignores or refuses the conditions that this takes.

        """
        with self._storage("write", name, writes=True) as files:
            if self.is_local:
                return replace_if(Path(self._key(name)), data, tag)
            form = self.profile().require_conditions(self.url)
            return put_if(files, *self._bucket_and_key(name), data, tag, form)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace the object by ``change`` of what it holds (None: there is none), however many do so at once.

        ``change`` is called again where another writer was faster; what it raises ends it. Returns what was written.
        RunError where others were faster every time.
        """

        def once() -> bytes | None:
            before = self.read_tagged(name)
            data = change(before and before[0])
            return data if self.write_if(name, data, before and before[1]) else None

        try:
            return patiently(once)
        except RetryError as error:
            raise RunError(
                f"cannot write {self._url_of(name)}: others changed it {MOST_TRIES} times while it was to be changed; "
                "stop what writes there, and run again"
            ) from error

    def profile(self) -> BucketProfile:
        """Return what the store of this bucket can do; tried out here by the first call of the process."""
        bucket, _, prefix = self._path.partition("/")
        try:
            return profile_of(bucket, prefix)
        except FileNotFoundError as error:
            if error_code(error) == "NoSuchBucket":
                raise
            raise InputError(
                f"{plain_endpoint()} answers a write to bucket {bucket} as if there were nothing (404): it is perhaps "
                "no S3 server; check AWS_ENDPOINT_URL"
            ) from error

    def exists(self, name: str) -> bool:
        """Return whether ``name`` is an object (a folder is not)."""
        with self._storage("look for", name) as files, missing_is_fine():
            return bool(files.info(self._key(name))["type"] == "file")
        return False

    def is_there(self) -> bool:
        """Return whether it is a folder on a disk, or anything in a bucket is below it."""
        return os.path.isdir(self._path) if self.is_local else bool(self._entries("file") or self.subfolders())

    def list(self, prefix: str = "") -> Names:
        """Return the sorted names of all objects below that begin with ``prefix``; [] when there is no such folder."""
        base = self._path.rstrip("/") + "/"
        top = base + prefix.rpartition("/")[0]
        with self._storage("list") as files:
            keys = _walk_disk(top) if self.is_local else files.find(top.rstrip("/"))
            return sorted(key[len(base) :] for key in keys if key.startswith(base + prefix) and key[-1] != "/")

    def sizes(self) -> dict[str, int]:
        """Return the size of every object below, bytes, by its name; {} when there is no such folder.

        In a bucket it takes one listing.
        """
        base, sizes = self._path.rstrip("/") + "/", {}
        with self._storage("list") as files:
            if not self.is_local:
                entries = files.find(self._path, detail=True).items()
                return {k[len(base) :]: int(x["size"]) for k, x in entries if k.startswith(base) and k[-1] != "/"}
            for path in _walk_disk(base):
                with suppress(FileNotFoundError):  # somebody else has deleted it meanwhile
                    sizes[path[len(base) :]] = os.stat(path).st_size
        return sizes

    def files(self) -> Names:
        """Return the sorted names of the objects directly in the folder; [] when there is no such folder."""
        return [name for name in self._entries("file") if not _UNFINISHED.fullmatch(name)]

    def subfolders(self) -> Names:
        """Return the sorted names of the folders one level down; [] when there is no such folder."""
        return self._entries("directory")

    def _entries(self, kind: str) -> Names:
        with self._storage("list") as files, missing_is_fine():
            if self.is_local:  # links are what they lead to; fsspec takes them for neither
                with os.scandir(self._path) as entries:
                    return sorted(x.name for x in entries if (x.is_file() if kind == "file" else x.is_dir()))
            paths = (entry["name"].rstrip("/") for entry in files.ls(self._path, detail=True) if entry["type"] == kind)
            return sorted(path.rpartition("/")[2] for path in paths if path != self._path)
        return []

    def delete(self, name: str) -> None:
        """Remove the object; one that is not there is no error."""
        with self._storage("delete", name) as files, missing_is_fine():
            files.rm_file(self._key(name))

    def delete_tree(self) -> None:
        """Remove all objects below (and, on a disk, the folder)."""
        names = [] if self.is_local else self.list()
        with self._storage("delete", writes=bool(names)) as files, missing_is_fine():
            if self.is_local:
                shutil.rmtree(self._path)
            elif names and self.profile().deletes_many:
                bucket = self._path.partition("/")[0]
                delete_objects(files, bucket, [self._bucket_and_key(name)[1] for name in names])
            else:
                for name in names:
                    files.rm_file(self._key(name))

    def abort_uploads(self, older_s: float) -> None:
        """Abort the uploads in parts to this folder of a bucket that were begun longer ago: their parts take space."""
        if not self.is_local:
            bucket, _, prefix = f"{self._path}/".partition("/")
            with self._storage("abort uploads to") as files:
                abort_uploads(files, bucket, prefix, older_s)

    def delete_if_empty(self) -> None:
        """Remove the folder from a disk if nothing is in it; a bucket has no empty folders."""
        if self.is_local:
            with suppress(OSError):  # not there, not empty, or somebody else has begun to fill it
                os.rmdir(self._path)

    def rename(self, name: str, new_name: str) -> None:
        """Move an object within the folder, replacing; a bucket copies on the server, then deletes."""
        with self._storage("rename", name, writes=True) as files:
            if self.is_local:
                os.replace(self._key(name), self._key(new_name))
                sync(Path(self._key(new_name)).parent)
            else:
                files.cp_file(self._key(name), self._key(new_name))
                files.rm_file(self._key(name))

    def size(self, name: str) -> int:
        """Return the size of the object, bytes."""
        with self._storage("measure", name) as files:
            return int(files.info(self._key(name))["size"])

    def age_s(self, name: str) -> float | None:
        """Return the seconds since the object was written, by the clock of the storage; None where there is none."""
        with self._storage("look at", name) as files, missing_is_fine():
            if self.is_local:
                return time.time() - os.stat(self._key(name)).st_mtime
            return object_age_s(files, *self._bucket_and_key(name))
        return None

    def download(self, name: str, path: Path, timeouts: ReadTimeouts = USUAL_PATIENCE) -> None:
        """Copy the object to a local file, which appears only when it is whole; see :mod:`cluster.storage.s3_reads`."""
        with self._storage("download", name) as files:

            def fill(unfinished: Path) -> None:
                if self.is_local:
                    shutil.copyfile(self._key(name), unfinished)
                else:
                    copy_object_to(files, *self._bucket_and_key(name), unfinished, timeouts)

            replace_file(path, fill)

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to the object, which appears only when it is whole."""
        with self._storage(f"upload {path} to", name, writes=True) as files:
            if self.is_local:
                replace_file(Path(self._key(name)), lambda unfinished: shutil.copyfile(path, unfinished))
            else:
                upload(lambda: files.put_file(str(path), self._key(name), chunksize=self._part_bytes()))

    def check_writable(self) -> None:
        """Write and delete an empty probe; InputError "cannot write to <url>: <cause>; <remedy>".

        Folders that were not there are not there afterwards.
        """
        probe = f".write-check-{secrets.token_hex(4)}"
        try:
            with self.new_folders_removed():
                self.write(probe, b"")
                self.delete(probe)
        except FreqganError as error:
            cause = str(error).removeprefix(f"cannot write {self._url_of(probe)}: ")
            raise InputError(f"cannot write to {self.url}: {cause}") from error

    def check_conditions(self) -> None:
        """Raise InputError, naming the store and what it lacks, where conditional writes cannot be trusted."""
        if not self.is_local:
            with self._storage("write to", writes=True):
                self.profile().require_conditions(self.url)

    @contextmanager
    def new_folders_removed(self) -> Iterator[None]:
        """Remove from a disk, in the end, this folder and those above it that were not there, if they are empty."""
        path = Path(self._path)
        new = [part for part in (path, *path.parents) if not os.path.isdir(part)] if self.is_local else []
        try:
            yield
        finally:
            with suppress(OSError):  # not there, or somebody else has begun to fill it
                for part in new:
                    part.rmdir()

    def _key(self, name: str) -> str:
        """Return the path of ``name``, which stays inside the folder: it may come from a file somebody else wrote."""
        if not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise InputError(f"{name!r} is not a name inside {self.url}: write parts divided by '/', without '..'")
        return f"{self._path.rstrip('/')}/{name}"

    def _part_bytes(self) -> int:
        return PART_BYTES if self.profile().uploads_parts else LARGEST_PUT_BYTES

    def _bucket_and_key(self, name: str) -> tuple[str, str]:
        bucket, _, key = self._key(name).partition("/")
        return bucket, key

    def _url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    @contextmanager
    def _storage(self, action: str, name: str = "", *, writes: bool = False) -> Iterator[Any]:
        """Yield the file system of this process, and translate its errors for ``name``."""
        bucket = self._path.partition("/")[0]
        try:
            if writes and not self.is_local:
                self.profile()
            yield LocalFileSystem() if self.is_local else bucket_files(bucket)
        except Exception as error:
            known = disk_reason(error) if self.is_local else bucket_reason(error, bucket)
            if known is None:
                raise
            raise known[0](f"cannot {action} {self._url_of(name)}: {known[1]}") from error


def open_folder(url: str) -> Folder:
    """Return the folder at a local path (made absolute, "~" expanded) or at "s3://bucket/prefix"; touches nothing."""
    scheme, separator, rest = url.partition("://")
    if not url or "\0" in url:
        raise InputError(f"{url!r} names no folder: give a path or s3://bucket/prefix")
    if re.match(r"s3:(?!//)", url, re.IGNORECASE):
        raise InputError(
            f"{url} is no URL of a bucket: write s3://bucket/prefix (or ./{url} for a folder of that name)"
        )
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
    """Return the folder and the name of one object: "s3://b/x/y.tar" is ("s3://b/x", "y.tar")."""
    folder_url, _, name = open_folder(url).url.rpartition("/")
    if folder_url in ("s3:/", "s3:") or not name:
        raise InputError(f"{url!r} names no object: write s3://bucket/name or a path to a file")
    return open_folder(folder_url or "/"), name


def _walk_disk(top: str) -> Iterator[str]:
    """Return all files below; unfinished ones are not seen, as an unfinished upload to a bucket is not."""

    def refuse(error: OSError) -> None:  # os.walk else skips what it may not read
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for folder, _, files in os.walk(top, onerror=refuse):
        yield from (os.path.join(folder, file) for file in files if not _UNFINISHED.fullmatch(file))
