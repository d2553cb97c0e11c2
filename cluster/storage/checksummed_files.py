"""Files whose size and sha256 are recorded when they are written and checked when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.storage.folder import Folder, open_folder
from freqgan.errors import RunError


@dataclass(frozen=True)
class FileRecord:
    """A file of a checkpoint as the manifest lists it."""

    name: str
    size_bytes: int
    sha256: str


def write_recorded(folder: Folder, name: str, data: bytes) -> FileRecord:
    """Writes ``data`` and returns its record."""
    folder.write(name, data)
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def write_files(folder_url: str, files: Mapping[str, bytes]) -> list[FileRecord]:
    """Writes ``files`` by name into a folder; their records."""
    folder = open_folder(folder_url)
    return [write_recorded(folder, name, data) for name, data in files.items()]


def read_verified(folder: Folder, record: FileRecord) -> bytes:
    """The bytes of a recorded file; RunError with what was expected and found when they differ."""
    data = folder.read(record.name)
    found = hashlib.sha256(data).hexdigest()
    if len(data) != record.size_bytes or found != record.sha256:
        raise RunError(
            f"{folder.url}/{record.name} is damaged: {len(data)} bytes with sha256 {found[:12]}..., "
            f"the manifest says {record.size_bytes} bytes with {record.sha256[:12]}..."
        )
    return data
