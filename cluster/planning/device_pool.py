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
"""Tasks that run or wait for each device where all are as crowded as can be: more of them make no difference."""


class Pool:
    """``capacity`` devices, first come, first served.

    Args:
        capacity: tasks that run at the same time.
        crowding: how many times longer a task takes while READY_PER_DEVICE tasks for each device run or wait than while
            it is alone; in between by the number of the others, in a straight line. Cores share caches and the way to
            the memory, and are shared by those who wait: an operating system lets them take turns.

    """

    def __init__(self, capacity: int, contention: float) -> None:
        self.capacity, self.contention = capacity, contention
        self.is_down = False
        self.queue: deque[Task] = deque()
        self.running: list[Task] = []
        self._since_s, self._pace = 0.0, 1.0

    def start(self, now_s: float) -> Iterable[tuple[float, Task]]:
        """Begins what there is room for; those tasks whose end is new or has changed, with it."""
        self._go_on(now_s)
        begun = []
        while not self.is_down and self.queue and len(self.running) < self.capacity:
            task = self.queue.popleft()
            task.started_s, task.left_s = now_s, task.seconds
            self.running.append(task)
            begun.append(task)
        pace = self._pace_of(len(self.running) + len(self.queue))
        changed = begun if pace == self._pace else self.running
        self._pace = pace
        for task in changed:
            task.attempt += 1
        return [(now_s + task.left_s / pace, task) for task in changed]

    def finish(self, task: Task, now_s: float) -> None:
        """``task`` is done; see :meth:`start` for what comes next."""
        self._go_on(now_s)
        self.running.remove(task)

    def fail(self, now_s: float) -> float:
        """All devices stop until they are ``is_down`` no more; seconds of work that are lost."""
        lost_s = sum(now_s - task.started_s for task in self.running)
        for task in self.running:
            task.attempt += 1
            self.queue.appendleft(task)
        self.running.clear()
        self.is_down = True
        return lost_s

    def _go_on(self, now_s: float) -> None:
        for task in self.running:
            task.left_s -= (now_s - self._since_s) * self._pace
        self._since_s = now_s

    def _pace_of(self, ready: int) -> float:
        """Seconds of work that a task does in a second while so many run or wait."""
        most = READY_PER_DEVICE * self.capacity
        return 1 / (1 + (self.contention - 1) * (min(max(ready, 1), most) - 1) / (most - 1))
