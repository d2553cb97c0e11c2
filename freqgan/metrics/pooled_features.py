"""What a fixed network sees of an image, pooled: mean and deviation of every channel of a few of its layers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.metrics.features import KERNEL, STEM, random_kernels
from freqgan.pixels import from_pixels

LARGEST_SIDE = 64
"""Pixels that the random network sees; larger images are averaged over areas first."""


class PooledNetwork(Protocol):
    """A network whose weights do not change."""

    @property
    def identity(self) -> str:
        """What tells it from others: the same identity means the same numbers of an image."""

    def pooled(self, images: Tensor) -> Tensor:
        """Return float32 numbers (B, n) of stored images (B, C, H, W), uint8 or uint16."""


class RandomNetwork:
    """Convolutions with random weights, the same everywhere: they tell colours and textures, and no things."""

    identity = "random convolutions 1"

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """Return means and deviations (B, 448) of stored images (B, C, H, W), uint8 or uint16; grey ones as colour."""
        x = _bounded(from_pixels(images))
        x = x.expand(-1, STEM, -1, -1) if x.shape[1] == 1 else x
        parts = []
        for kernel in random_kernels():
            x = functional.relu(functional.conv2d(x, kernel, padding=KERNEL // 2))
            parts.append(channel_statistics(x))
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        return torch.cat(parts, 1)


def channel_statistics(x: Tensor) -> Tensor:
    """Return the mean and the deviation over places of every channel, (B, 2 C), of activations (B, C, h, w)."""
    deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0)
    return torch.cat([mean, deviation], 1)


def _bounded(images: Tensor) -> Tensor:
    if max(images.shape[2:]) <= LARGEST_SIDE:
        return images
    shrunk: Tensor = functional.interpolate(images, size=(LARGEST_SIDE, LARGEST_SIDE), mode="area")
    return shrunk
