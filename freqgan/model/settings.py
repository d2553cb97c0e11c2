"""What is trained: the settings of the model, composed of those that stand beside the code they set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import InputError
from freqgan.layouts import BandLayout, ClipLayout, largest_time_levels, parse_layout
from freqgan.layouts.members import wavelet_named
from freqgan.model.companion_settings import POOLED, is_imported
from freqgan.model.conditioning_settings import NEIGHBOURS, PIXELS, ConditioningSettings
from freqgan.model.expert_settings import DistilSettings, ExpertKind, FlowSettings, GenerationSettings
from freqgan.model.fusion_settings import FusionSettings, SystemKind
from freqgan.model.image_stage_settings import ImageStageSettings
from freqgan.model.noise_settings import NoiseSettings, check_noise
from freqgan.model.plan import BandPlan, Gan, PlanSettings, build_plan, check_choices, choice_for
from freqgan.networks.settings import NetworkSettings, VelocityNetworkSettings
from freqgan.recipe.settings import (
    AugmentationSettings,
    HealthSettings,
    LossSettings,
    OptimiserSettings,
    TeacherForcingSettings,
)
from freqgan.setting_group import SettingGroup
from freqgan.sizes import Size, parse_size, size_setting
from freqgan.targets import TargetLayout

if TYPE_CHECKING:  # settings are checked without torch
    from freqgan.transforms import BandTransform

SMALLEST_SIDE = 4
SMALLEST_IMAGE, LARGEST_IMAGE = 4, 4096
MOST_CHANNELS, MOST_FRAMES = 64, 64
USUAL_TIME_LEVELS = 2
WHOLE_NUMBERS = ("flow", "autoregressive")
"""Companions that give chances to whole numbers alone."""


class DiscriminatorSettings(NetworkSettings):
    """A band discriminator's sizes, and whether it sees the condition beside the band; its patch is the generator's."""

    condition: bool = Field(True, description="Show the discriminator of a high band the bands that its generator saw.")


class AverageSettings(SettingGroup):
    """The moving average of every generator; all share one age."""

    halflife_images: float = Field(10_000, gt=0, description="Half-life of the average, in images, once it is warm.")
    ramp: float = Field(0.05, gt=0, description="The half-life is at most this share of the images seen so far.")


class FeedbackSettings(SettingGroup):
    """What the image stage tells the bands' generators: the gradients of its discriminators' losses."""

    weight: float = Field(
        0.5,
        ge=0,
        description="Weight of the feedback beside the loss of a band's own discriminator. 0 trains every band "
        "for itself.",
    )
    lag: int = Field(
        8,
        ge=1,
        le=64,
        description="Steps after which feedback is applied. It is part of the arithmetic, and must be no less "
        "than `window`.",
    )
    reach: float = Field(
        0.2,
        gt=0,
        description="How far the feedback of one step may move an output, in standard deviations of the band.",
    )
    balance: bool = Field(
        True,
        description="Scale the feedback to the strength of the band's own gradient first. If not, the losses "
        "just add up.",
    )
    discriminator: NetworkSettings = Field(
        NetworkSettings(width=32, coarse_width=64),
        description="Sizes of the discriminator of the reconstruction at every level from 2 on.",
    )


def _check_image_size(value: Any) -> int | str:
    """Return a side for squares, "HEIGHTxWIDTH" for others; ValueError for no such thing."""
    size = parse_size(value)
    if not all(SMALLEST_IMAGE <= side <= LARGEST_IMAGE for side in size):
        raise ValueError(f"{size_setting(size)}; each side has to be {SMALLEST_IMAGE} to {LARGEST_IMAGE}")
    return size_setting(size)


ImageSize = Annotated[int | str, BeforeValidator(_check_image_size)]


class ModelSettings(SettingGroup):
    """Everything that decides the arithmetic of a training step."""

    seed: int = Field(
        0, ge=0, description="Decides every draw: noise, the order of images, crops, the start of the networks."
    )
    image_size: ImageSize = Field(
        32,
        description="Size of the training images, in pixels: 64 for squares, or HEIGHTxWIDTH, such as 96x160; 4 to "
        "4096 a side.",
    )
    channels: int = Field(
        3,
        ge=1,
        le=MOST_CHANNELS,
        description="1 grey, 3 colour, 2 and 4 with transparency as it is; other numbers are those of arrays (.npy), "
        "such as of a camera with many bands.",
    )
    bit_depth: BitDepth = Field(
        8,
        description="Bits of a pixel, which is trained on, generated and written with as many. 32 are float32, and "
        "need value_range.",
    )
    value_range: tuple[float, float] | None = Field(
        None,
        description="Least and greatest value of images with bit_depth=32, in their unit: [-1024, 3071] for a CT in "
        "HU. It is what 0 and 255 are to other images.",
    )
    clip_values: bool = Field(
        False, description="Take values outside of value_range for its ends. If not, an image with such is damaged."
    )
    shown_channels: tuple[int, ...] = Field(
        (),
        description="The channel, or the three, counted from 0, that pictures for people show of images of many "
        "channels, as grey or as red, green and blue: shown_channels=4,2,1. The first where not given.",
    )
    frames: int = Field(
        1,
        ge=1,
        le=MOST_FRAMES,
        description="Frames of a clip, or slices of a volume, which are then generated as one. 1: images.",
    )
    time_levels: int | None = Field(
        None,
        ge=0,
        le=10,
        description="How often clips are halved in time, into tL, the averages, and tH1, tH2 ..., the changes from "
        "fast to slow. Where not given, twice, if the number of frames can be; each time more is as many experts more.",
    )
    time_wavelet: str = Field(
        "haar",
        description="Wavelet of PyWavelets by which clips are split in time. haar averages and subtracts neighbouring "
        "frames.",
    )
    classes: int = Field(0, ge=0, le=10_000_000, description="Number of classes in the labels; 0 ignores labels.")
    conditioning: ConditioningSettings = ConditioningSettings()
    transform: str = Field(
        "dwt:haar",
        description="dwt:<a discrete wavelet of PyWavelets>, dct, fft:shannon, fft:meyer, or radial:P,Q with "
        "levels=P: P levels of Q classes by distance from frequency zero (LL and the rings RA, RB "
        "...).",
    )
    packets: dict[int, int] = Field(
        {},
        description="How often the high bands of a level are split again, each into 4 to that power packets: "
        "packets.1=1 gives HLLL1, HLHL1 ..., each with a GAN of its own.",
    )
    system: SystemKind = Field(
        "bands",
        description="What is trained. bands: an expert for each band, and the image stage. fusion: three generators in "
        "one stage, of the whole image, of the coarsest low band and of all high bands, and a learned share lambda "
        "between them; it comes with loss.kind=hinge. single is short for plan.bands=none.",
    )
    levels: int = Field(
        2,
        ge=0,
        le=10,
        description="Number of resolutions; level 1 is the finest. 0 splits nothing: one expert generates LL0, the "
        "image itself.",
    )
    batch: int = Field(64, ge=1, le=1_000_000, description="Images in one step.")
    images: int = Field(
        500_000,
        ge=1,
        description="Images to see in all: epochs times the images there are. Schedules are functions of this "
        "number, so a finished run cannot be made longer.",
    )
    stage_images: dict[str, int] = Field(
        {},
        description="Images that an expert sees in place of `images`, where it trains at its own pace: by its name or "
        "a band of it, or by low, high or default (stage_images.LL3=2000000); the image stage is image.",
    )
    only: tuple[str, ...] = Field(
        (),
        description="The stages that this process trains, where they train at their own pace (only=LL3,HL3); others "
        "are trained by other processes, at any time and place, that share the run folder alone. All where not given.",
    )
    statistics_images: int = Field(
        10_000, ge=1, description="Images from which means and scales of the bands are measured."
    )
    plan: PlanSettings = PlanSettings()
    experts: dict[str, ExpertKind] = Field(
        {},
        description="What generates a band: gan, or flow, an expert that is trained by flow matching, apart from all "
        "others; student is what `freqgan distil` makes of one. By the name of an expert or a band, or by low, high or "
        "default: experts.LL2=flow; experts=flow is short for experts.default=flow. gan where not given.",
    )
    flow: FlowSettings = FlowSettings()
    distil: DistilSettings = DistilSettings()
    generation: GenerationSettings = GenerationSettings()
    noise: NoiseSettings = NoiseSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    coarse_generator: NetworkSettings = Field(
        NetworkSettings(width=64, coarse_width=96),
        description="Sizes for the band that everything starts from, the coarsest low band.",
    )
    coarse_discriminator: NetworkSettings = Field(
        NetworkSettings(width=64, coarse_width=96), description="Sizes for the discriminator of that band."
    )
    band_generator: NetworkSettings = Field(NetworkSettings(), description="Sizes for all other bands.")
    band_discriminator: DiscriminatorSettings = Field(DiscriminatorSettings(), description="Sizes for all other bands.")
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    teacher_forcing: TeacherForcingSettings = TeacherForcingSettings()
    average: AverageSettings = AverageSettings()
    image_stage: ImageStageSettings = ImageStageSettings()
    fusion: FusionSettings = FusionSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    health: HealthSettings = HealthSettings()
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of convolutions in training; gradient penalties and generation are always float32. bfloat16 "
        "is faster where the machine has instructions for it, and several times slower where it has "
        "not.",
    )

    @model_validator(mode="after")
    def _combinations(self) -> ModelSettings:
        """Refuse what does not go together, with both numbers and the remedy."""
        self.band_layout()
        fits, shorter = largest_levels(self.size), min(self.size)
        if self.levels > fits:
            raise InputError(
                f"levels: {self.levels} is too deep for image_size {self.image_size}: the coarsest band would be "
                f"{shorter / 2**self.levels:g} pixels wide and {SMALLEST_SIDE} is the least; "
                f"the largest that fits is {fits}"
            )
        if self.system == "fusion":
            self._check_fusion()
        self._check_packets()
        self._check_values()
        shares = self.image_stage.solo_share + self.image_stage.chain_share
        if shares > 1:
            raise InputError(
                f"image_stage: solo_share + chain_share is {shares:g}, more than the whole batch; make them 1 at most"
            )
        if self.band_plan().gans and self.solo_count >= self.batch:
            raise InputError(
                f"image_stage.solo_share: {self.image_stage.solo_share:g} of a batch of {self.batch} leaves none for "
                "the images of the chain; make it smaller, or train G_o alone with plan.bands=none"
            )
        self._check_conditioning()
        self._check_experts()
        self._check_companion()
        count = self.noise_count
        check_noise(self.noise.training, count, self.noise.dimensions)
        check_noise(self.noise.generation, count, self.noise.dimensions)
        return self

    def _check_values(self) -> None:
        if (self.bit_depth == FLOAT_BITS) != (self.value_range is not None):
            said = "no value_range" if self.value_range is None else f"value_range={list(self.value_range)}"
            raise InputError(
                f"bit_depth: {self.bit_depth} with {said}; set both, bit_depth=32 value_range=[<least>, <greatest>], "
                "or neither"
            )
        if self.value_range is not None and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise InputError(
                f"value_range: {list(self.value_range)} is no range; give the least value first, then a greater one"
            )
        shown = self.shown_channels
        if len(shown) not in (0, 1, 3) or not all(0 <= channel < self.channels for channel in shown):
            raise InputError(
                f"shown_channels: {list(shown)} with channels={self.channels}; give one, or three for red, green and "
                f"blue, from 0 to {self.channels - 1}"
            )
        kind = self.image_stage.companion
        if self.bit_depth == FLOAT_BITS and self.image_stage.enabled and kind in WHOLE_NUMBERS:
            raise InputError(
                f"image_stage.companion: {kind} with bit_depth=32, which gives chances to levels of brightness, and "
                "floating-point numbers have none; choose another companion, or bit_depth=16"
            )
        if self.image_channels not in (1, 3) and self.image_stage.enabled and self.image_stage.feature_matching.weight:
            raise InputError(
                f"image_stage.feature_matching.weight: {self.image_stage.feature_matching.weight:g} with "
                f"channels={self.channels} and frames={self.frames}, and its network sees grey or colour; leave it out"
            )

    def _check_fusion(self) -> None:
        """Refuse what the jointly trained system has no place for."""
        if not self.levels:
            raise InputError("levels: 0 with system=fusion splits no image for G_l and G_h; set levels=1 or more")
        if self.transform.startswith("radial"):
            raise InputError(
                f"transform: {self.transform} with system=fusion, whose D_h stacks the high bands of a level, all of "
                "one size; rings of several levels are not: set transform=dwt:haar, or another dwt, dct or fft"
            )
        if self.packets:
            raise InputError(f"packets: {self.packets} with system=fusion, whose G_h makes whole bands; leave it out")
        if self.experts:
            chosen = ", ".join(f"{name}={kind}" for name, kind in self.experts.items())
            raise InputError(
                f"experts: {chosen} with system=fusion, whose three generators are trained as one GAN; leave it out, "
                "or set system=bands"
            )
        for key, value in self.plan:
            if value != getattr(PlanSettings(), key):
                raise InputError(
                    f"plan.{key}: {value} with system=fusion, which has one generator for the low band and one for all "
                    "high bands, and no plan; leave it out, or set system=bands"
                )
        if not self.image_stage.enabled:
            raise InputError(
                "image_stage.enabled: false with system=fusion, whose G_o and D_o are those of the image; leave it out"
            )
        if self.image_stage.companion != "attention":
            raise InputError(
                f"image_stage.companion: {self.image_stage.companion} with system=fusion, whose G_o is the generator "
                "with max-attention; leave it out, or set system=bands"
            )
        if self.loss.kind != "hinge":
            raise InputError(
                f"loss.kind: {self.loss.kind} with system=fusion, whose discriminators have hinge losses and spectral "
                "norm; set loss.kind=hinge"
            )
        if self.fusion.fade_begin >= self.fusion.fade_end:
            raise InputError(
                f"fusion.fade_end: {self.fusion.fade_end:g} is not above fusion.fade_begin={self.fusion.fade_begin:g}; "
                "give a larger lambda"
            )
        self.fusion.low_dimensions(self.noise.dimensions)

    def _check_conditioning(self) -> None:
        conditioning = self.conditioning
        if conditioning.shows("class") and not self.classes:
            raise InputError(
                "conditioning: class with classes=0; set classes=<number>, which `freqgan shards info` prints"
            )
        if conditioning.kinds and self.classes and not conditioning.shows("class"):
            raise InputError(
                f"conditioning: {','.join(conditioning.kinds)} with classes={self.classes}; add class to it, or set "
                "classes=0"
            )
        if conditioning.shows("embedding") and not conditioning.embedding_length:
            raise InputError(
                "conditioning.embedding_length: 0 with conditioning=embedding; set how many numbers the vector of an "
                "image has"
            )
        self._check_features()

    def _check_features(self) -> None:
        conditioning, flip, shift = self.conditioning, self.augmentation.flip, self.augmentation.shift
        if conditioning.run and not conditioning.shows("features"):
            kinds = ",".join(conditioning.kinds) or "none"
            raise InputError(
                f"conditioning.run: {conditioning.run} with conditioning={kinds}, but its images are shown by their "
                "features: add features to conditioning (conditioning=features conditioning.network=pixels), or leave "
                "conditioning.run out"
            )
        has_weights = conditioning.shows("features") and conditioning.network not in ("", PIXELS)
        if has_weights and (self.image_channels not in (1, 3) or self.bit_depth == FLOAT_BITS):
            raise InputError(
                f"conditioning.network: {conditioning.network} with channels={self.channels}, frames={self.frames} and "
                f"bit_depth={self.bit_depth}, and it sees photographs, grey or in colour; leave it out: a network with "
                "random weights sees all channels"
            )
        if conditioning.shows("features") and conditioning.network == PIXELS and (flip or shift):
            key, given, off = ("flip", "true", "false") if flip else ("shift", str(shift), "0")
            raise InputError(
                f"augmentation.{key}: {given} with conditioning.network={PIXELS}, which shows where things are in the "
                f"image as it is stored; set augmentation.{key}={off}, or another conditioning.network"
            )

    def _check_packets(self) -> None:
        layout = self.band_layout()
        smallest = min(layout.bands(), key=lambda band: min(layout.band_size(self.size, band)))
        side = min(layout.band_size(self.size, smallest))
        if side < SMALLEST_SIDE:
            raise InputError(
                f"packets: {smallest} would be {side} pixels wide and {SMALLEST_SIDE} is the least; split level "
                f"{smallest.level} less often"
            )

    def _check_experts(self) -> None:
        plan = self.band_plan()
        if not self.image_stage.enabled and not plan.gans:
            raise InputError(
                "image_stage.enabled: false, with plan.bands=none: nothing is left to train; leave one of them out"
            )
        check_choices(plan, self.generation.guidance, "generation.guidance")
        if self.generation.solver == "heun" and self.generation.evaluations % 2:
            raise InputError(
                f"generation.evaluations: {self.generation.evaluations} is odd, and every step of heun takes two; "
                "give an even number, or generation.solver=euler"
            )
        flows = [gan for gan in plan.gans if gan.kind == "flow"]
        for gan in flows:
            choice_for(gan, self.generation.guidance, "generation.guidance")
        if plan.gans and len(flows) == len(plan.gans) and self.image_stage.enabled and self.flow.outputs == "real":
            raise InputError(
                "image_stage.enabled: all experts are of the kind flow, and flow.outputs=real would show this stage "
                "real images alone as what they make: set image_stage.enabled=false, or flow.outputs=samples"
            )
        self._check_students(plan)
        for level in self.flow.crop:
            if not 1 <= level <= self.levels:
                raise InputError(f"flow.crop: level {level} does not exist; levels are 1 (finest) to {self.levels}")

    def _check_companion(self) -> None:
        stage = self.image_stage
        stage.check_companion(self.size)
        self._check_feature_matching()
        if self.needs_pool and self.conditioning.kinds:
            kinds = ",".join(self.conditioning.kinds)
            raise InputError(
                f"image_stage.companion: {stage.companion} beside bands, with conditioning={kinds}: a pool of samples "
                "that are made ahead cannot have one for every target; set conditioning=none (labels alone can be had "
                "by classes), or another companion, or plan.bands=none"
            )
        if self.needs_pool and stage.pool.size < self.classes:
            raise InputError(
                f"image_stage.pool.size: {stage.pool.size} samples for {self.classes} classes; give at least one each"
            )

    def _check_feature_matching(self) -> None:
        stage = self.image_stage
        alone = not stage.is_adversarial and not self.band_plan().gans
        if stage.feature_matching.weight and (self.system == "fusion" or alone or not stage.enabled):
            what = f"a companion {stage.companion} alone" if alone else "no image stage"
            what = "system=fusion" if self.system == "fusion" else what
            raise InputError(
                f"image_stage.feature_matching.weight: {stage.feature_matching.weight:g} with {what}, which no "
                "discriminator of blended images trains; leave it out, or train bands with an image stage"
            )
        if stage.feature_matching.network and not stage.feature_matching.weight:
            raise InputError(
                f"image_stage.feature_matching.network: {stage.feature_matching.network} with weight 0 is not used; "
                "set image_stage.feature_matching.weight=1, or leave it out"
            )

    def _check_students(self, plan: BandPlan) -> None:
        check_choices(plan, self.distil.guidance, "distil.guidance")
        if self.distil.solver == "heun" and self.distil.evaluations % 2:
            raise InputError(
                f"distil.evaluations: {self.distil.evaluations} is odd, and every step of heun takes two; give an even "
                "number, or distil.solver=euler"
            )
        if self.distil.regression == self.distil.adversarial == 0:
            raise InputError("distil: regression and adversarial are both 0: nothing is left to learn by; set either")
        guided = any(choice_for(gan, self.distil.guidance, "distil.guidance") for gan in plan.gans)
        if guided and not self.flow.guide_at:
            raise InputError(
                "distil.guidance: the teacher has no guides to be led away from (flow.guide_at is 0); leave it out, or "
                "distil a run that was trained with flow.guide_at=0.2"
            )
        if self.distil.label_guidance and not self.target_drop:
            raise InputError(
                f"distil.label_guidance: {self.distil.label_guidance:g} with classes={self.classes} and "
                f"flow.drop={self.flow.drop:g}: the teacher has not learned to do without labels; leave it out, or "
                "distil a run that was trained with classes and with flow.drop=0.1"
            )
        students = [gan.name for gan in plan.gans if gan.kind == "student"]
        others = [f"{gan.name}={gan.kind}" for gan in plan.gans if gan.kind != "student"]
        if students and others:
            raise InputError(
                f"experts: {', '.join(students)} are students and {', '.join(others)} are not, and a run of students "
                "has students alone: set experts.default=student"
            )
        if students and self.image_stage.enabled:
            raise InputError(
                "image_stage.enabled: students learn of their teachers alone, and this stage trains none of them: set "
                "image_stage.enabled=false"
            )

    @property
    def target_layout(self) -> TargetLayout:
        """Where the parts of a target lie."""
        conditioning = self.conditioning
        return TargetLayout(
            classes=self.classes,
            embedding=conditioning.embedding_length if conditioning.shows("embedding") else 0,
            features=conditioning.features_length if conditioning.shows("features") else 0,
            caption=conditioning.caption_bytes if conditioning.shows("caption") else 0,
            packed=bool(conditioning.kinds),
            caption_width=conditioning.caption_width,
            caption_layers=conditioning.caption_layers,
        )

    @property
    def target_drop(self) -> float:
        """The share of samples that are trained without their target."""
        return self.conditioning.drop if self.conditioning.kinds else self.flow.drop if self.classes else 0.0

    @property
    def feature_neighbours(self) -> int:
        """The number of nearest images of one of which the features shown with an image are."""
        plain = self.system == "bands" and not self.image_stage.enabled and not self._has_gans
        return self.conditioning.neighbours or (1 if plain else NEIGHBOURS)

    @property
    def solo_count(self) -> int:
        """Samples of a batch on which the companion is judged alone; none where it has a loss of its own."""
        return round(self.image_stage.solo_share * self.batch) if self.image_stage.is_adversarial else 0

    @property
    def needs_pool(self) -> bool:
        """Whether samples of the companion may have to be made ahead: one to blend with, that takes many passes."""
        kind = self.image_stage.companion
        blends = self.image_stage.enabled and bool(self.band_plan().gans)
        return blends and (kind in POOLED or is_imported(kind))

    @property
    def noise_count(self) -> int:
        """Noises drawn per sample: one per GAN; one for G_o where there is none."""
        return max(1, len(self.band_plan().gans))

    @property
    def feeds_back(self) -> bool:
        """Whether the image stage sends gradients to the bands."""
        return self.image_stage.enabled and self.feedback.weight > 0 and self._has_gans

    @property
    def blends(self) -> bool:
        """Whether images are blended, of those of bands and those of G_o."""
        return self.image_stage.enabled and (self.system == "fusion" or bool(self.band_plan().gans))

    @property
    def _has_gans(self) -> bool:
        """Whether there is an expert of the kind gan."""
        return any(gan.kind == "gan" for gan in self.band_plan().gans)

    def velocity_sizes(self, gan: Gan) -> VelocityNetworkSettings:
        """Return the sizes of the network of ``gan``, a flow expert."""
        return self.flow.band_network if self.band_plan().has_base(gan) else self.flow.coarse_network

    def generator_sizes(self, gan: Gan) -> NetworkSettings:
        """Return the sizes of the generator of ``gan``."""
        return self.band_generator if self.band_plan().has_base(gan) else self.coarse_generator

    def discriminator_sizes(self, gan: Gan) -> NetworkSettings:
        """Return the sizes of the discriminator of ``gan``."""
        return self.band_discriminator if self.band_plan().has_base(gan) else self.coarse_discriminator

    def band_plan(self) -> BandPlan:
        """Return the GANs of these settings; the jointly trained system has none of a band alone."""
        if self.system == "fusion":
            return BandPlan(self.levels, ())
        return build_plan(self.band_layout(), self.plan, self.experts)

    @property
    def size(self) -> Size:
        """Height and width of the images, in pixels."""
        return parse_size(self.image_size)

    def band_layout(self) -> BandLayout:
        """Return which bands the transform of these settings has, and how large they are; it needs no torch."""
        still = parse_layout(self.transform, self.levels, self.packets)
        if self.frames == 1:
            return still
        wavelet_named(self.time_wavelet)
        return ClipLayout(still, self.frames, self.time_depth)

    @property
    def image_channels(self) -> int:
        """The channels of an image as a tensor: those of all frames, one frame after the other."""
        return self.channels * self.frames

    @property
    def value_ends(self) -> tuple[float, float]:
        """The values that are -1 and 1 to networks: the ends of ``value_range``; of whole numbers 0 and the largest."""
        return self.value_range or (0.0, 2.0**self.bit_depth - 1)

    @property
    def display(self) -> tuple[int, ...]:
        """The channel, or the three, that pictures for people show."""
        return self.shown_channels or ((0, 1, 2) if self.channels > 2 else (0,))

    @property
    def time_depth(self) -> int:
        """How often clips are halved in time."""
        usual = min(USUAL_TIME_LEVELS, largest_time_levels(self.frames))
        return usual if self.time_levels is None else self.time_levels

    def band_transform(self) -> BandTransform:
        """Return the transform of these settings."""
        from freqgan.transforms import ClipTransform, parse_transform

        still = parse_transform(self.transform, self.levels, self.packets)
        return still if self.frames == 1 else ClipTransform(still, self.frames, self.time_depth, self.time_wavelet)


def largest_levels(size: Size) -> int:
    """Return the most levels for which the coarsest band is at least 4 pixels wide and high (at least 1)."""
    levels = 1
    while min(size) / 2 ** (levels + 1) >= SMALLEST_SIDE:
        levels += 1
    return levels
