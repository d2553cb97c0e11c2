"""Whether a stage is well: signs of collapse in the numbers of its steps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from freqgan.recipe.settings import HealthSettings


def deviations(real: Tensor, generated: Tensor) -> dict[str, Tensor]:
    """Return how much samples (B, ...) differ.

    ``generated`` among all its values, and both sets from sample to sample (0 if all are alike); scalars.
    """
    real, generated = real.detach(), generated.detach()
    return {
        "output_deviation": generated.std(),
        "sample_deviation": generated.std(0, correction=0).mean(),
        "real_deviation": real.std(0, correction=0).mean(),
    }


def shows_collapse(metrics: Mapping[str, float], settings: HealthSettings) -> bool:
    """Return whether a step's numbers are a sign that the stage has collapsed.

    ``metrics`` are those of :func:`deviations` and ``loss_d``; a stage without a discriminator cannot collapse.

    Samples are held against real ones: a band that is constant in all real images is so in good samples too.
    """
    if "loss_d" not in metrics:
        return False
    alike = metrics["sample_deviation"] < settings.least_deviation * metrics["real_deviation"]
    return alike or metrics["loss_d"] < settings.least_loss
