"""The bands that an expert sees in training: what others generated, or real ones with noise on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.model.chain import Chain
from freqgan.model.plan import Gan


def generated_bands(chain: Chain, step: int, outputs: Mapping[str, Tensor], batch: int, rows: slice) -> SubImages:
    """Return the ``rows`` of the bands in the ``outputs`` of other experts at ``step``, (B / replicas, C, h, h) each.

    ``outputs`` (B, C * bands, h, h) are of a whole batch of ``batch`` samples, by name.
    """
    choices = chain.choices(chain.settings.seed, step, batch)
    own_rows = {name: output[rows] for name, output in outputs.items()}
    return chain.bands(own_rows, {band: choice[rows] for band, choice in choices.items()})


def noisy_bands(
    gan: Gan, real_bands: SubImages, strength: Tensor, batch: int, rows: slice, rng: torch.Generator
) -> SubImages:
    """Return the bands that ``gan`` sees of real samples, with noise on them (conditioning augmentation).

    Args:
        gan: which expert.
        real_bands: (b, C, h, h) by band; samples beyond those of ``strength`` are left out.
        strength: deviation of the noise of every sample, (b,), in deviations of the bands.
        batch: samples that noise is drawn for, those of other replicas among them.
        rows: which of those these are.
        rng: draws the noise, band by band in the order in which they are seen.

    """
    deviation = strength[:, None, None, None]
    noisy: SubImages = {}
    for band in gan.seen:
        real = real_bands[band][: len(strength)]
        noise = torch.randn(batch, *real.shape[1:], generator=rng)[rows]
        noisy[band] = real + deviation * noise.to(real.device)
    return noisy
