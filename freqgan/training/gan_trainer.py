"""One turn of a generator against its discriminator, the same for bands and for whole images.

A turn is: the discriminator's update on (real, fake) pairs, then the generator's update against
the new discriminator, then the moving average. Losses or gradients that are not finite change no weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from freqgan.model.generators import AVERAGE
from freqgan.model.settings import ModelSettings
from freqgan.recipe.weight_average import average_decay, update_average
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.tensor_dicts import add_prefix, strip_prefix
from freqgan.training.adam import ScheduledAdam
from freqgan.training.discriminator_trainer import (
    DiscriminatorInput,
    DiscriminatorTrainer,
    reduced_precision,
    to_channels_last,
)
from freqgan.training.updates import Gradients, StepUpdates


class GanTrainer:
    """A generator, its discriminator, both optimisers and the generator's moving average.

    Args:
        name: of the band GAN or stage, for messages.
        generator: already on its device.
        discriminator: likewise; see :class:`DiscriminatorTrainer`.
        settings: losses, schedules and the batch size.
        side: of the samples in pixels.
        multipliers: learning rates of parameters of the generator relative to the settings', by name.
        share: of every batch that is trained on here.
        capture: captures computations to replay them, if given.

    """

    def __init__(
        self,
        name: str,
        generator: nn.Module,
        discriminator: nn.Module,
        settings: ModelSettings,
        side: int,
        multipliers: Mapping[str, float] | None = None,
        share: ReplicaContext = SINGLE,
        capture: GraphCapture | None = None,
    ) -> None:
        self.name, self.settings, self.share = name, settings, share
        self.critic = DiscriminatorTrainer(name, discriminator, settings, side, share, capture)
        self.generator = to_channels_last(generator)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator_adam = ScheduledAdam(
            self.generator, settings.optimiser, settings.images, settings.optimiser.generator_rate, multipliers
        )

    def generate(self, noise: Tensor, *arguments: Any) -> Tensor:
        """The generator's output in float32, computed in the precision of the settings."""
        with reduced_precision(self.settings, noise.device):
            out: Tensor = self.generator(noise, *arguments)
        return out.float()

    def train_discriminator(
        self, real: DiscriminatorInput, fake: DiscriminatorInput, updates: StepUpdates
    ) -> dict[str, Tensor]:
        """See :meth:`DiscriminatorTrainer.train`."""
        return self.critic.train(real, fake, updates)

    def generator_loss(self, real: DiscriminatorInput, fake: DiscriminatorInput) -> Tensor:
        """See :meth:`DiscriminatorTrainer.generator_loss`."""
        return self.critic.generator_loss(real, fake)

    def generator_update(self, loss: Tensor, metrics: dict[str, Tensor], inputs: Sequence[Tensor] = ()) -> Gradients:
        """For :meth:`update_generator`: the gradients of ``loss``, also by ``inputs``, zero where it has none."""
        gradients, to_inputs = self.generator_adam.gradients(loss, inputs)
        return Gradients(loss.detach(), gradients, to_inputs, {name: value.detach() for name, value in metrics.items()})

    def update_generator(self, made: Gradients, updates: StepUpdates) -> None:
        """The generator's update among those of the step; :meth:`update_average` is to follow, where all are finite."""
        updates.apply(self.generator_adam, made, f"{self.name}: the generator")

    def update_average(self, step: int) -> None:
        """Moves the average toward the generator that was updated at ``step``."""
        average, seen = self.settings.average, step * self.settings.batch
        decay = average_decay(self.settings.batch, seen, average.halflife_images, average.ramp)
        update_average(self.average, self.generator, decay)

    def scale_rate(self, scale: float) -> None:
        """Multiplies all learning rates of the settings by ``scale`` from now on."""
        self.generator_adam.scale = scale
        self.critic.scale_rate(scale)

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moving average and optimiser moments by name."""
        parts = {
            "generator": self.generator.state_dict(),
            AVERAGE: self.average.state_dict(),
            "generator_adam": self.generator_adam.tensors(),
        }
        return add_prefix(parts) | self.critic.tensors()

    def scalars(self) -> dict[str, int]:
        """The optimisers' counters."""
        return {"generator_updates": self.generator_adam.updates, **self.critic.scalars()}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """The state that :meth:`tensors` and :meth:`scalars` gave."""
        self.generator.load_state_dict(strip_prefix("generator", tensors))
        self.average.load_state_dict(strip_prefix(AVERAGE, tensors))
        self.generator_adam.load(strip_prefix("generator_adam", tensors), scalars["generator_updates"])
        self.critic.load(tensors, scalars)
