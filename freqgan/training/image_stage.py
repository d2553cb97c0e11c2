"""The image stage: inverse transform, blend with another generator, and the discriminator of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.bands import Band
from freqgan.model.chain import Chain
from freqgan.model.generators import ImageGenerator, coarse_noise
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.networks.discriminators import Discriminator
from freqgan.recipe.health import deviations
from freqgan.runtime.graph_capture import CapturedFunction, GraphCapture
from freqgan.seeds import seeded
from freqgan.tensor_dicts import Metrics, add_prefix, strip_prefix
from freqgan.training.discriminator_trainer import DiscriminatorInput, DiscriminatorTrainer, unconditional
from freqgan.training.gan_trainer import GanTrainer
from freqgan.training.level_discriminators import LevelDiscriminators, Lows
from freqgan.training.updates import Gradients, StepUpdates

SOLO = "solo"


class ImageStepResult(NamedTuple):
    """``images`` (B, C, N, N) blended; plain numbers; gradients for the outputs of the bands, by name.

    A gradient has the shape of the band's output, and is that of the mean loss over the batch.
    """

    images: Tensor
    metrics: Metrics
    feedback: dict[str, Tensor]


class ImageStageInput(NamedTuple):
    """What images are made from: G_o's noise (B, n), labels, the choices of ensemble members, the chain's outputs."""

    noise: Tensor
    labels: Tensor | None
    choices: dict[Band, Tensor]
    outputs: dict[str, Tensor]


class ImageStageOutput(NamedTuple):
    """G_o's images, the blend (of no GANs: G_o's alone), what D_o judges, and the syntheses of the levels above 1.

    ``low`` is the coarsest low band of the chain, which G_o's is tied to; none where there is no chain.
    """

    other: Tensor
    blended: Tensor
    judged: Tensor
    lows: Lows
    low: Tensor | None


class RealTargets(NamedTuple):
    """Real images (B, C, N, N), and the low bands that the reconstruction discriminators compare with."""

    images: Tensor
    lows: Lows


class ImageStage:
    """Trains G_o, alpha and D_o on the reconstruction of the chain's bands, and tells the bands what D_o thinks.

    Part of each batch is G_o alone (``solo_share``), so that it stays a generator in its own right; a discriminator of
    its own judges it. D_o judges the rest: the chain's image alone (``chain_share``) and the blend. One discriminator
    for both told the chain to make up for G_o's lack of contrast (measured: the derivative of its loss by the gain of
    LL1 was negative where that of the band's own was positive, and contrast ended 8 to 15 % too high). G_o is tied to
    the chain: it gets the noise of the coarsest low band, and its own coarsest low band is pulled toward the chain's;
    two unrelated images blended would be a double exposure. With a plan of no GANs all of it is G_o.
    """

    def __init__(self, chain: Chain, capture: GraphCapture | None = None) -> None:
        self.chain, self.name, self.capture = chain, IMAGE_STAGE, capture
        settings = chain.settings
        generator = ImageGenerator(chain).to(chain.device)
        rate = settings.image_stage.alpha_learning_rate / settings.optimiser.learning_rate
        self.contest = GanTrainer(
            IMAGE_STAGE,
            generator,
            self._discriminator(IMAGE_STAGE),
            settings,
            settings.image_size,
            {"blend.logits": rate},
            capture=capture,
        )
        self.reconstructions = LevelDiscriminators(chain, capture)
        self.solo_count = round(settings.image_stage.solo_share * settings.batch) if chain.plan.gans else 0
        self.solo = self._solo_critic() if self.solo_count else None
        self._values, self._update = torch.no_grad()(self._made), self._turn
        if capture is not None:
            self._values = CapturedFunction(self._values, capture)
            self._update = CapturedFunction(self._turn, capture, keep=False)

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    @property
    def generator(self) -> ImageGenerator:
        """G_o and the blend, as trained (not averaged)."""
        assert isinstance(self.contest.generator, ImageGenerator)
        return self.contest.generator

    def step(self, step: int, images: Tensor, labels: Tensor, outputs: Mapping[str, Tensor]) -> ImageStepResult:
        """Trains on one batch; ``outputs`` are those of every GAN of the chain at this step."""
        settings = self.settings
        chosen = labels.to(self.chain.device) if settings.classes else None
        batch = self.chain.real_batch(step, images)
        reals = batch.images
        choices = self.chain.choices(settings.seed, step, len(images))
        noise = coarse_noise(self.chain, self.chain.noise(settings.noise.training, step, batch=len(images)), choices)
        made_from = ImageStageInput(noise, chosen, choices, {name: out.detach() for name, out in outputs.items()})
        again = self.capture is not None
        if again:
            made = self._values(made_from)
        else:
            made_from = self._with_leaves(made_from)
            made = self._made(made_from)
        real_bands = batch.sub_images if self.reconstructions.critics else {}
        real = RealTargets(reals, self.reconstructions.reals(real_bands))
        updates = StepUpdates(settings, step, self.chain.device)
        metrics = self._train_discriminators(updates, real, made, chosen)
        update = self._update(made_from, real, made, again=again)
        self.contest.update_generator(update, updates)
        metrics |= update.metrics | deviations(reals[self._judged], made.judged)
        if self.chain.plan.gans:
            metrics |= self.generator.blend.alphas()
        numbers = updates.numbers(metrics)
        self.contest.update_average(step)
        told = zip(outputs, update.to_inputs, strict=True) if update.to_inputs else ()
        return ImageStepResult(made.blended.detach(), numbers, {name: gradient.clone() for name, gradient in told})

    @property
    def _judged(self) -> slice:
        """The samples that D_o judges; those before are judged as G_o's alone."""
        return slice(self.solo_count, None)

    def _with_leaves(self, made_from: ImageStageInput) -> ImageStageInput:
        """With outputs by which can be differentiated, where the bands are told."""
        wanted = self.settings.feeds_back
        leaves = {name: out.detach().requires_grad_(wanted) for name, out in made_from.outputs.items()}
        return made_from._replace(outputs=leaves)

    def _made(self, made_from: ImageStageInput) -> ImageStageOutput:
        other = self.contest.generate(made_from.noise, made_from.labels)
        if not self.chain.plan.gans:
            return ImageStageOutput(other, other, other, {}, None)
        bands = self.chain.bands(made_from.outputs, made_from.choices)
        frequency = self.chain.image(bands)
        blended = self.generator.blend(frequency, other)
        low = bands[Band(self.settings.levels, "LL")].detach()
        return ImageStageOutput(
            other, blended, self._shared(frequency, blended), self.reconstructions.fakes(bands), low
        )

    def _shared(self, frequency: Tensor, blended: Tensor) -> Tensor:
        """What D_o judges: the chain's image of the first samples after those of G_o alone, the blend of the others."""
        first = self.solo_count
        chain = first + round(self.settings.image_stage.chain_share * len(blended))
        return torch.cat([frequency[first:chain], blended[chain:]])

    def _train_discriminators(
        self, updates: StepUpdates, real: RealTargets, made: ImageStageOutput, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """The updates of all of them: of G_o alone, of the levels and of whole images."""
        metrics: dict[str, Tensor] = {}
        if self.solo is not None:
            metrics["loss_d_solo"] = self.solo.train(*self._solo_pairs(real, made, labels), updates)["loss_d"]
        metrics |= self.reconstructions.train(updates, real.lows, made.lows, labels)
        return metrics | self.contest.train_discriminator(*self._judged_pairs(real, made, labels), updates)

    def _solo_pairs(
        self, real: RealTargets, made: ImageStageOutput, labels: Tensor | None
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """What the discriminator of G_o alone judges."""
        rows = slice(self.solo_count)
        chosen = None if labels is None else labels[rows]
        return unconditional(real.images[rows], chosen), unconditional(made.other[rows], chosen)

    def _judged_pairs(
        self, real: RealTargets, made: ImageStageOutput, labels: Tensor | None
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """What D_o judges."""
        chosen = None if labels is None else labels[self._judged]
        return unconditional(real.images[self._judged], chosen), unconditional(made.judged, chosen)

    def _turn(self, made_from: ImageStageInput, real: RealTargets, made: ImageStageOutput, again: bool) -> Gradients:
        """The update of G_o and alpha, and the gradients of all losses with respect to the chain's outputs.

        ``again``: ``made`` is values alone, and has to be made once more to have a history.
        """
        if again:
            made_from = self._with_leaves(made_from)
            made = self._made(made_from)
        settings, labels = self.settings, made_from.labels
        metrics: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        solo_share = self.solo_count / settings.batch
        if self.solo is not None:
            metrics["loss_g_solo"] = self.solo.generator_loss(*self._solo_pairs(real, made, labels))
            losses.append(solo_share * metrics["loss_g_solo"])
        if made.low is not None:
            metrics["tie"] = functional.mse_loss(self._low(made.other), made.low)
            losses.insert(0, settings.image_stage.tie * metrics["tie"])
        of_levels = self.reconstructions.losses(real.lows, made.lows, labels)
        metrics["loss_g"] = self.contest.generator_loss(*self._judged_pairs(real, made, labels))
        weighted = (1 - solo_share) * metrics["loss_g"]
        leaves = list(made_from.outputs.values()) if settings.feeds_back else []
        loss: Tensor = sum([*losses, *of_levels.values()], weighted)
        return self.contest.generator_update(loss, metrics | of_levels, leaves)

    def _discriminator(self, name: str) -> Discriminator:
        settings = self.settings
        sizes = settings.image_stage.discriminator
        with seeded(settings.seed, "discriminator", name):
            network = Discriminator(settings.image_size, settings.channels, 0, settings.classes, sizes, emphasis=False)
        return network.to(self.chain.device)

    def _solo_critic(self) -> DiscriminatorTrainer:
        network = self._discriminator(SOLO)
        return DiscriminatorTrainer(SOLO, network, self.settings, self.settings.image_size, capture=self.capture)

    def _low(self, images: Tensor) -> Tensor:
        """Normalised coarsest low band of images."""
        band = Band(self.settings.levels, "LL")
        return self.chain.statistics.normalise(band, self.chain.transform.analyse(images)[band])

    def scale_rate(self, scale: float) -> None:
        """See :meth:`GanTrainer.scale_rate`."""
        self.contest.scale_rate(scale)
        self.reconstructions.scale_rate(scale)
        if self.solo is not None:
            self.solo.scale_rate(scale)

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`GanTrainer.tensors`."""
        solo = {} if self.solo is None else add_prefix({SOLO: self.solo.tensors()})
        return self.contest.tensors() | self.reconstructions.tensors() | solo

    def scalars(self) -> dict[str, int]:
        """See :meth:`GanTrainer.scalars`."""
        solo = {} if self.solo is None else {f"{SOLO}.{name}": value for name, value in self.solo.scalars().items()}
        return self.contest.scalars() | self.reconstructions.scalars() | solo

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """See :meth:`GanTrainer.load`."""
        self.contest.load(tensors, scalars)
        self.reconstructions.load(tensors, scalars)
        if self.solo is not None:
            own = {name.removeprefix(f"{SOLO}."): v for name, v in scalars.items() if name.startswith(f"{SOLO}.")}
            self.solo.load(strip_prefix(SOLO, tensors), own)
