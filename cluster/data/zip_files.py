"""The files of a zip, local or under s3://, by names that are told apart as on a disk."""

from __future__ import annotations

import errno
import lzma
import mmap
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cluster.storage.folder import open_folder, split_object
from freqgan.errors import InputError

MAX_IMAGE_BYTES = 256 * 2**20

_END, _DIRECTORY, _ZIP64_LOCATOR = b"PK\5\6", b"PK\1\2", b"PK\6\7"
_ZIP64_END, _SEE_ZIP64 = b"PK\6\6", 0xFFFF
_END_RECORD = struct.Struct("<4s4H2LH")
_UTF8_FLAG = 0x800
_ANY_SLASH, _SURE_SLASH = re.compile(r"[/\\]"), re.compile(r"/|(?<![^\x00-\x7f])\\")
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, OverflowError, struct.error, ValueError,
    RuntimeError,  # an encrypted member; or NotImplementedError, its subclass: an unknown compression
)  # fmt: skip


@dataclass
class ZipFiles:
    """What a zip holds: its files by name, the names of folders, and the names of links."""

    source: str
    archive: zipfile.ZipFile
    files: dict[str, list[zipfile.ZipInfo]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)

    def read(self, name: str) -> bytes:
        """Return a whole file; InputError where it cannot be had, or two have this name."""
        entry, *others = self.files[name]
        if others:
            raise InputError(f"{self.source} holds {len(others) + 1} files called {name}: rename them and zip again")
        if entry.file_size > MAX_IMAGE_BYTES:
            raise InputError(
                f"{name} in {self.source} has {entry.file_size} bytes, more than {MAX_IMAGE_BYTES}: remove it"
            )
        try:
            return self.archive.read(entry)
        except _DAMAGE as error:
            _raise_if_of_disk(error)
            raise InputError(f"{name} in {self.source} cannot be unzipped ({error}): make the zip again") from error

    def _add(self, entry: zipfile.ZipInfo, name: str) -> None:
        if stat.S_ISLNK(entry.external_attr >> 16):
            self.links.append(name)
        else:
            self.files.setdefault(name, []).append(entry)


@contextmanager
def open_zip(source: str) -> Iterator[ZipFiles]:
    """Open the files of a zip; one in a bucket is copied first: they are read in a mixed order.

    Raises:
        InputError: no such file, no zip, one that is cut off, or two that were joined.

    """
    folder, name = split_object(source)
    with tempfile.TemporaryDirectory(prefix="freqgan-zip-") as temporary:
        if not folder.is_local:
            folder.download(name, Path(temporary) / name)
            folder = open_folder(temporary)
        with folder.open(name) as file:
            archive = _archive(source, file)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_alone(source, data, archive)
                _check_complete(source, data, archive)
            yield _sorted_out(source, archive)


def _archive(source: str, file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} says of the name {error.object!r} in it that it is UTF-8, and it is not: make the zip again"
        ) from error
    except _DAMAGE as error:
        _raise_if_of_disk(error)
        raise InputError(f"{source} is no zip, or is cut off ({error}): fetch it again") from error


def _raise_if_of_disk(error: Exception) -> None:
    """Damaged numbers make offsets that are none (EINVAL), and bz2 raises OSErrors of its own."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


def _check_alone(source: str, data: mmap.mmap, archive: zipfile.ZipFile) -> None:
    """What stands before the first file may be a program that unpacks it, and may be another zip, joined by ``cat``."""
    first = min((entry.header_offset for entry in archive.infolist()), default=archive.start_dir)
    end = data.find(_END, 0, first) if first > 0 else -1
    while end >= 0 and not _ends_directory(data, end):
        end = data.find(_END, end + 1, first)
    if end >= 0:
        raise InputError(
            f"{source} is several zips, joined, and only the last would be read: unpack each into one folder"
        )


def _check_complete(source: str, data: mmap.mmap, archive: zipfile.ZipFile) -> None:
    """A wrong length in the directory swallows the entries behind it, and zipfile counts none."""
    end = len(data) - _END_RECORD.size
    if data[end : end + 4] != _END:  # a comment follows it; looked for as zipfile does
        end = data.rfind(_END)
    (count,) = struct.unpack_from("<H", data, end + 10)
    listed = len(archive.infolist())
    if count == _SEE_ZIP64 and (end64 := data.rfind(_ZIP64_END, 0, end)) >= 0:
        (count,) = struct.unpack_from("<Q", data, end64 + 32)
    if (listed - count) % 2**16:  # some tools write the last 16 bits of a larger count
        raise InputError(f"{source} is damaged: {count} files by its end, {listed} in its directory; fetch it again")


def _ends_directory(data: mmap.mmap, end: int) -> bool:
    """Return whether an end record at ``end`` comes after a directory, or after the end record of one of zip64."""
    start = max(0, end - _END_RECORD.unpack(data[end : end + _END_RECORD.size])[5])
    return data[start : start + 4] == _DIRECTORY or data[max(0, end - 20) : end][:4] == _ZIP64_LOCATOR


def _sorted_out(source: str, archive: zipfile.ZipFile) -> ZipFiles:
    """Return the files of ``archive``, the parts of their names divided by "/".

    "." is left out, ".." taken back, and "\\" divides as well.

    But where a name of some other encoding has it behind a letter that is not ASCII, in a zip that uses "/", it is
    half of a letter (of Shift-JIS, Big5 or GBK).
    """
    files = ZipFiles(source, archive)
    uses_slashes = any("/" in entry.filename for entry in archive.infolist())
    for entry in archive.infolist():
        divider = _ANY_SLASH if entry.flag_bits & _UTF8_FLAG or not uses_slashes else _SURE_SLASH
        written = divider.split(entry.filename)
        name = "/".join(_parts(written))
        if written[-1] in ("", ".", ".."):
            files.folders.add(name)
        else:
            files._add(entry, name)
    return files


def _parts(written: list[str]) -> list[str]:
    parts: list[str] = []
    for part in written:
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts
