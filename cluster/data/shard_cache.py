"""Copies of shards on a local disk, named by what they hold; shared by all processes of a machine, and bounded in size.

A shard is copied once, however many readers want it: the first holds a lock that the kernel frees when it dies. A file
appears under its name when it is whole and its sha256 has been checked, and is checked again whenever it is used. Those
not used for longest go first; who has one mapped keeps it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

LOCK_DIGITS = 2
"""Of the sha256: shards that share them wait for each other; there are as many lock files as such beginnings."""
_ALL = "all"
_UNFINISHED = re.compile(r"\.+([0-9a-f]{64})\..*")

Fill = Callable[[Path], tuple[mmap.mmap, bool]]
"""Copies a shard to a path; its bytes, and whether they are those that were indexed."""


@dataclass(frozen=True)
class ShardCache:
    """The copies in one folder.

    Attributes:
        folder: on a local disk; it is made when it is first needed.
        limit_bytes: most that all copies take, those that are being made among them.

    """

    folder: Path
    limit_bytes: int

    def get(self, sha256: str, size_bytes: int, fill: Fill) -> mmap.mmap | None:
        """Return the bytes of the shard of that ``sha256``: from here, or by ``fill``, and then kept here.

        What ``fill`` says is damaged is given and not kept. None where there is no room: others are being copied.
        Raises what ``fill`` raises, and OSError where the folder cannot be used.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path, part, room = self._path(sha256), self.folder / f".{sha256}.part", self.folder / f".{sha256}.room"
        with self._lock(sha256[:LOCK_DIGITS]):
            if (data := _sound(path, sha256)) is not None:
                with suppress(FileNotFoundError):  # let go of by another process, after it was opened here
                    os.utime(path)
                return data
            if not self._has_room(room, size_bytes):
                return None
            try:
                data, is_sound = fill(part)
                if is_sound:
                    os.replace(part, path)
                return data
            finally:
                part.unlink(missing_ok=True)
                room.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.tar"

    def _has_room(self, room: Path, size_bytes: int) -> bool:
        """Make room by letting go of what was not used for longest; take it by a file of that size without data."""
        with self._lock(_ALL):
            room.unlink(missing_ok=True)
            self._clear_what_was_left()
            # Rooms first: a copy that is finished in between is counted twice, not overlooked.
            taken = sum(size for _, size, _ in self._files(".*.room"))
            kept = sorted(self._files("*.tar"))
            taken += sum(size for _, size, _ in kept)
            for _, size, oldest in kept:
                if taken + size_bytes <= self.limit_bytes:
                    break
                oldest.unlink(missing_ok=True)
                taken -= size
            if taken + size_bytes > self.limit_bytes:
                return False
            with room.open("wb") as file:
                file.truncate(size_bytes)
            return True

    def _files(self, pattern: str) -> Iterator[tuple[int, int, Path]]:
        """When each was used last (ns), its bytes and path; other processes remove some of them meanwhile."""
        for path in list(self.folder.glob(pattern)):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path

    def _clear_what_was_left(self) -> None:
        """Remove unfinished copies of processes that have died: their locks are free."""
        for path in list(self.folder.iterdir()):
            if (match := _UNFINISHED.fullmatch(path.name)) is not None:
                with suppress(Timeout), self._lock(match[1][:LOCK_DIGITS]).acquire(blocking=False):
                    path.unlink(missing_ok=True)

    def _lock(self, name: str) -> BaseFileLock:
        return FileLock(self.folder / f"lock-{name}")


def _sound(path: Path, sha256: str) -> mmap.mmap | None:
    """Return the bytes of a copy that is what its name says; None, and no file any more, where it is not."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # gone, or empty
        return None
    if hashlib.sha256(data).hexdigest() == sha256:
        return data
    data.close()
    path.unlink(missing_ok=True)
    return None
