"""What the coordinator tells the workers of a data-parallel training to do, and what they have to say of it.

Workers are started, replaced and counted by Ray Train: whoever they are, they ask this actor where to begin and what
comes next, and it outlives them. It holds numbers and names of files; no tensor passes here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.data.quarantine import QuarantinedImage
from cluster.execution.executor import RestorePoint
from cluster.storage.checksummed_files import FileRecord
from freqgan.tensor_dicts import Metrics


class Start(NamedTuple):
    """Where a group of workers begins, and the images that are damaged for good."""

    restore: RestorePoint | None
    left_out: tuple[QuarantinedImage, ...]


class Order(NamedTuple):
    """What comes next at a step.

    Attributes:
        attempt: the writer whose checkpoint of this step is to be written first; None for none.
        until: the step before which to stop and ask again; that of the order itself where training has ended.

    """

    attempt: str | None
    until: int


@dataclass(frozen=True)
class GroupStart:
    """A group of ``workers`` has begun at ``step``."""

    workers: int
    step: int


@dataclass
class News:
    """What has happened since it was asked last, in order: groups that have begun, and damaged images, by batch."""

    groups: list[GroupStart] = field(default_factory=list)
    damage: list[tuple[QuarantinedImage, ...]] = field(default_factory=list)


class OrderLog:
    """The actor. Orders only ever grow, so that it does not matter in which order they arrive.

    Args:
        restore: state to begin from, or None for a new run.
        left_out: images that are damaged for good.

    """

    def __init__(self, restore: RestorePoint | None, left_out: tuple[QuarantinedImage, ...]) -> None:
        self._restore, self._left_out = restore, left_out
        self._submitted = 0 if restore is None else restore.step
        self._saves: dict[int, str] = {}
        self._metrics: dict[int, Metrics] = {}
        self._records: dict[int, list[FileRecord]] = {}
        self._starts: list[Start] = []
        self._news = News()
        self._failure: Exception | None = None
        self._ended = False
        self._changed = asyncio.Condition()

    async def pid(self) -> int:
        """Return the number of its process."""
        return os.getpid()

    # -- the coordinator's side ----------------------------------------------------------------

    async def submit(self, submitted: int, saves: dict[int, str]) -> None:
        """Have steps before ``submitted`` done, and checkpoints written after those in ``saves``, by writer."""
        async with self._changed:
            self._submitted = max(self._submitted, submitted)
            self._saves |= saves
            self._changed.notify_all()

    async def end(self) -> None:
        """Have the workers end at the step where they are."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def news(self) -> News:
        """Return what has happened since the last call."""
        news, self._news = self._news, News()
        return news

    async def finished(self, step: int) -> Metrics:
        """Wait until ``step`` is done; return its metrics; raise what failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: step in self._metrics or self._failure is not None)
        if step not in self._metrics and self._failure is not None:
            raise self._failure
        return self._metrics.pop(step)

    async def saved(self, step: int) -> list[FileRecord]:
        """Wait until the checkpoint of ``step`` is written; return its files; raise what failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: step in self._records or self._failure is not None)
        if step not in self._records and self._failure is not None:
            raise self._failure
        return self._records[step]

    # -- the workers' side ---------------------------------------------------------------------

    async def begin(self, workers: int) -> int:
        """Note that a new group of so many workers begins, at the newest checkpoint that is written; return its number.

        Where that is, each of them asks of :meth:`start`.
        """
        step = 0 if self._restore is None else self._restore.step
        self._news.groups.append(GroupStart(workers, step))
        self._starts.append(Start(self._restore, self._left_out))
        return len(self._starts) - 1

    async def start(self, number: int) -> Start:
        """Return where the group of that number begins."""
        return self._starts[number]

    async def order(self, step: int, *, has_saved: bool) -> Order:
        """Wait for what comes next after ``step`` steps; ``has_saved`` is whether this step needs no checkpoint."""

        def is_known() -> bool:
            return self._ended or self._submitted > step or (step in self._saves and not has_saved)

        async with self._changed:
            await self._changed.wait_for(is_known)
        attempt = None if has_saved or self._ended else self._saves.get(step)
        if attempt is not None or self._ended or self._submitted <= step:
            return Order(attempt, step)
        return Order(None, min([self._submitted, *(other for other in self._saves if other > step)]))

    async def stepped(self, step: int, metrics: Metrics) -> None:
        """Note that ``step`` was done; what is done again counts once, for it has the same metrics."""
        async with self._changed:
            self._metrics[step] = metrics
            self._changed.notify_all()

    async def wrote(self, restore: RestorePoint) -> None:
        """Note that a checkpoint is written, from which the next group begins."""
        async with self._changed:
            self._records[restore.step] = restore.records
            if self._restore is None or restore.step > self._restore.step:
                self._restore = restore
            self._changed.notify_all()

    async def found_damage(self, images: Sequence[QuarantinedImage]) -> None:
        """Note images that are damaged for good, which the workers pass over from now on."""
        known = {one.key for one in self._left_out}
        new = tuple(one for one in images if one.key not in known)
        self._left_out = (*self._left_out, *new)
        self._news.damage.append(tuple(images))

    async def fail(self, failure: Exception) -> None:
        """Note what no other group of workers would get over."""
        async with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()
