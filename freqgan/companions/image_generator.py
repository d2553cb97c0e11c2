"""What the image stage generates with: the companion, and the blend of its images with those of the chain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from freqgan.companions.kinds import build_companion
from freqgan.companions.protocol import Companion
from freqgan.model.chain import Chain
from freqgan.model.generators import Blend
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.seeds import generator_for


class ImageGenerator(nn.Module):
    """The companion, G_o in formulas, and the blend of its output with that of the chain."""

    def __init__(self, chain: Chain, companion: Companion | None = None) -> None:
        super().__init__()
        # Checkpoints name its weights "other.": the attribute keeps that name.
        self.other = build_companion(chain.settings) if companion is None else companion
        self.blend = Blend(chain)

    def forward(self, noise: Tensor, targets: Tensor | None) -> Tensor:
        """Return G_o's images (B, C, N, N) for noise (B, numbers) and targets or None."""
        return self.other.sample(noise, targets)


def rest_of_noise(companion: Companion, dimensions: int, seed: int, step: int, batch: int) -> Tensor:
    """Return the numbers (B, numbers - n) that ``companion`` needs beside noise vectors of n = ``dimensions`` numbers.

    They are a function of (seed, step); there are none where the vector is enough.
    """
    count = max(0, companion.numbers - dimensions)
    return torch.randn(batch, count, generator=generator_for(seed, "rest of noise", IMAGE_STAGE, step))


def whole_noise(companion: Companion, vector: Tensor, rest: Tensor) -> Tensor:
    """Return the numbers (B, numbers) of a sample: noise vectors (B, n), cut to their length, and the rest (B, r)."""
    own = vector[:, : companion.numbers]
    return torch.cat([own, rest.to(vector.device)], dim=1) if rest.shape[1] else own
