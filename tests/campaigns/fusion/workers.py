"""The worker processes of a data-parallel training, and what so many of them would do without Ray."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from cluster.execution.callbacks import StepRecord
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import open_source
from cluster.run.settings import RunSettings
from cluster.stages.host import build_chain, tensor_of
from freqgan.tensor_dicts import tensors_of
from freqgan.training.fusion import FusionStage
from freqgan.training.stage import StepResult
from tests.campaigns.chaos.processes import below, command_of
from tests.support.runs import Events
from tests.support.thread_replicas import at_once, thread_shares

WORKER = "ray::RayTrainWorker"


def worker_pids() -> list[int]:
    """The workers of Ray Train that run below this process, which has started Ray."""
    return [pid for pid in below(os.getpid()) if command_of(pid).startswith(WORKER)]


@dataclass
class KillingEvents(Events):
    """Kills worker ``which`` of those there are, for good, after each step of ``after``; once each."""

    after: dict[int, int] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        which = self.after.pop(record.step, None)
        pids = worker_pids() if which is not None else []
        if which is not None and pids:
            self.killed.append(pids[which % len(pids)])
            os.kill(self.killed[-1], signal.SIGKILL)


def undisturbed(settings: RunSettings, count: int, begin: Checkpoint | None = None) -> dict[str, Tensor]:
    """The state after a training of ``settings`` by so many workers, which are threads here, from ``begin`` on.

    Statistics are those of the run in its folder. Two threads add up two numbers as two processes do.
    """
    statistics = find_checkpoint(settings.run).statistics().tensors()
    arrays = {name: x.numpy() for name, x in statistics.items()}
    stages = [FusionStage(build_chain(settings, arrays), share) for share in thread_shares(count)]
    first = 0
    if begin is not None:
        first = begin.step
        for stage in stages:
            stage.load_state_dict({**begin.states()[stage.name], **json.loads(begin.counters(stage.name))})
    source = open_source(settings)
    with source.ingest() as reader:
        for step in range(first, settings.last_step):
            batch = source.batch(reader, step * settings.batch, settings.batch)
            images, labels = tensor_of(batch.images), tensor_of(batch.targets)
            at_once([_step(stage, step, images, labels) for stage in stages])
    return tensors_of(stages[0].state_dict())


def _step(stage: FusionStage, step: int, images: Tensor, labels: Tensor) -> Callable[[], StepResult]:
    return lambda: stage.step(step, images, labels, {})
