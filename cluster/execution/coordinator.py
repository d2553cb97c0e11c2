"""The training loop: submits steps, keeps a window of them in flight, commits checkpoints. No tensor passes here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

from cluster.data.quarantine import Quarantine
from cluster.evaluation.background import BackgroundEvaluator, is_scored
from cluster.execution.callbacks import StepRecord, TrainingCallback
from cluster.execution.executor import Executor, RestorePoint
from cluster.execution.failure_policy import setbacks
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoint_writer import CheckpointWriter
from cluster.run.settings import RunSettings
from freqgan.tensor_dicts import Metrics

RATE_SPAN_STEPS = 20
MOST_SAVES = 2
"""Checkpoints that may be on their way to storage; with one more, training waits for the oldest."""
BEGUN = "begun_s"
"""A metric of every stage: when its step was begun, here in seconds since the coordinator's start."""


class Coordinator:
    """Drives an executor from ``first_step`` to the last step.

    Args:
        settings: of the run.
        executor: with its state at ``first_step``.
        writer: commits checkpoints.
        callback: receives the events of the run.
        first_step: finished steps so far.
        stopping: asked before every step; True ends the run at that boundary, with a checkpoint.
        quarantine: of images, where the executor leaves out those that are damaged.

    """

    def __init__(
        self,
        settings: RunSettings,
        executor: Executor,
        writer: CheckpointWriter,
        callback: TrainingCallback,
        first_step: int,
        stopping: Callable[[], bool],
        quarantine: Quarantine | None = None,
    ) -> None:
        self.settings, self.executor, self.writer, self.callback = settings, executor, writer, callback
        self.submitted = self.finished = first_step
        self.stopping, self.quarantine = stopping, quarantine
        self.evaluator: BackgroundEvaluator | None = None
        if settings.watch.data and is_scored(settings):
            self.evaluator = BackgroundEvaluator(executor.score, callback.on_note, settings.watch.best)
        self.saves: deque[int] = deque()
        self.last_saved = first_step
        self.last_checkpoint: Checkpoint | None = None
        self._commit: Future[Checkpoint] | None = None
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commits")
        self.start_s, self.start_epoch_s = time.perf_counter(), time.time()
        self.recent_s: deque[float] = deque([self.start_s], maxlen=RATE_SPAN_STEPS + 1)

    def run(self) -> Generator[None, None, int]:
        """Train to the end or to a stop, and give way after every finished step.

        Return the number of finished steps, all of them in a checkpoint.
        """
        try:
            return (yield from self._train())
        finally:
            self._committer.shutdown()  # what is on its way stands, before anybody looks for the newest checkpoint

    def _train(self) -> Generator[None, None, int]:
        end = self.settings.last_step
        while self.finished < end:
            while self.submitted < end and self.submitted - self.finished < self.executor.window:
                if self.stopping():
                    end = self.submitted
                    break
                if self.executor.wants_to_move():
                    self._move()
                self.executor.submit(self.submitted)
                self.submitted += 1
                if self.submitted % self.settings.checkpoint_every == 0:
                    self._save()
            if self.finished < end:
                self._finish_one()
                yield
        if self.last_saved < end:
            self._save()
        self._commit_finished(wait=True)
        self._report_damage()
        self._report_scores(wait=not self.stopping())
        return self.finished

    def _move(self) -> None:
        """Let stages change machines: everything in flight is finished and in a checkpoint first."""
        while self.finished < self.submitted:
            self._finish_one()
        if self.last_saved < self.submitted:
            self._save()
        self._commit_finished(wait=True)
        checkpoint = self.last_checkpoint
        if checkpoint is None or checkpoint.step != self.finished:
            return  # nothing was trained since the start: the executor asks again
        self.executor.move(RestorePoint(checkpoint.step, checkpoint.root.url, checkpoint.records))
        self._report_damage()

    def _finish_one(self) -> None:
        metrics = self.executor.finish()
        self._report_damage()
        self.finished += 1
        for recovery in setbacks(self.finished, metrics):
            self.callback.on_recovery(recovery)
        self.callback.on_step(self._record(metrics))
        self._commit_finished(wait=len(self.saves) + (self._commit is not None) > MOST_SAVES)
        self._report_scores()

    def _report_damage(self) -> None:
        """Pass on what the executor got over, and which images it has left out."""
        while self.executor.recoveries:
            self.callback.on_recovery(self.executor.recoveries.popleft())
        while self.quarantine is not None and self.quarantine.unreported:
            one = self.quarantine.unreported.popleft()
            self.callback.on_quarantine(one, len(self.quarantine.left_out) - len(self.quarantine.unreported))

    def _report_scores(self, *, wait: bool = False) -> None:
        """Pass on the scores that have come; a run that was asked to stop does not wait for the others."""
        for evaluation in self.evaluator.ready(wait=wait) if self.evaluator else ():
            marks = evaluation.has_pictures
            best = marks and self.writer.mark(evaluation.step, evaluation.fit, evaluation.yardstick)
            self.callback.on_evaluation(evaluation, best=best)

    def _save(self) -> None:
        self.last_saved = self.submitted
        self.executor.save(self.submitted, self.writer.attempt)
        self.saves.append(self.submitted)

    def _commit_finished(self, *, wait: bool) -> None:
        """Commit the checkpoints whose step is finished and whose files are all written, one after the other.

        Storage behind a slow link takes a while over the dozen requests of a commit: training goes on meanwhile. The
        next one begins when this one was passed on, for it may delete what others were told of.
        """
        while True:
            if self._commit is not None:
                if not (wait or self.writer.root.is_local or self._commit.done()):
                    return
                checkpoint, self._commit = self._commit.result(), None
                self._report_checkpoint(checkpoint)
            if not self.saves or self.saves[0] > self.finished:
                return
            records = self.executor.saved(wait=wait)
            if records is None:
                return
            self._commit = self._committer.submit(self.writer.commit, self.saves.popleft(), records)

    def _report_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.last_checkpoint = checkpoint
        self.callback.on_checkpoint(checkpoint)
        if self.evaluator is not None:
            self.evaluator.offer(checkpoint.step, checkpoint.images)

    def _record(self, stages: dict[str, Metrics]) -> StepRecord:
        now = time.perf_counter()
        self.recent_s.append(now)
        span = self.recent_s[-1] - self.recent_s[0]
        rate = self.settings.batch * (len(self.recent_s) - 1) / span if span > 0 else 0.0
        stages = {name: numbers | {BEGUN: numbers[BEGUN] - self.start_epoch_s} for name, numbers in stages.items()}
        return StepRecord(self.finished, self.finished * self.settings.batch, now - self.start_s, rate, stages)
