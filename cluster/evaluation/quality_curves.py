"""How good the images of flow experts are by passes and by condition noise, and those of their students with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cluster.data.shard_index import build_index
from cluster.evaluation.evaluate import evaluation_policy, real_images_for
from cluster.evaluation.learned_networks import learned_networks
from cluster.run.checkpoint import Checkpoint
from cluster.run.trained_model import synthesiser_of
from freqgan.errors import InputError
from freqgan.generation.synthesiser import BLOCK, Synthesiser
from freqgan.metrics.evaluation import MEASURES
from freqgan.metrics.feature_network import LearnedFeatures
from freqgan.metrics.learned_features import frechet_to
from freqgan.model.clips import one_frame_each
from freqgan.model.expert_settings import GenerationSettings
from freqgan.model.settings import ModelSettings
from freqgan.pixels import to_pixels

FAMILIES = ("cross_band_frechet", "sliced_wasserstein", "feature_frechet")
"""Families of metrics that take little time and give one number each; for all three low is good."""
Values = dict[str, float]


@dataclass(frozen=True)
class CurvePoints:
    """Where curves are measured.

    Attributes:
        evaluations: numbers of passes; odd ones go by Euler's method, even ones by the solver of the settings.
        condition_noise: strengths of the noise on the bands that an expert sees.

    """

    evaluations: Sequence[int] = ()
    condition_noise: Sequence[float] = ()


@dataclass(frozen=True)
class QualityCurves:
    """Values of :data:`FAMILIES` and of the Frechet distances by learned features, by name; low is good.

    Attributes:
        floors: of real images against others.
        by_evaluations: of the flow experts, by the number of passes.
        by_condition_noise: the same by the strength of the noise.
        students: of the run of students, with one pass, where there is one.

    """

    floors: Values
    by_evaluations: dict[int, Values]
    by_condition_noise: dict[float, Values]
    students: Values | None = None


def quality_curves(
    checkpoint: Checkpoint,
    points: CurvePoints,
    data: str,
    *,
    count: int,
    seed: int,
    note: Callable[[str], None],
    generation: GenerationSettings,
    students: Synthesiser | None = None,
    learned: bool = True,
) -> QualityCurves:
    """Return the metrics of the same noise generated in several ways, against the same real images.

    Args:
        checkpoint: of flow experts.
        points: the ways.
        data: shards of real images.
        count: images of either kind; fewer where ``data`` has too few.
        seed: of the noise.
        note: is told of progress, and of a smaller count.
        generation: what the ways have in common.
        students: generates what is to be measured beside it.
        learned: whether distances by learned features are among the metrics.

    Raises:
        InputError: the checkpoint has no flow experts or none that sees noise, ``students`` are none, or their images
            are of another form.

    """
    _check_kinds(checkpoint.settings, None if students is None else students.settings)
    if points.condition_noise:
        _check_chain(checkpoint.settings)
    settings = checkpoint.settings
    reals = real_images_for(settings, data, count, note)
    reference, other_real = (one_frame_each(images, settings.frames) for images in reals)
    networks = learned_networks(build_index(data), evaluation_policy(settings), note) if learned else []
    measures = _measures(reference, networks)
    synthesiser = synthesiser_of(checkpoint, generation, note)

    def measured(source: Synthesiser, what: str) -> Values:
        note(f"generating and measuring {len(reference)} images of {what}")
        images = generated_images(source, seed, len(reference))
        return {name: distance(images) for name, distance in measures.items()}

    def changed(what: str, **changes: Any) -> Values:
        synthesiser.set_generation(with_changes(generation, **changes))
        return measured(synthesiser, what)

    return QualityCurves(
        {name: distance(other_real) for name, distance in measures.items()},
        {passes: changed(f"{passes} passes", evaluations=passes) for passes in points.evaluations},
        {noise: changed(f"condition noise {noise:g}", condition_noise=noise) for noise in points.condition_noise},
        None if students is None else measured(students, "the students"),
    )


def _measures(reference: Tensor, networks: Sequence[LearnedFeatures]) -> dict[str, Callable[[Tensor], float]]:
    """Return what measures images against ``reference``, uint8 (N, C, H, W) both, by the name of the metric."""
    families = {family.name: family.run for family in MEASURES if family.name in FAMILIES}

    def distance(name: str) -> Callable[[Tensor], float]:
        return lambda images: families[name](reference, images)[""]

    by_network = {f"{network.name}.frechet": frechet_to(reference, network) for network in networks}
    return {name: distance(name) for name in families} | by_network


def with_changes(generation: GenerationSettings, **changes: Any) -> GenerationSettings:
    """Return ``generation`` with ``changes``: by Euler's method, where the number of passes is odd."""
    values = generation.model_dump() | changes
    if values["evaluations"] % 2:
        values["solver"] = "euler"
    return GenerationSettings.model_validate(values)


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
    ours, theirs = ((s.size, s.channels) for s in (settings, students))
    if ours != theirs:
        raise InputError(
            f"--students: images of (size, channels) {theirs} cannot be measured beside those of {ours}: name students "
            "of this run"
        )


def _check_chain(settings: ModelSettings) -> None:
    if not sees_bands(settings):
        raise InputError(
            "--over-condition-noise: no flow expert of the run sees bands, and there is nothing for the noise to lie "
            "on; leave it out"
        )


def sees_bands(settings: ModelSettings) -> bool:
    """Return whether a flow expert of ``settings`` sees bands, and noise on them."""
    return any(gan.kind == "flow" and gan.seen for gan in settings.band_plan().gans)


def generated_images(synthesiser: Synthesiser, seed: int, count: int) -> Tensor:
    """Return ``count`` images, uint8 (count, C, N, N); of clips one frame each."""
    blocks = (synthesiser.sample(seed, min(BLOCK, count - first), first) for first in range(0, count, BLOCK))
    return one_frame_each(torch.cat([to_pixels(block.images) for block in blocks]), synthesiser.settings.frames)
