"""What is trained: the settings of the model, composed of those that stand beside the code they set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError
from freqgan.layouts import BandLayout, parse_layout
from freqgan.model.noise_settings import NoiseSettings, check_noise
from freqgan.model.plan import BandPlan, Gan, PlanSettings, build_plan
from freqgan.networks.settings import NetworkSettings
from freqgan.recipe.settings import (
    AugmentationSettings,
    HealthSettings,
    LossSettings,
    OptimiserSettings,
    TeacherForcingSettings,
)
from freqgan.setting_group import SettingGroup

if TYPE_CHECKING:  # settings are checked without torch
    from freqgan.transforms import BandTransform

SMALLEST_SIDE = 4


class DiscriminatorSettings(NetworkSettings):
    """A band discriminator's sizes, and whether it sees the condition beside the band; its patch is the generator's."""

    condition: bool = Field(True, description="show the discriminator of a high band what its generator saw")


class AverageSettings(SettingGroup):
    """The moving average of every generator; all share one age."""

    halflife_images: float = Field(10_000, gt=0, description="half-life of the average once it is warm")
    ramp: float = Field(0.05, gt=0, description="half-life is at most this share of the images seen so far")


class FeedbackSettings(SettingGroup):
    """What the image stage tells the bands' generators: the gradients of its discriminators' losses."""

    weight: float = Field(0.5, ge=0, description="of the feedback beside a band's own discriminator; 0 is none")
    lag: int = Field(
        8,
        ge=1,
        le=64,
        description="steps after which it is applied; part of the arithmetic, no less than window",
    )
    reach: float = Field(
        0.2, gt=0, description="how far feedback of one step may move an output, in deviations of the band"
    )
    balance: bool = Field(
        True, description="scale it to the strength of the band's own gradient first; if not, losses just add up"
    )
    discriminator: NetworkSettings = Field(
        NetworkSettings(width=32, coarse_width=64), description="of the reconstruction at every level from 2 on"
    )


class ImageStageSettings(SettingGroup):
    """The inverse transform's output blended with another, conventional generator."""

    generator: NetworkSettings = Field(NetworkSettings(width=32, coarse_width=64), description="G_o")
    discriminator: NetworkSettings = Field(NetworkSettings(width=32, coarse_width=64), description="D_o")
    attention: bool = Field(True, description="max-attention inside G_o")
    alpha: Literal["scalar", "per_band"] = Field("scalar", description="one blend weight, or one per band")
    alpha_learning_rate: float = Field(2e-2, ge=0, description="learning rate of the blend weight")
    solo_share: float = Field(
        0.25, ge=0, le=1, description="share of the batch on which G_o is judged alone, by a discriminator of its own"
    )
    chain_share: float = Field(
        0.25, ge=0, le=1, description="share on which the chain's image is judged alone; the rest is the blend"
    )
    tie: float = Field(1.0, ge=0, description="weight of |LL_L(G_o) - LL_L of the chain|^2 (normalised band)")


class ModelSettings(SettingGroup):
    """Everything that decides the arithmetic of a training step."""

    seed: int = Field(0, ge=0, description="of every draw: noise, order, crops, start of the networks")
    image_size: int = Field(32, ge=4, le=4096, description="side of the square training images, pixels")
    channels: Literal[1, 3] = Field(3, description="1 gray, 3 colour")
    bit_depth: BitDepth = Field(8, description="of the pixels of images; 16 needs channels=1 (16-bit grey PNGs)")
    classes: int = Field(0, ge=0, le=10_000_000, description="classes in the labels; 0 ignores labels")
    transform: str = Field(
        "dwt:haar",
        description="dwt:<a PyWavelets discrete wavelet>, dct, fft:shannon, fft:meyer, or radial:P,Q: P levels of Q "
        "frequency classes",
    )
    packets: dict[int, int] = Field(
        {}, description="level: how often its high bands are split again, each into 4 to that power packets (0)"
    )
    levels: int = Field(2, ge=1, le=10, description="resolutions; 1 is the finest")
    batch: int = Field(64, ge=1, le=1_000_000, description="images in one step")
    images: int = Field(
        500_000,
        ge=1,
        description="images to see in all (epochs times those there are); schedules are functions of this count",
    )
    statistics_images: int = Field(10_000, ge=1, description="images from which band means and scales are measured")
    plan: PlanSettings = PlanSettings()
    noise: NoiseSettings = NoiseSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    coarse_generator: NetworkSettings = Field(
        NetworkSettings(width=64, coarse_width=96), description="of the band that everything starts from, LL_L"
    )
    coarse_discriminator: NetworkSettings = Field(
        NetworkSettings(width=64, coarse_width=96), description="of the band that everything starts from, LL_L"
    )
    band_generator: NetworkSettings = Field(NetworkSettings(), description="of all other bands")
    band_discriminator: DiscriminatorSettings = Field(DiscriminatorSettings(), description="of all other bands")
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    teacher_forcing: TeacherForcingSettings = TeacherForcingSettings()
    average: AverageSettings = AverageSettings()
    image_stage: ImageStageSettings = ImageStageSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    health: HealthSettings = HealthSettings()
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of convolutions in training; gradient penalties and generation are float32 always"
    )

    @model_validator(mode="after")
    def _combinations(self) -> ModelSettings:
        """Refuses what does not go together, with both numbers and the remedy."""
        self.band_layout()
        fits = largest_levels(self.image_size)
        if self.levels > fits:
            raise InputError(
                f"levels: {self.levels} is too deep for image_size {self.image_size}: the coarsest band would be "
                f"{self.image_size / 2**self.levels:g} pixels wide and {SMALLEST_SIDE} is the least; "
                f"the largest that fits is {fits}"
            )
        self._check_packets()
        if self.bit_depth == 16 and self.channels != 1:
            raise InputError(f"bit_depth: 16 with channels {self.channels}; set channels=1, or bit_depth=8")
        shares = self.image_stage.solo_share + self.image_stage.chain_share
        if shares > 1:
            raise InputError(
                f"image_stage: solo_share + chain_share is {shares:g}, more than the whole batch; make them 1 at most"
            )
        if self.band_plan().gans and round(self.image_stage.solo_share * self.batch) >= self.batch:
            raise InputError(
                f"image_stage.solo_share: {self.image_stage.solo_share:g} of a batch of {self.batch} leaves none for "
                "the images of the chain; make it smaller, or train G_o alone with plan.bands=none"
            )
        count = self.noise_count
        check_noise(self.noise.training, count, self.noise.dimensions)
        check_noise(self.noise.generation, count, self.noise.dimensions)
        return self

    def _check_packets(self) -> None:
        layout, size = self.band_layout(), (self.image_size, self.image_size)
        smallest = min(layout.bands(), key=lambda band: layout.band_size(size, band))
        side = layout.band_size(size, smallest)[0]
        if side < SMALLEST_SIDE:
            raise InputError(
                f"packets: {smallest} would be {side} pixels wide and {SMALLEST_SIDE} is the least; split level "
                f"{smallest.level} less often"
            )

    @property
    def noise_count(self) -> int:
        """Noises drawn per sample: one per GAN; one for G_o where there is none."""
        return max(1, len(self.band_plan().gans))

    @property
    def feeds_back(self) -> bool:
        """Whether the image stage sends gradients to the bands."""
        return self.feedback.weight > 0 and bool(self.band_plan().gans)

    def generator_sizes(self, gan: Gan) -> NetworkSettings:
        """The sizes of the generator of ``gan``."""
        return self.band_generator if self.band_plan().has_base(gan) else self.coarse_generator

    def discriminator_sizes(self, gan: Gan) -> NetworkSettings:
        """The sizes of the discriminator of ``gan``."""
        return self.band_discriminator if self.band_plan().has_base(gan) else self.coarse_discriminator

    def band_plan(self) -> BandPlan:
        """The GANs of these settings."""
        return build_plan(self.band_layout(), self.plan)

    def band_layout(self) -> BandLayout:
        """Return which bands the transform of these settings has, and how large they are; it needs no torch."""
        return parse_layout(self.transform, self.levels, self.packets)

    def band_transform(self) -> BandTransform:
        """The transform of these settings."""
        from freqgan.transforms import parse_transform

        return parse_transform(self.transform, self.levels, self.packets)


def largest_levels(image_size: int) -> int:
    """The most levels for which the coarsest band is at least 4 pixels wide (at least 1)."""
    levels = 1
    while image_size / 2 ** (levels + 1) >= SMALLEST_SIDE:
        levels += 1
    return levels
