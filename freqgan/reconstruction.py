"""Reconstruction discriminators: do the bands of a level, put together, look like a picture?

The synthesis of level q is LL of level q - 1, a small picture for q > 1 and the whole image for q = 1. A
discriminator of bands side by side has to learn what belongs together; on their synthesis an edge that does
not continue from band to band is plain to see. Whole images are judged by D_o of the image stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.bands import Band, SubImages
from freqgan.chain import Chain
from freqgan.critic import Critic, Metrics, Pairs, named, under
from freqgan.losses import generator_loss
from freqgan.networks.discriminators import Discriminator
from freqgan.seeds import seeded


class ReconstructionCritics:
    """One critic for the synthesis of every level from L down to 2; their losses are for the bands' generators."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        levels = range(chain.settings.levels, 1, -1) if chain.settings.feeds_back else ()
        self.critics = {level: self._critic(level) for level in levels}

    def _critic(self, level: int) -> Critic:
        settings, name = self.chain.settings, f"reconstruction {level}"
        side = self.chain.band_side(level - 1)
        sizes = settings.feedback.discriminator
        with seeded(settings.seed, "discriminator", name):
            network = Discriminator(side, settings.channels, 0, settings.classes, sizes, emphasis=False)
        return Critic(name, network.to(self.chain.device), settings, side)

    def train(
        self, step: int, reals: SubImages, fakes: SubImages, labels: Tensor | None
    ) -> tuple[list[Tensor], Metrics]:
        """Trains every critic at ``step``, and judges again.

        Args:
            step: number of steps done before this one.
            reals: normalised sub-images of real images; their low bands are the real reconstructions.
            fakes: those of the chain; graphs that lead to their generators are kept.
            labels: (B,) or None.

        Returns:
            The losses of the bands' generators, a scalar per level, and metrics.

        """
        losses: list[Tensor] = []
        metrics: Metrics = {}
        for level, critic in self.critics.items():
            strength = torch.zeros(len(next(iter(fakes.values()))), device=self.chain.device)
            real = Pairs(reals[Band(level - 1, "LL")], None, strength, labels)
            fake = Pairs(self.chain.low(level - 1, fakes, derive=True), None, strength, labels)
            trained = critic.train(real, fake, step)
            with torch.no_grad():
                real_logits = critic.judge(real)
            loss = generator_loss(self.chain.settings.loss.kind, real_logits, critic.judge(fake))
            losses.append(loss)
            metrics[f"loss_d_{level}"], metrics[f"loss_g_{level}"] = trained["loss_d"], float(loss.detach())
        return losses, metrics

    def scale_rate(self, scale: float) -> None:
        """See :meth:`Critic.scale_rate`."""
        for critic in self.critics.values():
            critic.scale_rate(scale)

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Those of every critic, under "reconstruction<level>."."""
        return named({f"reconstruction{level}": critic.tensors() for level, critic in self.critics.items()})

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
            critic.load(under(part, tensors), own)
