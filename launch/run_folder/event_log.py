"""TensorBoard's event files, written here: the thread of its own writer dies of a full disk, with a traceback."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.run_folder.appending import AppendedFile

FLUSH_EVERY_S = 120.0
FILE_VERSION = "brain.Event:2"


class EventLog:
    """A new event file in ``folder``, with whose beginning events of steps from ``first_step`` on count no more.

    Raises:
        RunError: no space is left on the disk, and whatever else storage says, with the path.

    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        _outlast_event_files(folder)
        self._event = Event
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = AppendedFile(folder / name)
        self._waiting = io.BytesIO()
        self._records = RecordWriter(self._waiting)
        self._flushed_s = time.monotonic()
        self._add(Event(file_version=FILE_VERSION), 0)
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), first_step)
        self.flush()

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """One event with all ``scalars``: one event for each would cost 40 times as much."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self._add(self._event(summary=Summary(value=values)), step)
        if time.monotonic() - self._flushed_s > FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """All events so far are in the file afterwards."""
        self._flushed_s = time.monotonic()
        self._file.append(self._waiting.getvalue())
        self._waiting.seek(0)
        self._waiting.truncate()

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self.flush()
        finally:
            self._file.close()

    def _add(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        self._records.write(event.SerializeToString())


def _outlast_event_files(folder: Path) -> None:
    """Wait until the second is over in which the newest event file was begun, if that is now.

    TensorBoard reads event files in the order of their names, which begin with that second and go on with process
    and count as text: of two files of one second the later may come first, and its purge then takes the wrong steps.
    """
    begun = max((int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")), default=0)
    while int(time.time()) == begun:
        time.sleep(0.05)
