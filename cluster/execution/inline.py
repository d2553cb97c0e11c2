"""The executor that is one process."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cluster.evaluation.background import ScoreValues
from cluster.execution.executor import RestorePoint, steps_awaiting_feedback
from cluster.execution.failure_policy import Recovery
from cluster.execution.scoring_process import ScoringProcess
from cluster.run.data_source import DataSource
from cluster.run.settings import RunSettings
from cluster.stages.host import build_chain, build_host, tensor_of
from cluster.stages.replicas import StageReplica
from cluster.storage.checksummed_files import FileRecord
from freqgan.model.stage_names import IMAGE_STAGE, stage_names
from freqgan.model.step_graph import StageCall, run_step, step_graph
from freqgan.tensor_dicts import Metrics


class InlineExecutor:
    """All stages in this process, one after the other: the reference, and the fast path on a single GPU."""

    def __init__(
        self,
        settings: RunSettings,
        source: DataSource,
        statistics: dict[str, NDArray[np.float32]],
        restore: RestorePoint | None,
    ) -> None:
        self.settings = settings
        self.graph = step_graph(settings)
        self.source, self.ingest = source, source.ingest()
        self.chain = build_chain(settings, statistics)
        names = stage_names(settings)
        self.hosts = {name: build_host(settings, StageReplica(name, 0, 1), self.chain) for name in names}
        if restore is not None:
            for host in self.hosts.values():
                host.load(restore.root_url, restore.records, restore.step)
        self._gradients: dict[int, dict[str, Tensor]] = {}
        for step in steps_awaiting_feedback(settings, restore):
            self._gradients[step] = self.hosts[IMAGE_STAGE].gradients(step)
        self.recoveries: deque[Recovery] = deque()
        self._scorer = ScoringProcess(settings)
        self._finished: deque[dict[str, Metrics]] = deque()
        self._saved: deque[list[FileRecord]] = deque()

    @property
    def window(self) -> int:
        """One: a step is done when it is submitted."""
        return 1

    def submit(self, step: int) -> None:
        """Run the whole step."""
        batch = self.source.batch(self.ingest, step * self.settings.batch, self.settings.batch)
        images, targets = tensor_of(batch.images).to(self.chain.device), tensor_of(batch.targets)
        gradients = self._gradients.pop(step - self.settings.feedback.lag, {})
        metrics: dict[str, Metrics] = {}

        def run_call(call: StageCall, inputs: dict[str, Tensor]) -> Tensor | None:
            host = self.hosts[call.stage]
            if call.kind == "forward":
                return host.forward(step, targets, inputs)
            result = host.step(step, images, targets, inputs, gradients.get(call.stage))
            metrics[call.stage] = result.metrics
            if call.stage == IMAGE_STAGE:
                self._gradients[step] = result.outputs
            return result.outputs.get(call.stage)

        run_step(self.graph, run_call)
        self._finished.append(metrics)

    def finish(self) -> dict[str, Metrics]:
        """Return the metrics of the oldest step."""
        return self._finished.popleft()

    def save(self, step: int, attempt: str) -> None:
        """Write every stage's state now."""
        self._saved.append([record for host in self.hosts.values() for record in host.save(step, attempt)])

    def saved(self, *, wait: bool) -> list[FileRecord] | None:
        """Return the records of the oldest save, which is done."""
        return self._saved.popleft()

    def score(self, step: int) -> Future[ScoreValues]:
        """Score in a process of its own, started for the first score, with as many threads as the training has."""
        return self._scorer.score(step)

    def wants_to_move(self) -> bool:
        """Return False: there is one process."""
        return False

    def move(self, at: RestorePoint) -> None:
        """Do nothing: there is nowhere to go."""

    def is_leaving(self) -> bool:
        """Return False: a single process is not told."""
        return False

    def close(self) -> None:
        """Close the reader of shards, and end the scoring process."""
        self.ingest.close()
        self._scorer.close()
