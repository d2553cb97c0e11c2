"""The settings of the image stage: its networks, its companion, the blend. Nothing here needs torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqgan.errors import InputError
from freqgan.model.companion_settings import (
    COMPANIONS,
    POOLED,
    AutoregressiveSettings,
    CompanionAverageSettings,
    CompanionOptimiserSettings,
    DiffusionSettings,
    FlowMatchingSettings,
    GlowSettings,
    PoolSettings,
    VaeSettings,
    check_companion,
    is_adversarial,
)
from freqgan.networks.settings import NetworkSettings, VelocityNetworkSettings
from freqgan.setting_group import SettingGroup
from freqgan.sizes import Size, size_setting


class FeatureMatchingSettings(SettingGroup):
    """Statistics of features of the final images, matched to those of real images of the batch."""

    weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the distance of the blended images from real ones by mean and covariance of pooled "
        "features, beside the losses of the discriminators. 0 computes none.",
    )
    network: str = Field(
        "",
        description="Weights of VGG19, a file or s3:// URL of torchvision's or timm's; a network with fixed random "
        "weights where not given.",
    )


class ImageStageSettings(SettingGroup):
    """The inverse transform's output blended with another, conventional generator, the companion."""

    enabled: bool = Field(
        True,
        description="Train this stage. false: the images are those of the chain alone, no discriminator of whole "
        "images trains the bands, and stages exchange less, or nothing at all. image_stage=none is short for it.",
    )
    generator: NetworkSettings = Field(
        NetworkSettings(width=32, coarse_width=64), description="Sizes of G_o, the conventional generator."
    )
    discriminator: NetworkSettings = Field(
        NetworkSettings(width=32, coarse_width=64), description="Sizes of D_o, the discriminator of whole images."
    )
    companion: str = Field(
        "attention",
        description="The other generator. Trained by D_o: attention, dcgan, resnet (without attention). By a loss of "
        "its own: vae, diffusion, autoregressive, flow, flow_matching, or module:Class, a class of yours by its path.",
    )
    attention: bool = Field(True, description="Use max-attention inside G_o, the companion `attention`.")
    unet: VelocityNetworkSettings = Field(
        VelocityNetworkSettings(), description="Sizes of the U-Net of the companions diffusion and flow_matching."
    )
    vae: VaeSettings = VaeSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    autoregressive: AutoregressiveSettings = AutoregressiveSettings()
    glow: GlowSettings = GlowSettings()
    flow_matching: FlowMatchingSettings = FlowMatchingSettings()
    pool: PoolSettings = PoolSettings()
    companion_optimiser: CompanionOptimiserSettings = CompanionOptimiserSettings()
    companion_average: CompanionAverageSettings = CompanionAverageSettings()
    alpha: Literal["scalar", "per_band"] = Field(
        "scalar", description="scalar: one blend weight for the whole image. per_band: one for every band."
    )
    alpha_learning_rate: float = Field(2e-2, ge=0, description="Learning rate of the blend weight.")
    solo_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the batch on which G_o is judged alone, by a discriminator of its own. A companion with "
        "a loss of its own needs none.",
    )
    chain_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the batch on which the chain's image is judged alone. The rest is the blend.",
    )
    feature_matching: FeatureMatchingSettings = FeatureMatchingSettings()
    tie: float = Field(1.0, ge=0, description="Weight of |LL_L of G_o's image - LL_L of the chain|^2, both normalised.")

    @property
    def is_adversarial(self) -> bool:
        """Whether the companion is trained by D_o, and not by a loss of its own."""
        return is_adversarial(self.companion)

    def check_companion(self, size: Size) -> None:
        """Raise InputError where the settings of the companion do not go with it, or with images of that size."""
        check_companion(self.companion)
        if self.pool != PoolSettings() and self.companion in COMPANIONS and self.companion not in POOLED:
            raise InputError(
                f"image_stage.pool: the companion {self.companion} makes a sample in one pass and needs no pool: leave "
                f"it out, or choose one of {', '.join(POOLED)}"
            )
        if self.companion == "flow" and any(side % 2**self.glow.levels for side in size):
            halvings, parts = self.glow.levels, 2**self.glow.levels
            raise InputError(
                f"image_stage.glow.levels: {halvings} halvings of image_size {size_setting(size)} are not whole "
                f"({size[0] / parts:g} x {size[1] / parts:g}); give fewer levels, or multiples of {parts} pixels"
            )
        matching = self.flow_matching
        if self.companion == "flow_matching" and matching.solver == "heun" and matching.evaluations % 2:
            raise InputError(
                f"image_stage.flow_matching.evaluations: {matching.evaluations} is odd, and every step of heun takes "
                "two; give an even number, or image_stage.flow_matching.solver=euler"
            )
