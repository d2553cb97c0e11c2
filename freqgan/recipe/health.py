"""Whether a stage is well: signs of collapse in the numbers of its steps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from freqgan.recipe.settings import HealthSettings


def deviations(real: Tensor, made: Tensor) -> dict[str, Tensor]:
    """How much samples (B, ...) differ: ``made`` among all its values, and both from sample to sample (0 if alike)."""
    real, made = real.detach(), made.detach()
    return {
        "output_deviation": made.std(),
        "sample_deviation": made.std(0, correction=0).mean(),
        "real_deviation": real.std(0, correction=0).mean(),
    }


def shows_collapse(metrics: Mapping[str, float], settings: HealthSettings) -> bool:
    """Whether a step's numbers, those of :func:`deviations` and ``loss_d``, are a sign that the stage has collapsed.

    Samples are held against real ones: a band that is constant in all real images is so in good samples too.
    """
    alike = metrics["sample_deviation"] < settings.least_deviation * metrics["real_deviation"]
    return alike or metrics["loss_d"] < settings.least_loss
