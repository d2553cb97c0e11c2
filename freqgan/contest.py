"""One turn of a generator against its discriminator, the same for bands and for whole images.

A turn is: the discriminator's update on (real, fake) pairs, then the generator's update against
the new discriminator, then the moving average. Losses and gradients are checked to be finite before
any weight changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from freqgan.averaging import average_decay, update_average
from freqgan.errors import RunError
from freqgan.losses import discriminator_loss, generator_loss, gradient_penalty, penalty_strength
from freqgan.optimisation import ScheduledAdam
from freqgan.schedules import cosine
from freqgan.settings import ModelSettings

Metrics = dict[str, float]


@dataclass(frozen=True)
class Pairs:
    """What a discriminator judges: samples (B, C, h, h), their condition, the strength (B,) of its noise."""

    samples: Tensor
    condition: Tensor | None
    strength: Tensor
    labels: Tensor | None


class Contest:
    """A generator, its discriminator, both optimisers and the generator's moving average.

    Args:
        name: of the band GAN or stage, for messages.
        generator: already on its device.
        discriminator: likewise, called as ``discriminator(samples, condition, strength, labels)``.
        settings: losses, schedules and the batch size.
        side: of the samples in pixels; the penalties scale with its square.
        multipliers: learning rates of parameters of the generator relative to the settings', by name.

    """

    def __init__(
        self,
        name: str,
        generator: nn.Module,
        discriminator: nn.Module,
        settings: ModelSettings,
        side: int,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        self.name, self.settings, self.side = name, settings, side
        self.generator = generator
        self.discriminator = with_spectral_norm(discriminator) if settings.loss.kind == "hinge" else discriminator
        self.average = copy.deepcopy(generator).requires_grad_(False)
        self.generator_adam = ScheduledAdam(
            generator, settings.optimiser, settings.images, settings.optimiser.generator_rate, multipliers
        )
        self.discriminator_adam = ScheduledAdam(self.discriminator, settings.optimiser, settings.images)

    def judge(self, pairs: Pairs) -> Tensor:
        """Logits (B,) of the discriminator."""
        logits: Tensor = self.discriminator(pairs.samples, pairs.condition, pairs.strength, pairs.labels)
        return logits

    def train_discriminator(self, real: Pairs, fake: Pairs, step: int) -> Metrics:
        """The discriminator's update at ``step``; the fakes are detached here. RunError when anything is not finite."""
        penalised = self._penalised(step)
        real = replace(real, samples=real.samples.detach().requires_grad_(penalised))
        fake = replace(fake, samples=fake.samples.detach().requires_grad_(penalised))
        real_logits, fake_logits = self.judge(real), self.judge(fake)
        loss = discriminator_loss(self.settings.loss.kind, real_logits, fake_logits)
        metrics = {"loss_d": loss, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
        if penalised:
            r1, r2 = gradient_penalty(real_logits, real.samples), gradient_penalty(fake_logits, fake.samples)
            loss = loss + 0.5 * self._strength(step) * self.settings.loss.penalty_interval * (r1 + r2)
            metrics |= {"r1": r1, "r2": r2}
        self._apply(self.discriminator_adam, loss, step, "discriminator")
        return {key: float(value.detach()) for key, value in metrics.items()}

    def train_generator(self, real: Pairs, fake: Pairs, step: int, extra: Tensor | None = None) -> Metrics:
        """The generator's update at ``step``, ``extra`` being added to its loss; then its moving average."""
        with torch.no_grad():
            real_logits = self.judge(real)
        adversarial = generator_loss(self.settings.loss.kind, real_logits, self.judge(fake))
        self._apply(self.generator_adam, adversarial if extra is None else adversarial + extra, step, "generator")
        average = self.settings.average
        seen = step * self.settings.batch
        decay = average_decay(self.settings.batch, seen, average.halflife_images, average.ramp)
        update_average(self.average, self.generator, decay)
        return {"loss_g": float(adversarial.detach())}

    def _penalised(self, step: int) -> bool:
        return self.settings.loss.kind != "hinge" and step % self.settings.loss.penalty_interval == 0

    def _strength(self, step: int) -> float:
        loss = self.settings.loss
        gamma = cosine(loss.gamma, loss.gamma_final, step * self.settings.batch, self.settings.images)
        return penalty_strength(gamma, self.side)

    def _apply(self, adam: ScheduledAdam, loss: Tensor, step: int, who: str) -> None:
        gradients = adam.gradients(loss)
        finite = torch.stack([loss.detach().isfinite(), *(g.isfinite().all() for g in gradients)]).all()
        if not bool(finite):
            raise RunError(
                f"{self.name}: the {who}'s loss or gradient is not finite at step {step} "
                f"(loss {float(loss.detach()):g}); its weights are unchanged. Run again with a lower "
                f"optimiser.learning_rate (now {self.settings.optimiser.learning_rate:g}) "
                f"or a higher loss.gamma (now {self.settings.loss.gamma:g})"
            )
        adam.update(gradients, step * self.settings.batch)

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moving average and optimiser moments by name."""
        parts = {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_adam": self.generator_adam.tensors(),
            "discriminator_adam": self.discriminator_adam.tensors(),
        }
        return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def scalars(self) -> dict[str, int]:
        """The optimisers' counters."""
        return {
            "generator_updates": self.generator_adam.updates,
            "discriminator_updates": self.discriminator_adam.updates,
        }

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """The state that :meth:`tensors` and :meth:`scalars` gave."""
        self.generator.load_state_dict(under("generator", tensors))
        self.average.load_state_dict(under("average", tensors))
        self.discriminator.load_state_dict(under("discriminator", tensors))
        self.generator_adam.load(under("generator_adam", tensors), scalars["generator_updates"])
        self.discriminator_adam.load(under("discriminator_adam", tensors), scalars["discriminator_updates"])


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
