"""Which kind of expert generates a band, and the settings of flow experts and of their students.

Nothing here needs torch, so that a wrong setting is refused at once.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from freqgan.networks.settings import VelocityNetworkSettings
from freqgan.recipe.settings import OptimiserSettings
from freqgan.setting_group import SettingGroup

ExpertKind = Literal["gan", "flow", "student"]
EXPERT_KINDS: tuple[str, ...] = get_args(ExpertKind)
DEFAULT = "default"
LOW = "low"
HIGH = "high"

Solver = Literal["heun", "euler"]


class FlowAverageSettings(SettingGroup):
    """The moving average of a flow expert: a power function of the images seen, so that it is ripe at any time."""

    halflife_images: float = Field(
        1e9, gt=0, description="Half-life of the average, in images, at most; the share `ramp` is below it by default."
    )
    ramp: float = Field(0.05, gt=0, description="Half-life of the average, as a share of the images seen so far.")


class FlowOptimiserSettings(OptimiserSettings):
    """Adam of a flow expert; rates are those of every weight, whatever its layer."""

    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's learning rate at the start.")
    learning_rate_final: float = Field(default=2e-4, gt=0, description="Adam's learning rate at the end of training.")
    generator_rate: float = Field(default=1.0, gt=0, description="Multiplies both learning rates.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Adam's beta1 (memory of gradients).")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="Adam's beta2 at the start.")
    beta2_final: float = Field(default=0.999, ge=0, lt=1, description="Adam's beta2 at the end of training.")
    warmup_images: int = Field(
        default=10_000, ge=0, description="Over this many images the learning rate first rises linearly from 0."
    )


class FlowSettings(SettingGroup):
    """How experts of the kind flow are trained: by flow matching, each alone, on real bands before it."""

    coarse_network: VelocityNetworkSettings = Field(
        VelocityNetworkSettings(width=96, coarse_width=128),
        description="Sizes for the band that everything starts from, the coarsest low band.",
    )
    band_network: VelocityNetworkSettings = Field(VelocityNetworkSettings(), description="Sizes for all other bands.")
    optimiser: FlowOptimiserSettings = FlowOptimiserSettings()
    average: FlowAverageSettings = FlowAverageSettings()
    condition_noise: float = Field(
        default=0.3,
        ge=0,
        description="Largest strength of the Gaussian noise on the real bands that an expert sees in training, in "
        "standard deviations of their band; the network is told the strength.",
    )
    time_mean: float = Field(
        default=0.0, description="Mean of the logit of the time in training; above 0 more often near noise."
    )
    time_deviation: float = Field(default=1.0, gt=0, description="Deviation of the logit of the time in training.")
    drop: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of samples that are trained without their label, for guidance by what an expert makes "
        "without one. Models without classes have no use for it.",
    )
    crop: dict[int, int] = Field(
        {},
        description="Side, in coefficients, of the random crops that experts of a level are trained on "
        "(flow.crop.1=64); the whole band where not given. The rest of the picture enters by its "
        "low band, averaged to 4 x 4.",
    )
    guide_at: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of all images after which an expert's averaged weights are put aside as its guide: "
        "generation.guidance then leads away from what it made at that age. 0 stores no guide.",
    )
    outputs: Literal["real", "samples"] = Field(
        default="real",
        description="What stages that wait for a band see of it while a flow expert is to make it. real: the real "
        "band, so that nothing is exchanged; samples: what its averaged weights generate.",
    )
    output_evaluations: int = Field(
        default=4, ge=1, le=1000, description="Passes through the network for each of these samples."
    )


class GenerationSettings(SettingGroup):
    """How flow experts generate. It does not change the training, and may be chosen anew for every picture."""

    evaluations: int = Field(
        default=20, ge=1, le=1000, description="Passes through a flow expert's network for one sample."
    )
    solver: Solver = Field(
        default="heun", description="heun: two passes a step, second order; euler: one pass a step, first order."
    )
    shift: float = Field(
        default=1.0,
        gt=0,
        description="Where the steps lie: above 1 closer together near the noise, below 1 near the data.",
    )
    condition_noise: float = Field(
        default=0.0,
        ge=0,
        description="Strength of the noise on the bands that an expert sees when it generates, in their deviations.",
    )
    guidance: dict[str, float] = Field(
        default={},
        description="How far to lead away from each expert's guide (flow.guide_at), by the keys that `experts` has. 0, "
        "where not given, is without; guidance.default=1 is a common choice.",
    )
    label_guidance: float = Field(
        default=0.0,
        ge=0,
        description="How far to lead away from what is made without the label (flow.drop), or without the whole target "
        "(conditioning.drop), of any generator then.",
    )


class DistilSettings(SettingGroup):
    """How students learn of flow experts to generate in one pass: each alone, from its teacher's samples."""

    evaluations: int = Field(
        default=8, ge=1, le=1000, description="Passes through the teacher's network for each sample that it shows."
    )
    solver: Solver = Field(default="heun", description="The teacher's solver, as generation.solver.")
    shift: float = Field(default=1.0, gt=0, description="Where the teacher's steps lie, as generation.shift.")
    guidance: dict[str, float] = Field(
        default={},
        description="How far the teacher is led away from its guide, as generation.guidance: the student learns what a "
        "guided teacher makes, and needs no guide for it.",
    )
    label_guidance: float = Field(
        default=0.0,
        ge=0,
        description="How far the teacher is led away from what it makes without the label, as "
        "generation.label_guidance.",
    )
    learning_rate: float = Field(
        default=2e-4,
        gt=0,
        description="The student's learning rate at the start, of every weight; it falls as that of the discriminator "
        "does, from optimiser.learning_rate to optimiser.learning_rate_final.",
    )
    regression: float = Field(
        default=1.0, ge=0, description="Weight of the mean squared distance to the teacher's samples."
    )
    adversarial: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the loss by a discriminator that sees the noise beside the sample, and tells the "
        "student's from the teacher's. 0 trains no discriminator.",
    )

    @property
    def teacher_generation(self) -> GenerationSettings:
        """How the teacher generates the samples that it shows."""
        return GenerationSettings(
            evaluations=self.evaluations,
            solver=self.solver,
            shift=self.shift,
            guidance=self.guidance,
            label_guidance=self.label_guidance,
        )
