"""Logs of one JSON object a line, which grow while a run trains and are cut when it is resumed.

A line without an end is torn. It is not read, and it goes when the log is opened to be written, so that a new line
never comes behind half of an old one. A whole line that is foreign, perhaps of another version, is passed over and
stays; a ``gapless`` log, in which every line follows the one before, ends there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cluster.storage.errors import disk_errors
from launch.run_folder.appending import AppendedFile

Record = TypeVar("Record")


@dataclass(frozen=True)
class JsonLines(Generic[Record]):
    """How records of one kind are written as lines, and read.

    Attributes:
        to_json: gives the values of a record by their keys.
        from_json: makes a record of them; it raises ValueError, KeyError or TypeError for those of anything else.
        gapless: whether a foreign line ends the log, with all behind it.

    """

    to_json: Callable[[Record], dict[str, Any]]
    from_json: Callable[[dict[str, Any]], Record]
    gapless: bool = False

    def line(self, record: Record) -> bytes:
        """Return the line of a record, with its end."""
        return json.dumps(self.to_json(record), separators=(",", ":")).encode() + b"\n"

    def read(self, lines: Iterable[bytes]) -> Iterator[Record]:
        """Yield the records of ``lines``, each with its end."""
        return (record for _, record in self.split(lines) if record is not None)

    def split(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, Record | None]]:
        """Yield every line that belongs to the log with its record, None for a foreign line that is passed over."""
        for line in lines:
            record = None
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                record = self.from_json(json.loads(line))
            if not line.endswith(b"\n") or (record is None and self.gapless):
                return
            yield line, record


class JsonLinesFile(Generic[Record]):
    """A local file of ``kind`` that is appended to; it is made with its first line.

    Args:
        path: of the file.
        kind: of its lines.
        keep: tells which records stay; the first that does not is cut, with all behind it. All stay by default.

    Raises:
        RunError: what storage says, with the path; no line is written in part.

    """

    def __init__(
        self, path: Path, kind: JsonLines[Record], keep: Callable[[Record], bool] = lambda record: True
    ) -> None:
        self.path, self._kind = path, kind
        self._file: AppendedFile | None = None
        self.last: Record | None = None
        """The last record that stayed."""
        with disk_errors(f"cut {path}"), suppress(FileNotFoundError):
            self._cut(keep)

    def append(self, record: Record) -> None:
        """Write the line of one record at once."""
        if self._file is None:
            self._file = AppendedFile(self.path)
        self._file.append(self._kind.line(record))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _cut(self, keep: Callable[[Record], bool]) -> None:
        whole_bytes = 0
        with self.path.open("rb+") as file:
            for line, record in self._kind.split(file):
                if record is not None and not keep(record):
                    break
                self.last, whole_bytes = record or self.last, whole_bytes + len(line)
            file.truncate(whole_bytes)
