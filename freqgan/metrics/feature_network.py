"""A small residual network that learns what the images of one data set show, and the features that it sees them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.pixels import from_pixels, to_eight_bits, to_pixels

LARGEST_SIDE = 32
SMALLEST_SIDE = 8
PATCH = 2
CHUNK = 500
FAINTEST = 0.1
"""A feature that hardly varies is divided by this share of the usual deviation: chance would else be blown up."""

Task = Literal["label", "instance"]
"""What a network learns to tell: the labels of images, or which of many images another view is of."""


class FeatureNetwork(nn.Module):
    """Images -> features -> logits: three residual stages of 1, 2 and 4 times ``width`` channels, then the mean.

    Resolution halves from stage to stage. Normalisation uses statistics of batches while the network learns, and fixed
    ones afterwards, so that the features of an image do not depend on its neighbours. Without it a network learns half
    as much in the same time (CIFAR-10, 600 batches: 55 % of labels right in place of 69 %).

    Args:
        channels: of the images.
        width: channels of the first stage.
        answers: logits of labels; or numbers that two views of an image should have in common.

    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, width: int, answers: int) -> None:
        super().__init__()
        self.channels = channels
        self.stem = _convolution(channels * PATCH**2, width, 3)
        self.stages = nn.Sequential(_Stage(width, width), _Stage(width, 2 * width), _Stage(2 * width, 4 * width))
        self.answer = nn.Linear(4 * width, answers)
        self.register_buffer("mean", torch.zeros(4 * width))
        self.register_buffer("deviation", torch.ones(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, answers) of images (B, C, s, s) in [-1, 1], s a multiple of 2."""
        logits: Tensor = self.answer(self.pooled(x))
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """Return what the last stage sees of images (B, C, s, s), averaged over places: (B, 4 width)."""
        cells = functional.pixel_unshuffle(x, PATCH).contiguous(memory_format=torch.channels_last)
        seen: Tensor = self.stages(functional.relu(self.stem(cells)))
        return seen.mean(dim=(2, 3))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return float32 features (N, 4 width) of stored images (N, C, H, W), uint8 or uint16, of any size.

        Each has mean 0 and deviation 1 over the images that the network has learnt from.
        """
        rows = [self.pooled(from_pixels(reduced(chunk))) for chunk in torch.split(images, CHUNK)]
        return (torch.cat(rows) - self.mean) / self.deviation

    @torch.no_grad()
    def fix_scale(self, images: Tensor) -> None:
        """Measure the mean and deviation of every feature over ``images``, stored (N, C, H, W)."""
        self.mean.zero_()
        self.deviation.fill_(1)
        features = self.features(images).double()
        deviation = features.std(dim=0, correction=0)
        usual = deviation.square().mean().sqrt()
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(deviation.clamp(min=float(FAINTEST * usual)) if usual > 0 else torch.ones_like(deviation))


@dataclass(frozen=True)
class LearnedFeatures:
    """A network that has learnt, and how good it is at what it learnt.

    Attributes:
        name: of the family of metrics that it serves.
        network: gives the features.
        task: what it learnt to tell.
        answers: how many answers there are to choose from.
        accuracy: share of right answers on images that were held out from it.
        chance: share that the most frequent answer would have right on them.

    """

    name: str
    network: FeatureNetwork
    task: Task
    answers: int
    accuracy: float
    chance: float


def reduced(images: Tensor) -> Tensor:
    """Return stored images (N, C, H, W), uint8 or uint16, as uint8 (N, C, s, s): what a network sees of them.

    s is the shorter side, at most 32, at least 8 and even. Larger images are averaged over areas, which the other
    metrics look into; those that are not square are squeezed.
    """
    side = max(SMALLEST_SIDE, min(LARGEST_SIDE, *images.shape[-2:]) // PATCH * PATCH)
    eight_bits = to_eight_bits(images)
    if images.shape[-2:] == (side, side):
        return eight_bits
    parts = map(from_pixels, torch.split(eight_bits, CHUNK))
    return torch.cat([to_pixels(functional.interpolate(part, size=(side, side), mode="area")) for part in parts])


class _Stage(nn.Module):
    """Two 3x3 convolutions beside a short cut; halves the resolution first where it widens."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.halves = inputs != width
        self.first = _convolution(inputs, width, 3)
        self.second = _convolution(width, width, 3)
        self.short_cut = nn.Conv2d(inputs, width, 1, bias=False) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(x, 2, ceil_mode=True) if self.halves else x
        return functional.relu(self.short_cut(x) + self.second(functional.relu(self.first(x))))


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))
