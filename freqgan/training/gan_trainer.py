"""A generator and its discriminator, trained in turns, the same for bands and for whole images.

A turn is: the discriminator's update on real and fake samples, then the generator's update against the new
discriminator, then the moving average. Losses or gradients that are not finite change no weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from freqgan.model.generators import AVERAGE
from freqgan.model.settings import ModelSettings
from freqgan.recipe.weight_average import average_decay, update_average
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.sizes import Size
from freqgan.tensor_dicts import State, add_prefix, strip_prefix, tensors_of
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
        name: of the band GAN or stage, for messages and seeds.
        generator: already on its device.
        discriminator: already on its device; see :class:`DiscriminatorTrainer`.
        settings: losses, schedules and the batch size.
        size: of the samples, pixels.
        multipliers: learning rates of parameters of the generator relative to the settings', by name.
        replica: whose rows of every batch it is trained on.
        capture: captures computations to replay them, if given.

    """

    def __init__(
        self,
        name: str,
        generator: nn.Module,
        discriminator: nn.Module,
        settings: ModelSettings,
        size: Size,
        multipliers: Mapping[str, float] | None = None,
        replica: ReplicaContext = SINGLE,
        capture: GraphCapture | None = None,
    ) -> None:
        self.name, self.settings = name, settings
        self.discriminator_trainer = DiscriminatorTrainer(name, discriminator, settings, size, replica, capture)
        self.generator = to_channels_last(generator)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator_adam = ScheduledAdam(
            self.generator, settings.optimiser, settings.images, settings.optimiser.generator_rate, multipliers
        )

    @property
    def discriminator(self) -> nn.Module:
        """The discriminator's network."""
        return self.discriminator_trainer.discriminator

    def generate(self, noise: Tensor, **inputs: Tensor | None) -> Tensor:
        """Return the generator's float32 output (B, C, h, h), computed in the precision of the settings.

        Args:
            noise: (B, n).
            inputs: whatever else the generator's ``forward`` takes, by name, (B, ...) each.

        """
        with reduced_precision(self.settings, noise.device):
            output: Tensor = self.generator(noise, **inputs)
        return output.float()

    def train_discriminator(
        self, real: DiscriminatorInput, fake: DiscriminatorInput, updates: StepUpdates
    ) -> dict[str, Tensor]:
        """Update the discriminator and return metrics, scalars of shape (); see :meth:`DiscriminatorTrainer.train`."""
        return self.discriminator_trainer.train(real, fake, updates)

    def generator_loss(self, real: DiscriminatorInput, fake: DiscriminatorInput) -> Tensor:
        """Return the adversarial loss of ``fake``, a scalar of shape ()."""
        return self.discriminator_trainer.generator_loss(real, fake)

    def generator_gradients(self, loss: Tensor, metrics: dict[str, Tensor], inputs: Sequence[Tensor] = ()) -> Gradients:
        """Return the gradients of ``loss`` for :meth:`update_generator`, zero where it does not use a parameter.

        Args:
            loss: a scalar of shape ().
            metrics: scalars to go with them.
            inputs: tensors of any shapes (...) by which the loss is differentiated besides.

        """
        gradients, to_inputs = self.generator_adam.gradients(loss, inputs)
        return Gradients(loss.detach(), gradients, to_inputs, {name: value.detach() for name, value in metrics.items()})

    def update_generator(self, gradients: Gradients, updates: StepUpdates) -> None:
        """Update the generator, as one of a step's ``updates``; if all are finite, :meth:`update_average` follows."""
        updates.apply(self.generator_adam, gradients, f"{self.name}: the generator")

    def update_average(self, step: int) -> None:
        """Move the average toward the generator that was updated at ``step``."""
        average, seen = self.settings.average, step * self.settings.batch
        decay = average_decay(self.settings.batch, seen, average.halflife_images, average.ramp)
        update_average(self.average, self.generator, decay)

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        self.generator_adam.scale = scale
        self.discriminator_trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return weights, moving average, the optimisers' moments and their counters."""
        return {
            **add_prefix("generator", self.generator.state_dict()),
            **add_prefix(AVERAGE, self.average.state_dict()),
            **add_prefix("generator_adam", self.generator_adam.moments()),
            "generator_updates": self.generator_adam.updates,
            **self.discriminator_trainer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.generator.load_state_dict(strip_prefix("generator", state))
        self.average.load_state_dict(strip_prefix(AVERAGE, state))
        moments = tensors_of(strip_prefix("generator_adam", state))
        self.generator_adam.load(moments, updates=int(state["generator_updates"]))
        self.discriminator_trainer.load_state_dict(state)
