"""What is known of one run of a comparison: its training and its measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.evaluation.sampler_search import generation_text
from cluster.run.settings import RunSettings
from freqgan.model.expert_settings import GenerationSettings
from launch.run_folder.metrics import METRICS, trained_minutes

Values = Mapping[str, float | None]
Curves = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RunScores:
    """One run, as its training and its measurements left it.

    Attributes:
        system: its name.
        seed: of the run.
        settings: with which it was trained; ``run`` is its folder.
        cost: multiply-accumulates of training per image.
        scores: {metric: {value, floor, ratio, chain, other}} as ``freqgan evaluate --json`` wrote it.
        likelihood: of flow experts, as it wrote that.
        generation: how flow experts generated what was measured; None where there are none.
        curves: {metric: {floor, evaluations, condition_noise}} of flow experts, where they were measured.

    """

    system: str
    seed: int
    settings: RunSettings
    cost: float
    scores: Mapping[str, Values]
    likelihood: Mapping[str, Any] | None = None
    generation: GenerationSettings | None = None
    curves: Curves | None = None

    @property
    def name(self) -> str:
        """The name of the run."""
        return f"{self.system}-{self.seed}"

    @property
    def images(self) -> int:
        """Images seen."""
        return self.settings.last_step * self.settings.batch

    @property
    def multiply_accumulates(self) -> float:
        """Of the whole training."""
        return self.images * self.cost

    @cached_property
    def minutes(self) -> float | None:
        """Minutes that its stages took for all steps; None where the run keeps no metrics."""
        settings = self.settings
        runs = [settings] if settings.pace == "together" else list(settings.by_component().values())
        files = [Path(part.run, METRICS) for part in runs]
        if not all(file.exists() for file in files):
            return None
        return sum(trained_minutes(file.read_bytes().splitlines(keepends=True)) for file in files)

    @property
    def way(self) -> str:
        """How its images were generated, in words."""
        return "-" if self.generation is None else generation_text(self.generation)
