"""An autoregressive model of pixels, after PixelCNN++ (Salimans et al. 2017): each given all those before it.

A pixel's value is from a mixture of discretised logistic distributions, one for its colours together, whose means
depend on the colours before. Two stacks of convolutions see what is before a pixel without a blind spot (van den Oord
et al. 2016): one all rows above, the other the row to the left as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from freqgan.companions.protocol import Companion, CompanionLoss
from freqgan.model.settings import ModelSettings
from freqgan.networks.blocks import activate, convolution, dense
from freqgan.networks.target_embedding import target_embedding
from freqgan.sizes import area

LOG_SCALE_FLOOR = -7.0
"""Of pixels of 8 bits in [-1, 1]: a logistic distribution much narrower than a step. More bits lower it."""
HIGHEST_LOG_SCALE = 10.0
"""Beyond it a distribution is flat over all pixels, and the logarithm of its part of a step is not a number."""


class CausalConvolution(nn.Module):
    """A convolution over the ``rows`` and columns that end at a pixel; ``rows`` x ``left`` + 1 + ``right`` weights."""

    def __init__(self, inputs: int, outputs: int, rows: int, left: int, right: int, gain: float = 1.0) -> None:
        super().__init__()
        self.padding = (left, right, rows - 1, 0)
        self.layer = nn.Conv2d(inputs, outputs, (rows, left + 1 + right))
        nn.init.normal_(self.layer.weight, std=gain * self.layer.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]  # bias exists: the layer was built with one

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, h, w) for x (B, inputs, h, w)."""
        out: Tensor = self.layer(functional.pad(x, self.padding))
        return out


def moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return ``x`` (B, C, h, w) moved down by ``rows`` and right by ``columns``, zeros coming in."""
    height, width = x.shape[-2:]
    return functional.pad(x, (columns, 0, rows, 0))[..., :height, :width]


class StackLayer(nn.Module):
    """A gated residual layer of both stacks; a label's embedding is added to each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.above = CausalConvolution(width, 2 * width, rows=2, left=1, right=1)
        self.before = CausalConvolution(width, 2 * width, rows=2, left=1, right=0)
        self.link = convolution(width, 2 * width, 1)

    def forward(self, above: Tensor, before: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return both stacks, (B, width, h, w) each; ``label`` is (B, 2 width, 1, 1) or a scalar."""
        above = above + _gated(self.above(activate(above)) + label)
        return above, before + _gated(self.before(activate(before)) + self.link(activate(above)) + label)


def _gated(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=1)
    return value.tanh() * gate.sigmoid()


class PixelMixture:
    """The distribution of one pixel, of C colours one after the other: a mixture of logistics, in steps of brightness.

    Args:
        parameters: (..., K (1 + 2 C + C (C - 1) / 2)): weights, means, log scales, and how means depend on the
            colours before.
        channels: C.
        bits: of a pixel.

    """

    def __init__(self, parameters: Tensor, channels: int, bits: int) -> None:
        pairs = channels * (channels - 1) // 2
        count = parameters.shape[-1] // (1 + 2 * channels + pairs)
        self.channels, self.bits, self.step = channels, bits, 2 / (2**bits - 1)
        self.log_weights = parameters[..., :count].log_softmax(-1)
        rest = parameters[..., count:].reshape(*parameters.shape[:-1], 2 * channels + pairs, count)
        self.means, self.slopes = rest[..., :channels, :], rest[..., 2 * channels :, :].tanh()
        floor = LOG_SCALE_FLOOR - (bits - 8) * math.log(2)
        self.log_scales = rest[..., channels : 2 * channels, :].clamp(floor, HIGHEST_LOG_SCALE)

    def mean(self, channel: int, before: Tensor) -> Tensor:
        """Return the means (..., K) of a colour, given the ``before`` (..., C) of which those before it are known."""
        mean: Tensor = self.means[..., channel, :]
        first = channel * (channel - 1) // 2
        for other in range(channel):
            mean = mean + self.slopes[..., first + other, :] * before[..., other, None]
        return mean

    def log_probabilities(self, channel: int, values: Tensor, before: Tensor) -> Tensor:
        """Return log P (..., K) of each logistic for a colour's ``values`` (...), given those ``before`` (..., C).

        log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - e^(b - a)), s the logistic function and a, b the ends of the
        step, is exact in all tails. The lowest and the highest value take all beyond them.
        """
        inverse = (-self.log_scales[..., channel, :]).exp()
        centred = values[..., None] - self.mean(channel, before)
        upper, lower = inverse * (centred + self.step / 2), inverse * (centred - self.step / 2)
        inside = functional.logsigmoid(upper) + functional.logsigmoid(-lower)
        inside = inside + torch.log(-torch.expm1(-inverse * self.step))
        last = 1 - self.step / 2
        value = values[..., None]
        high = torch.where(value > last, functional.logsigmoid(-lower), inside)
        return torch.where(value < -last, functional.logsigmoid(upper), high)

    def log_likelihood(self, pixels: Tensor) -> Tensor:
        """Return log P (...) of pixels (..., C) in [-1, 1]."""
        total = self.log_weights
        for channel in range(self.channels):
            total = total + self.log_probabilities(channel, pixels[..., channel], pixels)
        return total.logsumexp(-1)

    def quantile(self, places: Tensor) -> Tensor:
        """Return pixels (..., C) at ``places`` (..., C) from 0 to 1 of their distribution, colour by colour.

        It is the least value whose distribution function reaches the place, by bisection over the steps. The weights
        of the logistics for the next colour are those given the colours before.
        """
        pixels, weights = torch.zeros_like(places), self.log_weights
        for channel in range(self.channels):
            pixels[..., channel] = self._quantile(channel, places[..., channel], pixels, weights)
            weights = weights + self.log_probabilities(channel, pixels[..., channel], pixels)
            weights = weights.log_softmax(-1)
        return pixels

    def _quantile(self, channel: int, places: Tensor, before: Tensor, weights: Tensor) -> Tensor:
        mean, inverse = self.mean(channel, before), (-self.log_scales[..., channel, :]).exp()
        low = torch.zeros(places.shape, dtype=torch.int64, device=places.device)
        high = torch.full_like(low, 2**self.bits - 1)
        for _ in range(self.bits):
            middle = (low + high).div(2, rounding_mode="floor")
            end = middle * self.step - 1 + self.step / 2
            reached = (weights.exp() * (inverse * (end[..., None] - mean)).sigmoid()).sum(-1)
            low = torch.where(reached < places, (middle + 1).minimum(high), low)
            high = torch.where(reached < places, high, middle)
        value: Tensor = low * self.step - 1
        return value


class PixelCnn(Companion):
    """Two stacks of causal convolutions that give the distribution of every pixel."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        sizes = settings.image_stage.autoregressive
        self.channels, self.size, self.bits = settings.image_channels, settings.size, settings.bit_depth
        self.numbers, self.reach = self.channels * area(self.size), sizes.layers + 2
        self.passes = min(self.reach + 1, self.size[0]) * min(2 * self.reach + 1, self.size[1])
        width, inputs = sizes.width, self.channels + 1  # a plane of ones: zeros outside of the image are no brightness
        self.embed = target_embedding(settings.target_layout, width)
        self.spread = dense(width, 2 * width) if settings.target_layout else None
        self.first_above = CausalConvolution(inputs, width, rows=2, left=1, right=1)
        self.first_left = CausalConvolution(inputs, width, rows=1, left=1, right=0)
        self.layers = nn.ModuleList(StackLayer(width) for _ in range(sizes.layers))
        outputs = sizes.mixtures * (1 + 2 * self.channels + self.channels * (self.channels - 1) // 2)
        self.head = convolution(width, outputs, 1, gain=0.3)

    def parameters_of(self, images: Tensor, targets: Tensor | None) -> Tensor:
        """Return the parameters (B, h, w, P) of every pixel's distribution; they see the pixels before it alone.

        ``images`` (B, C, h, w) may be parts of images.
        """
        x = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
        return self._outputs(x, self._label(targets, images)).permute(0, 2, 3, 1)

    def _label(self, targets: Tensor | None, like: Tensor) -> Tensor:
        if self.embed is None or self.spread is None or targets is None:
            return torch.zeros((), device=like.device)
        out: Tensor = self.spread(self.embed(targets))[:, :, None, None]
        return out

    def _outputs(self, x: Tensor, label: Tensor) -> Tensor:
        above = self.first_above(moved(x, 1, 0))
        before = above + self.first_left(moved(x, 0, 1))
        for layer in self.layers:
            above, before = layer(above, before, label)
        out: Tensor = self.head(activate(before))
        return out

    def log_likelihood(self, images: Tensor, targets: Tensor | None) -> Tensor:
        """Return log P (B,) in nats of images (B, C, N, N) of stored pixels in [-1, 1]."""
        mixture = PixelMixture(self.parameters_of(images, targets), self.channels, self.bits)
        return mixture.log_likelihood(images.permute(0, 2, 3, 1)).flatten(1).sum(1)

    def loss(self, images: Tensor, targets: Tensor | None, rng: torch.Generator, progress: float) -> CompanionLoss:
        """Return the bits per dimension of stored pixels, a scalar."""
        bits = -self.log_likelihood(images, targets).mean() / (self.numbers * math.log(2))
        return CompanionLoss(bits, {"bits_per_dimension": bits.detach()})

    def sample(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return images (B, C, N, N) of noise (B, N N C), pixel after pixel, and targets or None.

        A number z becomes the place Phi(z) in the distribution of its pixel. The network is run for each on the part
        of the image that it can see.
        """
        places = torch.special.ndtr(noise).view(-1, *self.size, self.channels)
        x = noise.new_zeros(noise.shape[0], self.channels + 1, *self.size)
        x[:, -1] = 1
        label = self._label(targets, noise)
        for row in range(self.size[0]):
            top = max(0, row - self.reach)
            for column in range(self.size[1]):
                first = max(0, column - self.reach)
                seen = x[:, :, top : row + 1, first : column + self.reach + 1]
                parameters = self._outputs(seen, label)[:, :, -1, column - first]
                mixture = PixelMixture(parameters, self.channels, self.bits)
                x[:, :-1, row, column] = mixture.quantile(places[:, row, column])
        return x[:, :-1]
