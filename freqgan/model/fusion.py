"""The generators of the jointly trained system: G_o of whole images, G_l and G_h of bands, and lambda between them.

final = (1 - lambda) G_o(z) + lambda idwt(G_l(z_l), G_h(z_h)), where z_l are the first k numbers of z, z_h the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.bands import Band, SubImages
from freqgan.model.chain import LARGEST, Chain, on_grid
from freqgan.model.stage_names import FUSION_STAGE
from freqgan.networks.generators import RootGenerator, root_shape
from freqgan.networks.settings import NetworkSettings
from freqgan.seeds import seeded
from freqgan.sizes import Size


class LinearBlend(nn.Module):
    """(1 - lambda) x_conventional + lambda x_frequency, with lambda itself as the parameter, 0 at the start.

    It is kept in [0, 1] by :meth:`project` after every update. Other ways of doing so would not train: the derivative
    of relu(a) at a = 0 is 0 for ever, and that of sigmoid(a) is 5e-5 at a = -10.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, frequency: Tensor, conventional: Tensor) -> Tensor:
        """Return the blend of the images of the bands and those of G_o, (B, C, N, N) each."""
        return conventional + self.weight * (frequency - conventional)

    @torch.no_grad()
    def project(self) -> None:
        """Move lambda to the nearest number in [0, 1]."""
        self.weight.clamp_(0, 1)


class FusionImages(NamedTuple):
    """What the three generators make of a noise.

    Attributes:
        images: (B, C, N, N), blended.
        conventional: (B, C, N, N), G_o's.
        frequency: (B, C, N, N), the inverse transform of ``sub_images``.
        sub_images: (B, C, h, h) by band, normalised: the coarsest low band by G_l, all others by G_h.

    """

    images: Tensor
    conventional: Tensor
    frequency: Tensor
    sub_images: SubImages


class FusionGenerator(nn.Module):
    """G_o, G_l, G_h and lambda.

    G_h works on the grid of level 1 and makes the three high bands of every level there; those of level q > 1 are sums
    over 2^(q-1) x 2^(q-1) cells, over 2^(q-1), as Haar's low band is.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        settings = chain.settings
        self.chain = chain
        self.low_dimensions = settings.fusion.low_dimensions(settings.noise.dimensions)
        self.low_band = chain.transform.lowest
        self.high_bands = [band for band in chain.transform.independent_bands() if band != self.low_band]
        self.high_size = max(chain.band_size(band) for band in self.high_bands)
        stage, size, channels = settings.image_stage, settings.size, settings.image_channels
        high, own = settings.noise.dimensions - self.low_dimensions, settings.noise.dimensions
        self.image = _root(chain, "image", stage.generator, size, channels, own, attention=stage.attention)
        low_size = chain.band_size(self.low_band)
        low_channels = chain.band_channels(self.low_band)
        self.low = _root(chain, "low", settings.coarse_generator, low_size, low_channels, self.low_dimensions)
        self.high_channels = [chain.band_channels(band) for band in self.high_bands]
        planes = sum(self.high_channels)
        self.high = _root(chain, "high", settings.band_generator, self.high_size, planes, high)
        self.blend = LinearBlend()

    def forward(self, noise: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what G_o (B, C, N, N), G_l (B, C, h, h) and G_h (B, C * bands, h', h') make of noise (B, n)."""
        zeros = torch.zeros(noise.shape[0], device=noise.device)
        parts = noise, noise[:, : self.low_dimensions], noise[:, self.low_dimensions :]
        networks = self.image, self.low, self.high
        image, low, high = (net(z, None, None, zeros, targets) for net, z in zip(networks, parts, strict=True))
        return image, low, high

    def blended(self, conventional: Tensor, low: Tensor, high: Tensor) -> FusionImages:
        """Return the images of what :meth:`forward` returned, in float32: (B, C, N, N), (B, C, h, h), (B, C', h', h').

        Nothing in the sub-images lies outside of what the transform keeps in a band.
        """
        parts = torch.split(high, self.high_channels, dim=1)
        made = {self.low_band: low} | {b: self._summed(b, x) for b, x in zip(self.high_bands, parts, strict=True)}
        transform = self.chain.transform
        sub_images = {band: transform.projected(band, x.clamp(-LARGEST, LARGEST)) for band, x in made.items()}
        frequency = self.chain.image(sub_images)
        return FusionImages(self.blend(frequency, conventional), conventional, frequency, sub_images)

    def _summed(self, band: Band, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, h', h') on the coarser grid of ``band``, (B, C, h, h)."""
        cells = self.high_size[0] // self.chain.band_size(band)[0]
        return functional.avg_pool2d(x, cells) * cells if cells > 1 else x

    def stacked_high(self, sub_images: SubImages) -> Tensor:
        """Return the high bands of normalised ``sub_images`` (B, C, h, h) stacked by channel: (B, C * bands, h', h').

        Those of coarser levels are repeated on the grid of level 1.
        """
        return torch.cat([on_grid(sub_images[band], self.high_size) for band in self.high_bands], dim=1)


def _root(
    chain: Chain, part: str, sizes: NetworkSettings, size: Size, channels: int, noise: int, *, attention: bool = False
) -> RootGenerator:
    """Return one of the generators, on the CPU, with weights drawn from (run seed, part)."""
    name = f"{FUSION_STAGE} {part}"
    shape = root_shape(size, channels, noise, sizes, targets=chain.settings.target_layout, name=name)
    with seeded(chain.settings.seed, "generator", name):
        return RootGenerator(shape, sizes, attention=attention)
