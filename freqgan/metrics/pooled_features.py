"""What a fixed network sees of an image, pooled: mean and deviation of every channel of a few of its layers.

Pixels are the one kind of features that has no network, and keeps places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.metrics.features import KERNEL, STEM, random_kernels
from freqgan.networks.vgg import LEAST_SIDE, Vgg19
from freqgan.pixels import from_pixels

RANDOM_SIDE, VGG_SIDE = 64, 128
"""Pixels that the networks see at most; larger images are averaged over areas first."""
PIXELS_SIDE = 16
"""Pixels along a side of the small picture that stands for an image where its features are pixels."""
VGG_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""Whose statistics say most of an image's style, and in the last ones of what it shows (Gatys et al. 2016)."""


class PooledNetwork(Protocol):
    """A network whose weights do not change."""

    @property
    def identity(self) -> str:
        """What tells it from others: the same identity means the same numbers of an image."""

    def pooled(self, images: Tensor) -> Tensor:
        """Return float32 numbers (B, n) of stored images (B, C, H, W)."""


class RandomNetwork:
    """Convolutions with random weights, the same everywhere: they tell colours and textures, and no things."""

    identity = "random convolutions 1"

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """Return means and deviations (B, 448) of stored images (B, C, H, W); grey ones as colour.

        Those of other channels have weights of their own.
        """
        kernels = random_kernels(STEM if images.shape[1] == 1 else images.shape[1])
        return torch.cat(random_layers(from_pixels(images), kernels), 1)


class SmallPicture:
    """No network: the image itself, averaged over areas, so that its layout and its colours are the features."""

    identity = f"pixels {PIXELS_SIDE}"

    def pooled(self, images: Tensor) -> Tensor:
        """Return pixels (B, C h w) in [-1, 1] of stored images (B, C, H, W); h, w are at most 16."""
        return resized(from_pixels(images), 1, PIXELS_SIDE).flatten(1)


class VggNetwork:
    """VGG19 with weights of the user's: it tells things as well.

    Args:
        vgg: the network.

    """

    def __init__(self, vgg: Vgg19) -> None:
        self.vgg = vgg

    @cached_property
    def identity(self) -> str:
        """The sha256 of the weights, and the layers."""
        total = hashlib.sha256(" ".join(VGG_LAYERS).encode())
        for name, weight in self.vgg.state_dict().items():
            total.update(name.encode() + weight.numpy().tobytes())
        return f"vgg19 {total.hexdigest()}"

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """Return means and deviations (B, 2944) of stored images (B, C, H, W), of 8 bits or of all 65,536 levels."""
        x = resized((from_pixels(images) + 1) / 2, LEAST_SIDE, VGG_SIDE)
        return torch.cat([channel_statistics(x) for x in self.vgg.features(x, VGG_LAYERS).values()], 1)


def random_layers(images: Tensor, kernels: Sequence[Tensor]) -> list[Tensor]:
    """Return what convolutions with ``kernels`` see of images (B, C, H, W) in [-1, 1], pooled, (B, 2 C') by layer."""
    x = resized(images, 1, RANDOM_SIDE)
    x = x.expand(-1, STEM, -1, -1) if x.shape[1] == 1 else x
    parts = []
    for kernel in kernels:
        x = functional.relu(functional.conv2d(x, kernel, padding=KERNEL // 2))
        parts.append(channel_statistics(x))
        x = functional.avg_pool2d(x, 2, ceil_mode=True)
    return parts


def channel_statistics(x: Tensor) -> Tensor:
    """Return the mean and the deviation over places of every channel, (B, 2 C), of activations (B, C, h, w)."""
    deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0)
    return torch.cat([mean, deviation], 1)


def resized(images: Tensor, least: int, most: int) -> Tensor:
    """Return images (B, C, H, W) with the sides brought between ``least`` and ``most`` pixels."""
    height, width = (min(max(side, least), most) for side in images.shape[2:])
    if (height, width) == tuple(images.shape[2:]):
        return images
    larger = height > images.shape[2] or width > images.shape[3]
    mode = "bilinear" if larger else "area"
    out: Tensor = functional.interpolate(images, size=(height, width), mode=mode)
    return out
