"""How likely held-out images are under a model of flow experts, beside images that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cluster.data.shard_index import build_index
from cluster.evaluation.held_out import images_with_targets
from cluster.run.checkpoint import Checkpoint
from cluster.run.settings import RunSettings
from freqgan.errors import FreqganError, InputError, first_line
from freqgan.generation.likelihood import (
    bits_per_dimension,
    dequantised,
    dimensions_of,
    is_whole,
    log_likelihoods,
    total_of,
)
from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.feature_map import FeatureMap
from freqgan.pixels import DTYPES, HALF_RANGE
from freqgan.sizes import area

TOTAL = "total"
BATCH = 32
MOST, FEWEST = 128, 8
PIXELS = MOST * 3 * 32 * 32
"""Numbers in all images of a set: 128 images of 32 x 32 in colour, fewer of larger ones, to bound the time."""


class Mean(NamedTuple):
    """A mean over images, and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> Mean:
        """Return the mean of values (B,), B of at least 2."""
        return cls(float(values.mean()), float(values.std()) / math.sqrt(len(values)))

    def less(self, other: Mean) -> Mean:
        """Return the difference of two means of different images."""
        return Mean(self.value - other.value, math.hypot(self.error, other.error))


@dataclass(frozen=True)
class ExpertLikelihood:
    """Likelihoods of what one expert generates, or (``TOTAL``) of whole images.

    Attributes:
        name: of the band, or of several that are generated together.
        dimensions: coefficients of an image that it generates.
        nats: log density of a held-out image's coefficients, for pixels in [-1, 1].
        bits: -log density of held-out images by coefficient, in levels of brightness; of floating-point numbers in the
            range [-1, 1].
        training_bits: the same of training images; None where those cannot be read.

    """

    name: str
    dimensions: int
    nats: Mean
    bits: Mean
    training_bits: Mean | None


@dataclass(frozen=True)
class LikelihoodReport:
    """The likelihoods of all flow experts, of ``images`` held-out images; ``total`` where they make all of an image."""

    images: int
    training_images: int
    experts: list[ExpertLikelihood]
    total: ExpertLikelihood | None


def measure_likelihoods(
    checkpoint: Checkpoint, synthesiser: Synthesiser, data: str, *, note: Callable[[str], None]
) -> LikelihoodReport:
    """Return the likelihoods of images of ``data`` and of the run's own training images.

    At most 128 of each are taken, fewer of larger ones. ``note`` is told of progress, and where there are no training
    images any more.

    Raises:
        InputError: the model has none, see ``freqgan.generation.likelihood.why_no_likelihood``; too few images, or
            labels that the model does not know.

    """
    settings, mapping = checkpoint.settings, checkpoint.statistics().feature_map
    held_out = _nats(synthesiser, *_images(settings, data, mapping), telling=_telling(note, "held-out"))
    training: dict[str, Tensor] = {}
    try:
        training = _nats(
            synthesiser, *_images(settings, settings.data, mapping, trained=True), telling=_telling(note, "training")
        )
    except FreqganError as error:
        note(f"no likelihoods of training images to compare with: {first_line(error)}")
    sizes = dimensions_of(synthesiser)
    experts = [_expert(name, sizes[name], held_out[name], training.get(name), settings) for name in held_out]
    total = None
    if is_whole(synthesiser):
        sums = total_of(training) if training else None
        total = _expert(TOTAL, sum(sizes.values()), total_of(held_out), sums, settings)
    counts = [len(next(iter(nats.values()))) if nats else 0 for nats in (held_out, training)]
    return LikelihoodReport(counts[0], counts[1], experts, total)


def _expert(name: str, size: int, nats: Tensor, training: Tensor | None, settings: RunSettings) -> ExpertLikelihood:
    levels = HALF_RANGE.get(DTYPES[settings.bit_depth], 1.0)
    bits = Mean.of(bits_per_dimension(nats, size, levels))
    other = None if training is None else Mean.of(bits_per_dimension(training, size, levels))
    return ExpertLikelihood(name, size, Mean.of(nats), bits, other)


def _images(
    settings: RunSettings, data: str, mapping: FeatureMap | None, *, trained: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return pixels (B, C, N, N) and targets of images of ``data``; ``trained``: those that training began with."""
    index = build_index(data)
    dimensions = settings.image_channels * area(settings.size)
    count = min(max(FEWEST, min(MOST, PIXELS // dimensions)), index.sample_count)
    if count < FEWEST:
        raise InputError(f"{data} has {count} images, and likelihoods need {FEWEST}: give more shards")
    images, targets = images_with_targets(settings, index, data, count, mapping=mapping, trained=trained)
    return images, targets if settings.target_layout else None


def _nats(
    synthesiser: Synthesiser, pixels: Tensor, targets: Tensor | None, telling: Callable[[int, int], None]
) -> dict[str, Tensor]:
    """Return log densities (B,) by expert of stored images (B, C, N, N)."""
    images = dequantised(pixels, seed=0)
    seen = None if targets is None else synthesiser.chain.normalised_targets(targets)
    parts: list[Mapping[str, Tensor]] = []
    for first in range(0, len(images), BATCH):
        telling(first, len(images))
        rows = slice(first, first + BATCH)
        parts.append(log_likelihoods(synthesiser, images[rows], None if seen is None else seen[rows], seed=first))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _telling(note: Callable[[str], None], which: str) -> Callable[[int, int], None]:
    return lambda first, count: note(f"likelihoods of {which} images: {first} of {count}")
