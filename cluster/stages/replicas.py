"""Which actors a run has: one per stage, or one per replica of a stage."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.run.settings import RunSettings
from freqgan.model.stage_names import stage_names


@dataclass(frozen=True)
class StageReplica:
    """Replica ``index`` of ``count`` of ``stage``."""

    stage: str
    index: int
    count: int

    @property
    def name(self) -> str:
        """The name of its actor: that of the stage for the first replica (HL1), with a number for others (HL1@1)."""
        return f"{self.stage}@{self.index}" if self.index else self.stage


def replicas_of(settings: RunSettings) -> dict[str, list[StageReplica]]:
    """Return the replicas of every stage, in the order of the chain."""
    counts = {name: settings.replicas.get(name, 1) for name in stage_names(settings)}
    return {name: [StageReplica(name, i, count) for i in range(count)] for name, count in counts.items()}
