"""Statistics of a fixed network's features, matched between generated and real images of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from freqgan.metrics.features import random_kernels
from freqgan.metrics.pooled_features import VGG_LAYERS, VGG_SIDE, channel_statistics, random_layers, resized
from freqgan.networks.vgg import LEAST_SIDE, Vgg19

LEAST_DEVIATION = 1e-3
"""Added to the deviation of a real feature: one that hardly varies in a batch would weigh without bound."""


class FeatureMatching(nn.Module):
    """The distance of generated images from real ones by mean and covariance of pooled features, layer by layer.

    Of every image a layer gives mean and deviation of each channel. These are brought to mean 0 and deviation 1 over
    the real images of the batch; then the mean square of the generated images' means and that of the difference of both
    covariances are added up: the first two moments, which a Frechet distance compares, but without a root of a matrix.

    Args:
        vgg: the network, in eval mode; one with fixed random weights where not given.

    """

    def __init__(self, vgg: Vgg19 | None) -> None:
        super().__init__()
        self.vgg = vgg
        for number, kernel in enumerate(() if vgg is not None else random_kernels()):
            self.register_buffer(f"kernel_{number}", kernel, persistent=False)
        self.requires_grad_(False)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the numbers (B, n) that every layer gives of images (B, C, N, N) in [-1, 1]."""
        if self.vgg is None:
            return random_layers(images, [kernel for _, kernel in self.named_buffers()])
        x = resized((images + 1) / 2, LEAST_SIDE, VGG_SIDE)
        return [channel_statistics(x) for x in self.vgg.features(x, VGG_LAYERS).values()]

    def forward(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the distance, a scalar, of ``generated`` from ``real``, both (B, C, N, N) in [-1, 1], B at least 2.

        Gradients reach ``generated`` alone.
        """
        with torch.no_grad():
            wanted = self.layers(real)
        pairs = zip(wanted, self.layers(generated), strict=True)
        return torch.stack([moment_distance(a, b) for a, b in pairs]).mean()


def moment_distance(real: Tensor, generated: Tensor) -> Tensor:
    """Return the distance, a scalar, of the first two moments of numbers (B, n) from those of real ones (B', n)."""
    deviation, mean = torch.std_mean(real, dim=0, correction=0)
    first, second = ((x - mean) / (deviation + LEAST_DEVIATION) for x in (real, generated))
    means = second.mean(0).square().mean()
    return means + (_covariance(second) - _covariance(first)).square().mean()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.mT @ centred / len(x)


LoadVgg = Callable[[str], Vgg19]
"""Returns VGG19 with the weights of a file."""


def feature_matching(weight: float, network: str, load: LoadVgg | None) -> FeatureMatching | None:
    """Return the loss of a ``weight`` above 0, by the ``network`` of a file that ``load`` reads, or the random one."""
    if not weight:
        return None
    return FeatureMatching(load(network) if network and load is not None else None)
