"""Waiting for results while looking whether the machines that they come from can still be reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from cluster.ray_engine.connection import head_answers
from cluster.ray_engine.heartbeat import Heartbeat
from cluster.ray_engine.nodes import is_reachable
from cluster.ray_engine.results import LOOK_EVERY_S, wait_all
from cluster.ray_engine.worker_group import WorkerGroup

HEAD = "head"
HEAD_EVERY_S = 0.5


class FailureDetector:
    """Ends the actors of machines that cannot be reached: what was asked of them fails, and waiting for it ends.

    It knocks at the port of each machine's part of Ray. Calls of the actors would not do: one that is lost leaves a gap
    in an actor's queue, and all that come after it wait.

    Args:
        workers: the actors.
        timeout_s: silence after which a machine is given up.
        lose_head: raises what a lost head means.

    """

    def __init__(self, workers: WorkerGroup, timeout_s: float, lose_head: Callable[[], NoReturn]) -> None:
        self.workers, self._lose_head = workers, lose_head
        self._looked_s = 0.0
        self._heartbeat = Heartbeat(lambda name: name, self._knock, timeout_s)  # each look knocks again

    def wait(self, refs: list[Any], deadline_s: float | None) -> list[Any]:
        """Wait for ``refs`` and return their values.

        Raises:
            GetTimeoutError: they are not there after ``deadline_s``; None is no deadline.
            RayError: the first error among them.

        """
        return wait_all(refs, deadline_s, self._look)

    def glance(self) -> None:
        """Look around where the last time is a second ago: a full pipeline hardly ever waits."""
        if time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            self._look()

    def await_head(self) -> None:
        """Wait until Ray's head can be asked: who asks it while it is away waits for a minute, and is ended by Ray."""
        while not head_answers():
            self._look()
            time.sleep(HEAD_EVERY_S)

    def _look(self) -> None:
        self._looked_s = time.monotonic()
        for name in self._heartbeat.silent([HEAD, *self.workers.allocation.occupied()]):
            if name == HEAD:
                self._lose_head()
            for actor, slot in self.workers.allocation.by_actor.items():
                if slot.node_id == name and actor in self.workers.actors:
                    self.workers.kill(actor)

    def _knock(self, name: str) -> bool:
        """Return whether a machine answers; one that no actor is on any more counts as if it did."""
        if name == HEAD:
            return head_answers()
        node = self.workers.allocation.occupied().get(name)
        return node is None or is_reachable(node.address, node.port)
