"""A group of 1, then 3, then 2 workers within one run, as machines come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from cluster.execution.callbacks import StepRecord
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.settings import RunSettings
from cluster.training.train import Surroundings, finish, training
from tests.campaigns.fusion.workers import undisturbed
from tests.support.models import FUSION
from tests.support.replica_bounds import assert_near
from tests.support.runs import Events, tiny_run_settings, write_small_shards

STORE_BYTES = 100 * 2**20
MOST_STEPS, STEPS_BETWEEN = 5_000, 8
RESIZED = "in place of"
STEP_S = 0.25
"""Steps are paced, for machines are counted every 20 s."""


@dataclass
class Machines(Events):
    """Adds and removes machines when the group has the size that was waited for, and ends the run after the last."""

    cluster: Any = None
    stopped: threading.Event = field(default_factory=threading.Event)
    added: list[Any] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    changed_at: int = 0
    _done: int = 0

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        time.sleep(STEP_S)
        self.sizes = [r.cause for r in self.recoveries if RESIZED in r.cause]
        if record.step < self.changed_at + STEPS_BETWEEN:
            return
        acts: list[Callable[[], None]] = [self._grow, self._shrink, self.stopped.set]
        if len(self.sizes) == self._done and self._done < len(acts):
            print(f"step {record.step}: {self.sizes or 'one worker'}", flush=True)
            acts[self._done]()
            self._done, self.changed_at = self._done + 1, record.step

    def _grow(self) -> None:
        self.added = [self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES) for _ in range(2)]

    def _shrink(self) -> None:
        self.cluster.remove_node(self.added[-1], allow_graceful=False)


def run_sizes(folder: Path) -> bool:
    """Prints what happened; whether the run came through both changes, with the arithmetic of one process."""
    settings = tiny_run_settings(
        folder / "run", write_small_shards(folder), **FUSION, executor="ray", workers={"min": 1, "max": 3},
        max_failures=-1, max_steps=MOST_STEPS, images=8 * MOST_STEPS, window=1, keep_checkpoints=MOST_STEPS,
        checkpoint_every=1,
    )  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE_BYTES})
    ray.init(address=cluster.address, log_to_driver=False, namespace="freqgan")
    events = Machines(cluster=cluster)
    result = finish(training(settings, events, Surroundings(stopped=events.stopped)))
    ray.shutdown()
    cluster.shutdown()
    steps = [record.step for record in events.records]
    whole = steps == list(range(1, result.step + 1))
    print(f"{result.step} steps, each once: {'yes' if whole else 'NO'}; {', '.join(events.sizes)}", flush=True)
    near = all(_agrees(settings, recovery.from_step) for recovery in events.recoveries if RESIZED in recovery.cause)
    return whole and near and events.sizes == ["3 workers in place of 1", "2 workers in place of 3"]


def _agrees(settings: RunSettings, step: int) -> bool:
    """Whether the step after a change of size gives what one process makes of the same checkpoint."""
    before: Checkpoint = find_checkpoint(settings.run, step=step)
    after = find_checkpoint(settings.run, step=step + 1).states()["fusion"]
    try:
        worst = assert_near(after, undisturbed(settings.model_copy(update={"max_steps": step + 1}), 1, before))
    except AssertionError as error:
        print(error)
        return False
    print(f"after step {step}: gradients within {worst:.1e} of those of one process", flush=True)
    return True
