"""Weights for VGG19 that nobody has trained, and VGG19's layout written down once more."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
POOLS = (4, 9, 18, 27, 36)


def layer_names() -> Iterator[tuple[int, str]]:
    """Every index of torchvision's ``features`` with the name of what is there: 0 is conv1_1, 36 is pool5."""
    block, number = 1, 1
    for index in range(37):
        if index in POOLS:
            yield index, f"pool{block}"
            block, number = block + 1, 1
        elif index in CONVOLUTIONS:
            yield index, f"conv{block}_{number}"
        else:
            yield index, f"relu{block}_{number}"
            number += 1


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights with which activations neither grow nor fade (He et al. 2015), and small biases."""
    numbers = torch.Generator().manual_seed(seed)
    weights = {}
    for index, before, after in zip(CONVOLUTIONS, CHANNELS[:-1], CHANNELS[1:], strict=True):
        scale = (2 / (9 * before)) ** 0.5
        weights[f"features.{index}.weight"] = torch.randn(after, before, 3, 3, generator=numbers) * scale
        weights[f"features.{index}.bias"] = torch.randn(after, generator=numbers) * 0.1
    return weights
