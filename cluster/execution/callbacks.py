"""What a coordinator tells whoever watches a run. Reporting happens in the caller, off the hot path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.data.quarantine import QuarantinedImage
from cluster.evaluation.background import Evaluation
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoint import Checkpoint
from freqgan.tensor_dicts import Metrics


@dataclass(frozen=True)
class StepRecord:
    """One finished step: ``step`` counts finished steps from 1, ``stages`` holds the metrics by GAN or stage name.

    Their ``begun_s`` is in seconds since the coordinator's start, as ``elapsed_s`` is.
    """

    step: int
    images: int
    elapsed_s: float
    images_per_s: float
    stages: dict[str, Metrics]


class TrainingCallback(Protocol):
    """Receives the events of a run, in order, in the coordinator's thread."""

    def on_prepare(self, text: str) -> None:
        """What is being done before training starts, where that takes a while."""

    def on_start(self, first_step: int, notes: list[str]) -> None:
        """Training starts after ``first_step`` finished steps; ``notes`` are for the user (a resume, a fall-back)."""

    def on_step(self, record: StepRecord) -> None:
        """A step is finished."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is committed and can be read."""

    def on_evaluation(self, evaluation: Evaluation, *, best: bool) -> None:
        """A checkpoint was scored; ``best``: better than all before."""

    def on_recovery(self, recovery: Recovery) -> None:
        """Training goes on after a failure."""

    def on_quarantine(self, image: QuarantinedImage, count: int) -> None:
        """An image is damaged for good and left out from now on; ``count`` of them are by now."""

    def on_note(self, text: str) -> None:
        """Something the user should know of, while training goes on."""

    def on_end(self, step: int, reason: str) -> None:
        """Training ended at ``step``; ``reason`` is "done" or "stopped"."""
