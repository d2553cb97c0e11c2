"""One run of a comparison: which files its training and its measurements leave, and which command comes next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.evaluation.quality_curves import sees_bands
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.run.settings import RunSettings
from freqgan.generation.options import AS_TRAINED, GenerationOptions
from launch.pages.run_scores import RunScores
from launch.settings.load import dump_settings

CURVE_EVALUATIONS = (1, 2, 4, 8, 16, 32)
CURVE_NOISES = (0.0, 0.05, 0.1, 0.2)
SAMPLER_COUNT = 2_000
"""Images for every trial of a search, and at most for every point of a curve."""


@dataclass(frozen=True)
class Entrant:
    """One system with one seed: its settings, of which ``run`` is the folder, and its cost per image."""

    system: str
    seed: int
    settings: RunSettings
    cost: float

    @property
    def name(self) -> str:
        """The name of the run for files and messages."""
        return f"{self.system}-{self.seed}"

    @property
    def has_flows(self) -> bool:
        """Whether there are flow experts, whose ways to generate can be chosen."""
        return has_flows(self.settings)


def has_flows(settings: RunSettings) -> bool:
    """Return whether ``settings`` have flow experts."""
    return any(gan.kind == "flow" for gan in settings.band_plan().gans)


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        settings: of the system called bands, whose cost all others are brought to.
        systems: their settings by name, see :func:`launch.commands.systems.parse_systems`.
        seeds: how many of each.
        out: local folder of all runs, the table and the page.
        held_out: shards of real images that nothing was trained on.
        count: images per measurement.
        jobs: processes at a time, each with ``threads`` of the settings.
        learned: whether distances by learned features are measured.
        minutes: of one process, that each run is to take; None for the images of the settings.
        most_evaluations: passes of flow experts up to which their way to generate is tuned; None to leave it.
        curves: whether flow experts are measured by passes and by condition noise.

    """

    settings: RunSettings
    systems: Mapping[str, RunSettings]
    seeds: Sequence[int]
    out: Path
    held_out: str
    count: int
    jobs: int
    learned: bool = True
    minutes: float | None = None
    most_evaluations: int | None = None
    curves: bool = False


@dataclass(frozen=True)
class RunFiles:
    """Where the measurements of a run are; None for those that are not wanted of it."""

    scores: Path
    sampler: Path | None
    curves: Path | None


def files_of(comparison: Comparison, entrant: Entrant) -> RunFiles:
    """Return the files of a run: of another count, or another way to generate, they are others."""
    run, count, most = Path(entrant.settings.run), comparison.count, comparison.most_evaluations
    sampler = None if most is None or not entrant.has_flows else run / f"sampler-{most}.json"
    tuned = "" if sampler is None else f"-tuned-{most}"
    curves = run / f"curves-{min(count, SAMPLER_COUNT)}{tuned}.json"
    return RunFiles(
        run / f"scores-{count}{tuned}.json", sampler, curves if comparison.curves and entrant.has_flows else None
    )


def is_measured(comparison: Comparison, entrant: Entrant) -> bool:
    """Return whether nothing is left to do for a run."""
    files = files_of(comparison, entrant)
    missing = [file for file in (files.sampler, files.curves, files.scores) if file is not None and not file.exists()]
    return _trained(entrant) and not missing


def _generation(files: RunFiles) -> GenerationOptions:
    """Return the options that were found best, or none where nothing is tuned."""
    return AS_TRAINED if files.sampler is None else GenerationOptions(**_read(files.sampler)["options"])


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text())
    return values


def scores_of(comparison: Comparison, entrant: Entrant) -> RunScores:
    """Return what was measured of a run that is done."""
    files = files_of(comparison, entrant)
    values = _read(files.scores)
    likelihood = values.pop("likelihood", None)
    generation = _generation(files).apply(entrant.settings) if entrant.has_flows else None
    curves = None if files.curves is None else _read(files.curves)
    return RunScores(
        entrant.system, entrant.seed, entrant.settings, entrant.cost, values, likelihood, generation, curves
    )


def _trained(entrant: Entrant) -> bool:
    run = entrant.settings.run
    return has_checkpoints(run) and find_checkpoint(run).step >= entrant.settings.last_step


def next_command(comparison: Comparison, entrant: Entrant) -> list[str]:
    """Return ``train`` until that is done, then ``tune``, the curves and ``evaluate``, as far as they are wanted."""
    run, files, held_out = entrant.settings.run, files_of(comparison, entrant), ["--data", comparison.held_out]
    if not _trained(entrant):
        file = comparison.out / f"{entrant.name}.yaml"
        file.write_text(dump_settings(entrant.settings))
        return ["train", str(file)]
    if files.sampler is not None and not files.sampler.exists():
        bounds = ["--evaluations", str(comparison.most_evaluations), "--count", str(SAMPLER_COUNT)]
        return ["tune", run, *bounds, "--json", str(files.sampler)]
    chosen = _generation(files).arguments
    if files.curves is not None and not files.curves.exists():
        count = ["--count", str(min(comparison.count, SAMPLER_COUNT))]
        return ["evaluate", run, *held_out, *count, *_curve_points(entrant), *chosen, "--json", str(files.curves)]
    measured = [*held_out, "--count", str(comparison.count), "--parts", *chosen]
    measured += [] if comparison.learned else ["--no-learned"]
    return ["evaluate", run, *measured, "--json", str(files.scores)]


def _curve_points(entrant: Entrant) -> list[str]:
    """Return where the curves of a run are measured; noise up to the strength that it was trained with."""
    points = ["--over-evaluations", ",".join(map(str, CURVE_EVALUATIONS))]
    noises = [f"{noise:g}" for noise in CURVE_NOISES if noise <= entrant.settings.flow.condition_noise]
    return points + (["--over-condition-noise", ",".join(noises)] if sees_bands(entrant.settings) else [])
