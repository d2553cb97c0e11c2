"""Which companion the image stage has beside the chain, and the settings of each kind. Nothing here needs torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqgan.errors import InputError, nearest
from freqgan.model.expert_settings import FlowAverageSettings, FlowOptimiserSettings, Solver
from freqgan.setting_group import SettingGroup

ADVERSARIAL = ("attention", "dcgan", "resnet")
"""Companions that D_o trains; all others have a loss of their own."""
POOLED = ("diffusion", "autoregressive", "flow_matching")
"""Companions that make a sample in many passes, so that the image stage takes samples from a pool."""
COMPANIONS = (*ADVERSARIAL, "vae", "diffusion", "autoregressive", "flow", "flow_matching")


class VaeSettings(SettingGroup):
    """The companion `vae`, a variational autoencoder; its networks have the sizes of `image_stage.generator`."""

    latent: int = Field(64, ge=1, le=65_536, description="Dimensions of the latent vector.")
    warmup: float = Field(
        0.2, ge=0, le=1, description="Share of all images over which the weight of the KL divergence rises from 0 to 1."
    )
    free_bits: float = Field(
        0.05,
        ge=0,
        description="Nats of each latent dimension, in the mean over the batch, that the KL divergence costs nothing.",
    )


class DiffusionSettings(SettingGroup):
    """The companion `diffusion`: trained as DDPM, sampled as DDIM; its network has the sizes of `image_stage.unet`."""

    steps: int = Field(1000, ge=2, le=100_000, description="Noise levels in training.")
    target: Literal["v", "epsilon"] = Field(
        "v", description="What the network predicts: v = a epsilon - s x_0, or the noise epsilon."
    )
    snr_limit: float = Field(
        5.0, gt=0, description="Signal-to-noise ratio above which the loss of a level is weighted down (min-SNR)."
    )
    evaluations: int = Field(20, ge=1, le=1000, description="Passes through the network for one sample.")


class FlowMatchingSettings(SettingGroup):
    """The companion `flow_matching`: a velocity field of whole images, with the sizes of `image_stage.unet`."""

    time_mean: float = Field(0.0, description="Mean of the logit of the time in training; above 0 more often noise.")
    time_deviation: float = Field(1.0, gt=0, description="Deviation of the logit of the time in training.")
    evaluations: int = Field(20, ge=1, le=1000, description="Passes through the network for one sample.")
    solver: Solver = Field("heun", description="heun: two passes a step, second order; euler: one pass a step.")


class AutoregressiveSettings(SettingGroup):
    """The companion `autoregressive`, a PixelCNN++: pixel after pixel, each given those before it."""

    width: int = Field(64, ge=4, le=65_536, description="Channels of both stacks.")
    layers: int = Field(5, ge=1, le=64, description="Layers of each stack; a pixel sees so many and two rows above it.")
    mixtures: int = Field(5, ge=1, le=100, description="Logistic distributions that the value of a pixel is mixed of.")


class GlowSettings(SettingGroup):
    """The companion `flow`, a normalising flow like Glow: an invertible network with an exact likelihood."""

    levels: int = Field(
        2,
        ge=1,
        le=10,
        description="Resolutions; each halves the sides, so image_size has to be a multiple of 2^levels.",
    )
    steps: int = Field(8, ge=1, le=256, description="Steps of flow at every level: ActNorm, 1x1 convolution, coupling.")
    width: int = Field(64, ge=4, le=65_536, description="Channels inside the network of a coupling.")


class PoolSettings(SettingGroup):
    """Samples that are made ahead, of companions that take many passes for one."""

    every: int = Field(
        200,
        ge=1,
        le=100_000,
        description="Steps after which the pool is made anew from the averaged weights of that step. 100 to 500 serve.",
    )
    size: int = Field(256, ge=1, le=1_000_000, description="Samples in the pool; with classes, at least one of each.")


class CompanionOptimiserSettings(FlowOptimiserSettings):
    """Adam of companions with a loss of their own; rates are those of every weight, whatever its layer."""


class CompanionAverageSettings(FlowAverageSettings):
    """The moving average of a companion with a loss of its own: a power function of the images seen."""


def is_adversarial(companion: str) -> bool:
    """Return whether a companion is trained by the discriminators of the image stage."""
    return companion in ADVERSARIAL


def is_imported(companion: str) -> bool:
    """Return whether a companion is a class named by the path of its module, "module:Class"."""
    return ":" in companion


def check_companion(companion: str) -> None:
    """Raise InputError unless ``companion`` is a kind, or could be the path of a class."""
    if companion in COMPANIONS:
        return
    module, _, name = companion.partition(":")
    if not is_imported(companion):
        raise InputError(
            f"image_stage.companion: no companion is called {companion!r}{nearest(companion, list(COMPANIONS))}; there "
            f"are {', '.join(COMPANIONS)}, and module:Class for a class of your own"
        )
    if not all(part.isidentifier() for part in [*module.split("."), name]):
        raise InputError(
            f"image_stage.companion: {companion!r} is no path of a class; write it as package.module:Class"
        )
