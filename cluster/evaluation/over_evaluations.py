"""How good the images of flow experts are with few and with many passes, and those of their students with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.evaluation.evaluate import real_images_for
from cluster.run.checkpoint import Checkpoint
from freqgan.errors import InputError
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.metrics.evaluation import MEASURES
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.settings import ModelSettings
from freqgan.pixels import to_pixels

FAMILIES = ("cross_band_frechet", "sliced_wasserstein", "feature_frechet")
"""Families of metrics that take little time and give one number each; for all three low is good."""


@dataclass(frozen=True)
class QualityCurve:
    """Values of :data:`FAMILIES` by name.

    Attributes:
        floors: of real images against others.
        by_evaluations: of the flow experts, by the number of passes.
        students: of the run of students, with one pass, where there is one.

    """

    floors: dict[str, float]
    by_evaluations: dict[int, dict[str, float]]
    students: dict[str, float] | None = None


def quality_over_evaluations(
    checkpoint: Checkpoint,
    evaluations: Sequence[int],
    data: str,
    *,
    count: int,
    seed: int,
    note: Callable[[str], None],
    students: Synthesiser | None = None,
) -> QualityCurve:
    """Return the metrics of the same noise with different numbers of passes, against the same real images.

    Args:
        checkpoint: of flow experts.
        evaluations: numbers of passes; odd ones go by Euler's method, even ones by the solver of the settings.
        data: shards of real images.
        count: images of either kind; fewer where ``data`` has too few.
        seed: of the noise.
        note: is told of progress, and of a smaller count.
        students: generates what is to be measured beside it.

    Raises:
        InputError: the checkpoint has no flow experts, ``students`` are none, or their images are of another form.

    """
    _check_kinds(checkpoint.settings, None if students is None else students.settings)
    settings, statistics, averages = checkpoint.settings, checkpoint.statistics(), checkpoint.averages()
    reference, other_real = real_images_for(settings, data, count, note)

    def measured(synthesiser: Synthesiser, what: str) -> dict[str, float]:
        note(f"generating and measuring {len(reference)} images of {what}")
        return _values(reference, _images(synthesiser, seed, len(reference)))

    by_evaluations = {
        passes: measured(Synthesiser(with_evaluations(settings, passes), statistics, averages), f"{passes} passes")
        for passes in evaluations
    }
    own = None if students is None else measured(students, "the students")
    return QualityCurve(_values(reference, other_real), by_evaluations, own)


def with_evaluations(settings: ModelSettings, evaluations: int) -> ModelSettings:
    """Return ``settings`` that generate by ``evaluations`` passes: by Euler's method, where the number is odd."""
    generation = settings.generation.model_dump() | {"evaluations": evaluations}
    if evaluations % 2:
        generation["solver"] = "euler"
    return settings.model_copy(update={"generation": GenerationSettings.model_validate(generation)})


def _check_kinds(settings: ModelSettings, students: ModelSettings | None) -> None:
    if not any(gan.kind == "flow" for gan in settings.band_plan().gans):
        raise InputError(
            "--over-evaluations: the run has no flow experts, and all others generate in one pass; name a run that was "
            "trained with experts.default=flow"
        )
    if students is None:
        return
    if not any(gan.kind == "student" for gan in students.band_plan().gans):
        raise InputError("--students: the run has no students; name the run= of `freqgan distil`")
    ours, theirs = ((s.image_size, s.channels) for s in (settings, students))
    if ours != theirs:
        raise InputError(
            f"--students: images of (side, channels) {theirs} cannot be measured beside those of {ours}: name students "
            "of this run"
        )


def _images(synthesiser: Synthesiser, seed: int, count: int) -> Tensor:
    """Return ``count`` images, uint8 (count, C, N, N)."""
    blocks = (synthesiser.sample(seed, min(BLOCK, count - first), first) for first in range(0, count, BLOCK))
    return torch.cat([to_pixels(block.images) for block in blocks])


def _values(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    """Return the metrics of ``candidate`` images against ``reference``, uint8 (N, C, H, W) both."""
    return {family.name: family.run(reference, candidate)[""] for family in MEASURES if family.name in FAMILIES}
