"""The GAN of one band and its training step, a pure function of (state, step, images, bands before)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.model.chain import Chain, Condition
from freqgan.model.generators import build_band_generator
from freqgan.model.needs import stages_with_output
from freqgan.model.plan import Gan
from freqgan.model.settings import ModelSettings
from freqgan.networks.discriminators import Discriminator
from freqgan.recipe.health import deviations
from freqgan.recipe.schedules import teacher_forced_count
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture, capture_gradients, capture_values
from freqgan.seeds import generator_for, seeded
from freqgan.tensor_dicts import State
from freqgan.training.conditions import generated_bands, noisy_bands
from freqgan.training.discriminator_trainer import DiscriminatorInput
from freqgan.training.gan_trainer import GanTrainer
from freqgan.training.stage import Feedback, StepResult
from freqgan.training.updates import Gradients, StepUpdates

SMALLEST_NORM = 1e-12


class GeneratorInput(NamedTuple):
    """What a generator makes its output from.

    Attributes:
        noise: (B, n).
        condition: what it sees of other bands.
        condition_noise: (B,) deviation of the noise on the condition, in deviations of its band; 0 where the
            condition is generated.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.

    """

    noise: Tensor
    condition: Condition
    condition_noise: Tensor
    targets: Tensor | None

    def rows(self, rows: slice) -> GeneratorInput:
        """Return the input of the samples ``rows`` alone."""
        targets = None if self.targets is None else self.targets[rows]
        return GeneratorInput(self.noise[rows], self.condition.rows(rows), self.condition_noise[rows], targets)


class ReplayedFeedback(NamedTuple):
    """A :class:`Feedback` with the generator's input of its step computed again, all on the device.

    Attributes:
        inputs: for this replica's rows.
        output: (B / replicas, C * bands, h, h), what the generator made of them then.
        gradient: (B, C * bands, h, h), for all rows.

    """

    inputs: GeneratorInput
    output: Tensor
    gradient: Tensor


class ForcedCount(NamedTuple):
    """How many samples are teacher-forced: the first of the ``batch``, and the first of this ``replica``'s rows."""

    batch: int
    replica: int


def feedback_loss(output: Tensor, previous: Tensor, gradient: Tensor, gradient_rms: Tensor, reach: float) -> Tensor:
    """Return a scalar whose derivative at ``output`` = ``previous`` is ``gradient``, and whose least is near.

    <output, gradient> + k/2 |output - previous|^2 with k = gradient_rms / reach: the least is at a distance of
    ``reach`` (root mean square, in deviations of the band) against the gradient. The inner product alone has no least:
    by the time a gradient arrives the generator has moved along the ones before it, nothing tells it that it has
    arrived, and outputs grew to 10^5 deviations (measured with a lag of 4 steps).

    Args:
        output: (B, C * bands, h, h), of the present generator.
        previous: the same samples by the generator that the gradient is of.
        gradient: of the shape of ``output``.
        gradient_rms: the root mean square of the whole batch's gradient, a scalar.
        reach: in deviations of the band.

    """
    return (output * gradient).sum() + 0.5 * gradient_rms / reach * (output - previous).square().sum()


class BandGan:
    """One band's generator and discriminator with everything needed to train them.

    Args:
        chain: plan, transform and statistics on the device to train on.
        gan: which one.
        replica: whose rows of every batch it is trained on.
        capture: captures the computations of a step, if given, to replay them.

    The condition that a high band's discriminator sees is the one its generator saw: without it, it
    cannot tell detail that fits from detail of another image. The discriminator of a low band sees no
    condition: a refiner's would be the band itself, give or take the correction, and would teach the
    generator to correct nothing.
    """

    def __init__(
        self, chain: Chain, gan: Gan, replica: ReplicaContext = SINGLE, capture: GraphCapture | None = None
    ) -> None:
        self.chain, self.gan, self.name, self.replica = chain, gan, gan.name, replica
        self.gives_output = gan.name in stages_with_output(chain.settings)
        self.conditional = not gan.is_low and chain.settings.band_discriminator.condition
        # Replicas talk to each other in the middle of what would be captured.
        self.capture = capture if replica.count == 1 else None
        self.trainer = GanTrainer(
            gan.name,
            build_band_generator(chain, gan).to(chain.device),
            self._build_discriminator().to(chain.device),
            chain.settings,
            chain.gan_size(gan),
            replica=replica,
            capture=self.capture,
        )
        self._generate = capture_values(self._compute_bands, self.capture)
        self._generator_gradients = capture_gradients(self._compute_generator_gradients, self.capture)

    def _build_discriminator(self) -> Discriminator:
        chain, gan, settings = self.chain, self.gan, self.settings
        with seeded(settings.seed, "discriminator", gan.name):
            return Discriminator(
                chain.gan_size(gan),
                chain.gan_channels(gan),
                condition_channels=chain.condition_channels(gan) if self.conditional else 0,
                targets=settings.target_layout,
                settings=settings.discriminator_sizes(gan).model_copy(update={"patch": chain.patch(gan)}),
                emphasis=not gan.is_low,
            )

    @property
    def settings(self) -> ModelSettings:
        """The model's settings."""
        return self.chain.settings

    def step(
        self,
        step: int,
        images: Tensor,
        targets: Tensor,
        outputs: Mapping[str, Tensor],
        feedback: Feedback | None = None,
    ) -> StepResult:
        """Train on one batch and return what this GAN adds to the chain.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            targets: int64 labels (B,), or (B, K) packed.
            outputs: this step's outputs of the GANs before it, by name (and, with cycles, of the pass before), whole.
            feedback: of the image stage, if there is any.

        The output and the samples trained on are those of this replica's rows.

        Raises:
            DivergedError: a loss or a gradient is not finite; the weights that it is for are unchanged.

        """
        settings = self.settings
        real_bands = self.chain.real_batch(step, images, self.replica.rows(len(images))).sub_images

        # Conditions: the chain's own, and in its place that of real bands for teacher-forced samples.
        chain_inputs = self._generator_input(step, targets, self._visible_bands(step, outputs, len(targets)))
        forced = self._forced_count(step, len(images))
        inputs = self._with_real_conditions(step, chain_inputs, real_bands, forced)

        # Fakes.
        fakes = self._generate(inputs)

        # Discriminator.
        updates = StepUpdates(settings, step, self.chain.device, self.replica)
        real, fake = self._discriminator_inputs(real_bands, inputs, fakes, forced)
        metrics = self.trainer.train_discriminator(real, fake, updates)

        # Output, by the generator as it was before its update.
        output = self._chain_output(chain_inputs, fakes, forced) if self.gives_output else None

        # Generator.
        gradients = self._generator_gradients(inputs, real, fake, self._replayed(feedback))
        self.trainer.update_generator(gradients, updates)
        metrics |= gradients.metrics | deviations(real.samples, fakes if output is None else output)
        numbers = updates.numbers(metrics)
        self.trainer.update_average(step)
        return StepResult(output, self.replica.mean_metrics(numbers))

    def forward(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the output (B, C * bands, h, h) of an earlier pass of a chain with cycles, and train nothing.

        Args:
            step: number of steps done before this one.
            targets: (B,) int64 labels, or (B, K) packed, of the whole batch.
            outputs: of other GANs in this pass and the one before; bands that they do not have yet count as zero.

        """
        bands = self._with_zeros(self._visible_bands(step, outputs, len(targets)), len(targets))
        with torch.no_grad():
            return self._generate(self._generator_input(step, targets, bands))

    # -- conditions ----------------------------------------------------------------------------

    def _visible_bands(self, step: int, outputs: Mapping[str, Tensor], batch: int) -> SubImages:
        """Return this replica's rows of the bands in the ``outputs`` of other GANs, (B / replicas, C, h, h) each."""
        return generated_bands(self.chain, step, outputs, batch, self.replica.rows(batch))

    def _with_zeros(self, bands: SubImages, batch: int) -> SubImages:
        """Return ``bands`` and zeros for those that this GAN sees besides."""
        rows = self.replica.rows(batch)
        missing = [band for band in self.gan.seen if band not in bands]
        sizes = {band: (self.chain.band_channels(band), *self.chain.band_size(band)) for band in missing}
        count, device = rows.stop - rows.start, self.chain.device
        return bands | {band: torch.zeros(count, *size, device=device) for band, size in sizes.items()}

    def _generator_input(self, step: int, targets: Tensor, bands: SubImages) -> GeneratorInput:
        """Return the noise of ``step`` and the condition of the chain's own ``bands``, which has no noise on it."""
        batch = len(targets)
        rows = self.replica.rows(batch)
        noises = self.chain.noise(self.settings.noise.training, step, batch=batch)
        return GeneratorInput(
            noise=noises[self.chain.plan.index(self.gan)][rows],
            condition=self.chain.condition(self.gan, bands),
            condition_noise=torch.zeros(rows.stop - rows.start, device=self.chain.device),
            targets=targets[rows].to(self.chain.device) if self.settings.target_layout else None,
        )

    def _forced_count(self, step: int, batch: int) -> ForcedCount:
        """Return how many samples are teacher-forced; a GAN that sees no band has none."""
        if not self.gan.seen:
            return ForcedCount(0, 0)
        settings = self.settings
        count = teacher_forced_count(settings.teacher_forcing, step * settings.batch, settings.images, batch)
        return ForcedCount(count, self.replica.count_within(count, batch))

    def _with_real_conditions(
        self, step: int, chain_inputs: GeneratorInput, real_bands: SubImages, forced: ForcedCount
    ) -> GeneratorInput:
        """Return ``chain_inputs`` with the condition of real bands plus noise for teacher-forced samples."""
        if not forced.replica:
            return chain_inputs
        condition_noise = self._condition_noise(step, len(chain_inputs.noise), forced)
        real_condition = self._real_condition(step, real_bands, condition_noise, forced)
        others = chain_inputs.condition.rows(slice(forced.replica, None))
        return chain_inputs._replace(condition=real_condition.followed_by(others), condition_noise=condition_noise)

    def _condition_noise(self, step: int, rows: int, forced: ForcedCount) -> Tensor:
        """Return the deviation (B,) of the noise on conditions: uniform where they are real, 0 where generated.

        Conditioning augmentation (Ho et al. 2022): the networks are told the deviation.
        """
        batch = rows * self.replica.count
        uniform = torch.rand(batch, generator=generator_for(self.settings.seed, "strength", self.name, step))
        uniform[forced.batch :] = 0
        return (uniform * self.settings.teacher_forcing.noise)[self.replica.rows(batch)].to(self.chain.device)

    def _real_condition(
        self, step: int, real_bands: SubImages, condition_noise: Tensor, forced: ForcedCount
    ) -> Condition:
        """Return the condition of the teacher-forced samples: real bands plus noise of deviation ``condition_noise``.

        With cycles, some of the samples lack the later bands, as they do in the first pass.
        """
        rng = generator_for(self.settings.seed, "condition", self.name, step)
        strength = condition_noise[: forced.replica]
        first = self.replica.index * len(condition_noise)
        rows = slice(first, first + forced.replica)
        noisy = noisy_bands(self.gan, real_bands, strength, forced.batch, rows, rng)
        if self.gan.ring_condition:
            uniform = torch.rand(forced.batch, generator=rng)[rows]
            first_pass = (uniform < 1 / self.chain.plan.cycles).to(strength.device)[:, None, None, None]
            noisy |= {band: noisy[band] * ~first_pass for band in self.gan.ring_condition}
        return self.chain.condition(self.gan, noisy)

    # -- fakes and the discriminator -----------------------------------------------------------

    def _compute_bands(self, inputs: GeneratorInput) -> Tensor:
        """Return what the generator makes, as far as the transform keeps it in these bands."""
        output = self.trainer.generate(
            inputs.noise,
            condition=inputs.condition.planes,
            base=inputs.condition.base,
            condition_noise=inputs.condition_noise,
            targets=inputs.targets,
        )
        return self.chain.projected(self.gan, output)

    def _discriminator_inputs(
        self, real_bands: SubImages, inputs: GeneratorInput, fakes: Tensor, forced: ForcedCount
    ) -> tuple[DiscriminatorInput, DiscriminatorInput]:
        """Return real bands with real conditions and fakes with their own; both with the same noise on them."""
        real_planes = fake_planes = None
        if self.conditional and inputs.condition.planes is not None:
            real_planes = fake_planes = inputs.condition.planes
            if forced.replica < len(fakes):
                rest = {band: real[forced.replica :] for band, real in real_bands.items()}
                forced_condition = inputs.condition.rows(slice(forced.replica))
                real_planes = forced_condition.followed_by(self.chain.condition(self.gan, rest)).planes
        real = self.chain.stacked(self.gan, real_bands)
        return (
            DiscriminatorInput(real, real_planes, inputs.condition_noise, inputs.targets),
            DiscriminatorInput(fakes, fake_planes, inputs.condition_noise, inputs.targets),
        )

    def _chain_output(self, chain_inputs: GeneratorInput, fakes: Tensor, forced: ForcedCount) -> Tensor:
        """Return the chain's output: fakes of the chain's own conditions; forced samples are made of those now."""
        if not forced.replica:
            return fakes.detach()
        with torch.no_grad():
            unforced = self._generate(chain_inputs.rows(slice(forced.replica)))
        return torch.cat([unforced, fakes[forced.replica :].detach()])

    # -- the generator -------------------------------------------------------------------------

    def _replayed(self, feedback: Feedback | None) -> ReplayedFeedback | None:
        """Return ``feedback`` with the generator's input of its step."""
        if feedback is None:
            return None
        bands = self._visible_bands(feedback.step, feedback.outputs, len(feedback.targets))
        inputs = self._generator_input(feedback.step, feedback.targets, bands)
        device = self.chain.device
        return ReplayedFeedback(inputs, feedback.output.to(device), feedback.gradient.to(device))

    def _compute_generator_gradients(
        self,
        inputs: GeneratorInput,
        real: DiscriminatorInput,
        fake: DiscriminatorInput,
        replayed: ReplayedFeedback | None,
    ) -> Gradients:
        """Return the gradients of the loss by the band's discriminator and, with feedback, by that of the images."""
        recompute = not fake.samples.requires_grad  # a replayed graph gives values alone, without their history
        if recompute:
            fake = fake._replace(samples=self._compute_bands(inputs))
        loss = self.trainer.generator_loss(real, fake)
        metrics = {"loss_g": loss}
        if replayed is not None:
            loss, metrics["feedback"] = self._with_feedback(loss, fake.samples, replayed)
        return self.trainer.generator_gradients(loss, metrics)

    def _with_feedback(self, loss: Tensor, fakes: Tensor, replayed: ReplayedFeedback) -> tuple[Tensor, Tensor]:
        """Return ``loss``, of ``fakes``, plus that of the feedback, and the norm of the feedback's gradient."""
        settings = self.settings.feedback
        output = self._compute_bands(replayed.inputs)
        gradient = settings.weight * replayed.gradient
        if settings.balance:
            (own,) = torch.autograd.grad(loss, fakes)
            loss = (fakes * own).sum()  # the same gradient, not computed twice
            gradient = gradient * self._batch_norm(own) / replayed.gradient.norm().clamp(min=SMALLEST_NORM)
        rms = gradient.square().mean().sqrt().clamp(min=SMALLEST_NORM)
        own_rows = gradient[self.replica.rows(len(gradient))]
        feedback = feedback_loss(output, replayed.output, own_rows, rms, settings.reach)
        # A sum over the batch, where the other loss is a mean: replicas' losses are averaged.
        return loss + self.replica.count * feedback, gradient.norm()

    def _batch_norm(self, gradient: Tensor) -> Tensor:
        """Return the norm of the gradient of the whole batch's mean loss, from this replica's ``gradient``."""
        norm: Tensor = gradient.norm()
        if self.replica.count > 1:
            (mean_square,) = self.replica.mean([norm.square()])
            norm = (mean_square / self.replica.count).sqrt()
        return norm

    # -- state ---------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        self.trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return weights, moving average, the optimisers' moments and their counters."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.trainer.load_state_dict(state)
