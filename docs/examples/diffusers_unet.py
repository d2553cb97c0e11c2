"""A companion of your own: a U-Net of the library diffusers, trained by flow matching.

Put the folder of this file into PYTHONPATH and set image_stage.companion=diffusers_unet:DiffusersUNet.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DModel
from torch import Tensor
from torch.nn import functional

from freqgan.companions.protocol import Companion, CompanionLoss
from freqgan.model.settings import ModelSettings


class DiffusersUNet(Companion):
    """From noise at time 1 to images at time 0, in ten even steps along the velocity that the network predicts."""

    passes = 10

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.shape = (settings.channels, settings.image_size, settings.image_size)
        self.numbers = settings.channels * settings.image_size**2
        self.unet = UNet2DModel(
            sample_size=settings.image_size,
            in_channels=settings.channels,
            out_channels=settings.channels,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            num_class_embeds=settings.classes or None,
        )

    def sample(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, C N N) and labels, (B,) or None."""
        x = noise.view(-1, *self.shape)
        for i in range(self.passes, 0, -1):
            times = torch.full((len(x),), i / self.passes, device=x.device)
            x = x - self._velocity(x, times, labels) / self.passes
        return x

    def loss(self, images: Tensor, labels: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return the mean squared error of the velocity at images (B, C, N, N) with noise on them, a scalar."""
        times = torch.rand(len(images), generator=rng).to(images.device)
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        x = torch.lerp(images, noise, times[:, None, None, None])
        value = functional.mse_loss(self._velocity(x, times, labels), noise - images)
        return CompanionLoss(value, {})

    def _velocity(self, x: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        return self.unet(x, 1000 * times, class_labels=labels).sample
