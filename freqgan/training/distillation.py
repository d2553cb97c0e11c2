"""Distillation of a flow expert into a student of one pass: its step, a pure function of (state, step, images).

The teacher goes from noise z to a band in many passes; the student, the same network, is trained to go there in one
step of Euler's method, G(z) = z - v(z, 1). It is shown the teacher's sample of the same noise and condition: by the
squared distance to it, and by a discriminator of pairs (noise, sample) that tells the two apart. A mean of squares
blurs what the network cannot reach in one pass; the discriminator alone, which sees the noise, may settle on any
sample that passes for one of it (Sauer et al. 2023 and Kang et al. 2024 join the two likewise).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.model.chain import Chain, Condition, on_grid
from freqgan.model.flow_expert import FlowExpert, VelocityPair, build_teacher, build_velocity_pair
from freqgan.model.generators import AVERAGE
from freqgan.model.plan import Gan
from freqgan.model.settings import ModelSettings
from freqgan.networks.discriminators import Discriminator
from freqgan.networks.velocity import VelocityCondition
from freqgan.recipe.health import deviations
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.seeds import generator_for, seeded
from freqgan.tensor_dicts import State, strip_prefix
from freqgan.training.conditions import noisy_bands
from freqgan.training.discriminator_trainer import DiscriminatorInput, reduced_precision, to_channels_last
from freqgan.training.gan_trainer import GanTrainer
from freqgan.training.stage import Feedback, StepResult
from freqgan.training.updates import Gradients, StepUpdates


class SampleInput(NamedTuple):
    """What teacher and student make a sample from.

    Attributes:
        noise: (B, C * bands, h, h), from N(0, I).
        condition: of real bands, with noise on them.
        strength: (B,) deviation of that noise, in deviations of the band.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.

    """

    noise: Tensor
    condition: Condition
    strength: Tensor
    targets: Tensor | None


class Distillation:
    """The student of one flow expert, its discriminator and its teacher, with everything needed to train it.

    Args:
        chain: plan, transform and the teacher's statistics on the device to train on.
        gan: which expert.
        replica: whose rows of every batch it is trained on.
        teacher: the teacher's averaged weights (...) by their names in its state; those of a start where not given.

    """

    def __init__(
        self,
        chain: Chain,
        gan: Gan,
        replica: ReplicaContext = SINGLE,
        teacher: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.chain, self.gan, self.name, self.replica = chain, gan, gan.name, replica
        self.teacher = self._build_teacher(teacher)
        generator = self._build_student()
        rate = chain.settings.distil.learning_rate / chain.settings.optimiser.learning_rate
        self.trainer = GanTrainer(
            gan.name,
            generator,
            self._build_discriminator().to(chain.device),
            chain.settings,
            chain.gan_size(gan),
            multipliers={name: rate for name, _ in generator.named_parameters()},
            replica=replica,
        )
        self.expert = FlowExpert(chain, gan, cast(VelocityPair, self.trainer.average))

    def _build_teacher(self, weights: Mapping[str, Tensor] | None) -> FlowExpert:
        teacher = build_teacher(self.chain, self.gan)
        if weights is not None:
            teacher.networks.load_state_dict(strip_prefix(AVERAGE, weights))
        to_channels_last(teacher.networks.to(self.chain.device).requires_grad_(False))
        return teacher

    def _build_student(self) -> VelocityPair:
        student = build_velocity_pair(self.chain, self.gan)
        student.network.load_state_dict(self.teacher.networks.network.state_dict())
        return student.to(self.chain.device)

    def _build_discriminator(self) -> Discriminator:
        chain, gan, settings = self.chain, self.gan, self.settings
        channels, patch = chain.gan_channels(gan), chain.patch(gan)
        with seeded(settings.seed, "discriminator", gan.name):
            return Discriminator(
                chain.gan_size(gan),
                channels,
                condition_channels=chain.condition_channels(gan) + channels * patch**2,
                targets=settings.target_layout,
                settings=settings.discriminator_sizes(gan).model_copy(update={"patch": patch}),
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
        """Train on one batch; no other stage takes what a student makes, so nothing is returned but metrics.

        ``loss`` among them is the mean squared distance to the teacher's samples.

        Args:
            step: number of steps done before this one.
            images: uint8 or uint16 (B, C, N, N), not yet augmented, of the whole batch.
            targets: int64 labels (B,), or (B, K) packed.
            outputs: none are taken: conditions are real bands.
            feedback: none is taken.

        Raises:
            DivergedError: a loss or a gradient is not finite; the weights that it is for are unchanged.

        """
        inputs = self._inputs(step, images, targets)
        target, sample = self._teacher_sample(inputs), self._student_sample(inputs)
        real, fake = self._pair(inputs, target), self._pair(inputs, sample)

        remedy = f"with a lower distil.learning_rate (now {self.settings.distil.learning_rate:g})"
        updates = StepUpdates(self.settings, step, self.chain.device, self.replica, remedy)
        metrics = self.trainer.train_discriminator(real, fake, updates) if self.settings.distil.adversarial else {}
        gradients = self._gradients(real, fake)
        self.trainer.update_generator(gradients, updates)
        numbers = updates.numbers(metrics | gradients.metrics | deviations(target, sample))
        self.trainer.update_average(step)
        return StepResult(None, self.replica.mean_metrics(numbers))

    def forward(self, step: int, targets: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Raise ValueError for any step and targets (B,): chains with cycles have no students."""
        raise ValueError(f"{self.name} is a student of a flow expert, and those have no earlier passes")

    # -- samples ---------------------------------------------------------------------------------

    def _inputs(self, step: int, images: Tensor, targets: Tensor) -> SampleInput:
        """Return what this replica's rows are made from; all rows are drawn."""
        settings, batch, device = self.settings, len(images), self.chain.device
        rows = self.replica.rows(batch)
        rng = generator_for(settings.seed, "distillation", self.name, step)
        strength = settings.flow.condition_noise * torch.rand(batch, generator=rng) * bool(self.gan.seen)
        noise = torch.randn(batch, *self.teacher.noise_shape, generator=rng)
        real_bands = self.chain.real_batch(step, images, rows).sub_images
        own_strength = strength[rows].to(device)
        noisy = noisy_bands(self.gan, real_bands, own_strength, batch, rows, rng)
        return SampleInput(
            noise[rows].to(device),
            self.chain.condition(self.gan, noisy),
            own_strength,
            targets[rows].to(device) if settings.target_layout else None,
        )

    def _teacher_sample(self, inputs: SampleInput) -> Tensor:
        """Return the bands (B, C * bands, h, h) that the teacher makes in its many passes."""
        with reduced_precision(self.settings, self.chain.device):
            sample = self.teacher.sample(*inputs, self.settings.distil.teacher_generation)
        return sample.float()

    def _student_sample(self, inputs: SampleInput) -> Tensor:
        """Return the bands (B, C * bands, h, h) that the student makes in one pass, with their history."""
        noise, condition, strength, targets = inputs
        seen = VelocityCondition(condition.base, condition.planes, strength, targets)
        with reduced_precision(self.settings, self.chain.device):
            velocity = self.trainer.generator(noise, torch.ones_like(strength), seen)
        return self.chain.projected(self.gan, noise - velocity.float())

    def _pair(self, inputs: SampleInput, sample: Tensor) -> DiscriminatorInput:
        """Return ``sample`` (B, C * bands, h, h) beside what it was made from, noise and condition."""
        noise = on_grid(inputs.noise, self.chain.gan_grid(self.gan))
        planes = noise if inputs.condition.planes is None else torch.cat([noise, inputs.condition.planes], dim=1)
        return DiscriminatorInput(sample, planes, inputs.strength, inputs.targets)

    # -- training --------------------------------------------------------------------------------

    def _gradients(self, real: DiscriminatorInput, fake: DiscriminatorInput) -> Gradients:
        """Return the student's gradients by both losses."""
        distil = self.settings.distil
        distance = functional.mse_loss(fake.samples, real.samples)
        loss, metrics = distil.regression * distance, {"loss": distance}
        if distil.adversarial:
            metrics["loss_g"] = self.trainer.generator_loss(real, fake)
            loss = loss + distil.adversarial * metrics["loss_g"]
        return self.trainer.generator_gradients(loss, metrics)

    # -- state -----------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        self.trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return weights, moving average, the optimisers' moments and their counters; the teacher's do not change."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.trainer.load_state_dict(state)
