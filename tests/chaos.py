"""Kills processes of a training at chosen or random moments and holds the result against a quiet run.

``python -m tests.chaos [COUNT]`` (``make chaos``) prints a table: victim, runs with the right digest, seconds lost.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from cluster.reporting import StepRecord
from launch.configuration import load_settings
from tests.benchmarks.bench_executors import cifar10_data
from tests.runs import Events, trained_with

STEPS, SNAPSHOT_EVERY = 40, 10
VICTIMS = ("LL2", "HL2", "HH2", "LL1", "LH1", "HH1", "image", "ingest")


@contextmanager
def killing(stages_by_step: Mapping[int, Sequence[str]], how: signal.Signals = signal.SIGKILL) -> Iterator[set[str]]:
    """A signal to the processes of stages ("ingest" too) as soon as a step is submitted; yields who got a new actor.

    An actor here never restarts by itself: the same handle is the same process with the same state.
    """
    import ray

    from cluster.ray_crew import INGEST
    from cluster.ray_executor import RayExecutor

    pids, due = dict[str, int](), dict(stages_by_step)
    handles: dict[str, Any] = {}
    replaced: set[str] = set()
    plain = {name: getattr(RayExecutor, name) for name in ("submit", "_start", "_recover")}

    def look(executor: RayExecutor) -> None:
        for name, actor in {**executor.crew.actors, INGEST: executor.crew.ingest}.items():
            if handles.get(name) is not actor:
                replaced.update({name} & handles.keys())
                handles[name], pids[name] = actor, ray.get(actor.pid.remote())

    def start(self: RayExecutor) -> None:
        plain["_start"](self)
        look(self)

    def recover(self: RayExecutor, error: Any) -> None:
        plain["_recover"](self, error)
        look(self)

    def submit(self: RayExecutor, step: int) -> None:
        plain["submit"](self, step)
        for name in due.pop(step, ()):  # once, also where the step comes again
            os.kill(pids[name], how)

    with pytest.MonkeyPatch.context() as patch:
        for name, method in (("submit", submit), ("_start", start), ("_recover", recover)):
            patch.setattr(RayExecutor, name, method)
        yield replaced


class Moments(Events):
    """A reporter that also remembers when each step was finished."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def stepped(self, record: StepRecord) -> None:
        super().stepped(record)
        self.at_s.append(time.monotonic())

    def lost_s(self) -> float:
        """The longest time without a finished step, less that of a usual one."""
        gaps = [after - before for before, after in pairwise(self.at_s)]
        return max(gaps) - statistics.median(gaps)


def campaign(count: int) -> int:
    """``count`` random moments for every victim, on the CIFAR-10 preset; 0 when every digest was right."""
    wrong = 0
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        data = cifar10_data(folder)
        common = [
            f"data={data}", f"max_steps={STEPS}", "checkpoint_every=20", "statistics_images=1000", "batch=32",
            "device=cpu", f"snapshot_every={SNAPSHOT_EVERY}",
        ]  # fmt: skip
        quiet = trained_with(load_settings("cifar10", [*common, f"run={folder}/quiet", "executor=inline"]), Events())
        print(f"{'victim':8} {'right':>7} {'lost s: median':>15} {'worst':>7}")
        for victim in VICTIMS:
            lost, right = [], 0
            for number in range(count):
                moments = Moments()
                run = f"{folder}/{victim}{number}"
                with killing({rng.randrange(3, STEPS - 3): [victim]}) as replaced:
                    digest = trained_with(load_settings("cifar10", [*common, f"run={run}", "executor=ray"]), moments)
                right += digest == quiet and replaced == {victim}
                lost.append(moments.lost_s())
            wrong += right != count
            print(f"{victim:8} {right:3}/{count:<3} {statistics.median(lost):15.1f} {max(lost):7.1f}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
