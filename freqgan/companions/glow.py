"""A normalising flow of whole images, after Glow (Kingma and Dhariwal 2018): invertible, with an exact likelihood.

At every level pixels are squeezed to channels, so that grey images can be split too, then come steps of ActNorm, an
invertible 1x1 convolution and an affine coupling, and half of the channels leave, as noise given the other half.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.companions.protocol import Companion, CompanionLoss
from freqgan.model.settings import ModelSettings
from freqgan.networks.blocks import RECTIFIER_GAIN, activate, convolution
from freqgan.networks.target_embedding import target_embedding
from freqgan.sizes import area

LEAST_DEVIATION = 1e-3
"""Deviation of a channel below which ActNorm does not enlarge it further: constant channels have 0."""


class Encoding(NamedTuple):
    """Noises (B, C N N) of images, and the log determinants (B,) of the map's derivative."""

    noise: Tensor
    log_determinant: Tensor


class ActNorm(nn.Module):
    """(x + shift) exp(log_scale), channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    @torch.no_grad()
    def normalise(self, x: Tensor) -> None:
        """Set both so that every channel of ``x`` (B, C, h, w) has mean 0 and deviation 1 after this layer."""
        self.shift.copy_(-x.mean((0, 2, 3))[:, None, None])
        self.log_scale.copy_(-x.std((0, 2, 3), correction=0).clamp_min(LEAST_DEVIATION).log()[:, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, C, h, w) for x (B, C, h, w), and the log determinant, a scalar."""
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum() * x[0, 0].numel()

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (B, C, h, w) for y (B, C, h, w)."""
        return y * (-self.log_scale).exp() - self.shift


class InvertibleConvolution(nn.Module):
    """A 1x1 convolution by W = P L U, which starts as a random rotation; P and the signs of U's diagonal stay."""

    permutation: Tensor
    signs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation.float())
        self.register_buffer("signs", diagonal.sign().float())
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_diagonal = nn.Parameter(diagonal.abs().log().float())

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(len(self.signs), device=self.signs.device)
        return lower, self.upper.triu(1) + torch.diag(self.signs * self.log_diagonal.exp())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, C, h, w) for x (B, C, h, w), and the log determinant, a scalar."""
        lower, upper = self._factors()
        weight = self.permutation @ lower @ upper
        y = functional.conv2d(x, weight[:, :, None, None])
        return y, self.log_diagonal.sum() * x[0, 0].numel()

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (B, C, h, w) for y (B, C, h, w), by two triangular systems."""
        lower, upper = self._factors()
        columns = self.permutation.mT @ y.flatten(2)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        x: Tensor = torch.linalg.solve_triangular(upper, columns, upper=True).view_as(y)
        return x


class AffineCoupling(nn.Module):
    """The second half of the channels, shifted and scaled by what the first half says; the identity half stays.

    The scale is sigmoid(raw + 2), at most 1, and the last layer starts at zero: scales start at .88.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = convolution(half, width, 3, gain=RECTIFIER_GAIN)
        self.second = convolution(width, width, 1, gain=RECTIFIER_GAIN)
        self.last = convolution(width, 2 * (channels - half), 3, gain=0)

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.last(activate(self.second(activate(self.first(x))))).chunk(2, dim=1)
        return functional.logsigmoid(raw + 2), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, C, h, w) for x (B, C, h, w), and the log determinants (B,)."""
        same, other = x.chunk(2, dim=1)
        log_scale, shift = self._affine(same)
        return torch.cat([same, (other + shift) * log_scale.exp()], dim=1), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (B, C, h, w) for y (B, C, h, w)."""
        same, other = y.chunk(2, dim=1)
        log_scale, shift = self._affine(same)
        return torch.cat([same, other * (-log_scale).exp() - shift], dim=1)


class FlowStep(nn.Module):
    """ActNorm, an invertible 1x1 convolution, an affine coupling."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.convolution = InvertibleConvolution(channels)
        self.coupling = AffineCoupling(channels, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, C, h, w) for x (B, C, h, w), and the log determinants (B,)."""
        x, first = self.norm(x)
        x, second = self.convolution(x)
        x, third = self.coupling(x)
        return x, first + second + third

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (B, C, h, w) for y (B, C, h, w)."""
        out: Tensor = self.norm.inverse(self.convolution.inverse(self.coupling.inverse(y)))
        return out


class FlowLevel(nn.Module):
    """A squeeze of 2x2 pixels to channels, then ``count`` steps of flow."""

    def __init__(self, channels: int, count: int, width: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(FlowStep(channels, width) for _ in range(count))

    def forward(self, x: Tensor, *, normalise: bool = False) -> tuple[Tensor, Tensor]:
        """Return y (B, 4 C, h / 2, w / 2) for x (B, C, h, w), and the log determinants (B,).

        With ``normalise`` every ActNorm is first set by what reaches it.
        """
        x, total = functional.pixel_unshuffle(x, 2), torch.zeros(x.shape[0], device=x.device)
        for step in self.steps:
            if normalise:
                step.norm.normalise(x)  # type: ignore[union-attr, operator]
            x, log_determinant = step(x)
            total = total + log_determinant
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (B, C, h, w) for y (B, 4 C, h / 2, w / 2)."""
        for step in reversed(self.steps):
            y = step.inverse(y)  # type: ignore[operator]
        return functional.pixel_shuffle(y, 2)


class Split(nn.Module):
    """Half of the channels leaves as noise: (x_2 - mean(x_1)) exp(-log_deviation(x_1))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prior = convolution(channels // 2, channels, 3, gain=0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what stays and what leaves, (B, C / 2, h, w) each, and the log determinants (B,)."""
        stays, leaves = x.chunk(2, dim=1)
        mean, log_deviation = self.prior(stays).chunk(2, dim=1)
        return stays, (leaves - mean) * (-log_deviation).exp(), -log_deviation.flatten(1).sum(1)

    def inverse(self, stays: Tensor, noise: Tensor) -> Tensor:
        """Return x (B, C, h, w) for what stayed and the noise that left, (B, C / 2, h, w) each."""
        mean, log_deviation = self.prior(stays).chunk(2, dim=1)
        return torch.cat([stays, mean + noise * log_deviation.exp()], dim=1)


class Glow(Companion):
    """Levels of steps of flow, the noise of the last level shifted and scaled by the label."""

    prepared: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        sizes = settings.image_stage.glow
        self.numbers = settings.image_channels * area(settings.size)
        self.half_range = (2**settings.bit_depth - 1) / 2
        widths = [4 * settings.image_channels * 2**level for level in range(sizes.levels)]
        self.levels = nn.ModuleList(FlowLevel(width, sizes.steps, sizes.width) for width in widths)
        self.splits = nn.ModuleList(Split(width) for width in widths[:-1])
        channels, (height, width) = widths[-1], settings.size
        self.top_shape = (channels, height // 2**sizes.levels, width // 2**sizes.levels)
        self.embed = target_embedding(settings.target_layout, 2 * channels, deviation=0.0)
        self.register_buffer("prepared", torch.zeros((), dtype=torch.uint8))

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Have every ActNorm normalise what reaches it of real images (B, C, N, N), once for all.

        They have the noise that images have in training, always the same here: without it constant channels of a batch
        would be enlarged without end.
        """
        if not self.prepared:
            self._run(self._dequantised(images, torch.Generator().manual_seed(0)), normalise=True)
            self.prepared.fill_(1)

    def encode(self, images: Tensor, targets: Tensor | None = None) -> Encoding:
        """Return the noises that :meth:`sample` makes images (B, C, N, N) of, under targets (one for each, or None)."""
        top, left, total = self._run(images, normalise=False)
        mean, log_deviation = self._prior(targets, top)
        noise = (top - mean) * (-log_deviation).exp()
        total = total - log_deviation.expand_as(top).flatten(1).sum(1)
        return Encoding(torch.cat([noise.flatten(1), *(x.flatten(1) for x in reversed(left))], dim=1), total)

    def _run(self, x: Tensor, *, normalise: bool) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return what is left at the top (B, C, h, h), the noises that left on the way, and the log determinants."""
        total, left = torch.zeros(x.shape[0], device=x.device), []
        for level, steps in enumerate(self.levels):
            x, log_determinant = steps(x, normalise=normalise)
            total = total + log_determinant
            if level < len(self.splits):
                x, noise, log_determinant = self.splits[level](x)
                left.append(noise)
                total = total + log_determinant
        return x, left, total

    def _prior(self, targets: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log deviation of the top, (B, C, 1, 1) each; 0 without classes."""
        if self.embed is None or targets is None:
            zeros = torch.zeros(1, 1, 1, 1, device=like.device)
            return zeros, zeros
        mean, log_deviation = self.embed(targets)[:, :, None, None].chunk(2, dim=1)
        return mean, log_deviation

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, C N N), the coarsest level's first, and targets or None."""
        mean, log_deviation = self._prior(targets, noise)
        used = math.prod(self.top_shape)
        x = mean + noise[:, :used].reshape(-1, *self.top_shape) * log_deviation.exp()
        for level in reversed(range(len(self.levels))):
            if level < len(self.splits):
                own = noise[:, used : used + x[0].numel()].view_as(x)
                used += own[0].numel()
                x = self.splits[level].inverse(x, own)  # type: ignore[operator]
            x = self.levels[level].inverse(x)  # type: ignore[operator]
        return x

    def _dequantised(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return stored pixels (B, C, N, N), each drawn evenly from its step of brightness."""
        places = torch.rand(images.shape, generator=rng) - 0.5
        noisy: Tensor = images + places.to(images.device) / self.half_range
        return noisy

    def log_likelihood(self, images: Tensor, targets: Tensor | None) -> Tensor:
        """Return log densities (B,) in nats of images (B, C, N, N) in [-1, 1]."""
        noise, log_determinant = self.encode(images, targets)
        normal = -0.5 * noise.square().sum(1) - 0.5 * self.numbers * math.log(2 * math.pi)
        return normal + log_determinant

    def loss(self, images: Tensor, targets: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return the bits per dimension of stored pixels, a scalar: an upper bound, by noise of one step."""
        nats = self.log_likelihood(self._dequantised(images, rng), targets).mean()
        bits = bits_per_dimension(nats, self.numbers, self.half_range)
        return CompanionLoss(bits, {"bits_per_dimension": bits.detach()})


def bits_per_dimension(nats: Tensor, dimensions: int, half_range: float) -> Tensor:
    """Return -log2 p of a pixel, a scalar, by the mean log density of images of pixels in [-1, 1].

    Stored pixels are ``half_range`` times as far apart as these: 127.5 with 8 bits.
    """
    return -nats / (dimensions * math.log(2)) + math.log2(half_range)
