"""A discriminator with its optimiser and penalties: one update on (real, fake) pairs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.nn.utils.parametrizations import spectral_norm

from freqgan.errors import DivergedError
from freqgan.losses import discriminator_loss, gradient_penalty, noise_penalty, penalty_strength
from freqgan.optimisation import ScheduledAdam
from freqgan.replication import ALONE, Share
from freqgan.schedules import cosine
from freqgan.seeds import generator_for, seeded
from freqgan.settings import ModelSettings

Metrics = dict[str, float]


@dataclass(frozen=True)
class Pairs:
    """What a discriminator judges: samples (B, C, h, h), their condition, the strength (B,) of its noise."""

    samples: Tensor
    condition: Tensor | None
    strength: Tensor
    labels: Tensor | None


class Critic:
    """A discriminator being trained.

    Args:
        name: of the band GAN or stage, for messages.
        discriminator: already on its device, called as ``discriminator(samples, condition, strength, labels)``.
        settings: losses, schedules and the batch size.
        side: of the samples in pixels; the penalties scale with its square.
        share: of the batch that it is trained on here.

    """

    def __init__(
        self, name: str, discriminator: nn.Module, settings: ModelSettings, side: int, share: Share = ALONE
    ) -> None:
        self.name, self.settings, self.side, self.share = name, settings, side, share
        with seeded(settings.seed, "spectral norm", name):  # its power iterations begin with a random vector
            normed = with_spectral_norm(discriminator) if settings.loss.kind == "hinge" else discriminator
        self.discriminator = laid_out(normed)
        self.adam = ScheduledAdam(self.discriminator, settings.optimiser, settings.images)

    def judge(self, pairs: Pairs, *, exact: bool = False) -> Tensor:
        """Float32 logits (B,); ``exact`` computes them in float32 whatever the settings say."""
        with reduced_precision(self.settings, pairs.samples.device, exact=exact):
            logits: Tensor = self.discriminator(pairs.samples, pairs.condition, pairs.strength, pairs.labels)
        return logits.float()

    def train(self, real: Pairs, fake: Pairs, step: int) -> Metrics:
        """The discriminator's update at ``step``; the fakes are detached here. DivergedError when it is not finite."""
        penalised = self._penalised(step)
        real = replace(real, samples=real.samples.detach().requires_grad_(penalised))
        fake = replace(fake, samples=fake.samples.detach().requires_grad_(penalised))
        # One after the other: where the loss, of differences, does not depend on a weight, their gradients cancel
        # exactly. Summed over both at once, rounding is left, and Adam makes whole steps of it.
        real_logits, fake_logits = self.judge(real, exact=penalised), self.judge(fake, exact=penalised)
        loss = discriminator_loss(self.settings.loss.kind, real_logits, fake_logits)
        metrics = {"loss_d": loss, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
        if penalised:
            r1 = self._penalty("r1", real, real_logits, step)
            r2 = self._penalty("r2", fake, fake_logits, step)
            loss = loss + 0.5 * self._strength(step) * self.settings.loss.penalty_interval * (r1 + r2)
            metrics |= {"r1": r1, "r2": r2}
        apply_update(self.adam, loss, self.settings, step, f"{self.name}: the discriminator", share=self.share)
        return {key: float(value.detach()) for key, value in metrics.items()}

    def _penalty(self, which: str, pairs: Pairs, logits: Tensor, step: int) -> Tensor:
        if self.settings.loss.penalty == "exact":
            return gradient_penalty(logits, pairs.samples)
        rng = generator_for(self.settings.seed, which, self.name, step)
        batch = len(pairs.samples) * self.share.count
        drawn = torch.randn(batch, *pairs.samples.shape[1:], generator=rng)
        noise = drawn[self.share.rows(batch)].to(pairs.samples.device)
        deviation = self.settings.loss.penalty_noise
        moved = self.judge(replace(pairs, samples=pairs.samples + deviation * noise), exact=True)
        return noise_penalty(logits, moved, deviation)

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
        return named({"discriminator": self.discriminator.state_dict(), "discriminator_adam": self.adam.tensors()})

    def scalars(self) -> dict[str, int]:
        """The optimiser's counter."""
        return {"discriminator_updates": self.adam.updates}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """The state that :meth:`tensors` and :meth:`scalars` gave."""
        self.discriminator.load_state_dict(under("discriminator", tensors))
        self.adam.load(under("discriminator_adam", tensors), scalars["discriminator_updates"])


def laid_out(module: nn.Module) -> nn.Module:
    """``module`` with its kernels in channels-last order, which convolutions then keep (1.4 times faster on a CPU)."""
    out: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return out


def reduced_precision(
    settings: ModelSettings, device: torch.device, *, exact: bool = False
) -> AbstractContextManager[object]:
    """Autocast to the precision of the settings; ``exact`` stays in float32."""
    enabled = settings.precision == "bfloat16" and not exact
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def apply_update(
    adam: ScheduledAdam,
    loss: Tensor,
    settings: ModelSettings,
    step: int,
    who: str,
    inputs: list[Tensor] | None = None,
    share: Share = ALONE,
) -> list[Tensor]:
    """One update of ``adam`` for the mean of all replicas' ``loss``; the gradients of ours with respect to ``inputs``.

    Raises:
        DivergedError: loss or gradients are not finite; nothing has changed then.

    """
    gradients, to_inputs = adam.gradients(loss, inputs or [])
    *gradients, mean_loss = share.mean([*gradients, loss.detach()])
    # The largest magnitude of all: one launch for all tensors on a GPU, where one for each costs more than the update.
    if not bool(get_total_norm([mean_loss, *gradients, *to_inputs], inf).isfinite()):
        raise DivergedError(
            f"{who}'s loss or gradient is not finite at step {step} (loss {float(mean_loss):g}); its weights are "
            f"unchanged. Run again with a lower optimiser.learning_rate (now {settings.optimiser.learning_rate:g}) "
            f"or a higher loss.gamma (now {settings.loss.gamma:g})"
        )
    adam.update(gradients, step * settings.batch)
    return to_inputs


def named(parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all parts under "<part>.<name>"."""
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def under(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of ``tensors`` whose name begins with "<part>.", with the rest of the name as key."""
    prefix = part + "."
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def with_spectral_norm(module: nn.Module) -> nn.Module:
    """``module`` with spectral normalisation (Miyato et al. 2018) on every convolution and dense layer.

    A layer that starts at zero has no spectral norm to divide by, so it starts small instead.
    """
    for layer in [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        if not bool(layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.01)
        spectral_norm(layer)
    return module
