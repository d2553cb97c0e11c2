"""The exponential moving average of a network's weights, its length counted in images.

Counting in images makes the average the same function of training whatever the batch size is.
"""

from __future__ import annotations

import torch
from torch import nn


def average_decay(batch: int, images_seen: int, halflife_images: float, ramp: float) -> float:
    """Return how much of the average survives a step: 0.5 ** (batch / min(halflife_images, ramp * images_seen)).

    ``batch`` and ``images_seen`` count images, ``halflife_images`` is the age at which a weight
    counts half. Early on the half-life is only the share ``ramp`` of what was seen, so that the
    random start is forgotten; before the first image (or with no half-life) the decay is 0 and the
    average is the live network.
    """
    halflife = min(halflife_images, ramp * images_seen)
    return 0.5 ** (batch / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def update_average(average: nn.Module, live: nn.Module, decay: float) -> None:
    """Move every parameter of ``average``, in place, to decay * itself + (1 - decay) * the live one.

    Buffers are copied: they are counters, filters or power-iteration vectors, of which a mean has no meaning.
    Both modules have the same structure, dtypes and device; ValueError when their counts of tensors differ.
    """
    pairs = list(zip(average.parameters(), live.parameters(), strict=True))
    if pairs:  # one fused launch for all parameters, not one per parameter
        torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1.0 - decay)
    for own, current in zip(average.buffers(), live.buffers(), strict=True):
        own.copy_(current)
