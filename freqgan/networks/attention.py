"""Self-attention with the maximum of two scores, for the conventional generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from freqgan.networks.blocks import convolution


class MaxAttention(nn.Module):
    """y = W(HW M) + h(x), M = softmax over positions of max(f(x), g(x)).

    f, g and h are 1x1 convolutions; the maximum is taken position by position and channel by
    channel, the softmax over the H W positions of each channel. Without the factor H W the term is
    a no-op: M is about 1 / HW. W starts small and h at the identity, so the layer starts near x.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width, 1)
        self.second = convolution(width, width, 1)
        self.value = convolution(width, width, 1, gain=0)
        nn.init.dirac_(self.value.weight)
        self.mix = convolution(width, width, 1, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return y (B, C, h, w) for x (B, C, h, w)."""
        positions = x.shape[-2] * x.shape[-1]
        scores = torch.maximum(self.first(x), self.second(x)).flatten(2)
        weights = scores.softmax(dim=2).view_as(x)
        out: Tensor = self.mix(positions * weights) + self.value(x)
        return out
