"""Denoising diffusion of whole images: trained as DDPM (Ho et al. 2020), sampled as DDIM (Song et al. 2021).

x_t = a x_0 + s e with a^2 = abar_t, s^2 = 1 - abar_t. The network predicts e, or v = a e - s x_0
(Salimans and Ho 2022). Images are doubled: in [-2, 2] natural ones have a deviation of about 1.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from freqgan.companions.protocol import Companion, CompanionLoss, group_means
from freqgan.model.flow_noise import noise_image
from freqgan.model.settings import ModelSettings
from freqgan.networks.velocity import VelocityCondition, VelocityNetwork, VelocityShape
from freqgan.sizes import area

SCALE = 2.0
"""What images are multiplied by, so that their deviation is about that of the noise."""
GROUPS = 4
"""Ranges of noise levels whose losses are told apart, from the least noise to the most."""


def cosine_alphas(steps: int) -> Tensor:
    """Return abar_t (T,) for t = 1 .. T, the cosine schedule (Nichol and Dhariwal 2021), beta at most .999."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    whole = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
    betas = (1 - whole[1:] / whole[:-1]).clamp_max(0.999)
    return torch.cumprod(1 - betas, dim=0).float()


def ddim_step(x: Tensor, start: Tensor, alpha: Tensor, alpha_next: Tensor) -> Tensor:
    """Return x at the next, lower noise level, deterministically (eta = 0).

    Args:
        x: (B, C, N, N) at the noise level of ``alpha``.
        start: (B, C, N, N), the prediction of x_0.
        alpha: abar of the level, a scalar.
        alpha_next: abar of the next one, a scalar; 1 is no noise.

    """
    noise = (x - alpha.sqrt() * start) / (1 - alpha).sqrt()
    return alpha_next.sqrt() * start + (1 - alpha_next).sqrt() * noise


def ddpm_mean(x: Tensor, start: Tensor, alpha: Tensor, alpha_next: Tensor) -> Tensor:
    """Return the mean (B, C, N, N) of the posterior of the next, lower noise level (Ho et al. 2020, equation 7).

    sqrt(abar_next) beta / (1 - abar) x_0 + sqrt(1 - beta) (1 - abar_next) / (1 - abar) x, beta = 1 - abar / abar_next;
    the arguments are those of :func:`ddim_step`.
    """
    beta = 1 - alpha / alpha_next
    share = (1 - alpha_next) / (1 - alpha)
    return alpha_next.sqrt() * beta / (1 - alpha) * start + (1 - beta).sqrt() * share * x


def trailing_steps(steps: int, count: int) -> list[int]:
    """Return ``count`` of the noise levels ``steps`` .. 1, evenly spaced from the noisiest, which is one of them."""
    count = min(count, steps)
    return [round(steps - i * steps / count) for i in range(count)]


class Diffusion(Companion):
    """A U-Net that predicts noise or velocity at a noise level, and images from it in a few deterministic steps."""

    alphas: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        stage = settings.image_stage
        self.settings, self.dimensions = stage.diffusion, settings.noise.dimensions
        self.channels, self.size = settings.image_channels, settings.size
        self.numbers = self.channels * area(self.size)
        self.passes = min(stage.diffusion.evaluations, stage.diffusion.steps)
        shape = VelocityShape(self.size, self.channels, 0, 0, settings.target_layout)
        self.network = VelocityNetwork(shape, stage.unet)
        self.register_buffer("alphas", cosine_alphas(stage.diffusion.steps), persistent=False)

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, C N N), whose first numbers are its lowest frequencies."""
        x = noise_image(noise, noise[:, :0], self.channels, self.size)
        levels = trailing_steps(self.settings.steps, self.settings.evaluations)
        for level, following in pairwise([*levels, 0]):
            alpha, alpha_next = self._alpha(level), self._alpha(following)
            share = torch.full((x.shape[0],), level / self.settings.steps, device=x.device)
            start = self._start(x, self._predicted(x, share, targets), alpha).clamp(-SCALE, SCALE)
            x = ddim_step(x, start, alpha, alpha_next)
        return x / SCALE

    def loss(self, images: Tensor, targets: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return the weighted squared error of the prediction, a scalar; metrics are plain means by noise level.

        Weights are min(SNR, g) / (SNR + 1) for v, min(SNR, g) / SNR for the noise (Hang et al. 2023).
        """
        batch, device, steps = len(images), images.device, self.settings.steps
        places = (torch.randperm(batch, generator=rng) + torch.rand(batch, generator=rng)) / batch
        levels = (places * steps).long().clamp_max(steps - 1).to(device)
        noise = torch.randn(images.shape, generator=rng).to(device)
        alpha = self.alphas[levels][:, None, None, None]
        start = SCALE * images
        x = alpha.sqrt() * start + (1 - alpha).sqrt() * noise
        target = noise if self.settings.target == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * start
        errors = (self._predicted(x, (levels + 1) / steps, targets) - target).square().flatten(1).mean(1)
        by_level = group_means(errors, levels * GROUPS // steps, GROUPS)
        metrics = {f"noise_{i + 1}": value for i, value in enumerate(by_level)}
        return CompanionLoss((self._weights(levels) * errors).mean(), metrics)

    def _weights(self, levels: Tensor) -> Tensor:
        ratio = self.alphas[levels] / (1 - self.alphas[levels])
        limited = ratio.clamp_max(self.settings.snr_limit)
        return limited / ratio if self.settings.target == "epsilon" else limited / (ratio + 1)

    def _predicted(self, x: Tensor, share: Tensor, targets: Tensor | None) -> Tensor:
        zeros = torch.zeros(x.shape[0], device=x.device)
        predicted: Tensor = self.network.residual(x, share, VelocityCondition(None, None, zeros, targets))
        return predicted

    def _start(self, x: Tensor, predicted: Tensor, alpha: Tensor) -> Tensor:
        """Return x_0 (B, C, N, N) by what was predicted at x."""
        if self.settings.target == "epsilon":
            return (x - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
        return alpha.sqrt() * x - (1 - alpha).sqrt() * predicted

    def _alpha(self, level: int) -> Tensor:
        """Return abar of a noise level, a scalar; 1 for level 0."""
        return self.alphas[level - 1] if level else torch.ones_like(self.alphas[0])
