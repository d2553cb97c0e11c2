"""Waiting for results while asking everybody whether they are still there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from cluster.heartbeat import Heartbeat
from cluster.ray_crew import Crew
from cluster.ray_results import is_ready, values_of
from cluster.ray_start import head_answers

HEAD = "head"
HEAD_EVERY_S = 0.5


class Watch:
    """Ends actors that do not answer: what was asked of them then fails, and waiting for it ends.

    Args:
        crew: the actors.
        timeout_s: silence after which somebody is given up.
        lose_head: raises what a lost head means.

    """

    def __init__(self, crew: Crew, timeout_s: float, lose_head: Callable[[], NoReturn]) -> None:
        self.crew, self._lose_head = crew, lose_head
        self.silent: set[str] = set()
        """The actors that were ended because they did not answer; who reads it empties it."""
        self._heartbeat = Heartbeat(self._ask, self._answered, timeout_s)

    def wait(self, refs: list[Any], deadline_s: float | None) -> list[Any]:
        """What ``refs`` stand for.

        Raises:
            GetTimeoutError: they are not there after ``deadline_s``; None is no deadline.
            RayError: the first error among them.

        """
        return values_of(refs, deadline_s, self._look)

    def await_head(self) -> None:
        """Until Ray's head can be asked: whoever asks it while it is away waits for a minute, and is ended by Ray."""
        while not head_answers():
            self._look()
            time.sleep(HEAD_EVERY_S)

    def _look(self) -> None:
        for name in self._heartbeat.silent([HEAD, *self.crew.begun()]):
            if name == HEAD:
                self._lose_head()
            self.silent.add(name)
            self.crew.kill(name)

    def _ask(self, name: str) -> Any:
        return head_answers() if name == HEAD else self.crew.ping(name)

    def _answered(self, answer: Any) -> bool:
        return answer if isinstance(answer, bool) else is_ready(answer)
