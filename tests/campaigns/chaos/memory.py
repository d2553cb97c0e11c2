"""What a training and its Ray hold, minute by minute, and whether it grows."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from cluster.stages.snapshots import snapshot_folder
from tests.campaigns.chaos.processes import below, command_of, resident_bytes, shared_bytes

MIB = 2**20
WARM_UP = 0.25
"""The part of a soak that does not count: caches, allocators and pools of workers fill up."""
FLAT_PER_CENT, FLAT_MIB = 5.0, 8.0
"""A series that grows by less than either in an hour is flat."""


@dataclass(frozen=True)
class Sample:
    """What there is at one moment.

    ``workers_mib`` is of all Ray workers, ``ray_mib`` of all other processes that the driver has started, ``store_mib``
    what Ray says that its object stores hold, ``mapped_mib`` the memory that these have touched, ``shm_mib`` all of
    /dev/shm, with what others on this machine use of it.
    """

    minute: float
    step: int
    driver_mib: float
    workers_mib: float
    ray_mib: float
    store_mib: float
    mapped_mib: float
    shm_mib: float
    snapshots_mib: float
    workers: int
    files: int


SERIES = tuple(field.name for field in fields(Sample))[2:]


def store_bytes() -> int:
    """Of all object stores of the cluster that this process is part of."""
    from ray._private.internal_api import get_memory_info_reply
    from ray._private.state import state

    reply: Any = get_memory_info_reply(state, timeout_seconds=10)
    return int(reply.store_stats.object_store_bytes_used)


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        with suppress(OSError):
            total += path.stat().st_size
    return total


def sample(minute: float, step: int, run: str) -> Sample:
    mine = below(os.getpid())
    commands = {pid: command_of(pid) for pid in mine}
    workers = [pid for pid, command in commands.items() if command.startswith("ray::")]
    store = 0
    with suppress(Exception):  # a node that was asked has just been killed
        store = store_bytes()
    others = [pid for pid in mine if pid not in workers]
    return Sample(
        minute,
        step,
        resident_bytes(os.getpid()) / MIB,
        sum(map(resident_bytes, workers)) / MIB,
        sum(map(resident_bytes, others)) / MIB,
        store / MIB,
        sum(shared_bytes(pid) for pid in others if "raylet/raylet" in commands[pid]) / MIB,
        shutil.disk_usage("/dev/shm").used / MIB,
        folder_bytes(snapshot_folder(run)) / MIB,
        len(workers),
        len(os.listdir("/proc/self/fd")),
    )


def slope_per_hour(minutes: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes of all pairs (Theil 1950, Sen 1968): single outliers do not move it."""
    pairs = combinations(zip(minutes, values, strict=True), 2)
    return 60 * statistics.median((b - a) / (t - s) for (s, a), (t, b) in pairs if t > s)


@dataclass(frozen=True)
class Trend:
    """Of one series after the warm-up."""

    name: str
    median: float
    per_hour: float

    @property
    def per_cent(self) -> float:
        return 100 * self.per_hour / self.median if self.median else 0.0

    @property
    def flat(self) -> bool:
        return self.per_hour < FLAT_MIB or self.per_cent < FLAT_PER_CENT

    def text(self) -> str:
        unit = "MiB" if self.name.endswith("_mib") else ""
        verdict = "flat" if self.flat else "GROWS"
        growth = f"{self.per_hour:+8.1f} {unit}/h {self.per_cent:+6.1f} %/h"
        return f"{self.name:14} median {self.median:8.1f} {growth}  {verdict}"


def trends(samples: Sequence[Sample]) -> list[Trend]:
    counted = samples[int(WARM_UP * len(samples)) :]
    found = []
    for name in SERIES:
        values = [float(getattr(one, name)) for one in counted]
        if len(values) > 2:
            found.append(Trend(name, statistics.median(values), slope_per_hour([s.minute for s in counted], values)))
    return found
