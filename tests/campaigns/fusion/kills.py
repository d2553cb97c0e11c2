"""Ten kills, at random moments, of one of two workers: the bytes are those of two that nothing happens to."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ray
import torch

from cluster.execution.callbacks import StepRecord
from cluster.ray_engine.connection import start_local_ray
from cluster.run.checkpoints import find_checkpoint
from cluster.training.train import train
from tests.campaigns.fusion.workers import undisturbed, worker_pids
from tests.support.models import FUSION
from tests.support.runs import Events, tiny_run_settings, write_small_shards

KILLS, STEPS_PER_KILL = 10, 6
LONGEST_S = 0.6
"""After a step, until its kill."""


@dataclass
class RandomKills(Events):
    """Kills one worker a random while after each step of ``after``, whatever it does then."""

    after: set[int] = field(default_factory=set)
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    killed: list[int] = field(default_factory=list)

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        if record.step in self.after:
            self.after.discard(record.step)
            threading.Timer(self.rng.uniform(0, LONGEST_S), self._kill).start()
        time.sleep(0.1)  # for steps are short, and a moment between two of them is one as well

    def _kill(self) -> None:
        pids = worker_pids()
        if pids:
            with suppress(ProcessLookupError):
                os.kill(victim := self.rng.choice(pids), signal.SIGKILL)
                self.killed.append(victim)


def run_kills(folder: Path, count: int = KILLS) -> bool:
    """Prints one row; whether the bytes are right and all kills were got over."""
    steps = count * STEPS_PER_KILL
    settings = tiny_run_settings(
        folder / "run", write_small_shards(folder), **FUSION, executor="ray", workers={"min": 2, "max": 2},
        max_failures=-1, max_steps=steps, images=8 * steps, window=2,
    )  # fmt: skip
    events = RandomKills(after=set(range(3, steps - 2, STEPS_PER_KILL)))
    start_local_ray(256 * 2**20, cpus=4)
    begun_s = time.monotonic()
    train(settings, events)
    seconds = time.monotonic() - begun_s
    ray.shutdown()
    state = find_checkpoint(settings.run).states()["fusion"]
    same = all(torch.equal(state[name], x) for name, x in undisturbed(settings, 2).items())
    again = sum(recovery.steps for recovery in events.recoveries)
    print(
        f"kills {len(events.killed)}, groups started again {len(events.recoveries)}, steps done again {again}, "
        f"{seconds / max(1, len(events.recoveries)):.0f} s each, same bytes: {'yes' if same else 'NO'}", flush=True,
    )  # fmt: skip
    return same and len(events.killed) == count and events.ended == (steps, "done")
