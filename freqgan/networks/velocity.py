"""The network of a flow expert: a U-Net on the band's grid that predicts a velocity from a noisy band.

No normalisation layers, as in the generators (better loss and more images a second than group or layer norm, measured
for this use too): residual blocks whose last layer starts at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.networks.blocks import compressed, convolution, dense
from freqgan.networks.generators import POOLED_SIDE, enlarged, pooled
from freqgan.networks.settings import VelocityNetworkSettings
from freqgan.networks.target_embedding import EMBEDDING_DEVIATION, hidden_targets, target_embedding
from freqgan.sizes import Size, area, halving_sizes
from freqgan.targets import TargetLayout

FREQUENCIES = 16
TARGET_DEVIATION = 1.0
"""Deviation of a packed target's features at the start. It would make a GAN forget its noise; velocities learn sooner.
On LL1 of CIFAR-10 at 16 x 16, after 12,800 images, classes lower the held-out loss of .76 by .0063 (.0005 with 0.1);
the loss itself is the same. Labels alone begin at 0.1, as in older models."""
SILU_GAIN = 1.68
"""The gain that keeps variance through a SiLU of a normal input."""


@dataclass(frozen=True)
class VelocityShape:
    """What a velocity network works on: height and width in pixels, numbers of channels, and its targets."""

    size: Size
    channels: int
    base_channels: int
    condition_channels: int
    targets: TargetLayout


class VelocityCondition(NamedTuple):
    """What a velocity depends on beside the noisy band and the time.

    Attributes:
        base: (B, C, h, w), the low band that the band belongs to, or None.
        planes: (B, K, g, g'), all that the expert sees on its own grid, or None.
        pooled: (B, 16 C) of the whole low band, where ``base`` is a crop of it; None where it is whole.
        strength: (B,) deviation of the noise on the condition.
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.
        dropped: (B,) bool, samples whose label is not shown; None shows all.

    """

    base: Tensor | None
    planes: Tensor | None
    strength: Tensor
    targets: Tensor | None
    pooled: Tensor | None = None
    dropped: Tensor | None = None


class ModulatedBlock(nn.Module):
    """x + W2 a((1 + s) W1 a(x) + b): two 3x3 convolutions, the second starts at zero; scale and shift by a style."""

    def __init__(self, width: int, style: int) -> None:
        super().__init__()
        self.first = convolution(width, width, 3, gain=SILU_GAIN)
        self.second = convolution(width, width, 3, gain=0)
        self.modulate = dense(style, 2 * width, gain=0.25)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return (B, width, h, w) for x (B, width, h, w) and a style (B, style)."""
        scale, shift = self.modulate(style)[:, :, None, None].chunk(2, dim=1)
        hidden = self.first(functional.silu(x)) * (1 + scale) + shift
        out: Tensor = x + self.second(functional.silu(hidden))
        return out


class SelfAttention(nn.Module):
    """x + W softmax(q k^T) v over all positions, in heads; queries and keys have unit length times a learned scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = max(h for h in range(1, heads + 1) if width % h == 0)
        self.project = convolution(width, 3 * width, 1)
        self.mix = convolution(width, width, 1, gain=0)
        self.scale = nn.Parameter(torch.full((self.heads, 1, 1), math.sqrt(width / self.heads)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w) for x (B, width, h, w)."""
        batch, width, height, columns = x.shape
        parts = self.project(x).view(batch, 3, self.heads, width // self.heads, height * columns).mT
        query, key, value = parts.unbind(1)
        query = functional.normalize(query, dim=-1) * self.scale
        out = functional.scaled_dot_product_attention(query, functional.normalize(key, dim=-1), value, scale=1.0)
        mixed: Tensor = x + self.mix(out.mT.reshape(x.shape))
        return mixed


class ModulatedBlocks(nn.Module):
    """Modulated blocks of one width, one after the other, under one style; attention after them if ``heads`` > 0."""

    def __init__(self, count: int, width: int, style: int, heads: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ModulatedBlock(width, style) for _ in range(count))
        self.attention = SelfAttention(width, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return (B, width, h, w) for x (B, width, h, w) and a style (B, style)."""
        for block in self.blocks:
            x = block(x, style)
        attended: Tensor = self.attention(x)
        return attended


class VelocityNetwork(nn.Module):
    """(noisy band, time, condition) -> velocity, both of the size of the band.

    With x_t = (1 - t) x_0 + t e, both parts of unit variance, x_t has the variance q^2 = (1 - t)^2 + t^2 and the best
    linear guess of e - x_0 is (2 t - 1) / q^2 x_t, which leaves a rest of deviation 1 / q. The network sees x_t / q and
    predicts that rest over 1 / q, so that its input and its target have unit variance at every time.
    """

    frequencies: Tensor

    def __init__(self, shape: VelocityShape, settings: VelocityNetworkSettings) -> None:
        super().__init__()
        self.shape, self.patch = shape, settings.patch
        height, width = shape.size
        self.sizes = halving_sizes((-(-height // settings.patch), -(-width // settings.patch)))[::-1]
        widths = [settings.width] + [settings.coarse_width] * (len(self.sizes) - 1)
        style = settings.coarse_width
        features = 2 * FREQUENCIES + 1 + shape.base_channels * POOLED_SIDE**2
        self.register_buffer("frequencies", torch.logspace(0, 2, FREQUENCIES), persistent=False)
        deviation = TARGET_DEVIATION if shape.targets.packed else EMBEDDING_DEVIATION
        # Of labels alone the last one is "dropped".
        self.embed = target_embedding(shape.targets, style, deviation=deviation, spare=1)
        self.style_first = dense(features, style, gain=SILU_GAIN)
        self.style_second = dense(style, style, gain=SILU_GAIN)
        self.stem = convolution(shape.channels * self.patch**2 + shape.condition_channels, widths[0], 3)
        count = settings.blocks
        heads = [settings.heads if area(size) <= settings.attention_side**2 else 0 for size in self.sizes]
        finer = list(zip(widths[:-1], heads[:-1], strict=True))
        self.down = nn.ModuleList(ModulatedBlocks(count, width, style, n) for width, n in finer)
        self.shrink = nn.ModuleList(convolution(a, b, 1) for a, b in pairwise(widths))
        self.middle = ModulatedBlocks(2 * count, widths[-1], style, heads[-1])
        self.grow = nn.ModuleList(convolution(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(ModulatedBlocks(count, width, style, n) for width, n in finer)
        self.head = convolution(widths[0], shape.channels * self.patch**2, 3, gain=0)

    def forward(self, x: Tensor, time: Tensor, condition: VelocityCondition) -> Tensor:
        """Return velocities (B, C, h, w) at noisy bands ``x`` (B, C, h, w) at ``time`` (B,), from 0 (data) to 1."""
        variance = ((1 - time).square() + time.square())[:, None, None, None]
        linear = (2 * time - 1)[:, None, None, None] / variance * x
        scale = variance.rsqrt()
        return linear + scale * self.residual(x * scale, time, condition).float()

    def residual(self, x: Tensor, time: Tensor, condition: VelocityCondition) -> Tensor:
        """Return what the blocks alone predict (B, C, h, w) at ``x`` (B, C, h, w), of unit variance, and times (B,)."""
        style = self._style(time, condition)
        height, width = x.shape[-2:]
        x = self._folded(x)
        if condition.planes is not None:
            x = torch.cat([x, condition.planes], dim=1)
        x = self.stem(x)
        skips: list[Tensor] = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            x = blocks(x, style)
            skips.append(x)
            x = shrink(functional.avg_pool2d(x, 2, ceil_mode=True))
        x = self.middle(x, style)
        for blocks, grow, skip in zip(reversed(self.up), reversed(self.grow), reversed(skips), strict=True):
            x = blocks(skip + enlarged(grow(x), skip.shape[-2:]), style)
        out: Tensor = functional.pixel_shuffle(self.head(functional.silu(x)), self.patch)
        return out[..., :height, :width]

    def _folded(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, h, w) with patches of pixels as channels, zero-padded to whole ones."""
        below, beside = (-side % self.patch for side in x.shape[-2:])
        padded = functional.pad(x, (0, beside, 0, below)) if below or beside else x
        return functional.pixel_unshuffle(padded, self.patch)

    def _style(self, time: Tensor, condition: VelocityCondition) -> Tensor:
        angles = time[:, None] * self.frequencies
        parts = [angles.cos(), angles.sin(), condition.strength[:, None]]
        if condition.base is not None:
            parts.append(pooled(compressed(condition.base)) if condition.pooled is None else condition.pooled)
        hidden = self.style_first(torch.cat(parts, dim=1))
        if self.embed is not None:
            hidden = hidden + self.embed(self._shown_targets(condition))
        out: Tensor = functional.silu(self.style_second(functional.silu(hidden)))
        return out

    def _shown_targets(self, condition: VelocityCondition) -> Tensor:
        if condition.targets is None:
            raise ValueError("this network was built for targets: it needs some, a label or a row for each sample")
        if condition.dropped is None:
            return condition.targets
        layout = self.shape.targets
        if layout.packed:
            return hidden_targets(layout, condition.targets, condition.dropped)
        return torch.where(condition.dropped, layout.classes, condition.targets)
