"""Reconstruction discriminators: do the bands of a level, put together, look like a picture?

The synthesis of level q is LL of level q - 1, a small picture for q > 1 and the whole image for q = 1. A
discriminator of bands side by side has to learn what belongs together; on their synthesis an edge that does
not continue from band to band is plain to see. Whole images are judged by D_o of the image stage.
"""

from __future__ import annotations

from torch import Tensor

from freqgan.bands import Band, SubImages
from freqgan.model.chain import Chain
from freqgan.networks.discriminators import Discriminator
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.seeds import seeded
from freqgan.tensor_dicts import add_prefix, strip_prefix
from freqgan.training.discriminator_trainer import DiscriminatorTrainer, unconditional
from freqgan.training.updates import StepUpdates

Lows = dict[int, Tensor]
"""Normalised low bands (B, C, h, h) by the level that they are the synthesis of."""


class LevelDiscriminators:
    """One critic for the synthesis of every level from L down to 2; their losses are for the bands' generators."""

    def __init__(self, chain: Chain, capture: GraphCapture | None = None) -> None:
        self.chain, self._capture = chain, capture
        levels = range(chain.settings.levels, 1, -1) if chain.settings.feeds_back else ()
        self.critics = {level: self._critic(level) for level in levels}

    def _critic(self, level: int) -> DiscriminatorTrainer:
        settings, name = self.chain.settings, f"reconstruction {level}"
        side = self.chain.band_side(level - 1)
        sizes = settings.feedback.discriminator
        with seeded(settings.seed, "discriminator", name):
            network = Discriminator(side, settings.channels, 0, settings.classes, sizes, emphasis=False)
        return DiscriminatorTrainer(name, network.to(self.chain.device), settings, side, capture=self._capture)

    def reals(self, sub_images: SubImages) -> Lows:
        """What each critic sees of normalised sub-images of real images: their low band of the level below."""
        return {level: sub_images[Band(level - 1, "LL")] for level in self.critics}

    def fakes(self, sub_images: SubImages) -> Lows:
        """The synthesis of each level of the chain's sub-images."""
        return {level: self.chain.low(level - 1, sub_images, derive=True) for level in self.critics}

    def train(self, updates: StepUpdates, reals: Lows, fakes: Lows, labels: Tensor | None) -> dict[str, Tensor]:
        """Trains every critic on :meth:`reals` and :meth:`fakes`, as part of a step's ``updates``; metrics."""
        metrics = {}
        for level, critic in self.critics.items():
            real, fake = unconditional(reals[level], labels), unconditional(fakes[level], labels)
            metrics[f"loss_d_{level}"] = critic.train(real, fake, updates)["loss_d"]
        return metrics

    def losses(self, reals: Lows, fakes: Lows, labels: Tensor | None) -> dict[str, Tensor]:
        """The loss of the bands' generators by each critic, "loss_g_<level>"; the graphs of ``fakes`` lead to them."""
        return {
            f"loss_g_{level}": critic.generator_loss(
                unconditional(reals[level], labels), unconditional(fakes[level], labels)
            )
            for level, critic in self.critics.items()
        }

    def scale_rate(self, scale: float) -> None:
        """See :meth:`DiscriminatorTrainer.scale_rate`."""
        for critic in self.critics.values():
            critic.scale_rate(scale)

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Those of every critic, under "reconstruction<level>."."""
        return add_prefix({f"reconstruction{level}": critic.tensors() for level, critic in self.critics.items()})

    def scalars(self) -> dict[str, int]:
        """Likewise."""
        return {
            f"reconstruction{level}.{name}": value
            for level, critic in self.critics.items()
            for name, value in critic.scalars().items()
        }

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """The state that :meth:`tensors` and :meth:`scalars` gave."""
        for level, critic in self.critics.items():
            part = f"reconstruction{level}"
            own = {name.removeprefix(f"{part}."): v for name, v in scalars.items() if name.startswith(f"{part}.")}
            critic.load(strip_prefix(part, tensors), own)
