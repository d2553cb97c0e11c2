"""Processes told apart across machines, containers and restarts.

A process id means something within one pid namespace of one boot of one machine: two containers of one host name have
two processes 12, and a number is used again. So a process is its id, the boot, the namespace and when it started.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ZOMBIE = -1


@dataclass(frozen=True)
class ProcessIdentity:
    """What tells a process from all others that ever were.

    Attributes:
        pid: its number.
        boot_id: of the kernel, "" where that is not known.
        pid_namespace: inode of the namespace in which it has that number, 0 where that is not known.
        started: when it began, in clock ticks since the boot, 0 where that is not known.

    """

    pid: int
    boot_id: str = ""
    pid_namespace: int = 0
    started: int = 0


def own_identity() -> ProcessIdentity:
    """Return the identity of this process."""
    pid = os.getpid()
    return ProcessIdentity(pid, *_surroundings(), _start_of(pid) or 0)


def is_gone(process: ProcessIdentity) -> bool:
    """Return whether ``process`` is known to have ended; False for all that cannot be seen from here."""
    if not process.boot_id or not process.pid_namespace or not process.started:
        return False
    if (process.boot_id, process.pid_namespace) != _surroundings():
        return False
    start = _start_of(process.pid)
    return start != process.started if start is not None else not _exists(process.pid)


@lru_cache(maxsize=1)
def _surroundings() -> tuple[str, int]:
    """Return boot and pid namespace of this process."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot_id, os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return "", 0


def _start_of(pid: int) -> int | None:
    """Return when the process of that number began; ZOMBIE for what is left of one, None for none that can be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ZOMBIE if fields[0] in "ZX" else int(fields[19])


def _exists(pid: int) -> bool:
    """Return whether there is such a process; /proc may hide those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
