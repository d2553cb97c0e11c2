"""Whether a stage is well: signs of collapse in the numbers of its steps."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from freqgan.setting_group import SettingGroup


class HealthSettings(SettingGroup):
    """When a stage counts as ill, and what is done then."""

    every: int = Field(250, ge=1, description="Steps between the states that a stage can go back to.")
    patience: int = Field(100, ge=1, description="Steps in a row with signs of collapse before a stage goes back.")
    least_loss: float = Field(
        1e-4,
        ge=0,
        description="A discriminator's loss below this is a sign of collapse: it has won and learns nothing more.",
    )
    least_deviation: float = Field(
        0.02,
        ge=0,
        description="Samples that deviate from each other by less than this share of what real ones do are "
        "another sign.",
    )
    rate: float = Field(0.5, gt=0, le=1, description="Learning rate after each time, relative to the one before.")
    most: int = Field(4, ge=0, description="Times that a stage goes back before the run fails.")


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

    ``metrics`` are those of :func:`deviations` and ``loss_d``.

    Samples are held against real ones: a band that is constant in all real images is so in good samples too.
    """
    alike = metrics["sample_deviation"] < settings.least_deviation * metrics["real_deviation"]
    return alike or metrics["loss_d"] < settings.least_loss
