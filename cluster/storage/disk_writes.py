"""Files that are seen whole or not at all, and replaced only if they are still the same."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

POLL_S = 0.002
"""Between two looks at a lock: it is held for as long as a small file takes to be written."""


def replace_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Write ``path`` through a temporary file beside it, so that no reader and no crash sees a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        fill(unfinished)
        sync(unfinished)
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    sync(path.parent)


def read_file(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file, and the tag of them for :func:`replace_if`."""
    data = path.read_bytes()
    return data, _tag(data)


def replace_if(path: Path, data: bytes, tag: str | None) -> str | None:
    """Write ``data`` if the file is still that of ``tag`` (None: if there is none); its tag, or None if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock.part"), poll_interval=POLL_S):
        if _tag_of(path) != tag:
            return None
        replace_file(path, lambda unfinished: unfinished.write_bytes(data))
        return _tag(data)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tag_of(path: Path) -> str | None:
    try:
        return read_file(path)[1]
    except FileNotFoundError:
        return None


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
