"""Where a Ray that starts on this machine keeps its sockets and logs, and whether it can be kept there.

It is asked before Ray is, which waits half a minute for a file that it could not write, and does not say so.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from freqgan.errors import InputError, RunError

VARIABLE = "RAY_TMPDIR"
LONGEST_SOCKET_PATH = 107
"""Bytes; a limit of Linux."""
SESSION_NAME = "session_2026-01-31_23-59-59_123456_{pid}/sockets/plasma_store"
"""As long as those that Ray gives to its sockets."""
LEAST_FREE_BYTES = 4 * 2**20
"""Logs and records of a session that has only been started take a twentieth of it."""


@dataclass(frozen=True)
class RayFolder:
    """``path``, and what says so: a variable, or "" for Ray's own choice."""

    path: Path
    source: str

    def __str__(self) -> str:
        return f"{self.path}{f' ({self.source})' if self.source else ''}"

    @property
    def logs(self) -> Path:
        """The folder of the logs of the session that was started last."""
        return self.path / "session_latest" / "logs"

    def check(self) -> None:
        """Make the folder, as Ray would.

        Raises:
            InputError: its path is too long for sockets, or this user may not write there.
            RunError: it cannot be made, or its disk is full.

        """
        longest = len(os.fsencode(self.path / SESSION_NAME.format(pid=os.getpid())))
        if longest > LONGEST_SOCKET_PATH:
            raise InputError(
                f"Ray cannot start: the paths of its sockets below {self} would have {longest} bytes, and "
                f"{LONGEST_SOCKET_PATH} are allowed; set {VARIABLE} to a folder with a short path, such as /tmp"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise self._not_writable() from error
            raise RunError(
                f"{self} cannot be made ({error.strerror}); set {VARIABLE} to a folder that is there"
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self._not_writable()
        if (free := shutil.disk_usage(self.path).free) < LEAST_FREE_BYTES:
            raise RunError(
                f"no space is left on the disk of {self}: {free / 2**20:.0f} MiB are free, and it takes "
                f"{LEAST_FREE_BYTES / 2**20:.0f}; free some, or set {VARIABLE} to a folder on another disk"
            )

    def _not_writable(self) -> InputError:
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        try:
            owner = f", which belongs to {there.owner()}"
        except (OSError, KeyError):  # the owner has no name here
            owner = ""
        where = "" if there == self.path else f", where Ray's folder {self} is to be"
        return InputError(
            f"Ray cannot start: this user may not write to {there}{owner}{where}; set {VARIABLE} to a folder of this "
            "user's own that has a short path"
        )


def ray_folder() -> RayFolder:
    """Return where Ray will look for its folder."""
    source = next((name for name in (VARIABLE, "TMPDIR") if name in os.environ), "")
    return RayFolder(Path(os.environ.get(source, "/tmp")) / "ray", source)
