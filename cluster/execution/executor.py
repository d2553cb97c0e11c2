"""What a coordinator asks of an executor.

Executors differ in where the stages live, never in arithmetic: all run :func:`freqgan.model.step_graph.step_graph` over
:class:`cluster.stages.host.StageHost`.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from cluster.evaluation.background import ScoreValues
from cluster.execution.failure_policy import Recovery
from cluster.run.settings import RunSettings
from cluster.storage.checksummed_files import FileRecord
from freqgan.errors import RunError
from freqgan.model.needs import feedback_receivers
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

    def __init__(self, cause: str, budget: RecoveryBudget, step: int, stages: tuple[str, ...]) -> None:
        super().__init__(f"{cause}: all stages begin again at the last checkpoint")
        self.cause, self.budget, self.step, self.stages = cause, budget, step, stages

    def recovery(self, from_step: int) -> Recovery:
        """Return the record of the roll-back to the checkpoint of ``from_step``."""
        return Recovery(self.step, self.stages, self.cause, "roll back", from_step, self.step - from_step, 0.0)


class Executor(Protocol):
    """Runs steps of all stages. ``submit`` and ``finish`` are called once per step, each in order.

    ``recoveries`` are the failures it got over; who reads a recovery takes it out.
    """

    recoveries: deque[Recovery]

    @property
    def window(self) -> int:
        """The most steps that may be submitted and not finished."""

    def submit(self, step: int) -> None:
        """Start step ``step`` (from 0); may return before it is done."""

    def finish(self) -> dict[str, Metrics]:
        """Wait for the oldest step not yet finished; return its metrics by stage."""

    def save(self, step: int, attempt: str) -> None:
        """Start writing the state after ``step`` steps, for the writer of that name.

        It is called right after ``submit(step - 1)``.
        """

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """Return the records of the oldest save not yet collected; None where it takes time, unless ``wait``."""

    def score(self, step: int) -> Future[ScoreValues]:
        """Start scoring the checkpoint of ``step`` beside the training, as ``watch`` is set."""

    def wants_to_move(self) -> bool:
        """Return whether stages should move to other machines: then :meth:`move` is called next, and no other step."""

    def move(self, at: RestorePoint) -> None:
        """Move them, when all submitted steps are finished and ``at`` is the checkpoint of the last one."""

    def is_leaving(self) -> bool:
        """Return whether the machine of this process is to be taken away: the run should stop with a checkpoint."""

    def close(self) -> None:
        """Give back what the executor holds. Safe to call twice."""


def steps_awaiting_feedback(settings: RunSettings, restore: RestorePoint | None) -> range:
    """Return the steps before ``restore`` whose feedback is still to be applied."""
    if restore is None:
        return range(0)
    return range(max(0, restore.step - feedback_lag(settings)), restore.step)


def feedback_lag(settings: RunSettings) -> int:
    """Return the steps between a step and the use of its feedback; 0 where no stage takes any."""
    return settings.feedback.lag if feedback_receivers(settings) else 0


def evaluation_data(settings: RunSettings) -> tuple[str, int]:
    """Return what :func:`cluster.evaluation.background.score_checkpoint` compares with, and how many images."""
    return settings.watch.data, settings.watch.count
