"""Generators: from noise alone (the coarsest band), and from noise and the bands before (all others)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.networks.attention import MaxAttention
from freqgan.networks.blocks import (
    RECTIFIER_GAIN,
    PatchHead,
    ResidualBlock,
    StyledBlocks,
    activate,
    compressed,
    convolution,
    dense,
    grid_patch,
)
from freqgan.networks.settings import NetworkSettings
from freqgan.networks.target_embedding import target_embedding
from freqgan.seeds import generator_for
from freqgan.sizes import Size, area, halving_sizes
from freqgan.targets import TargetLayout

NOISE_MAPS = 4
POOLED_SIDE = 4
ATTENTION_SIDE = 16
ENLARGED_DEVIATION = 0.66
"""Deviation of independent cells after any number of linear doublings; nearly all is lost in the first (measured)."""


@dataclass(frozen=True)
class GeneratorShape:
    """What a generator must produce and from what: channels of its output, of its base, of its condition.

    ``size`` is that of the output and the base, pixels; the condition has ``grid = size / patch`` cells.
    """

    size: Size
    patch: int
    channels: int
    base_channels: int
    condition_channels: int
    noise: int
    targets: TargetLayout
    name: str

    @property
    def grid(self) -> Size:
        """Cells of the network's own grid, down and across."""
        return self.size[0] // self.patch, self.size[1] // self.patch


def root_shape(
    size: Size, channels: int, noise: int, settings: NetworkSettings, *, targets: TargetLayout, name: str
) -> GeneratorShape:
    """Return the shape of a generator of (B, ``channels``, *``size``) that sees ``noise`` numbers and targets alone.

    Its grid is the one of ``settings``, or the finest below that ``size`` can have.
    """
    return GeneratorShape(
        size=size,
        patch=grid_patch(size, settings.patch),
        channels=channels,
        base_channels=0,
        condition_channels=0,
        noise=noise,
        targets=targets,
        name=name,
    )


def pooled(x: Tensor) -> Tensor:
    """Return ``x`` (B, C, h, w) averaged to a 4x4 grid and flattened: (B, 16 C)."""
    return functional.adaptive_avg_pool2d(x, POOLED_SIDE).flatten(1)


def enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return ``x`` (B, C, h, w) resampled linearly to ``size``, height and width.

    Repetition would leave its squares in the images.
    """
    return functional.interpolate(x, size=(size[0], size[1]), mode="bilinear")


Planes = Tensor | None
"""Sub-images stacked by channel (B, K, g, g'); None for a generator that sees none."""


class StyleNetwork(nn.Module):
    """(noise, extra features, target) -> style: two dense layers."""

    def __init__(self, noise: int, extra: int, layout: TargetLayout, width: int) -> None:
        super().__init__()
        self.embed = target_embedding(layout, width)
        inputs = noise + extra + (width if layout else 0)
        self.first = dense(inputs, width, gain=RECTIFIER_GAIN)
        self.second = dense(width, width, gain=RECTIFIER_GAIN)

    def forward(self, noise: Tensor, extra: Tensor | None, targets: Tensor | None) -> Tensor:
        """Return the style (B, width).

        Args:
            noise: (B, n).
            extra: features (B, e), or None.
            targets: (B,) int64 labels, or (B, K) packed; or None.
        """
        parts = [noise] if extra is None else [noise, extra]
        if self.embed is not None:
            if targets is None:
                raise ValueError("this network was built for targets: it needs some, a label or a row for each sample")
            parts.append(self.embed(targets))
        out: Tensor = activate(self.second(activate(self.first(torch.cat(parts, dim=1)))))
        return out


class RootGenerator(nn.Module):
    """noise -> (B, C, h, w), upsampling by residual blocks from 4x4 (or less, for smaller bands).

    A condition, where the plan gives one to a band that has no base, enters on the network's own grid.
    ``attention`` adds max-attention at the finest resolution of at most 16 pixels.
    """

    def __init__(self, shape: GeneratorShape, settings: NetworkSettings, *, attention: bool = False) -> None:
        super().__init__()
        self.sizes = halving_sizes(shape.grid)
        widths = [settings.coarse_width] * (len(self.sizes) - 1) + [settings.width]
        style = settings.coarse_width
        self.style = StyleNetwork(shape.noise, 1, shape.targets, style)
        gain = 1 / ENLARGED_DEVIATION if len(self.sizes) > 1 else 1.0
        self.start = dense(style, widths[0] * area(self.sizes[0]), gain=gain)
        self.steps = nn.ModuleList()
        self.shortcuts = nn.ModuleList()
        for i, width in enumerate(widths):
            count = settings.blocks if i == len(widths) - 1 else 1
            self.steps.append(StyledBlocks(count, width, settings, style))
            self.shortcuts.append(convolution(widths[max(i - 1, 0)], width, 1) if i else nn.Identity())
        attended = (
            max(i for i, size in enumerate(self.sizes) if max(size) <= ATTENTION_SIDE or i == 0) if attention else -1
        )
        self.attention = nn.ModuleList(
            MaxAttention(w) if i == attended else nn.Identity() for i, w in enumerate(widths)
        )
        seen = shape.condition_channels
        self.condition = convolution(seen, settings.width, 3) if seen else None
        self.head = PatchHead(settings.width, shape.channels, shape.patch)

    def forward(
        self, noise: Tensor, condition: Planes, base: Planes, condition_noise: Tensor, targets: Tensor | None
    ) -> Tensor:
        """Return the band (B, C, h, w) in units of the normalised band.

        Args:
            noise: (B, n).
            condition: (B, K, g, g'), or None.
            base: None: there is no low band to start from.
            condition_noise: (B,) deviation of the noise on the condition.
            targets: (B,) int64 labels, or (B, K) packed; or None.

        """
        style = self.style(noise, condition_noise[:, None], targets)
        x = self.start(style).unflatten(1, (-1, *self.sizes[0]))
        for i, (blocks, shortcut) in enumerate(zip(self.steps, self.shortcuts, strict=True)):
            if i:
                x = shortcut(enlarged(x, self.sizes[i]))
            if i == len(self.steps) - 1 and self.condition is not None and condition is not None:
                x = x + self.condition(condition)
            x = blocks(x, style)
            x = self.attention[i](x)
        out: Tensor = self.head(x)
        return out


class ConditionalGenerator(nn.Module):
    """noise and the bands before -> the band: a linear skip from the low band plus a residual network.

    * High bands: output = conv3x3(LL_q) + head(network). The linear part takes what Haar leaves of
      HL and LH in their own low band (30-50 % of their variance).
    * Refiner (``refine``): output = U_q + head(network) with the head at zero at the start, so that
      training begins at the exact synthesis of the coarser level.

    The network works on its own grid and once at half of its resolution. Noise enters twice: in the
    style of every block and as a few maps, which are fixed projections of the same vector onto the
    cells of the grid (each is exactly normal), so the output is a function of the noise vector alone.
    """

    noise_maps: Tensor

    def __init__(self, shape: GeneratorShape, settings: NetworkSettings, *, refine: bool) -> None:
        super().__init__()
        self.refine = refine
        width, coarse = settings.width, settings.coarse_width
        style = coarse
        self.style = StyleNetwork(shape.noise, 1 + shape.base_channels * POOLED_SIDE**2, shape.targets, style)
        self.register_buffer("noise_maps", _projection(shape), persistent=True)
        self.stem = convolution(shape.condition_channels + NOISE_MAPS, width, 3)
        self.enter = ResidualBlock(width, settings, style)
        self.down = convolution(width, coarse, 1)
        self.middle = ResidualBlock(coarse, settings, style)
        self.up = convolution(coarse, width, 1, gain=0.5)
        self.blocks = StyledBlocks(settings.blocks - 1, width, settings, style)
        self.skip = None if refine else convolution(shape.base_channels, shape.channels, 3, gain=0)
        self.head = PatchHead(width, shape.channels, shape.patch, gain=0 if refine else 0.7)

    def forward(
        self, noise: Tensor, condition: Planes, base: Planes, condition_noise: Tensor, targets: Tensor | None
    ) -> Tensor:
        """Return the band (B, C', h, w) in units of the normalised band.

        Args:
            noise: (B, n).
            condition: planes (B, K, g, g').
            base: (B, C, h, w), the low band that it starts from.
            condition_noise: (B,) deviation of the noise on the condition.
            targets: (B,) int64 labels, or (B, K) packed; or None.

        """
        if condition is None or base is None:
            raise ValueError("a conditional generator needs the bands before it and a low band to start from")
        style = self.style(noise, torch.cat([condition_noise[:, None], pooled(compressed(base))], dim=1), targets)
        maps = torch.einsum("bn,nmhw->bmhw", noise, self.noise_maps)
        x = self.enter(self.stem(torch.cat([condition, maps], dim=1)), style)
        coarse = self.middle(self.down(functional.avg_pool2d(x, 2, ceil_mode=True)), style)
        x = x + self.up(enlarged(coarse, x.shape[-2:]))
        x = self.blocks(x, style)
        linear = base if self.skip is None else self.skip(base)
        out: Tensor = linear + self.head(x)
        return out


def _projection(shape: GeneratorShape) -> Tensor:
    """Return (n, M, g, g'): for each map and cell a unit vector of R^n, a function of the GAN's name alone."""
    size = (shape.noise, NOISE_MAPS, *shape.grid)
    directions = torch.randn(size, generator=generator_for("noise maps", shape.name), dtype=torch.float64)
    unit: Tensor = directions / torch.linalg.vector_norm(directions, dim=0, keepdim=True)
    return unit.float()


def build_generator(shape: GeneratorShape, settings: NetworkSettings, *, refine: bool) -> nn.Module:
    """Return the generator that ``shape`` calls for: from noise alone where there is no base, else conditional."""
    if shape.base_channels == 0:
        return RootGenerator(shape, settings)
    return ConditionalGenerator(shape, settings, refine=refine)
