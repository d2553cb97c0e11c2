"""Files that grow by whole records: one that does not fit on the disk leaves no part of it behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cluster.storage.errors import disk_errors


class AppendedFile:
    """Appends to a local file, which is made where it is not there; every record is written when it comes.

    Raises:
        RunError: no space is left, and whatever else storage says, with the path.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)  # a buffer that does not fit would be written again at the end

    def append(self, record: bytes) -> None:
        """Write all of ``record``, or nothing of it."""
        with disk_errors(f"write {self.path}"):
            before = self._file.tell()
            try:
                left = memoryview(record)
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(before)
                raise

    def close(self) -> None:
        """Close the file."""
        with disk_errors(f"write {self.path}"):
            self._file.close()
