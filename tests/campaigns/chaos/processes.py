"""Processes of this machine as /proc shows them. Only those that a campaign has started are ever ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

MARK = "FREQGAN_CHAOS"
"""An environment variable that all processes of a campaign inherit, also those whose parent has died."""
LISTENS = "0A"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _read(pid: int, name: str) -> bytes:
    """Empty for a process that is gone or somebody else's."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def command_of(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def marked(value: str) -> list[int]:
    """The processes, other than this one, that have MARK=value in their environment, or MARK=value.ANYTHING."""
    wanted = f"{MARK}={value}.".encode()
    others = (pid for pid in _pids() if pid != os.getpid())
    return [p for p in others if any((e + b".").startswith(wanted) for e in _read(p, "environ").split(b"\0"))]


def find_marked(value: str, program: str) -> list[int]:
    """Those of :func:`marked` that run ``program``."""
    return [pid for pid in marked(value) if program in command_of(pid).partition(" ")[0]]


def end_marked(value: str) -> int:
    """SIGKILL to all of :func:`marked`; how many there were."""
    ended: set[int] = set()
    while found := marked(value):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        time.sleep(0.2)
    return len(ended)


def below(root: int) -> list[int]:
    """The processes that ``root`` has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append(pid)
    found, waiting = [], [root]
    while waiting:
        waiting += (nearest := children.get(waiting.pop(), []))
        found += nearest
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """Where these processes take connections of TCP: "address:port" in hexadecimal, as the kernel writes it."""
    sockets = set()
    for pid in pids:
        for number in _entries(Path(f"/proc/{pid}/fd")):
            with suppress(OSError):  # closed meanwhile
                sockets.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {row[1] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in sockets}


def _entries(folder: Path) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)
    return []


def resident_bytes(pid: int) -> int:
    """What it holds by itself in memory: without files and shared memory, which others hold as well."""
    fields = _read(pid, "statm").split()
    return (int(fields[1]) - int(fields[2])) * PAGE_BYTES if len(fields) > 2 else 0


def shared_bytes(pid: int) -> int:
    """Shared memory that it has touched: of a raylet, its object store."""
    for line in _read(pid, "status").decode().splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1]) * 1024
    return 0
