"""One turn of a generator against its discriminator, the same for bands and for whole images.

A turn is: the discriminator's update on (real, fake) pairs, then the generator's update against
the new discriminator, then the moving average. Losses and gradients are checked to be finite before
any weight changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from freqgan.averaging import average_decay, update_average
from freqgan.critic import Critic, Metrics, Pairs, apply_update, laid_out, named, reduced_precision, under
from freqgan.losses import generator_loss
from freqgan.optimisation import ScheduledAdam
from freqgan.replication import ALONE, Share
from freqgan.settings import ModelSettings


class Contest:
    """A generator, its discriminator, both optimisers and the generator's moving average.

    Args:
        name: of the band GAN or stage, for messages.
        generator: already on its device.
        discriminator: likewise; see :class:`Critic`.
        settings: losses, schedules and the batch size.
        side: of the samples in pixels.
        multipliers: learning rates of parameters of the generator relative to the settings', by name.
        share: of every batch that is trained on here.

    """

    def __init__(
        self,
        name: str,
        generator: nn.Module,
        discriminator: nn.Module,
        settings: ModelSettings,
        side: int,
        multipliers: Mapping[str, float] | None = None,
        share: Share = ALONE,
    ) -> None:
        self.name, self.settings, self.share = name, settings, share
        self.critic = Critic(name, discriminator, settings, side, share)
        self.generator = laid_out(generator)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator_adam = ScheduledAdam(
            self.generator, settings.optimiser, settings.images, settings.optimiser.generator_rate, multipliers
        )

    def generate(self, noise: Tensor, *arguments: Any) -> Tensor:
        """The generator's output in float32, computed in the precision of the settings."""
        with reduced_precision(self.settings, noise.device):
            out: Tensor = self.generator(noise, *arguments)
        return out.float()

    def train_discriminator(self, real: Pairs, fake: Pairs, step: int) -> Metrics:
        """See :meth:`Critic.train`."""
        return self.critic.train(real, fake, step)

    def generator_loss(self, real: Pairs, fake: Pairs) -> Tensor:
        """The generator's adversarial loss, a scalar."""
        with torch.no_grad():
            real_logits = self.critic.judge(real)
        return generator_loss(self.settings.loss.kind, real_logits, self.critic.judge(fake))

    def update_generator(self, loss: Tensor, step: int, inputs: list[Tensor] | None = None) -> list[Tensor]:
        """The generator's update at ``step`` for ``loss``, then its moving average.

        Returns:
            The gradients of ``loss`` with respect to ``inputs``, zero for those it does not use.

        """
        who = f"{self.name}: the generator"
        gradients = apply_update(self.generator_adam, loss, self.settings, step, who, inputs, self.share)
        average = self.settings.average
        seen = step * self.settings.batch
        decay = average_decay(self.settings.batch, seen, average.halflife_images, average.ramp)
        update_average(self.average, self.generator, decay)
        return gradients

    def scale_rate(self, scale: float) -> None:
        """Multiplies all learning rates of the settings by ``scale`` from now on."""
        self.generator_adam.scale = scale
        self.critic.scale_rate(scale)

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moving average and optimiser moments by name."""
        parts = {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "generator_adam": self.generator_adam.tensors(),
        }
        return named(parts) | self.critic.tensors()

    def scalars(self) -> dict[str, int]:
        """The optimisers' counters."""
        return {"generator_updates": self.generator_adam.updates, **self.critic.scalars()}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """The state that :meth:`tensors` and :meth:`scalars` gave."""
        self.generator.load_state_dict(under("generator", tensors))
        self.average.load_state_dict(under("average", tensors))
        self.generator_adam.load(under("generator_adam", tensors), scalars["generator_updates"])
        self.critic.load(tensors, scalars)
