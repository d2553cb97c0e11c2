"""The settings that flow experts generate best with, by what a network of learned features sees: a coordinate search.

Whoever chooses by a metric fits its whims. Candidates are scored against images that the run was trained on, by the
network ``learned`` that was taught on these: neither the images nor the networks of an evaluation against held-out
images take part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cluster.data.shard_index import build_index
from cluster.evaluation.evaluate import evaluation_policy, real_images_for
from cluster.evaluation.learned_networks import learned_networks
from cluster.evaluation.quality_curves import generated_images, sees_bands
from cluster.run.checkpoint import Checkpoint
from cluster.run.trained_model import synthesiser_of
from freqgan.errors import InputError
from freqgan.metrics.feature_recipe import TUNING_RECIPE
from freqgan.metrics.learned_features import frechet_to
from freqgan.model.expert_settings import DEFAULT, GenerationSettings
from freqgan.model.settings import ModelSettings

SHIFTS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
CONDITION_NOISES = (0.0, 0.05, 0.1, 0.2)
GUIDANCES = (0.0, 0.5, 1.0, 1.5, 2.0)
LEAST_GAIN = 0.005
"""Share of the distance that another value must take off it: less is chance, and leaves all as it was."""
SWEEPS = 2
"""Times that every setting is looked at: the best of one depends on the others."""

Axes = Mapping[str, Sequence[Any]]
"""Values in order of each setting that is searched, by its name in ``generation``."""


@dataclass(frozen=True)
class Trial:
    """One way to generate, and its ``learned.frechet``; low is good."""

    generation: GenerationSettings
    frechet: float


@dataclass(frozen=True)
class SamplerSearch:
    """What a search has tried, in order.

    Attributes:
        axes: names of the settings that were searched.
        count: images generated for each trial.
        trials: all that were measured, each once.
        best: the trial that the search ended with.

    """

    axes: Sequence[str]
    count: int
    trials: Sequence[Trial]
    best: Trial


def search_sampler(
    checkpoint: Checkpoint, data: str, *, most_evaluations: int, count: int, seed: int, note: Callable[[str], None]
) -> SamplerSearch:
    """Return the ways to generate that were tried with ``checkpoint``, all of the same noise, and the best.

    Args:
        checkpoint: of flow experts.
        data: shards of real images, best those that it was trained on.
        most_evaluations: passes through the network for a sample, at most; those of a guide come on top.
        count: images to generate for each way, against twice as many real ones; fewer where ``data`` has too few.
        seed: of the noise; another than that of the evaluation to come.
        note: is told of every trial.

    Raises:
        InputError: the checkpoint has no flow experts, or ``data`` too few images.

    """
    settings = checkpoint.settings
    if not any(gan.kind == "flow" for gan in settings.band_plan().gans):
        raise InputError(
            "the run has no flow experts, and all others generate in one pass: there is nothing to tune; name a run "
            "that was trained with experts.default=flow"
        )
    reference = torch.cat(real_images_for(settings, data, count, note))
    number = len(reference) // 2
    network = learned_networks(build_index(data), evaluation_policy(settings), note, [TUNING_RECIPE])[0]
    distance, synthesiser = frechet_to(reference, network), synthesiser_of(checkpoint, note=note)

    def score(generation: GenerationSettings) -> float:
        synthesiser.set_generation(generation)
        frechet = distance(generated_images(synthesiser, seed, number))
        note(f"{generation_text(generation)}: {network.name}.frechet {frechet:.4g}")
        return frechet

    axes = search_axes(settings, most_evaluations)
    trials, best = coordinate_search(_start(settings, axes), axes, score)
    return SamplerSearch(list(axes), number, trials, best)


def coordinate_search(
    start: GenerationSettings, axes: Axes, score: Callable[[GenerationSettings], float]
) -> tuple[list[Trial], Trial]:
    """Return what was tried from ``start`` on, in order, each with its ``score``; and the best. Low is good.

    One setting after the other goes to the next value of its axis while that is better by half a percent, in either
    direction; a second sweep looks at all of them again. Steps of heun take two passes: it is not tried with an odd
    number.
    """
    scores: dict[str, Trial] = {}

    def frechet(generation: GenerationSettings) -> float:
        key = generation.model_dump_json()
        if key not in scores:
            scores[key] = Trial(generation, score(generation))
        return scores[key].frechet

    best = start
    frechet(best)
    for _ in range(SWEEPS):
        before = best
        for name, values in axes.items():
            below, above = _neighbours(best, name, values)
            lower = _climb(best, below, frechet)
            best = _climb(best, above, frechet) if lower == best else lower
        if best == before:
            break
    return list(scores.values()), scores[best.model_dump_json()]


def search_axes(settings: ModelSettings, most_evaluations: int) -> dict[str, list[Any]]:
    """Return what can be chosen for a model of ``settings``.

    Noise on conditions is searched up to the strength that the experts were trained with; guidance where there are
    guides, and one strength for all of them.
    """
    half, most = most_evaluations // 2 * 2, most_evaluations
    axes: dict[str, list[Any]] = {"solver": ["euler", "heun"], "shift": list(SHIFTS)}
    if sees_bands(settings):
        axes["condition_noise"] = [noise for noise in CONDITION_NOISES if noise <= settings.flow.condition_noise]
    if settings.flow.guide_at and settings.generation.guidance.keys() <= {DEFAULT}:
        axes["guidance"] = [{DEFAULT: strength} for strength in GUIDANCES]
    axes["evaluations"] = sorted({most, half, most // 4 * 2, most * 3 // 8 * 2} - {0})
    return axes


def generation_text(generation: GenerationSettings) -> str:
    """Return a way to generate in words."""
    guidance = "".join(f", guidance {strength:g}" for strength in generation.guidance.values())
    return (
        f"{generation.solver}, {generation.evaluations} passes, shift {generation.shift:g}, condition noise "
        f"{generation.condition_noise:g}{guidance}"
    )


def _start(settings: ModelSettings, axes: Axes) -> GenerationSettings:
    """Return how ``settings`` generate, with no more passes than ``axes`` allow."""
    generation, most = settings.generation, axes["evaluations"][-1]
    changes: dict[str, Any] = {"evaluations": min(generation.evaluations, most)}
    if generation.solver == "heun" and changes["evaluations"] % 2:
        changes = {"solver": "euler"} if most == 1 else {"evaluations": most - 1}
    if "guidance" in axes and not generation.guidance:
        changes["guidance"] = {DEFAULT: 0.0}
    return generation.model_copy(update=changes)


def _neighbours(
    best: GenerationSettings, name: str, values: Sequence[Any]
) -> tuple[list[GenerationSettings], list[GenerationSettings]]:
    """Return ``best`` with the values of one setting below its own, and with those above it; the nearest first."""
    own = getattr(best, name)
    ordered = sorted([*(value for value in values if value != own), own], key=_rank)
    place = ordered.index(own)
    below, above = (
        [best.model_copy(update={name: value}) for value in side]
        for side in (ordered[:place][::-1], ordered[place + 1 :])
    )
    return [c for c in below if _is_valid(c)], [c for c in above if _is_valid(c)]


def _climb(
    best: GenerationSettings, others: Sequence[GenerationSettings], frechet: Callable[[GenerationSettings], float]
) -> GenerationSettings:
    """Return the last of ``others`` up to which each is better than the one before; ``best`` where none is."""
    for candidate in others:
        if frechet(candidate) > (1 - LEAST_GAIN) * frechet(best):
            break
        best = candidate
    return best


def _is_valid(generation: GenerationSettings) -> bool:
    return generation.solver == "euler" or generation.evaluations % 2 == 0


def _rank(value: Any) -> Any:
    return value[DEFAULT] if isinstance(value, dict) else value
