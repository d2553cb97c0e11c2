"""What a coordinator asks of an executor, and the executor that is one process.

Executors differ in where the stages live, never in arithmetic: all run :func:`step_graph` over
:class:`StageHost`.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.evaluation.background import ScoreValues, score_checkpoint
from cluster.execution.failure_policy import Recovery
from cluster.run.data_source import DataSource
from cluster.run.settings import RunSettings
from cluster.stages.host import StageHost
from cluster.storage.checksummed_files import FileRecord
from freqgan.errors import RunError
from freqgan.model.stage_names import IMAGE_STAGE, stage_names
from freqgan.model.step_graph import step_graph
from freqgan.tensor_dicts import Metrics


@dataclass(frozen=True)
class RestorePoint:
    """Where the state of ``step`` finished steps lies: its files, named relative to the folder of checkpoints."""

    step: int
    root_url: str
    records: list[FileRecord]


@dataclass(frozen=True)
class RecoveryBudget:
    """What an executor tells the one that takes its place after a roll-back.

    Attributes:
        failures: recoveries so far.
        preemptions: recoveries from lost machines so far.
        use_gpus: whether stages sit on GPUs; None where that is not decided yet.

    """

    failures: int = 0
    preemptions: int = 0
    use_gpus: bool | None = None


class RollBackError(RunError):
    """Everything must begin again at the last checkpoint: what a replay needs is gone."""

    def __init__(self, cause: str, carried: RecoveryBudget, step: int, stages: tuple[str, ...]) -> None:
        super().__init__(f"{cause}: all stages begin again at the last checkpoint")
        self.cause, self.carried, self.step, self.stages = cause, carried, step, stages

    def recovery(self, from_step: int) -> Recovery:
        """For the record, once it is known which checkpoint there is."""
        return Recovery(self.step, self.stages, self.cause, "roll back", from_step, self.step - from_step, 0.0)


class Executor(Protocol):
    """Runs steps of all stages. ``submit`` and ``finish`` are called once per step, each in order.

    ``recoveries`` are the failures it got over; who reads a recovery takes it out.
    """

    recoveries: deque[Recovery]

    @property
    def window(self) -> int:
        """How many steps may be submitted and not finished."""

    def submit(self, step: int) -> None:
        """Starts step ``step`` (from 0); may return before it is done."""

    def finish(self) -> dict[str, Metrics]:
        """Waits for the oldest step not yet finished; its metrics by stage."""

    def save(self, step: int, attempt: str) -> None:
        """Starts writing the state after ``step`` steps, for the writer of that name.

        It is called right after ``submit(step - 1)``.
        """

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """The records of the files of the oldest save not yet collected; None where it takes time, unless ``wait``."""

    def score(self, step: int) -> Future[ScoreValues]:
        """Starts scoring the checkpoint of ``step`` beside the training, as ``watch`` is set."""

    def wants_to_move(self) -> bool:
        """Whether stages should move to other machines: then no more is submitted, and :meth:`move` comes next."""

    def move(self, at: RestorePoint) -> None:
        """Moves them, when all submitted steps are finished and ``at`` is the checkpoint of the last one."""

    def is_leaving(self) -> bool:
        """Whether the machine of this process is to be taken away: the run should stop with a checkpoint."""

    def close(self) -> None:
        """Gives back what the executor holds. Safe to call twice."""


def kept_steps(settings: RunSettings, restore: RestorePoint | None) -> range:
    """The steps before ``restore`` whose feedback is still to be applied."""
    if restore is None or not settings.feeds_back:
        return range(0)
    return range(max(0, restore.step - settings.feedback.lag), restore.step)


def watched(settings: RunSettings) -> tuple[str, int]:
    """What :func:`score_checkpoint` compares with, and how many images."""
    return settings.watch.data, settings.watch.count


class InlineExecutor:
    """All stages in this process, one after the other: the reference, and the fast path on a single GPU."""

    def __init__(
        self,
        settings: RunSettings,
        source: DataSource,
        statistics: dict[str, NDArray[np.float32]],
        restore: RestorePoint | None,
    ) -> None:
        plan = settings.band_plan()
        self.settings = settings
        self.program = step_graph(plan)
        self.source, self.ingest = source, source.ingest()
        self.hosts = {name: StageHost(settings, name, statistics) for name in stage_names(plan)}
        if restore is not None:
            for host in self.hosts.values():
                host.load(restore.root_url, restore.records, restore.step)
        self._gradients: dict[int, dict[str, Tensor]] = {}
        for step in kept_steps(settings, restore):
            self._gradients[step] = self.hosts[IMAGE_STAGE].gradients(step)
        self.recoveries: deque[Recovery] = deque()
        self._scorer: ProcessPoolExecutor | None = None
        self._finished: deque[dict[str, Metrics]] = deque()
        self._saved: deque[list[FileRecord]] = deque()

    @property
    def window(self) -> int:
        """One: a step is done when it is submitted."""
        return 1

    def submit(self, step: int) -> None:
        """Runs the whole step."""
        batch = self.source.batch(self.ingest, step * self.settings.batch, self.settings.batch)
        outputs: dict[tuple[str, int], Tensor] = {}
        metrics: dict[str, Metrics] = {}
        gradients = self._gradients.pop(step - self.settings.feedback.lag, {})
        for call in self.program:
            inputs = {name: outputs[name, pass_number] for name, pass_number in call.inputs}
            host = self.hosts[call.stage]
            if call.kind == "forward":
                outputs[call.stage, call.pass_number] = host.forward(step, batch.labels, inputs)
            else:
                result = host.step(step, batch.images, batch.labels, inputs, gradients.get(call.stage))
                metrics[call.stage] = result.metrics
                if call.stage == IMAGE_STAGE:
                    self._gradients[step] = result.outputs
                else:
                    outputs[call.stage, call.pass_number] = result.outputs[call.stage]
        self._finished.append(metrics)

    def finish(self) -> dict[str, Metrics]:
        """The metrics of the oldest step."""
        return self._finished.popleft()

    def save(self, step: int, attempt: str) -> None:
        """Writes every stage's state now."""
        self._saved.append([record for host in self.hosts.values() for record in host.save(step, attempt)])

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """The records of the oldest save, which is done."""
        return self._saved.popleft()

    def score(self, step: int) -> Future[ScoreValues]:
        """In a process of its own, started for the first score, with as many threads as the training has."""
        if self._scorer is None:
            self._scorer = ProcessPoolExecutor(
                1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(self.settings.threads,)
            )
        try:
            return self._scorer.submit(score_checkpoint, self.settings.run, step, *watched(self.settings))
        except BrokenProcessPool:  # it was killed, perhaps for memory: the next score gets a new one
            self._scorer = None
            raise

    def wants_to_move(self) -> bool:
        """Never: there is one process."""
        return False

    def move(self, at: RestorePoint) -> None:
        """There is nowhere to go."""

    def is_leaving(self) -> bool:
        """Nobody tells a single process."""
        return False

    def close(self) -> None:
        """Closes the reader of shards, and ends the scoring process."""
        self.ingest.close()
        if self._scorer is not None:
            self._scorer.shutdown(cancel_futures=True)
            self._scorer = None
