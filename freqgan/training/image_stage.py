"""The image stage: inverse transform, blend with another generator, and the discriminator of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.bands import Band
from freqgan.companions.image_generator import ImageGenerator
from freqgan.model.chain import Chain
from freqgan.model.clips import one_frame_each
from freqgan.model.generators import AVERAGE, Blend, coarse_noise
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.networks.discriminators import Discriminator
from freqgan.recipe.health import deviations
from freqgan.runtime.graph_capture import GraphCapture, capture_gradients, capture_values
from freqgan.seeds import seeded
from freqgan.tensor_dicts import Metrics, State, add_prefix, strip_prefix
from freqgan.training.companion_trainer import CompanionTrainer
from freqgan.training.discriminator_trainer import DiscriminatorInput, DiscriminatorTrainer, unconditional
from freqgan.training.feature_matching import LoadVgg, feature_matching
from freqgan.training.gan_trainer import GanTrainer
from freqgan.training.level_discriminators import LevelDiscriminators, LevelImages
from freqgan.training.updates import Gradients, StepUpdates

SOLO, FRAME = "solo", "frame"


class ImageStepResult(NamedTuple):
    """The result of a step of the image stage.

    Attributes:
        images: (B, C, N, N), blended; None where none were made.
        metrics: plain numbers.
        feedback: by name of a GAN, the gradient of the mean loss over the batch by its output, of that output's shape.

    """

    images: Tensor | None
    metrics: Metrics
    feedback: dict[str, Tensor]


class ImageStageInput(NamedTuple):
    """What images are made from.

    Attributes:
        noise: (B, n), of G_o.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.
        choices: of ensemble members, (B,) int64 by band.
        outputs: of the chain's GANs, (B, C * bands, h, h) by name.
        samples: (B, C, N, N), of a companion that learns nothing from them; None of one that discriminators train.

    """

    noise: Tensor
    targets: Tensor | None
    choices: dict[Band, Tensor]
    outputs: dict[str, Tensor]
    samples: Tensor | None


class ImageStageOutput(NamedTuple):
    """What the image stage makes and its discriminators judge.

    Attributes:
        conventional: (B, C, N, N), G_o's images.
        blended: (B, C, N, N), of G_o and the chain; G_o's alone where the plan has no GANs.
        judged: what D_o judges: images (B - solo, C, N, N) of the chain alone and blended ones.
        levels: the syntheses of the levels above 1, for the reconstruction discriminators.
        coarsest: (B, C, h, h), the chain's coarsest low band, normalised, to which G_o's is tied; None without a chain.

    """

    conventional: Tensor
    blended: Tensor
    judged: Tensor
    levels: LevelImages
    coarsest: Tensor | None


class RealTargets(NamedTuple):
    """Real images (B, C, N, N), and the low bands that the reconstruction discriminators compare with."""

    images: Tensor
    levels: LevelImages


class LossTerm(NamedTuple):
    """A term of the loss, ``weight * value``; ``value``, a scalar, is also the metric ``name``."""

    name: str
    weight: float
    value: Tensor

    @property
    def weighted(self) -> Tensor:
        """The term as it is in the sum, a scalar."""
        return self.value if self.weight == 1 else self.weight * self.value


class ImageStage:
    """Trains G_o, alpha and D_o on the reconstruction of the chain's bands, and sends the bands D_o's gradients.

    Part of each batch is G_o alone (``solo_share``), so that it stays a generator in its own right; a discriminator of
    its own judges it. D_o judges the rest: the chain's image alone (``chain_share``) and the blend. One discriminator
    for both told the chain to make up for G_o's lack of contrast (measured: the derivative of its loss by the gain of
    LL1 was negative where that of the band's own was positive, and contrast ended 8 to 15 % too high). G_o is tied to
    the chain: it gets the noise of the coarsest low band, and its own coarsest low band is pulled toward the chain's;
    two unrelated images blended would be a double exposure. With a plan of no GANs all of it is G_o.

    Of clips D_o sees all frames, and a discriminator of its own one frame of each: what is in clips and how it moves
    are judged apart.

    A companion with a loss of its own stands in the place of G_o where the settings say so. It is trained by that loss
    alone: no gradient of D_o reaches it, no discriminator judges it alone, and it is not tied. alpha learns as always.
    """

    def __init__(self, chain: Chain, capture: GraphCapture | None = None, load_vgg: LoadVgg | None = None) -> None:
        self.chain, self.name, self.capture = chain, IMAGE_STAGE, capture
        settings = chain.settings
        chosen = settings.image_stage.feature_matching
        matching = feature_matching(chosen.weight, chosen.network, load_vgg)
        self.matching = None if matching is None else matching.to(chain.device)
        blend_rate = settings.image_stage.alpha_learning_rate / settings.optimiser.learning_rate
        self.companion_trainer = None if settings.image_stage.is_adversarial else CompanionTrainer(chain)
        self.trainer = GanTrainer(
            IMAGE_STAGE,
            self._build_generator().to(chain.device),
            self._build_discriminator(IMAGE_STAGE, settings.image_channels),
            settings,
            settings.size,
            multipliers={"blend.logits": blend_rate},
            capture=capture,
        )
        self.level_discriminators = LevelDiscriminators(chain, capture)
        self.solo_count = settings.solo_count if chain.plan.gans else 0
        self.solo_trainer = self._build_trainer(SOLO, settings.image_channels) if self.solo_count else None
        self.frame_trainer = self._build_trainer(FRAME, settings.channels) if settings.frames > 1 else None
        self._make_images = capture_values(self._compute_images, capture)
        self._generator_gradients = capture_gradients(self._compute_generator_gradients, capture)

    def _build_generator(self) -> nn.Module:
        """Return what D_o trains: G_o and the blend, or the blend alone."""
        if self.companion_trainer is None:
            return ImageGenerator(self.chain)
        return nn.ModuleDict({"blend": Blend(self.chain)})

    def _build_discriminator(self, name: str, channels: int) -> Discriminator:
        settings = self.settings
        with seeded(settings.seed, "discriminator", name):
            network = Discriminator(
                settings.size,
                channels,
                condition_channels=0,
                targets=settings.target_layout,
                settings=settings.image_stage.discriminator,
                emphasis=False,
            )
        return network.to(self.chain.device)

    def _build_trainer(self, name: str, channels: int) -> DiscriminatorTrainer:
        network = self._build_discriminator(name, channels)
        return DiscriminatorTrainer(name, network, self.settings, self.settings.size, capture=self.capture)

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    @property
    def generator(self) -> ImageGenerator:
        """G_o and the blend, as trained (not averaged); of a companion that discriminators train."""
        assert isinstance(self.trainer.generator, ImageGenerator)
        return self.trainer.generator

    @property
    def blend(self) -> Blend:
        """The blend as trained (not averaged)."""
        blend = self.trainer.generator.blend
        assert isinstance(blend, Blend)
        return blend

    def step(self, step: int, images: Tensor, targets: Tensor, outputs: Mapping[str, Tensor]) -> ImageStepResult:
        """Train on one batch and return its images, metrics and the gradients for the bands.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented.
            targets: (B,) int64 labels, or (B, K) packed.
            outputs: (B, C * bands, h, h) of every GAN of the chain at this step, by name.

        Raises:
            DivergedError: a loss or a gradient is not finite; the weights that it is for are unchanged.

        """
        settings = self.settings
        batch = self.chain.real_batch(step, images)
        real_bands = batch.sub_images if self.level_discriminators.trainers else {}
        real = RealTargets(batch.images, self.level_discriminators.reals(real_bands))

        # Fakes.
        inputs = self._inputs(step, targets, outputs)
        fake = self._make_images(inputs)

        # Discriminators.
        updates = StepUpdates(settings, step, self.chain.device)
        metrics = self._train_discriminators(updates, real, fake, inputs.targets)

        # Generator, and the gradients for the bands.
        gradients = self._generator_gradients(inputs, real, fake)
        self.trainer.update_generator(gradients, updates)
        metrics |= gradients.metrics | deviations(real.images[self._judged_rows], fake.judged)
        if self.chain.plan.gans:
            metrics |= self.blend.alphas()
        if self.companion_trainer is not None:
            metrics |= self.companion_trainer.train(updates, real.images, inputs.targets)
        numbers = updates.numbers(metrics)
        self.trainer.update_average(step)
        if self.companion_trainer is not None:
            self.companion_trainer.update_average(step)
        # A replayed graph overwrites its gradients at the next step. Without feedback there are none.
        copies = [gradient.clone() for gradient in gradients.to_inputs]
        feedback = dict(zip(outputs, copies, strict=settings.feeds_back))
        return ImageStepResult(fake.blended.detach(), numbers, feedback)

    # -- fakes ---------------------------------------------------------------------------------

    def _inputs(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> ImageStageInput:
        settings, batch = self.settings, len(targets)
        choices = self.chain.choices(settings.seed, step, batch)
        noise = coarse_noise(self.chain, self.chain.noise(settings.noise.training, step, batch=batch), choices)
        own_targets = targets.to(self.chain.device) if settings.target_layout else None
        companion = self.companion_trainer
        inputs = ImageStageInput(
            noise=noise,
            targets=own_targets,
            choices=choices,
            outputs=dict(outputs),
            samples=None if companion is None else companion.samples(step, noise, own_targets),
        )
        return self._with_leaves(inputs)

    def _with_leaves(self, inputs: ImageStageInput) -> ImageStageInput:
        """Return ``inputs`` with outputs by which losses can be differentiated, if the bands get feedback."""
        feeds_back = self.settings.feeds_back
        leaves = {name: output.detach().requires_grad_(feeds_back) for name, output in inputs.outputs.items()}
        return inputs._replace(outputs=leaves)

    def _compute_images(self, inputs: ImageStageInput) -> ImageStageOutput:
        conventional = inputs.samples
        if conventional is None:
            conventional = self.trainer.generate(inputs.noise, targets=inputs.targets)
        if not self.chain.plan.gans:
            return ImageStageOutput(conventional, conventional, conventional, levels={}, coarsest=None)
        bands = self.chain.bands(inputs.outputs, inputs.choices)
        frequency = self.chain.image(bands)
        blended = self.blend(frequency, conventional)
        return ImageStageOutput(
            conventional,
            blended,
            judged=self._judged_images(frequency, blended),
            levels=self.level_discriminators.fakes(bands),
            coarsest=bands[self.chain.transform.lowest].detach(),
        )

    @property
    def _judged_rows(self) -> slice:
        """The samples that D_o judges; those before are judged as G_o's alone."""
        return slice(self.solo_count, None)

    def _judged_images(self, frequency: Tensor, blended: Tensor) -> Tensor:
        """Return what D_o judges: first some of the chain's images (B, C, N, N), then blended ones."""
        end = self.solo_count + round(self.settings.image_stage.chain_share * len(blended))
        return torch.cat([frequency[self.solo_count : end], blended[end:]])

    # -- discriminators ------------------------------------------------------------------------

    def _train_discriminators(
        self, updates: StepUpdates, real: RealTargets, fake: ImageStageOutput, targets: Tensor | None
    ) -> dict[str, Tensor]:
        """Update the discriminators of G_o alone, of the levels and of whole images, and return metrics."""
        metrics: dict[str, Tensor] = {}
        if self.solo_trainer is not None:
            solo = self.solo_trainer.train(*self._solo_inputs(real, fake, targets), updates)
            metrics["loss_d_solo"] = solo["loss_d"]
        if self.frame_trainer is not None:
            frame = self.frame_trainer.train(*self._frame_inputs(real, fake, targets), updates)
            metrics["loss_d_frame"] = frame["loss_d"]
        metrics |= self.level_discriminators.train(updates, real.levels, fake.levels, targets)
        return metrics | self.trainer.train_discriminator(*self._judged_inputs(real, fake, targets), updates)

    def _solo_inputs(
        self, real: RealTargets, fake: ImageStageOutput, targets: Tensor | None
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """Return real and fake samples for the discriminator of G_o alone."""
        rows = slice(self.solo_count)
        own_targets = None if targets is None else targets[rows]
        return unconditional(real.images[rows], own_targets), unconditional(fake.conventional[rows], own_targets)

    def _judged_inputs(
        self, real: RealTargets, fake: ImageStageOutput, targets: Tensor | None
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """Return real and fake samples for D_o."""
        own_targets = None if targets is None else targets[self._judged_rows]
        return unconditional(real.images[self._judged_rows], own_targets), unconditional(fake.judged, own_targets)

    def _frame_inputs(
        self, real: RealTargets, fake: ImageStageOutput, targets: Tensor | None
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """Return a frame of each of the samples that D_o judges, real and fake."""
        frames = self.settings.frames
        first, second = self._judged_inputs(real, fake, targets)
        return (
            first._replace(samples=one_frame_each(first.samples, frames)),
            second._replace(samples=one_frame_each(second.samples, frames)),
        )

    # -- generator -----------------------------------------------------------------------------

    def _compute_generator_gradients(
        self, inputs: ImageStageInput, real: RealTargets, fake: ImageStageOutput
    ) -> Gradients:
        """Return the gradients of all losses by the weights of G_o and alpha and by the chain's outputs."""
        recompute = not fake.judged.requires_grad  # a replayed graph gives values alone, without their history
        if recompute:
            inputs = self._with_leaves(inputs)
            fake = self._compute_images(inputs)
        terms = self._loss_terms(real, fake, inputs.targets)
        first, *others = (term.weighted for term in terms)
        loss = sum(others, first)
        leaves = list(inputs.outputs.values()) if self.settings.feeds_back else []
        return self.trainer.generator_gradients(loss, {term.name: term.value for term in terms}, leaves)

    def _loss_terms(self, real: RealTargets, fake: ImageStageOutput, targets: Tensor | None) -> list[LossTerm]:
        """Return the terms of the loss in the order in which they are added up.

        That order and the one in which the values are computed, in which autograd adds up gradients, decide the
        last bits of every weight: to change either makes another training of the same settings.
        """
        solo_share = self.solo_count / self.settings.batch
        solo: list[LossTerm] = []
        tie: list[LossTerm] = []
        if self.solo_trainer is not None:
            value = self.solo_trainer.generator_loss(*self._solo_inputs(real, fake, targets))
            solo = [LossTerm("loss_g_solo", solo_share, value)]
        if fake.coarsest is not None and self.companion_trainer is None:
            value = functional.mse_loss(self._coarsest_band(fake.conventional), fake.coarsest)
            tie = [LossTerm("tie", self.settings.image_stage.tie, value)]
        by_level = self.level_discriminators.losses(real.levels, fake.levels, targets)
        levels = [LossTerm(name, 1, value) for name, value in by_level.items()]
        value = self.trainer.generator_loss(*self._judged_inputs(real, fake, targets))
        terms = [LossTerm("loss_g", 1 - solo_share, value), *tie, *solo, *levels, *self._matching_terms(real, fake)]
        if self.frame_trainer is not None:
            value = self.frame_trainer.generator_loss(*self._frame_inputs(real, fake, targets))
            terms.append(LossTerm("loss_g_frame", 1 - solo_share, value))
        return terms

    def _matching_terms(self, real: RealTargets, fake: ImageStageOutput) -> list[LossTerm]:
        if self.matching is None:
            return []
        weight = self.settings.image_stage.feature_matching.weight
        return [LossTerm("feature_matching", weight, self.matching(real.images, fake.blended))]

    def _coarsest_band(self, images: Tensor) -> Tensor:
        """Return the normalised coarsest low band (B, C, h, h) of images (B, C, N, N)."""
        band = self.chain.transform.lowest
        return self.chain.statistics.normalise(band, self.chain.transform.analyse(images)[band])

    # -- state ---------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        self.trainer.scale_rate(scale)
        self.level_discriminators.scale_rate(scale)
        if self.solo_trainer is not None:
            self.solo_trainer.scale_rate(scale)
        if self.frame_trainer is not None:
            self.frame_trainer.scale_rate(scale)
        if self.companion_trainer is not None:
            self.companion_trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return the state of all networks, averages and optimisers."""
        solo = {} if self.solo_trainer is None else add_prefix(SOLO, self.solo_trainer.state_dict())
        frame = {} if self.frame_trainer is None else add_prefix(FRAME, self.frame_trainer.state_dict())
        companion = {} if self.companion_trainer is None else self.companion_trainer.state_dict()
        return self.trainer.state_dict() | self.level_discriminators.state_dict() | solo | frame | companion

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        if self.companion_trainer is not None:
            self.companion_trainer.load_state_dict(state)
            state = {name: value for name, value in state.items() if not name.startswith(f"{AVERAGE}.other.")}
        self.trainer.load_state_dict(state)
        self.level_discriminators.load_state_dict(state)
        if self.solo_trainer is not None:
            self.solo_trainer.load_state_dict(strip_prefix(SOLO, state))
        if self.frame_trainer is not None:
            self.frame_trainer.load_state_dict(strip_prefix(FRAME, state))
