"""Faults of islands at random moments, and the proof that they cost nobody a step but those that they hit."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from tests.campaigns.chaos.processes import command_of
from tests.campaigns.islands.jobs import POLL_S, ComponentLog, Island, wait_until

SETTLED_STEPS = 5
RECOVERY_TIMEOUT_S, LATE_S = 300.0, 0.5
ACTOR_AT_WORK, RAYLET, GCS = "ray::StageActor.step", "raylet/raylet", "gcs_server"


@dataclass
class State:
    """Of a component: its step, how many failures it has got over, and how many processes have trained it."""

    step: int
    failures: int
    epoch: int


class Watch(threading.Thread):
    """Reads the steps of all components all the time: how far each has come, and when it went back."""

    def __init__(self, islands: Sequence[Island]) -> None:
        super().__init__(daemon=True)
        self.logs = {name: ComponentLog(one.settings, name) for one in islands for name in one.components}
        self.farthest = dict.fromkeys(self.logs, 0)
        self.came_s: dict[str, dict[int, float]] = {name: {} for name in self.logs}
        self.went_back: dict[str, int] = dict.fromkeys(self.logs, 0)
        self.over = threading.Event()

    def run(self) -> None:
        last = dict.fromkeys(self.logs, 0)
        while not self.over.wait(POLL_S):
            for name, log in self.logs.items():
                step = log.step()
                self.went_back[name] += step < last[name]
                if step > self.farthest[name]:
                    self.farthest[name] = step
                    self.came_s[name][step] = time.monotonic()
                last[name] = step

    def states(self) -> dict[str, State]:
        return {name: State(self.farthest[name], log.failures(), log.epoch()) for name, log in self.logs.items()}

    def logged(self) -> dict[str, int]:
        """How far each has come by now; what was in a log just before is read late on a busy machine."""
        time.sleep(LATE_S)
        return {name: max(self.farthest[name], log.step()) for name, log in self.logs.items()}

    def lost_s(self, name: str, moment_s: float) -> float:
        """The longest time without a step that nobody had come to before, from ``moment_s`` on."""
        came_s = [moment_s, *sorted(at_s for at_s in list(self.came_s[name].values()) if at_s > moment_s)]
        return max(after - before for before, after in pairwise(came_s))

    def forget(self) -> None:
        """What a long campaign need not remember."""
        for moments in self.came_s.values():
            for step in sorted(moments)[:-100]:
                del moments[step]


@dataclass
class Tally:
    """What came of the faults of one kind."""

    kind: str
    struck: int = 0
    lost_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        lost = f"{statistics.median(self.lost_s):6.1f} {max(self.lost_s):6.1f}" if self.lost_s else f"{'-':>6} {'-':>6}"
        return f"{self.kind:24} {self.struck:7} {lost}  {'; '.join(self.wrong) or 'all others lost no step'}"


Fault = Callable[[random.Random], tuple[set[str], set[str]] | None]
"""Kills something; returns the components that must have been hit, and those that may have; None: nothing was there."""


def kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def kill_actor(island: Island) -> Fault:
    """The actor of a stage of ``island`` that is at work in a step."""

    def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
        found = island.pids(ACTOR_AT_WORK)
        return (set(), set(island.components)) if found and kill(rng.choice(found)) else None

    return fault


def kill_driver(island: Island) -> Fault:
    """The process that trains one component of ``island``."""

    def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
        found = [pid for pid in island.pids("-m launch train") if "only=" in command_of(pid)]
        victim = rng.choice(found) if found else 0
        stages = command_of(victim).partition("only=")[2].split(" ")[0].split(",") if victim else []
        hit = {name for name in island.components if name in stages}
        return (hit, hit) if len(hit) == 1 and kill(victim) else None

    return fault


def kill_job(island: Island) -> Fault:
    """The process that was started: of several components, the supervisor."""

    def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
        hit = set(island.components)
        return (hit, hit) if island.process is not None and kill(island.process.pid) else None

    return fault


def kill_program(island: Island, program: str) -> Fault:
    """A program of the Ray that ``island`` has started."""

    def fault(rng: random.Random) -> tuple[set[str], set[str]] | None:
        found = island.pids(program)
        return (set(island.components),) * 2 if [pid for pid in found if kill(pid)] else None

    return fault


def strike(fault: Fault, tally: Tally, watch: Watch, rng: random.Random) -> bool:
    """One fault; whether all have got over it."""
    time.sleep(rng.uniform(0, 2))
    before = watch.states()
    back = dict(watch.went_back)
    moment_s = time.monotonic()
    hit: tuple[set[str], set[str]] | None = None
    while (hit := fault(rng)) is None and time.monotonic() - moment_s < RECOVERY_TIMEOUT_S:
        time.sleep(POLL_S / 5)
        before, back, _ = watch.states(), dict(watch.went_back), time.monotonic()
    if hit is None:
        tally.wrong.append("nothing to kill")
        return False
    moment_s, at_moment = time.monotonic(), watch.logged()
    must, may = hit

    def changed() -> set[str]:
        now = watch.states()
        return {
            name for name, old in before.items()
            if now[name].failures != old.failures or now[name].epoch != old.epoch or watch.went_back[name] != back[name]
        }  # fmt: skip

    def is_over() -> bool:
        far = all(watch.farthest[name] >= step + SETTLED_STEPS for name, step in at_moment.items())
        return far and bool(changed()) and must <= changed()

    if not wait_until(is_over, RECOVERY_TIMEOUT_S):
        far = {name: watch.farthest[name] - step for name, step in at_moment.items()}
        tally.wrong.append(f"not got over in {RECOVERY_TIMEOUT_S:g} s: steps since {far}, hit {sorted(changed())}")
        return False
    if others := sorted(changed() - may):
        now = watch.states()
        told = [
            f"{name}: {before[name]}, back {back[name]}; {now[name]}, back {watch.went_back[name]}" for name in others
        ]
        tally.wrong.append(f"others lost steps or a process: {'; '.join(told)}")
    tally.struck += 1
    tally.lost_s += [watch.lost_s(name, moment_s) for name in changed() & may]
    watch.forget()
    return True
