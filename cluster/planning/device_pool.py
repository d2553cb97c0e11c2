"""Devices of the simulation that take work from one queue: a GPU is one of its own, the cores of a node are many."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Task:
    """One replica's part of a call of one step; ``left_s`` of its ``seconds`` are still to be done.

    ``attempt`` grows whenever the time at which it ends has changed: what was expected before then counts no more.
    """

    step: int
    call: int
    pool: str
    seconds: float
    left_s: float = 0.0
    attempt: int = 0
    started_s: float = 0.0


READY_PER_DEVICE = 2
"""Tasks for each device, running or waiting, from which on more of them slow the others down no further."""


class Pool:
    """``capacity`` devices, first come, first served.

    Args:
        capacity: tasks that run at the same time.
        contention: how many times longer a task takes while READY_PER_DEVICE tasks for each device run or wait than
            while it is alone; with fewer others it grows with their number, in a straight line. Cores share caches and
            the way to the memory, and an operating system lets all tasks that are ready take turns on them.

    """

    def __init__(self, capacity: int, contention: float) -> None:
        self.capacity, self.contention = capacity, contention
        self.is_down = False
        self.queue: deque[Task] = deque()
        self.running: list[Task] = []
        self._since_s, self._pace = 0.0, 1.0

    def start(self, now_s: float) -> Iterable[tuple[float, Task]]:
        """Begin what there is room for; return the tasks whose end is new or has changed, each with its end."""
        self._advance(now_s)
        started = []
        while not self.is_down and self.queue and len(self.running) < self.capacity:
            task = self.queue.popleft()
            task.started_s, task.left_s = now_s, task.seconds
            self.running.append(task)
            started.append(task)
        pace = 1 / slowdown(len(self.running) + len(self.queue), self.capacity, self.contention)
        changed = started if pace == self._pace else self.running
        self._pace = pace
        for task in changed:
            task.attempt += 1
        return [(now_s + task.left_s / pace, task) for task in changed]

    def finish(self, task: Task, now_s: float) -> None:
        """Take ``task``, which is done, off its device; :meth:`start` begins the next one."""
        self._advance(now_s)
        self.running.remove(task)

    def fail(self, now_s: float) -> float:
        """Stop all devices until they are ``is_down`` no more; return the seconds of work that are lost."""
        lost_s = sum(now_s - task.started_s for task in self.running)
        for task in self.running:
            task.attempt += 1
            self.queue.appendleft(task)
        self.running.clear()
        self.is_down = True
        return lost_s

    def _advance(self, now_s: float) -> None:
        for task in self.running:
            task.left_s -= (now_s - self._since_s) * self._pace
        self._since_s = now_s


def slowdown(ready: int, capacity: int, contention: float) -> float:
    """Return how many times longer a task takes than alone while ``ready`` tasks run or wait, see :class:`Pool`."""
    most = READY_PER_DEVICE * capacity
    return 1 + (contention - 1) * (min(max(ready, 1), most) - 1) / (most - 1)
