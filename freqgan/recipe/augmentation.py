"""Augmentation in image space, before the transform: one draw per step for all bands and the condition.

Bands that were augmented apart would no longer fit together. Shifts are multiples of 2^L pixels,
because those alone move every sub-image by whole coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.recipe.settings import AugmentationSettings
from freqgan.seeds import generator_for


def augment(images: Tensor, settings: AugmentationSettings, levels: int, *seed_parts: int | str) -> Tensor:
    """Return the images (B,C,H,W), of any dtype, each flipped and shifted at random; the same tensor if nothing is on.

    A pure function of ``seed_parts`` (run seed, step): sample b gets the same draw on every device and
    for every dtype. It draws for the whole batch of a step, so replicas augment it before they share it out.

    Raises:
        InputError: the largest shift is not smaller than the image.

    """
    if not (settings.flip or settings.shift):
        return images
    batch, channels, height, width = images.shape
    _check_shift(settings.shift, levels, height, width)
    # Every draw is made whatever the settings are, so switching shifts on leaves the flips as they were.
    generator = generator_for(*seed_parts, "augmentation")
    flips = (torch.rand(batch, generator=generator) < 0.5) & settings.flip
    shifts = torch.randint(-settings.shift, settings.shift + 1, (2, batch), generator=generator) * 2**levels
    rows = _source_index(height, shifts[0])
    columns = _source_index(width, shifts[1])
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    samples, planes = torch.arange(batch), torch.arange(channels)
    index = (samples[:, None, None, None], planes[:, None, None], rows[:, None, :, None], columns[:, None, None, :])
    return images[tuple(part.to(images.device) for part in index)]


def _source_index(size: int, shifts: Tensor) -> Tensor:
    """Return where each pixel of the shifted axis comes from, (B, size), mirrored at both ends.

    The edge is not repeated.

    Mirroring is a triangular wave of period 2 (size - 1).
    """
    period = max(2 * (size - 1), 1)
    position = (torch.arange(size) - shifts[:, None]).remainder(period)
    return torch.minimum(position, period - position)


def _check_shift(shift: int, levels: int, height: int, width: int) -> None:
    largest, side = shift * 2**levels, min(height, width)
    if largest >= side:
        raise InputError(
            f"augmentation.shift = {shift} moves images by up to {largest} pixels ({shift} x 2^{levels}), but they are "
            f"{width} x {height}: set augmentation.shift to {(side - 1) // 2**levels} or less"
        )
