"""Faults at random moments of one training in this process; each comes when the one before it has been got over."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import ray

from cluster.ray_engine.executor import RayExecutor
from tests.campaigns.chaos.trainings import Moments, lost_s, stop_this_process

SETTLED_STEPS = 12
RECOVERY_TIMEOUT_S, ANSWER_TIMEOUT_S = 240.0, 60.0


@dataclass
class Look:
    """Every stage of a training: the number of its process, and how many steps it has done."""

    pids: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)


def look(executor: RayExecutor) -> Look:
    """Asks all of them, the reader of shards too; those that die meanwhile are left out."""
    actors = {**executor.workers.actors, **executor.workers.readers}
    asked = {
        name: (a.pid.remote(), a.done.remote() if name not in executor.workers.readers else None)
        for name, a in actors.items()
    }
    found = Look()
    for name, (pid, done) in asked.items():
        with suppress(ray.exceptions.RayError):
            found.pids[name] = ray.get(pid, timeout=ANSWER_TIMEOUT_S)
            if done is not None:
                found.done[name] = ray.get(done, timeout=ANSWER_TIMEOUT_S)
    return found


Fault = Callable[[RayExecutor, Look, random.Random], Collection[str]]
"""Does something to a training; returns the stages that it hits, none where nothing has to be replayed."""


def kill(names: Collection[str], how: signal.Signals = signal.SIGKILL) -> Fault:
    """A signal to one of the stages ``names``."""

    def fault(executor: RayExecutor, seen: Look, rng: random.Random) -> Collection[str]:
        victim = rng.choice(sorted(names))
        os.kill(seen.pids[victim], how)
        return {victim}

    return fault


@dataclass
class Struck:
    """One fault and what came of it."""

    victims: Collection[str]
    at_s: float
    settled_s: float
    lost_s: float
    others_kept: bool


class Monkey(threading.Thread):
    """Strikes a training ``most`` times, then asks it to stop as a scheduler would.

    Args:
        fault: what to do, or several to choose from.
        running: the training's executors; see :func:`tests.campaigns.chaos.faults.executors`.
        reporter: of the training.
        pause_s: the shortest and longest time from having got over one fault to the next.

    """

    def __init__(
        self,
        fault: Fault,
        running: list[RayExecutor],
        reporter: Moments,
        rng: random.Random,
        *,
        most: int,
        pause_s: tuple[float, float] = (1.0, 5.0),
    ) -> None:
        super().__init__(name="monkey", daemon=True)
        self.fault, self.running, self.reporter, self.rng = fault, running, reporter, rng
        self.most, self.pause_s = most, pause_s
        self.struck: list[Struck] = []
        self.wrong: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Until all is done or something was not got over."""
        try:
            self.reporter.wait_for_steps(SETTLED_STEPS, RECOVERY_TIMEOUT_S)
            while len(self.struck) < self.most and not self.over.is_set() and self._strike():
                pass
        except Exception:
            self.wrong.append(traceback.format_exc())
        finally:
            stop_this_process()

    def pause(self) -> float:
        """Seconds to the next fault."""
        return self.rng.uniform(*self.pause_s)

    def _is_over(self, victims: Collection[str], recoveries: int) -> bool:
        if victims:
            return self.reporter.wait_for_recovery(recoveries, SETTLED_STEPS, RECOVERY_TIMEOUT_S)
        return self.reporter.wait_for_steps(len(self.reporter.at_s) + SETTLED_STEPS, RECOVERY_TIMEOUT_S)

    def _strike(self) -> bool:
        before = look(self.running[-1])
        if self.over.wait(self.pause()):
            return False
        recoveries, moment_s = len(self.reporter.recoveries), time.monotonic()
        victims = self.fault(self.running[-1], before, self.rng)
        if not self._is_over(victims, recoveries):
            self.wrong.append(f"{victims} not got over within {RECOVERY_TIMEOUT_S:g} s")
            return False
        settled_s, after = time.monotonic(), look(self.running[-1])
        lost = lost_s(self.reporter.at_s, moment_s, settled_s)
        kept = all(
            after.pids.get(name) == pid and after.done.get(name, 0) >= before.done.get(name, 0)
            for name, pid in before.pids.items()
            if name not in victims
        )
        self.struck.append(Struck(victims, moment_s, settled_s, lost, kept))
        return True


def raises(error: BaseException) -> str:
    """For a row: its type and first line."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
