"""The generators of a model's bands, one for each GAN of the plan, and the blend of the chain's images and G_o's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from freqgan.bands import Band
from freqgan.model.chain import Chain
from freqgan.model.plan import Gan
from freqgan.networks.generators import GeneratorShape, build_generator
from freqgan.seeds import seeded

AVERAGE = "average"
"""The part of a stage's state, by the names of its tensors, that holds the averaged weights of its generator."""


def build_band_generator(chain: Chain, gan: Gan) -> nn.Module:
    """Return the generator of ``gan``, on the CPU, with weights drawn from (run seed, GAN)."""
    settings = chain.settings
    shape = GeneratorShape(
        size=chain.gan_size(gan),
        patch=chain.patch(gan),
        channels=chain.gan_channels(gan),
        base_channels=chain.band_channels(gan.bands[0]) if chain.plan.has_base(gan) else 0,
        condition_channels=chain.condition_channels(gan),
        noise=settings.noise.dimensions,
        targets=settings.target_layout,
        name=gan.name,
    )
    with seeded(settings.seed, "generator", gan.name):
        return build_generator(shape, settings.generator_sizes(gan), refine=gan.is_low)


class Blend(nn.Module):
    """alpha x_frequency + (1 - alpha) x_conventional with a learned alpha = sigmoid(a), a = 0 at the start.

    ``per_band`` has one alpha for each of the bands that hold an image without repetition (3L + 1 of quadrants) and
    blends coefficients; with equal values that is exactly the scalar blend, the transform being linear.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain
        self.bands = chain.transform.independent_bands()
        self.per_band = chain.settings.image_stage.alpha == "per_band"
        self.logits = nn.Parameter(torch.zeros(len(self.bands) if self.per_band else 1))

    def alphas(self) -> dict[str, Tensor]:
        """Return alpha, a scalar, by band name, or as {"alpha": value}."""
        names = map(str, self.bands) if self.per_band else ["alpha"]
        return dict(zip(names, self.logits.detach().sigmoid().unbind(), strict=True))

    def forward(self, frequency: Tensor, conventional: Tensor) -> Tensor:
        """Return the blend of the chain's images and G_o's, (B, C, N, N) each."""
        alpha = self.logits.sigmoid()
        if not self.per_band:
            return conventional + alpha * (frequency - conventional)
        first, second = self.chain.transform.analyse(frequency), self.chain.transform.analyse(conventional)
        mixed = {b: second[b] + a * (first[b] - second[b]) for b, a in zip(self.bands, alpha, strict=True)}
        return self.chain.transform.synthesise(mixed, self.chain.size)


def coarse_noise(chain: Chain, noises: Tensor, choices: Mapping[Band, Tensor]) -> Tensor:
    """Return the noise (B, n) of the GAN that made each sample's coarsest low band: what G_o shares with the chain.

    The only noise there is where the plan has no GANs.
    """
    band = chain.transform.lowest
    if not chain.plan.gans:
        return noises[0]
    members = [noises[chain.plan.index(gan)] for gan in chain.plan.members(band)]
    return members[0] if len(members) == 1 else chain.pick(members, choices[band])
