"""The lines that a log has got since the last look; a log that was cut or replaced is read again from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Generic, TypeVar

from cluster.storage.folder import Folder
from launch.run_folder.json_lines import JsonLines

Record = TypeVar("Record")


class LogTail(Generic[Record]):
    """Reads a log of a run as it grows.

    A training that is resumed cuts its logs and writes other lines in the place of those it does again. That is noticed
    by the last line that was read, which is then no longer where it was.

    Args:
        folder: that the log is in.
        name: of its file.
        kind: of its lines.
        take: gets every record.
        restart: is called before records are given again from the first one.

    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        kind: JsonLines[Record],
        take: Callable[[Record], None],
        restart: Callable[[], None],
    ) -> None:
        self.folder, self.name, self._kind, self._take, self._restart = folder, name, kind, take, restart
        self._offset = 0
        self._last = b""

    def read(self) -> None:
        """Give all records that have come since the last call.

        Raises:
            FreqganError: storage does not give the file.

        """
        if not self.folder.exists(self.name):
            self._begin_anew()
            return
        with self.folder.open(self.name) as file:
            if not self._goes_on(file):
                self._begin_anew()
            file.seek(self._offset)
            for line, record in self._kind.split(file):
                self._offset, self._last = self._offset + len(line), line
                if record is not None:
                    self._take(record)

    def _goes_on(self, file: BinaryIO) -> bool:
        if file.seek(0, 2) < self._offset:
            return False
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last

    def _begin_anew(self) -> None:
        if self._offset:
            self._offset, self._last = 0, b""
            self._restart()
