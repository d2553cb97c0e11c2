"""Features of images from a convolutional network whose weights are drawn from a fixed seed, and never trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.seeds import generator_for

WIDTHS = (32, 64, 128)
STEM = 3
KERNEL = 3
CHUNK = 500


def random_features(images: Tensor) -> Tensor:
    """Return float32 features (N, 32 + 64 + 128) of uint8 images (N, C, H, W).

    They are, per stage, the means of rectified random convolutions.

    Stages halve the resolution by averaging. Grey images count as colour; those of other channels have weights of
    their own. Random features keep enough of an image to tell whether kinds of images are missing, and know nothing of
    what the images show.
    """
    kernels = random_kernels(STEM if images.shape[1] == 1 else images.shape[1])
    rows = []
    for chunk in torch.split(images, CHUNK):
        x = chunk.float() / 127.5 - 1
        x = x.expand(-1, STEM, -1, -1) if x.shape[1] == 1 else x
        stages = []
        for kernel in kernels:
            x = functional.relu(functional.conv2d(x, kernel, padding=KERNEL // 2))
            stages.append(x.mean(dim=(2, 3)))
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        rows.append(torch.cat(stages, dim=1))
    return torch.cat(rows)


def whitened(reference: Tensor, candidate: Tensor, faintest: float) -> tuple[Tensor, Tensor]:
    """Return both sets of features, (N, d) and (M, d), in float64, turned and scaled by the ``reference``.

    Those of the reference are nearly uncorrelated then.

    As they come, nine tenths of the variance of random features are brightness and contrast: a distance between two
    halves of the same images is then the luck of one or two numbers, and varied by a factor of 3 (measured, CIFAR-10).
    Directions fainter than ``faintest`` times the mean variance are not blown up.
    """
    reference, candidate = reference.double(), candidate.double()
    mean = reference.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(reference.T))
    scale = vectors * (values.clamp(min=0) + faintest * values.mean()).rsqrt()
    return (reference - mean) @ scale, (candidate - mean) @ scale


def random_kernels(channels: int = STEM) -> list[Tensor]:
    """Return weights (C, inputs, 3, 3) ~ N(0, 2 / fan_in) of every stage, the same on every machine.

    The first stage takes images of so many ``channels``.
    """
    kernels, inputs = [], channels
    for width in WIDTHS:
        rng = generator_for("random features", width)
        fan_in = inputs * KERNEL**2
        kernels.append(torch.randn(width, inputs, KERNEL, KERNEL, generator=rng) * (2 / fan_in) ** 0.5)
        inputs = width
    return kernels
