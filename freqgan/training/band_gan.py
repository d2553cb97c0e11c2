"""The GAN of one band and its training step, a pure function of (state, step, images, bands before)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.model.chain import Chain, Condition
from freqgan.model.generators import build_band_generator
from freqgan.model.plan import Gan
from freqgan.model.settings import ModelSettings
from freqgan.networks.discriminators import Discriminator
from freqgan.recipe.health import deviations
from freqgan.recipe.schedules import teacher_forced_count
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import CapturedFunction, GraphCapture
from freqgan.seeds import generator_for, seeded
from freqgan.tensor_dicts import Metrics
from freqgan.training.discriminator_trainer import DiscriminatorInput
from freqgan.training.gan_trainer import GanTrainer
from freqgan.training.updates import Gradients, StepUpdates

SMALLEST_NORM = 1e-12


class StepResult(NamedTuple):
    """``output`` (B, C * bands, h, h): the chain's sub-images of this step, normalised; ``metrics``: plain numbers."""

    output: Tensor
    metrics: Metrics


class Feedback(NamedTuple):
    """What the image stage says of an earlier step of this band.

    The step's number, labels and inputs, and the gradient of the image stage's losses with respect to the band's output
    (B, C * bands, h, h), of all rows; the ``output`` that the band gave for its own share of the rows.
    """

    step: int
    labels: Tensor
    outputs: Mapping[str, Tensor]
    output: Tensor
    gradient: Tensor


class GeneratorInput(NamedTuple):
    """What a generator makes its output from: noise (B, n), the condition, the strength (B,) of its noise, labels."""

    noise: Tensor
    seen: Condition
    strength: Tensor
    labels: Tensor | None

    def rows(self, chosen: slice) -> GeneratorInput:
        """Of the samples of ``chosen`` alone."""
        labels = None if self.labels is None else self.labels[chosen]
        return GeneratorInput(self.noise[chosen], self.seen.rows(chosen), self.strength[chosen], labels)


class ReplayedFeedback(NamedTuple):
    """Feedback with what the generator made its output from then, all on the device; see :class:`Feedback`."""

    made_from: GeneratorInput
    output: Tensor
    gradient: Tensor


def feedback_loss(again: Tensor, before: Tensor, gradient: Tensor, strength: Tensor, reach: float) -> Tensor:
    """A scalar whose derivative at ``again`` = ``before`` is ``gradient``, and which is least a little further on.

    <again, gradient> + k/2 |again - before|^2 with k = ``strength`` / reach, the strength being the root mean square of
    the whole batch's gradient: the least is at a distance of ``reach``
    (root mean square, in deviations of the band) against the gradient. The inner product alone has no least: by the
    time a gradient arrives the generator has moved along the ones before it, nothing tells it that it has arrived, and
    outputs grew to 10^5 deviations (measured with a lag of 4 steps).
    """
    return (again * gradient).sum() + 0.5 * strength / reach * (again - before).square().sum()


class BandGan:
    """One band's generator and discriminator with everything needed to train them.

    Args:
        chain: plan, transform and statistics on the device to train on.
        gan: which one.
        share: of every batch, where it is one of several replicas.
        capture: captures the computations of a step, if given, to replay them.

    The condition that a high band's discriminator sees is the one its generator saw: without it, it
    cannot tell detail that fits from detail of another image. The discriminator of a low band sees no
    condition: a refiner's would be the band itself, give or take the correction, and would teach the
    generator to correct nothing.
    """

    def __init__(
        self, chain: Chain, gan: Gan, share: ReplicaContext = SINGLE, capture: GraphCapture | None = None
    ) -> None:
        self.chain, self.gan, self.name, self.share = chain, gan, gan.name, share
        settings = chain.settings
        generator = build_band_generator(chain, gan).to(chain.device)
        self.conditional = not gan.is_low and settings.band_discriminator.condition
        sizes = settings.discriminator_sizes(gan).model_copy(update={"patch": chain.patch(gan)})
        side, channels = chain.gan_side(gan), settings.channels * len(gan.bands)
        seen = chain.condition_channels(gan) if self.conditional else 0
        with seeded(settings.seed, "discriminator", gan.name):
            discriminator = Discriminator(side, channels, seen, settings.classes, sizes, emphasis=not gan.is_low)
        # Replicas talk to each other in the middle of what would be recorded.
        self.capture = capture = capture if share.count == 1 else None
        self.contest = GanTrainer(
            gan.name, generator, discriminator.to(chain.device), settings, side, share=share, capture=capture
        )
        self._values = torch.no_grad()(self._made)
        self._update = self._turn
        if capture is not None:
            self._values, self._update = (
                CapturedFunction(self._values, capture),
                CapturedFunction(self._turn, capture, keep=False),
            )

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    def step(
        self,
        step: int,
        images: Tensor,
        labels: Tensor,
        outputs: Mapping[str, Tensor],
        feedback: Feedback | None = None,
    ) -> StepResult:
        """Trains on one batch and returns what this GAN adds to the chain.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            labels: int64 (B,).
            outputs: this step's outputs of the GANs before it, by name (and, with cycles, of the pass before), whole.
            feedback: of the image stage, if there is any.

        The output and the samples trained on are those of this replica's share of the rows.

        """
        batch = len(images)
        rows = self.share.rows(batch)
        reals = self.chain.real_batch(step, images, rows).sub_images
        chosen = labels[rows].to(self.chain.device) if self.settings.classes else None
        noise = self._noise(step, batch)
        generated = self.chain.condition(self.gan, self._given(step, outputs, batch))
        forced_of_all = self._forced_count(step, batch)
        forced = self.share.before(forced_of_all, batch)
        strength = self._strengths(step, batch, forced_of_all)
        seen = generated
        if forced:
            real_seen = self._real_condition(step, reals, strength, forced, forced_of_all)
            seen = real_seen.followed_by(generated.rows(slice(forced, None)))
        made_from = GeneratorInput(noise, seen, strength, chosen)
        fakes = self._made(made_from) if self.capture is None else self._values(made_from)
        real, fake = self._pairs(reals, made_from, fakes, forced)
        updates = StepUpdates(self.settings, step, self.chain.device, self.share)
        metrics = self.contest.train_discriminator(real, fake, updates)
        output = self._output(made_from._replace(seen=generated), fakes, forced)
        made = self._update(made_from, real, fake, self._advice(feedback), again=self.capture is not None)
        self.contest.update_generator(made, updates)
        numbers = updates.numbers(metrics | made.metrics | deviations(real.samples, output))
        self.contest.update_average(step)
        return StepResult(output, self.share.mean_metrics(numbers))

    def forward(self, step: int, labels: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """The output of an earlier pass of a chain with cycles: bands not made yet count as zero. Trains nothing."""
        return self._values(self._made_from(step, labels, outputs))

    # -- the parts of a step -------------------------------------------------------------------

    def _made(self, made_from: GeneratorInput) -> Tensor:
        """What the generator makes, as far as the transform keeps it in these bands."""
        noise, seen, strength, labels = made_from
        return self.chain.projected(self.gan, self.contest.generate(noise, seen.planes, seen.base, strength, labels))

    def _made_from(self, step: int, labels: Tensor, outputs: Mapping[str, Tensor]) -> GeneratorInput:
        """The noise and the generated condition of ``step``; bands not given are zero."""
        batch = len(labels)
        rows = self.share.rows(batch)
        mine = rows.stop - rows.start
        condition = self.chain.condition(self.gan, self._with_zeros(self._given(step, outputs, batch), mine))
        chosen = labels[rows].to(self.chain.device) if self.settings.classes else None
        strength = torch.zeros(mine, device=self.chain.device)
        return GeneratorInput(self._noise(step, batch), condition, strength, chosen)

    def _advice(self, feedback: Feedback | None) -> ReplayedFeedback | None:
        if feedback is None:
            return None
        made_from = self._made_from(feedback.step, feedback.labels, feedback.outputs)
        device = self.chain.device
        return ReplayedFeedback(made_from, feedback.output.to(device), feedback.gradient.to(device))

    def _turn(
        self,
        made_from: GeneratorInput,
        real: DiscriminatorInput,
        fake: DiscriminatorInput,
        advice: ReplayedFeedback | None,
        again: bool,
    ) -> Gradients:
        """The generator's update for its own discriminator and, where there is feedback, for that of the images.

        ``again``: ``fake`` is values alone, and has to be made once more to have a history.
        """
        if again:
            fake = fake._replace(samples=self._made(made_from))
        loss = self.contest.generator_loss(real, fake)
        metrics = {"loss_g": loss}
        if advice is not None:
            settings = self.settings.feedback
            output = self._made(advice.made_from)
            gradient = settings.weight * advice.gradient
            if settings.balance:
                (own,) = torch.autograd.grad(loss, fake.samples)
                loss = (fake.samples * own).sum()  # the same gradient, not computed twice
                gradient = gradient * self._norm_of_all(own) / advice.gradient.norm().clamp(min=SMALLEST_NORM)
            strength = gradient.square().mean().sqrt().clamp(min=SMALLEST_NORM)
            mine = gradient[self.share.rows(len(gradient))]
            # A sum over the batch, where the other loss is a mean: replicas' losses are averaged.
            loss = loss + self.share.count * feedback_loss(output, advice.output, mine, strength, settings.reach)
            metrics["feedback"] = gradient.norm()
        return self.contest.generator_update(loss, metrics)

    def _norm_of_all(self, own: Tensor) -> Tensor:
        """The norm of the gradient of the whole batch's mean loss, from that of this share's."""
        norm: Tensor = own.norm()
        if self.share.count > 1:
            (mean_square,) = self.share.mean([norm.square()])
            norm = (mean_square / self.share.count).sqrt()
        return norm

    def _noise(self, step: int, batch: int) -> Tensor:
        noises = self.chain.noise(self.settings.noise.training, step, batch=batch)
        return noises[self.chain.plan.index(self.gan)][self.share.rows(batch)]

    def _given(self, step: int, outputs: Mapping[str, Tensor], batch: int) -> SubImages:
        """This share's rows of the bands that other GANs made."""
        rows = self.share.rows(batch)
        choices = self.chain.choices(self.settings.seed, step, batch)
        mine = {name: output[rows] for name, output in outputs.items()}
        return self.chain.bands(mine, {band: choice[rows] for band, choice in choices.items()})

    def _forced_count(self, step: int, batch: int) -> int:
        """Teacher-forced samples come first in the batch; a GAN that sees no band has none."""
        if not self.gan.seen:
            return 0
        return teacher_forced_count(
            self.settings.teacher_forcing, step * self.settings.batch, self.settings.images, batch
        )

    def _strengths(self, step: int, batch: int, forced: int) -> Tensor:
        """(B,) strength of the noise on the condition: uniform where it is real, none where it is generated."""
        uniform = torch.rand(batch, generator=generator_for(self.settings.seed, "strength", self.name, step))
        uniform[forced:] = 0
        return (uniform * self.settings.teacher_forcing.noise)[self.share.rows(batch)].to(self.chain.device)

    def _real_condition(self, step: int, reals: SubImages, strength: Tensor, count: int, of_all: int) -> Condition:
        """The condition of the first ``count`` samples, of ``of_all`` such in the batch: real bands plus noise.

        With cycles, a share of the samples lacks the later bands, as they do in the first pass.
        """
        rng = generator_for(self.settings.seed, "condition", self.name, step)
        scale = strength[:count, None, None, None]
        first = self.share.index * len(strength)
        noisy: SubImages = {}
        for band in self.gan.seen:
            real = reals[band][:count]
            drawn = torch.randn(of_all, *real.shape[1:], generator=rng)[first : first + count]
            noisy[band] = real + scale * drawn.to(real.device)
        if self.gan.ring_condition:
            cycles = self.chain.plan.cycles
            drawn = torch.rand(of_all, generator=rng)[first : first + count]
            first_pass = (drawn < 1 / cycles).to(scale.device)[:, None, None, None]
            noisy |= {band: noisy[band] * ~first_pass for band in self.gan.ring_condition}
        return self.chain.condition(self.gan, noisy)

    def _with_zeros(self, given: SubImages, batch: int) -> SubImages:
        missing = [band for band in self.gan.seen if band not in given]
        sides = {band: self.chain.band_side(band) for band in missing}
        shape = (batch, self.settings.channels)
        return given | {b: torch.zeros(*shape, side, side, device=self.chain.device) for b, side in sides.items()}

    def _pairs(
        self, reals: SubImages, made_from: GeneratorInput, fakes: Tensor, forced: int
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """Real bands with real conditions, fakes with what they were made from; both with the same noise on it."""
        _, seen, strength, labels = made_from
        real_planes = seen_planes = None
        if self.conditional and seen.planes is not None:
            real_planes = seen_planes = seen.planes
            if forced < len(fakes):
                clean = self.chain.condition(self.gan, {band: real[forced:] for band, real in reals.items()})
                real_planes = seen.rows(slice(forced)).followed_by(clean).planes
        real = self.chain.stacked(self.gan, reals)
        return DiscriminatorInput(real, real_planes, strength, labels), DiscriminatorInput(
            fakes, seen_planes, strength, labels
        )

    def _output(self, generated: GeneratorInput, fakes: Tensor, forced: int) -> Tensor:
        """The chain's output: samples already made from generated conditions are kept, the others are made now."""
        if not forced:
            return fakes.detach()
        clean = generated.rows(slice(forced))
        made = self._values(clean._replace(strength=torch.zeros_like(clean.strength)))
        return torch.cat([made, fakes[forced:].detach()])

    # -- state ---------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """See :meth:`GanTrainer.scale_rate`."""
        self.contest.scale_rate(scale)

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`GanTrainer.tensors`."""
        return self.contest.tensors()

    def scalars(self) -> dict[str, int]:
        """See :meth:`GanTrainer.scalars`."""
        return self.contest.scalars()

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """See :meth:`GanTrainer.load`."""
        self.contest.load(tensors, scalars)
