"""Discriminators of (band, condition) pairs and of whole images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.networks.blocks import (
    RECTIFIER_GAIN,
    PatchStem,
    ResidualBlock,
    activate,
    convolution,
    dense,
    grid_patch,
)
from freqgan.networks.settings import NetworkSettings
from freqgan.networks.target_embedding import target_embedding
from freqgan.sizes import Size, area, halving_sizes
from freqgan.targets import TargetLayout

RESIDUAL_GAIN = 0.5
"""Residual branches of a discriminator do not start at zero: the network would start as a nearly linear function."""


class Discriminator(nn.Module):
    """(band, condition, deviation of the noise on the condition, label) -> one logit per sample.

    Resolution halves by averaging until the shorter side has at most 4 cells; a target enters by projection (Miyato
    and Koyama 2018). ``emphasis`` applies asinh(3 h) to the band first: natural high bands have kurtosis 9-17, after
    it about 3. It is invertible, so the discriminator loses nothing by it.
    """

    def __init__(
        self,
        size: Size,
        channels: int,
        condition_channels: int,
        targets: TargetLayout,
        settings: NetworkSettings,
        *,
        emphasis: bool,
    ) -> None:
        super().__init__()
        self.emphasis = emphasis
        self.patch = grid_patch(size, settings.patch)
        sizes = halving_sizes((size[0] // self.patch, size[1] // self.patch))[::-1]
        widths = [settings.width] + [settings.coarse_width] * (len(sizes) - 1)
        planes = condition_channels + 1 if condition_channels else 0
        self.pixels = PatchStem(channels, self.patch)
        self.stem = convolution(self.pixels.channels + planes, widths[0], 3)
        self.steps = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks = [
                ResidualBlock(width, settings, gain=RESIDUAL_GAIN) for _ in range(settings.blocks if i == 0 else 1)
            ]
            follow = convolution(width, widths[i + 1], 1) if i + 1 < len(widths) else nn.Identity()
            self.steps.append(nn.Sequential(*blocks, follow))
        features = widths[-1]
        self.gather = dense(features * area(sizes[-1]), features, gain=RECTIFIER_GAIN)
        self.judge = dense(features, 1)
        # A random start would be a random score that the generator exploits for long.
        self.embed = target_embedding(targets, features, deviation=0.0)

    def forward(
        self, band: Tensor, condition: Tensor | None, condition_noise: Tensor, targets: Tensor | None
    ) -> Tensor:
        """Return logits (B,).

        Args:
            band: (B, C, h, w).
            condition: (B, K, h / patch, w / patch), or None.
            condition_noise: (B,) deviation of the noise on the condition.
            targets: (B,) int64 labels, or (B, K) packed; or None.

        """
        x = self.pixels(torch.asinh(3 * band) if self.emphasis else band)
        if condition is not None:
            plane = condition_noise[:, None, None, None].expand(-1, 1, *x.shape[-2:])
            x = torch.cat([x, condition, plane], dim=1)
        x = self.stem(x)
        for i, step in enumerate(self.steps):
            x = step(functional.avg_pool2d(x, 2, ceil_mode=True) if i else x)
        features = activate(self.gather(activate(x).flatten(1)))
        logits: Tensor = self.judge(features).squeeze(1)
        if self.embed is not None and targets is not None:
            logits = logits + (self.embed(targets) * features).sum(dim=1) * features.shape[1] ** -0.5
        return logits
