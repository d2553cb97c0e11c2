"""A variational autoencoder (Kingma and Welling 2014) with a calibrated decoder (Rybkin et al. 2021).

All terms are sums over pixels and dimensions: means would weight the KL divergence by the number of pixels over that of
latent dimensions.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.companions.protocol import Companion, CompanionLoss
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.networks.blocks import (
    PatchStem,
    ResidualBlock,
    activate,
    convolution,
    dense,
    grid_patch,
)
from freqgan.networks.discriminators import RESIDUAL_GAIN
from freqgan.networks.generators import RootGenerator, root_shape
from freqgan.networks.target_embedding import target_embedding
from freqgan.sizes import area, halving_sizes

ACTIVE_VARIANCE = 0.01
"""Variance of a latent mean over images above which its dimension is active (Burda et al. 2016)."""
FIRST_DEVIATION = 0.5
"""Of pixels in [-1, 1] from what is decoded, at the start: about that of natural images from their mean."""
LOG_VARIANCE_RANGE = (-12.0, 6.0)


class VaeTerms(NamedTuple):
    """The terms of the evidence lower bound.

    Attributes:
        reconstruction: (B,) nats, -log p(x | z) summed over pixels and channels.
        kl: (B, latent) nats, of q(z | x) from N(0, I) by dimension.
        mean: (B, latent), of q(z | x).

    """

    reconstruction: Tensor
    kl: Tensor
    mean: Tensor


class Encoder(nn.Module):
    """(images, targets) -> mean and log variance of the latent vector, by residual blocks on halved grids."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        sizes, latent = settings.image_stage.generator, settings.image_stage.vae.latent
        (height, width), patch = settings.size, grid_patch(settings.size, sizes.patch)
        grids = halving_sizes((height // patch, width // patch))[::-1]
        widths = [sizes.width] + [sizes.coarse_width] * (len(grids) - 1)
        self.pixels = PatchStem(settings.image_channels, patch)
        self.stem = convolution(self.pixels.channels, widths[0], 3)
        self.blocks = nn.ModuleList(ResidualBlock(width, sizes, gain=RESIDUAL_GAIN) for width in widths)
        self.shrink = nn.ModuleList(convolution(a, b, 1) for a, b in pairwise(widths))
        features = widths[-1] * area(grids[-1])
        self.embed = target_embedding(settings.target_layout, features)
        self.head = dense(features, 2 * latent, gain=0.1)

    def forward(self, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, (B, latent) each, for images (B, C, N, N) and targets or None."""
        x = self.blocks[0](self.stem(self.pixels(images)))
        for block, shrink in zip(self.blocks[1:], self.shrink, strict=True):
            x = block(functional.avg_pool2d(shrink(x), 2, ceil_mode=True))
        features = activate(x).flatten(1)
        if self.embed is not None and targets is not None:
            features = features + self.embed(targets)
        mean, log_variance = self.head(features).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


class VariationalAutoencoder(Companion):
    """Encoder, decoder and the decoder's one log deviation; a sample is the decoder's mean.

    The deviation of pixels is at least a step of brightness: without a bound a decoder that knows some images by heart
    has an infinite likelihood.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        stage = settings.image_stage
        self.settings = stage.vae
        self.numbers = stage.vae.latent
        size, channels, targets = settings.size, settings.image_channels, settings.target_layout
        shape = root_shape(size, channels, self.numbers, stage.generator, targets=targets, name=IMAGE_STAGE)
        self.encoder = Encoder(settings)
        self.decoder = RootGenerator(shape, stage.generator)
        self.log_deviation = nn.Parameter(torch.tensor(FIRST_DEVIATION).log())
        self.least_log_deviation = -math.log(2 ** min(settings.bit_depth, 16) - 1)

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return the decoder's means (B, C, N, N) of latent vectors (B, latent) and targets or None."""
        zeros = torch.zeros(noise.shape[0], device=noise.device)
        out: Tensor = self.decoder(noise, condition=None, base=None, condition_noise=zeros, targets=targets)
        return out

    def loss(self, images: Tensor, targets: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return -ELBO in nats, a scalar, its KL divergence warmed up and with free bits; ELBO itself has neither."""
        terms = self.terms(images, targets, torch.randn(len(images), self.numbers, generator=rng).to(images.device))
        weight = min(1.0, progress / self.settings.warmup) if self.settings.warmup else 1.0
        kl = terms.kl.mean(0).clamp_min(self.settings.free_bits).sum()
        value = terms.reconstruction.mean() + weight * kl
        metrics = {
            "elbo": -(terms.reconstruction + terms.kl.sum(1)).mean().detach(),
            "kl": terms.kl.sum(1).mean().detach(),
            "active_units": (terms.mean.detach().var(0, correction=0) > ACTIVE_VARIANCE).sum().float(),
            "deviation": self._log_deviation().detach().exp(),
        }
        return CompanionLoss(value, metrics)

    def terms(self, images: Tensor, targets: Tensor | None, noise: Tensor) -> VaeTerms:
        """Return the terms of the bound for images (B, C, N, N), targets or None, and latent noise (B, latent)."""
        mean, log_variance = self.encoder(images, targets)
        errors = self.sample(mean + (0.5 * log_variance).exp() * noise, targets) - images
        log_deviation = self._log_deviation()
        squares = errors.flatten(1).square().sum(1)
        constant = 0.5 * math.log(2 * math.pi) + log_deviation
        reconstruction = 0.5 * squares * (-2 * log_deviation).exp() + errors[0].numel() * constant
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return VaeTerms(reconstruction, kl, mean)

    def _log_deviation(self) -> Tensor:
        """Return the log deviation of a pixel, smoothly bounded from below, a scalar."""
        return self.least_log_deviation + functional.softplus(self.log_deviation - self.least_log_deviation)
