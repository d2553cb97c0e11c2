"""Reconstruction discriminators: do the bands of a level, put together, look like a picture?

The synthesis of level q is LL of level q - 1, a small picture for q > 1 and the whole image for q = 1. A
discriminator of bands side by side has to learn what belongs together; on their synthesis an edge that does
not continue from band to band is plain to see. Of clips the temporal bands are judged together, by channel, as
changes have to go with what changes. Whole images are judged by D_o of the image stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.bands import Band, SubImages
from freqgan.model.chain import Chain
from freqgan.networks.discriminators import Discriminator
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.seeds import seeded
from freqgan.tensor_dicts import State, add_prefix, strip_prefix
from freqgan.training.discriminator_trainer import DiscriminatorTrainer, unconditional
from freqgan.training.updates import StepUpdates

LevelImages = dict[int, Tensor]
"""Normalised low bands (B, C, h, h) by the level that they are the synthesis of."""


class LevelDiscriminators:
    """A discriminator for the synthesis of every level from L down to 2; their losses train the bands' generators."""

    def __init__(self, chain: Chain, capture: GraphCapture | None = None) -> None:
        self.chain, self._capture = chain, capture
        levels = range(chain.settings.levels, 1, -1) if chain.settings.feeds_back else ()
        self.trainers = {level: self._trainer(level) for level in levels}

    def _trainer(self, level: int) -> DiscriminatorTrainer:
        settings, name = self.chain.settings, f"reconstruction {level}"
        size = self.chain.band_size(level - 1)
        with seeded(settings.seed, "discriminator", name):
            network = Discriminator(
                size,
                sum(map(self.chain.band_channels, self._lows(level))),
                condition_channels=0,
                targets=settings.target_layout,
                settings=settings.feedback.discriminator,
                emphasis=False,
            )
        return DiscriminatorTrainer(name, network.to(self.chain.device), settings, size, capture=self._capture)

    def reals(self, sub_images: SubImages) -> LevelImages:
        """Return the real samples of each level, the low band (B, C, h, h) of the level below.

        ``sub_images`` are normalised, of real images.
        """
        return {level: torch.cat([sub_images[low] for low in self._lows(level)], dim=1) for level in self.trainers}

    def fakes(self, sub_images: SubImages) -> LevelImages:
        """Return the synthesis (B, C, h, h) of each level of the chain's normalised ``sub_images``."""
        low = self.chain.low
        return {
            level: torch.cat([low(band, sub_images, derive=True) for band in self._lows(level)], dim=1)
            for level in self.trainers
        }

    def _lows(self, level: int) -> list[Band]:
        """Return the low bands that the synthesis of ``level`` gives: one, of clips one of every temporal band."""
        return [Band(level - 1, "LL", time) for time in dict.fromkeys(gan.time for gan in self.chain.plan.gans)]

    def train(
        self, updates: StepUpdates, reals: LevelImages, fakes: LevelImages, targets: Tensor | None
    ) -> dict[str, Tensor]:
        """Train every discriminator, as part of a step's ``updates``, and return their losses, "loss_d_<level>".

        Args:
            updates: of the step.
            reals: what :meth:`reals` returned.
            fakes: what :meth:`fakes` returned.
            targets: (B,) int64 labels, or (B, K) packed; None for a model without.

        """
        metrics = {}
        for level, trainer in self.trainers.items():
            real, fake = unconditional(reals[level], targets), unconditional(fakes[level], targets)
            metrics[f"loss_d_{level}"] = trainer.train(real, fake, updates)["loss_d"]
        return metrics

    def losses(self, reals: LevelImages, fakes: LevelImages, targets: Tensor | None) -> dict[str, Tensor]:
        """Return the loss of the bands' generators by each discriminator, scalars "loss_g_<level>".

        The arguments are those of :meth:`train` (targets (B,)); gradients flow back through ``fakes``.
        """
        return {
            f"loss_g_{level}": trainer.generator_loss(
                unconditional(reals[level], targets), unconditional(fakes[level], targets)
            )
            for level, trainer in self.trainers.items()
        }

    def scale_rate(self, scale: float) -> None:
        """Multiply all learning rates of the settings by ``scale`` from now on."""
        for trainer in self.trainers.values():
            trainer.scale_rate(scale)

    def state_dict(self) -> State:
        """Return the state of every discriminator under "reconstruction<level>."."""
        state: State = {}
        for level, trainer in self.trainers.items():
            state |= add_prefix(f"reconstruction{level}", trainer.state_dict())
        return state

    def load_state_dict(self, state: State) -> None:
        """Replace the state by what :meth:`state_dict` returned, alone or among the state of other objects."""
        for level, trainer in self.trainers.items():
            trainer.load_state_dict(strip_prefix(f"reconstruction{level}", state))
