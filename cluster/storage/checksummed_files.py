"""Files whose size and sha256 are recorded when they are written and checked when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.storage.folder import Folder, open_folder
from freqgan.errors import InputError, RunError


class DamagedFileError(RunError):
    """A file is not what was recorded when it was written, or is not there."""


@dataclass(frozen=True)
class FileRecord:
    """A file as a manifest lists it; ``name`` is relative to the folder that it is written to."""

    name: str
    size_bytes: int
    sha256: str


def write_recorded(folder: Folder, name: str, data: bytes) -> FileRecord:
    """Write ``data`` and return its record."""
    folder.write(name, data)
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def write_files(folder_url: str, files: Mapping[str, bytes | FileRecord]) -> list[FileRecord]:
    """Write ``files`` by name into a folder; their records. What is a record already was written before."""
    folder = open_folder(folder_url)
    return [
        data if isinstance(data, FileRecord) else write_recorded(folder, name, data) for name, data in files.items()
    ]


def read_verified(folder: Folder, record: FileRecord) -> bytes:
    """Return the bytes of a recorded file.

    Raises:
        DamagedFileError: it is not there, or its bytes are not those that were recorded.

    """
    try:
        data = folder.read(record.name)
    except InputError as error:
        raise DamagedFileError(str(error)) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if len(data) != record.size_bytes or sha256 != record.sha256:
        raise DamagedFileError(
            f"{folder.url}/{record.name} is damaged: {len(data)} bytes with sha256 {sha256[:12]}..., "
            f"the manifest says {record.size_bytes} bytes with {record.sha256[:12]}..."
        )
    return data
