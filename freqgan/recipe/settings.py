"""The settings of the formulas beside this file; they need no torch, so that a wrong one is refused at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqgan.setting_group import SettingGroup

LossKind = Literal["relativistic", "hinge"]


class LossSettings(SettingGroup):
    """The adversarial loss of a band and the strength of its gradient penalties."""

    kind: LossKind = Field(
        default="relativistic",
        description="relativistic: the critic compares a real with a generated sample (the default); "
        "hinge: it scores each alone, and is to be used with spectral norm.",
    )
    gamma: float = Field(
        default=10.0,
        ge=0,
        description="Strength of the R1 and R2 gradient penalties at the start, for a band of 32 x 32 pixels; "
        "other bands scale it by their area.",
    )
    gamma_final: float = Field(default=1.0, ge=0, description="Strength of the penalties at the end of training.")
    penalty: Literal["exact", "noise"] = Field(
        default="exact",
        description="exact: squared gradient, by a second derivative; noise: the squared change of the critic's score "
        "under small noise, the same in the mean, and cheaper.",
    )
    penalty_noise: float = Field(
        default=0.05, gt=0, description="Deviation of the noise of penalty: noise, in deviations of the band."
    )
    penalty_interval: int = Field(
        default=4,
        ge=1,
        description="Compute the penalties every k-th step only, multiplied by k: cheaper, a little less stable.",
    )


class OptimiserSettings(SettingGroup):
    """Adam with beta1 = 0; the learning rate and beta2 go by a half cosine from first to final value."""

    learning_rate: float = Field(
        default=8e-3, gt=0, description="Adam's learning rate (lr) at the start, relative to each layer's weights."
    )
    learning_rate_final: float = Field(default=1e-3, gt=0, description="Adam's learning rate at the end of training.")
    generator_rate: float = Field(
        default=0.7, gt=0, description="The generators' learning rate over the discriminators'."
    )
    beta2: float = Field(
        default=0.99, ge=0, lt=1, description="Adam's beta2 (memory of squared gradients) at the start."
    )
    beta2_final: float = Field(default=0.99, ge=0, lt=1, description="Adam's beta2 at the end of training.")
    warmup_images: int = Field(
        default=0,
        ge=0,
        description="Over this many images the learning rate first rises linearly from 0; 0 means no warm-up.",
    )


class TeacherForcingSettings(SettingGroup):
    """Which share of a batch is conditioned on real bands, the rest being conditioned on generated ones."""

    start: float = Field(
        default=1.0, ge=0, le=1, description="Share of each batch conditioned on real bands at the start."
    )
    end: float = Field(default=0.5, ge=0, le=1, description="Share of each batch conditioned on real bands at the end.")
    noise: float = Field(
        default=0.3,
        ge=0,
        description="Largest strength of the Gaussian noise on real conditions, in standard deviations of their band.",
    )


class AugmentationSettings(SettingGroup):
    """How real images are varied while training."""

    flip: bool = Field(default=True, description="Mirror each image left to right with probability one half.")
    shift: int = Field(
        default=0,
        ge=0,
        description="Shift each image by up to this many coefficients of the coarsest band, that is units of "
        "2^levels pixels, along both axes; the border is filled by reflection. 0 means no shift.",
    )


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
