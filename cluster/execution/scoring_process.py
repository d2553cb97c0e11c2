"""A process that scores checkpoints beside a training that is one process."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from cluster.evaluation.background import ScoreValues, score_checkpoint
from cluster.execution.executor import evaluation_data
from cluster.run.settings import RunSettings


class ScoringProcess:
    """Starts with the first score, and has as many threads as the training has; :meth:`close` it at the end."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self._pool: ProcessPoolExecutor | None = None

    def score(self, step: int) -> Future[ScoreValues]:
        """Start scoring the checkpoint of ``step``, as ``watch`` is set."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(self.settings.threads,)
            )
        try:
            return self._pool.submit(score_checkpoint, self.settings.run, step, *evaluation_data(self.settings))
        except BrokenProcessPool:  # it was killed, perhaps for memory: the next score gets a new one
            self._pool = None
            raise

    def close(self) -> None:
        """End the process. Safe to call twice."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
