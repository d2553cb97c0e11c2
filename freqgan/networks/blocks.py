"""The building blocks shared by generators and discriminators.

No normalisation layers: residual blocks whose last layer starts at zero, the rest scaled by
variance (He et al. 2015), keep activations in range, as in R3GAN (Huang et al. 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.networks.settings import NetworkSettings
from freqgan.sizes import Size

SLOPE = 0.2
SMALLEST_GRID = 8
PIXEL_FEATURES = 8


def activate(x: Tensor) -> Tensor:
    """Return the leaky rectifier of slope 0.2 of ``x`` (...).

    It is piecewise linear, so its second derivative costs nothing.
    """
    return functional.leaky_relu(x, SLOPE)


def compressed(x: Tensor) -> Tensor:
    """Return asinh of ``x`` (...) to 3e-7, in half the time of torch.asinh.

    It uses functions that a CPU has vector instructions for.

    For conditions, which nothing is differentiated by: at exactly 0 its derivative is 0.
    """
    return torch.log(x.abs() + torch.sqrt(1 + x * x)).copysign(x)


def convolution(inputs: int, outputs: int, kernel: int, *, groups: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """Return a same-size convolution with weights ~ N(0, gain^2 / fan_in); gain 0 gives a layer that starts at zero."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    fan_in = inputs // groups * kernel * kernel
    nn.init.normal_(layer.weight, std=gain * fan_in**-0.5) if gain else nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # bias exists: nn.Conv2d was built with one
    return layer


def dense(inputs: int, outputs: int, *, gain: float = 1.0) -> nn.Linear:
    """Return a linear layer with weights ~ N(0, gain^2 / inputs) and no bias at the start."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=gain * inputs**-0.5) if gain else nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


RECTIFIER_GAIN = (2 / (1 + SLOPE**2)) ** 0.5
"""The gain that keeps variance through :func:`activate` (He et al. 2015, equation 15)."""


class ResidualBlock(nn.Module):
    """x + W3 a(W2 a(W1 x)): 1x1 expand, grouped 3x3, 1x1 that starts at ``gain``; optionally modulated by a style.

    The style scales and shifts the expanded channels, (1 + s) h + b, before the 3x3 convolution.
    """

    def __init__(self, width: int, settings: NetworkSettings, style: int = 0, *, gain: float = 0.0) -> None:
        super().__init__()
        inner = width * settings.expansion
        groups = max(1, inner // settings.group_width)
        while inner % groups:
            groups -= 1
        self.expand = convolution(width, inner, 1, gain=RECTIFIER_GAIN)
        self.spread = convolution(inner, inner, 3, groups=groups, gain=RECTIFIER_GAIN)
        self.project = convolution(inner, width, 1, gain=gain)
        self.modulate = dense(style, 2 * inner, gain=0.25) if style else None

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Return (B, width, h, w) for x (B, width, h, w) and a style, (B, style) or None."""
        hidden = self.expand(x)
        if self.modulate is not None and style is not None:
            scale, shift = self.modulate(style)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        out: Tensor = x + self.project(activate(self.spread(activate(hidden))))
        return out


class StyledBlocks(nn.Module):
    """``count`` residual blocks of one width, one after the other, under one style; none at all for 0."""

    def __init__(self, count: int, width: int, settings: NetworkSettings, style: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, settings, style) for _ in range(count))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return (B, width, h, w) for x (B, width, h, w) and a style (B, style)."""
        for block in self.blocks:
            x = block(x, style)
        return x


class PatchHead(nn.Module):
    """Cells of a network's grid -> pixels: features of every pixel by depth to space, mixed by a 3x3 convolution.

    Straight to pixels, each cell would paint its patch without seeing what its neighbours paint: a lattice of
    patches lies over the images (measured with patches of 4). ``gain`` 0 starts at zero output.
    """

    def __init__(self, width: int, channels: int, patch: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.patch = patch
        features = PIXEL_FEATURES if patch > 1 else width
        self.spread = convolution(width, features * patch**2, 1, gain=RECTIFIER_GAIN) if patch > 1 else None
        self.mix = convolution(features, channels, 3, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return pixels (B, channels, g patch, g patch) for cells (B, width, g, g)."""
        if self.spread is not None:
            x = activate(functional.pixel_shuffle(self.spread(x), self.patch))
        out: Tensor = self.mix(x)
        return out


class PatchStem(nn.Module):
    """Pixels -> cells of a network's grid: 3x3 features of every pixel, then space to depth."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        features = PIXEL_FEATURES if patch > 1 else channels
        self.mix = convolution(channels, features, 3, gain=RECTIFIER_GAIN) if patch > 1 else None
        self.channels = features * patch**2

    def forward(self, x: Tensor) -> Tensor:
        """Return cells (B, self.channels, g, g) for pixels (B, channels, g patch, g patch)."""
        if self.mix is not None:
            x = activate(self.mix(x))
        return functional.pixel_unshuffle(x, self.patch)


def grid_patch(size: Size, patch: int) -> int:
    """Return the largest patch up to ``patch`` that leaves a whole grid of at least 8 cells a side, or 1.

    ``size`` is that of the sub-images, pixels.

    A network that works on patches (space to depth) sees further and costs less per pixel than one of the
    same width that works on pixels.
    """
    return max(
        p for p in range(1, patch + 1) if p == 1 or all(side % p == 0 and side // p >= SMALLEST_GRID for side in size)
    )
