"""Scores of checkpoints while a run trains, by an actor that takes no processor from its stages."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import ray

from cluster.evaluation.background import ScoreValues
from cluster.execution.executor import evaluation_data
from cluster.ray_engine.actors import EvaluationActor
from cluster.run.settings import RunSettings


class ScoringActor:
    """Starts its actor for the first score.

    Args:
        settings: of the run whose checkpoints are scored.

    """

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self._actor: Any = None

    def score(self, step: int) -> Future[ScoreValues]:
        """Return the scores of the checkpoint of ``step``, when they come."""
        if self._actor is None:
            self._actor = ray.remote(EvaluationActor).options(num_cpus=0).remote()
        ref = self._actor.score.remote(self.settings.run, step, *evaluation_data(self.settings))
        future: Future[ScoreValues] = ref.future()
        return future

    def close(self) -> None:
        """End the actor, if it was started."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None
