"""A companion with a loss of its own: one update on real images, its average, and samples for the blend."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from freqgan.companions.image_generator import rest_of_noise, whole_noise
from freqgan.companions.kinds import build_companion
from freqgan.companions.protocol import CompanionLoss
from freqgan.errors import InputError
from freqgan.model.chain import Chain
from freqgan.model.generators import AVERAGE
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.recipe.weight_average import average_decay, update_average
from freqgan.seeds import generator_for
from freqgan.tensor_dicts import State, add_prefix, strip_prefix, tensors_of
from freqgan.training.adam import ScheduledAdam
from freqgan.training.discriminator_trainer import to_channels_last
from freqgan.training.sample_pool import SamplePool
from freqgan.training.updates import Gradients, StepUpdates

COMPANION = "companion"
OTHER = f"{AVERAGE}.other"
"""Where checkpoints have the averaged weights, whatever the companion is."""


class CompanionTrainer:
    """A companion, its average, its optimiser and, if a sample takes many passes and others need it, a pool.

    Args:
        chain: of the model, on the device to train on.

    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.settings = chain, chain.settings
        stage = self.settings.image_stage
        self.network = build_companion(self.settings).to(chain.device).train()
        to_channels_last(self.network)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        optimiser = stage.companion_optimiser
        rates = {name: optimiser.generator_rate for name, _ in self.network.named_parameters()}
        self.adam = ScheduledAdam(
            self.network, optimiser, self.settings.images, multipliers=rates, beta1=optimiser.beta1
        )
        self.pool = self._build_pool()
        self._prepared = False

    def _build_pool(self) -> SamplePool | None:
        if self.network.passes <= 1 or not self.chain.plan.gans:
            return None
        return SamplePool(self.average, self.settings, self.chain.device)

    def samples(self, step: int, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) to blend with at ``step``, by averaged weights of steps before.

        Args:
            step: number of steps done before this one.
            noise: the noise vectors (B, n) of the step; samples of a pool have noises of their own.
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.

        """
        if self.pool is not None:
            self.pool.renew(step, self.average)
            return self.pool.take(step, len(noise), targets)
        rest = rest_of_noise(self.average, noise.shape[1], self.settings.seed, step, len(noise))
        with torch.no_grad():
            return self.average.sample(whole_noise(self.average, noise, rest), targets)

    def train(self, updates: StepUpdates, images: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """Update the companion by its own loss, as one of a step's ``updates``, and return metrics, scalars.

        If all of them are finite :meth:`update_average` follows.

        Args:
            updates: of the step.
            images: (B, C, N, N) in [-1, 1], augmented.
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.

        """
        settings, rate = self.settings, self.settings.image_stage.companion_optimiser.learning_rate
        step = updates.step
        self._prepare(images)
        rng = generator_for(settings.seed, COMPANION, step)
        loss = self.network.loss(images, targets, rng, min(1.0, step * settings.batch / settings.images))
        if not isinstance(loss, CompanionLoss):
            raise InputError(
                f"image_stage.companion: {settings.image_stage.companion}.loss returned a {type(loss).__name__}; have "
                "it return freqgan.companions.protocol.CompanionLoss(value, metrics)"
            )
        gradients, _ = self.adam.gradients(loss.value)
        remedy = f"with a lower image_stage.companion_optimiser.learning_rate (now {rate:g})"
        value = loss.value.detach()
        updates.apply(self.adam, Gradients(value, gradients, [], {}), f"{IMAGE_STAGE}: the companion", remedy)
        return {f"{COMPANION}_{name}": x.detach() for name, x in {"loss": value, **loss.metrics}.items()}

    def _prepare(self, images: Tensor) -> None:
        """Have both networks set what depends on real images, (B, C, N, N), unless their state says that they have."""
        if not self._prepared:
            for network in (self.network, self.average):
                network.prepare(images)
            self._prepared = True

    def update_average(self, step: int) -> None:
        """Move the average toward the companion that was updated at ``step``."""
        settings, average = self.settings, self.settings.image_stage.companion_average
        decay = average_decay(settings.batch, step * settings.batch, average.halflife_images, average.ramp)
        update_average(self.average, self.network, decay)

    # -- state -----------------------------------------------------------------------------------

    def scale_rate(self, scale: float) -> None:
        """Multiply the learning rate of the settings by ``scale`` from now on."""
        self.adam.scale = scale

    def state_dict(self) -> State:
        """Return weights, moving average, the optimiser's moments and counter, and the pool's weights and number."""
        return {
            **add_prefix(COMPANION, self.network.state_dict()),
            **add_prefix(OTHER, self.average.state_dict()),
            **add_prefix("companion_adam", self.adam.moments()),
            "companion_updates": self.adam.updates,
            **({} if self.pool is None else self.pool.state_dict()),
        }

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        self.network.load_state_dict(strip_prefix(COMPANION, state))
        self.average.load_state_dict(strip_prefix(OTHER, state))
        moments = tensors_of(strip_prefix("companion_adam", state))
        self.adam.load(moments, updates=int(state["companion_updates"]))
        if self.pool is not None:
            self.pool.load_state_dict(state)
        self._prepared = False
