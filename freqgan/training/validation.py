"""The loss of a flow expert on images that it was not trained on: a number that means the same on every machine."""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.model.chain import Chain
from freqgan.model.flow_expert import FlowExpert
from freqgan.networks.velocity import VelocityCondition
from freqgan.seeds import generator_for

ROWS = 256
"""Images that go through a network at a time."""


@torch.no_grad()
def validation_loss(expert: FlowExpert, images: Tensor, targets: Tensor) -> float:
    """Return the mean squared error of the expert's velocities at times and noises that are the same for all weights.

    Times are the quantiles of the distribution that it is trained with, and what it sees of the bands before it is
    exact; targets are shown.

    Args:
        expert: with the weights to be measured.
        images: uint8 or uint16 (B, C, N, N).
        targets: (B,) int64 labels, or (B, K) packed; None for a model without.

    """
    chain, flow, count = expert.chain, expert.chain.settings.flow, len(images)
    rng = generator_for(chain.settings.seed, "validation", expert.gan.name)
    normal = torch.special.ndtri(((torch.arange(count) + 0.5) / count).double()).float()
    times = torch.sigmoid(flow.time_mean + flow.time_deviation * normal)[torch.randperm(count, generator=rng)]
    total = 0.0
    for first in range(0, count, ROWS):
        rows = slice(first, first + ROWS)
        noise = torch.randn(len(images[rows]), *expert.noise_shape, generator=rng)
        total += _error(expert, chain, images[rows], targets[rows], times[rows], noise) * len(images[rows])
    return total / count


def _error(expert: FlowExpert, chain: Chain, images: Tensor, targets: Tensor, times: Tensor, noise: Tensor) -> float:
    """Return the mean squared error of a few images (B, C, N, N); times are (B,), noise is like the band."""
    real, device = chain.real(images.to(chain.device)), chain.device
    band, condition = chain.stacked(expert.gan, real), chain.condition(expert.gan, real)
    noise, times = noise.to(device), times.to(device)
    own = targets.to(device) if chain.settings.target_layout else None
    seen = VelocityCondition(condition.base, condition.planes, torch.zeros(len(images), device=device), own)
    velocity = expert.networks.network(torch.lerp(band, noise, times[:, None, None, None]), times, seen)
    return float((velocity - (noise - band)).square().mean())
