"""A discriminator with its optimiser and penalties: one update on (real, fake) pairs."""

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
from freqgan.runtime.graph_capture import CapturedFunction, GraphCapture
from freqgan.seeds import generator_for, seeded
from freqgan.tensor_dicts import add_prefix, strip_prefix
from freqgan.training.adam import ScheduledAdam
from freqgan.training.updates import Gradients, StepUpdates


class DiscriminatorInput(NamedTuple):
    """What a discriminator judges: samples (B, C, h, h), their condition, the strength (B,) of its noise."""

    samples: Tensor
    condition: Tensor | None
    strength: Tensor
    labels: Tensor | None


class Penalty(NamedTuple):
    """What the penalties of a step depend on: their weight, a scalar; noise for both where they are approximate."""

    weight: Tensor
    r1_noise: Tensor | None
    r2_noise: Tensor | None


class DiscriminatorTrainer:
    """A discriminator being trained.

    Args:
        name: of the band GAN or stage, for messages.
        discriminator: already on its device, called as ``discriminator(samples, condition, strength, labels)``.
        settings: losses, schedules and the batch size.
        side: of the samples in pixels; the penalties scale with its square.
        share: of the batch that it is trained on here.
        capture: captures the computation of gradients to replay it, if given.

    """

    def __init__(
        self,
        name: str,
        discriminator: nn.Module,
        settings: ModelSettings,
        side: int,
        share: ReplicaContext = SINGLE,
        capture: GraphCapture | None = None,
    ) -> None:
        self.name, self.settings, self.side, self.share = name, settings, side, share
        with seeded(settings.seed, "spectral norm", name):  # its power iterations begin with a random vector
            normed = with_spectral_norm(discriminator) if settings.loss.kind == "hinge" else discriminator
        self.discriminator = to_channels_last(normed)
        self.adam = ScheduledAdam(self.discriminator, settings.optimiser, settings.images)
        self._update = self._computed if capture is None else CapturedFunction(self._computed, capture, keep=False)

    def judge(self, pairs: DiscriminatorInput, *, exact: bool = False) -> Tensor:
        """Float32 logits (B,); ``exact`` computes them in float32 whatever the settings say."""
        with reduced_precision(self.settings, pairs.samples.device, exact=exact):
            logits: Tensor = self.discriminator(pairs.samples, pairs.condition, pairs.strength, pairs.labels)
        return logits.float()

    def generator_loss(self, real: DiscriminatorInput, fake: DiscriminatorInput) -> Tensor:
        """The adversarial loss of the generator that made ``fake``, a scalar."""
        with torch.no_grad():
            real_logits = self.judge(real)
        return generator_loss(self.settings.loss.kind, real_logits, self.judge(fake))

    def train(self, real: DiscriminatorInput, fake: DiscriminatorInput, updates: StepUpdates) -> dict[str, Tensor]:
        """The discriminator's update among those of the step; the fakes are detached here. Metrics."""
        step = updates.step
        penalty = self._penalty(real.samples, step) if self._penalised(step) else None
        made = self._update(_detached(real), _detached(fake), penalty)
        updates.apply(self.adam, made, f"{self.name}: the discriminator")
        return made.metrics

    def _computed(self, real: DiscriminatorInput, fake: DiscriminatorInput, penalty: Penalty | None) -> Gradients:
        exact = penalty is not None
        real, fake = _leaf(real, exact), _leaf(fake, exact)
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

    def _gradient_penalty(self, pairs: DiscriminatorInput, logits: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return gradient_penalty(logits, pairs.samples)
        deviation = self.settings.loss.penalty_noise
        moved = self.judge(pairs._replace(samples=pairs.samples + deviation * noise), exact=True)
        return noise_penalty(logits, moved, deviation)

    def _penalty(self, samples: Tensor, step: int) -> Penalty:
        weight = torch.tensor(0.5 * self._strength(step) * self.settings.loss.penalty_interval, device=samples.device)
        if self.settings.loss.penalty == "exact":
            return Penalty(weight, None, None)
        return Penalty(weight, *(self._drawn(which, samples, step) for which in ("r1", "r2")))

    def _drawn(self, which: str, samples: Tensor, step: int) -> Tensor:
        """Normal noise like ``samples``, the rows of this share."""
        rng = generator_for(self.settings.seed, which, self.name, step)
        batch = len(samples) * self.share.count
        return torch.randn(batch, *samples.shape[1:], generator=rng)[self.share.rows(batch)].to(samples.device)

    def _penalised(self, step: int) -> bool:
        return self.settings.loss.kind != "hinge" and step % self.settings.loss.penalty_interval == 0

    def _strength(self, step: int) -> float:
        loss = self.settings.loss
        gamma = cosine(loss.gamma, loss.gamma_final, step * self.settings.batch, self.settings.images)
        return penalty_strength(gamma, self.side)

    def scale_rate(self, scale: float) -> None:
        """Multiplies the learning rate of the settings by ``scale`` from now on."""
        self.adam.scale = scale

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser moments by name."""
        return add_prefix({"discriminator": self.discriminator.state_dict(), "discriminator_adam": self.adam.tensors()})

    def scalars(self) -> dict[str, int]:
        """The optimiser's counter."""
        return {"discriminator_updates": self.adam.updates}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """The state that :meth:`tensors` and :meth:`scalars` gave."""
        self.discriminator.load_state_dict(strip_prefix("discriminator", tensors))
        self.adam.load(strip_prefix("discriminator_adam", tensors), scalars["discriminator_updates"])


def to_channels_last(module: nn.Module) -> nn.Module:
    """``module`` with its kernels in channels-last order, which convolutions then keep (1.4 times faster on a CPU)."""
    out: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return out


def reduced_precision(
    settings: ModelSettings, device: torch.device, *, exact: bool = False
) -> AbstractContextManager[object]:
    """Autocast to the precision of the settings; ``exact`` stays in float32."""
    enabled = settings.precision == "bfloat16" and not exact
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def unconditional(samples: Tensor, labels: Tensor | None) -> DiscriminatorInput:
    """``samples`` to be judged by themselves."""
    return DiscriminatorInput(samples, None, torch.zeros(len(samples), device=samples.device), labels)


def _detached(pairs: DiscriminatorInput) -> DiscriminatorInput:
    return pairs._replace(samples=pairs.samples.detach())


def _leaf(pairs: DiscriminatorInput, wanted: bool) -> DiscriminatorInput:
    """With samples by which something can be differentiated, if that is ``wanted``."""
    return pairs._replace(samples=pairs.samples.detach().requires_grad_(wanted))


def with_spectral_norm(module: nn.Module) -> nn.Module:
    """``module`` with spectral normalisation (Miyato et al. 2018) on every convolution and dense layer.

    A layer that starts at zero has no spectral norm to divide by, so it starts small instead.
    """
    for layer in [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        if not bool(layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.01)
        spectral_norm(layer)
    return module
