"""Stored pixels, unsigned integers of 8 or 16 bits, and the range [-1, 1] in which networks and transforms see them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BitDepth = Literal[8, 16]
HALF_RANGE: dict[torch.dtype, float] = {torch.uint8: 255 / 2, torch.uint16: 65535 / 2}


def from_pixels(pixels: Tensor, device: torch.device | None = None) -> Tensor:
    """uint8 or uint16, of any shape -> float32 in [-1, 1] on ``device`` (where it is, if not given): 0 is -1."""
    scaled = pixels.to(pixels.device if device is None else device, torch.float32) / HALF_RANGE[pixels.dtype]
    return scaled - 1


def to_pixels(images: Tensor, bit_depth: BitDepth = 8) -> Tensor:
    """Images in [-1, 1] -> uint8 or uint16, rounded to nearest, clipped."""
    dtype = torch.uint8 if bit_depth == 8 else torch.uint16
    half = HALF_RANGE[dtype]
    return ((images + 1) * half).round().clamp(0, 2 * half).to(dtype)


def to_eight_bits(pixels: Tensor) -> Tensor:
    """uint8 as it is; of uint16 the nearest uint8, 65535 to 255."""
    if pixels.dtype == torch.uint8:
        return pixels
    return ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)
