"""Companions that discriminators train: a residual generator, with max-attention or without, and a DCGAN."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.companions.protocol import Companion
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.networks.blocks import (
    RECTIFIER_GAIN,
    activate,
    convolution,
    dense,
)
from freqgan.networks.generators import GeneratorShape, RootGenerator, root_shape
from freqgan.networks.settings import NetworkSettings
from freqgan.networks.target_embedding import target_embedding
from freqgan.sizes import area, halving_sizes


class ResidualGenerator(RootGenerator, Companion):
    """The residual generator of whole images; with ``attention``, max-attention at a coarse resolution."""

    is_adversarial = True

    def __init__(self, shape: GeneratorShape, settings: NetworkSettings, *, attention: bool) -> None:
        super().__init__(shape, settings, attention=attention)
        self.numbers = shape.noise

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, n) and targets or None."""
        condition_noise = torch.zeros(noise.shape[0], device=noise.device)
        out: Tensor = self(noise, condition=None, base=None, condition_noise=condition_noise, targets=targets)
        return out


class DcganGenerator(Companion):
    """The generator of Radford et al. 2016: a dense layer to 4x4 cells, then transposed 4x4 convolutions of stride 2.

    Without their batch normalisation: with it a sample would depend on its neighbours in the batch, and a replayed
    step on how often it was replayed. Weights are scaled by variance in its place, and targets are added to the noise.
    """

    is_adversarial = True

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        sizes = settings.image_stage.generator
        self.numbers = settings.noise.dimensions
        self.sizes = halving_sizes(settings.size)
        widths = [sizes.coarse_width] * (len(self.sizes) - 1) + [sizes.width]
        self.embed = target_embedding(settings.target_layout, self.numbers)
        self.start = dense(self.numbers, widths[0] * area(self.sizes[0]), gain=RECTIFIER_GAIN)
        self.grow = nn.ModuleList(_doubling(a, b) for a, b in pairwise(widths))
        self.head = convolution(widths[-1], settings.image_channels, 3)

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, n) and targets or None."""
        if self.embed is not None and targets is not None:
            noise = noise + self.embed(targets)
        x = activate(self.start(noise).unflatten(1, (-1, *self.sizes[0])))
        for layer, (height, width) in zip(self.grow, self.sizes[1:], strict=True):
            x = activate(layer(x)[..., :height, :width])
        return functional.tanh(self.head(x))


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles sides; four of its weights of an input reach each output."""
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    nn.init.normal_(layer.weight, std=RECTIFIER_GAIN * (4 * inputs) ** -0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # bias exists: the layer was built with one
    return layer


def residual_generator(settings: ModelSettings, *, attention: bool) -> ResidualGenerator:
    """Return the residual generator of the sizes in ``settings``."""
    sizes, noise = settings.image_stage.generator, settings.noise.dimensions
    shape = root_shape(
        settings.size, settings.image_channels, noise, sizes, targets=settings.target_layout, name=IMAGE_STAGE
    )
    return ResidualGenerator(shape, sizes, attention=attention)
