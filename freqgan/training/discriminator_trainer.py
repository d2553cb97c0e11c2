"""A discriminator with its optimiser and penalties: one update on real and fake samples."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from freqgan.model.settings import ModelSettings
from freqgan.recipe.losses import discriminator_loss, generator_loss, gradient_penalty, noise_penalty, penalty_strength
from freqgan.recipe.schedules import cosine
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture, capture_gradients
from freqgan.seeds import generator_for, seeded
from freqgan.sizes import Size
from freqgan.tensor_dicts import State, add_prefix, strip_prefix, tensors_of
from freqgan.training.adam import ScheduledAdam
from freqgan.training.updates import Gradients, StepUpdates


class DiscriminatorInput(NamedTuple):
    """What a discriminator judges.

    Attributes:
        samples: (B, C, h, h), real or generated.
        condition: the planes (B, K, g, g) that they are judged beside, if it is conditional.
        condition_noise: (B,) deviation of the noise on the condition, in deviations of its band.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.

    """

    samples: Tensor
    condition: Tensor | None
    condition_noise: Tensor
    targets: Tensor | None


class Penalty(NamedTuple):
    """What the penalties of a step depend on.

    Attributes:
        weight: of their sum in the loss, a scalar.
        r1_noise: (B, C, h, h) normal noise for the penalty at real samples, where it is approximate.
        r2_noise: the same for the penalty at generated samples.

    """

    weight: Tensor
    r1_noise: Tensor | None
    r2_noise: Tensor | None


class DiscriminatorTrainer:
    """A discriminator, its optimiser and its penalties.

    Args:
        name: of the band GAN or stage, for messages and seeds.
        discriminator: already on its device, called as ``discriminator(samples, condition, condition_noise, targets)``.
        settings: losses, schedules and the batch size.
        size: of the samples, pixels; the penalties scale with their number.
        replica: whose rows of every batch it is trained on.
        capture: captures the computation of gradients to replay it, if given.

    """

    def __init__(
        self,
        name: str,
        discriminator: nn.Module,
        settings: ModelSettings,
        size: Size,
        replica: ReplicaContext = SINGLE,
        capture: GraphCapture | None = None,
    ) -> None:
        self.name, self.settings, self.size, self.replica = name, settings, size, replica
        with seeded(settings.seed, "spectral norm", name):  # its power iterations begin with a random vector
            normed = with_spectral_norm(discriminator) if settings.loss.kind == "hinge" else discriminator
        self.discriminator = to_channels_last(normed)
        self.adam = ScheduledAdam(self.discriminator, settings.optimiser, settings.images)
        self._gradients = capture_gradients(self._compute_gradients, capture)

    def judge(self, batch: DiscriminatorInput, *, exact: bool = False) -> Tensor:
        """Return float32 logits (B,); ``exact`` computes them in float32 whatever the settings say."""
        with reduced_precision(self.settings, batch.samples.device, exact=exact):
            logits: Tensor = self.discriminator(batch.samples, batch.condition, batch.condition_noise, batch.targets)
        return logits.float()

    def generator_loss(self, real: DiscriminatorInput, fake: DiscriminatorInput) -> Tensor:
        """Return the adversarial loss of the generator whose samples (B, C, h, h) are in ``fake``, a scalar."""
        with torch.no_grad():
            real_logits = self.judge(real)
        return generator_loss(self.settings.loss.kind, real_logits, self.judge(fake))

    def train(self, real: DiscriminatorInput, fake: DiscriminatorInput, updates: StepUpdates) -> dict[str, Tensor]:
        """Update the discriminator, as one of the ``updates`` of a step, and return metrics, scalars of shape ().

        The samples (B, C, h, h) of ``fake`` are detached here.
        """
        step = updates.step
        penalty = self._penalty(real.samples, step) if self._is_penalised(step) else None
        gradients = self._gradients(_detached(real), _detached(fake), penalty)
        updates.apply(self.adam, gradients, f"{self.name}: the discriminator")
        return gradients.metrics

    def _compute_gradients(
        self, real: DiscriminatorInput, fake: DiscriminatorInput, penalty: Penalty | None
    ) -> Gradients:
        exact = penalty is not None
        real, fake = _as_leaf(real, exact), _as_leaf(fake, exact)
        # One after the other: where the loss, of differences, does not depend on a weight, their gradients cancel
        # exactly. Summed over both at once, rounding is left, and Adam makes whole steps of it.
        real_logits, fake_logits = self.judge(real, exact=exact), self.judge(fake, exact=exact)
        loss = discriminator_loss(self.settings.loss.kind, real_logits, fake_logits)
        metrics = {"loss_d": loss, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
        if penalty is not None:
            r1 = self._gradient_penalty(real, real_logits, penalty.r1_noise)
            r2 = self._gradient_penalty(fake, fake_logits, penalty.r2_noise)
            loss = loss + penalty.weight * (r1 + r2)
            metrics |= {"r1": r1, "r2": r2}
        gradients, _ = self.adam.gradients(loss)
        return Gradients(loss.detach(), gradients, [], {name: value.detach() for name, value in metrics.items()})

    def _gradient_penalty(self, batch: DiscriminatorInput, logits: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return gradient_penalty(logits, batch.samples)
        deviation = self.settings.loss.penalty_noise
        moved_logits = self.judge(batch._replace(samples=batch.samples + deviation * noise), exact=True)
        return noise_penalty(logits, moved_logits, deviation)

    def _penalty(self, samples: Tensor, step: int) -> Penalty:
        weight = torch.tensor(0.5 * self._gamma(step) * self.settings.loss.penalty_interval, device=samples.device)
        if self.settings.loss.penalty == "exact":
            return Penalty(weight, None, None)
        return Penalty(weight, *(self._penalty_noise(which, samples, step) for which in ("r1", "r2")))

    def _penalty_noise(self, which: str, samples: Tensor, step: int) -> Tensor:
        """Return normal noise of the shape of ``samples`` (B, C, h, h), this replica's rows of the batch's draw."""
        rng = generator_for(self.settings.seed, which, self.name, step)
        batch = len(samples) * self.replica.count
        noise = torch.randn(batch, *samples.shape[1:], generator=rng)
        return noise[self.replica.rows(batch)].to(samples.device)

    def _is_penalised(self, step: int) -> bool:
        return self.settings.loss.kind != "hinge" and step % self.settings.loss.penalty_interval == 0

    def _gamma(self, step: int) -> float:
        """Return the strength of the penalties at ``step``, for samples of this size."""
        loss = self.settings.loss
        gamma = cosine(loss.gamma, loss.gamma_final, step * self.settings.batch, self.settings.images)
        return penalty_strength(gamma, self.size)

    def scale_rate(self, scale: float) -> None:
        """Multiply the learning rate of the settings by ``scale`` from now on."""
        self.adam.scale = scale

    def state_dict(self) -> State:
        """Return weights, the optimiser's moments and its counter."""
        return {
            **add_prefix("discriminator", self.discriminator.state_dict()),
            **add_prefix("discriminator_adam", self.adam.moments()),
            "discriminator_updates": self.adam.updates,
        }

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.discriminator.load_state_dict(strip_prefix("discriminator", state))
        moments = tensors_of(strip_prefix("discriminator_adam", state))
        self.adam.load(moments, updates=int(state["discriminator_updates"]))


def to_channels_last(module: nn.Module) -> nn.Module:
    """Return ``module``, its kernels now in channels-last order.

    Convolutions keep that order, and are 1.4 times faster in it on a CPU.
    """
    out: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return out


def reduced_precision(
    settings: ModelSettings, device: torch.device, *, exact: bool = False
) -> AbstractContextManager[object]:
    """Return a context that casts to the precision of the settings; ``exact`` stays in float32."""
    enabled = settings.precision == "bfloat16" and not exact
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def unconditional(samples: Tensor, targets: Tensor | None) -> DiscriminatorInput:
    """Return ``samples`` (B, C, h, h) with their ``targets``, to be judged without a condition."""
    return DiscriminatorInput(samples, None, torch.zeros(len(samples), device=samples.device), targets)


def _detached(batch: DiscriminatorInput) -> DiscriminatorInput:
    return batch._replace(samples=batch.samples.detach())


def _as_leaf(batch: DiscriminatorInput, requires_grad: bool) -> DiscriminatorInput:
    """Return ``batch`` with samples (B, C, h, h) that are a leaf of the graph of derivatives."""
    return batch._replace(samples=batch.samples.detach().requires_grad_(requires_grad))


def with_spectral_norm(module: nn.Module) -> nn.Module:
    """Return ``module``, now with spectral normalisation (Miyato et al. 2018) on every convolution and dense layer.

    A layer that starts at zero has no spectral norm to divide by, so it starts small instead.
    """
    for layer in [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        if not bool(layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.01)
        spectral_norm(layer)
    return module
