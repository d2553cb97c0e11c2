"""Stored pixels, unsigned integers of 8 or 16 bits, and the range [-1, 1] in which networks and transforms see them."""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.bit_depth import BitDepth
from freqgan.errors import InputError

HALF_RANGE: dict[torch.dtype, float] = {torch.uint8: 255 / 2, torch.uint16: 65535 / 2}


def from_pixels(pixels: Tensor, device: torch.device | None = None) -> Tensor:
    """Return uint8 or uint16 ``images``, of any shape (...), as float32 in [-1, 1] on ``device``: 0 is -1.

    They stay where they are if no device is given.

    Raises InputError for other types.
    """
    half = _half_range(pixels)
    return pixels.to(pixels.device if device is None else device, torch.float32) / half - 1


def to_pixels(images: Tensor, bit_depth: BitDepth = 8) -> Tensor:
    """Return images (...) in [-1, 1] as uint8 or uint16, rounded to nearest, clipped; InputError for another depth."""
    if bit_depth not in (8, 16):
        raise InputError(f"bit_depth is {bit_depth!r}, but must be 8 or 16")
    dtype = torch.uint8 if bit_depth == 8 else torch.uint16
    half = HALF_RANGE[dtype]
    floats = images.to(torch.promote_types(images.dtype, torch.float32))  # float16 ends below 65535
    return ((floats + 1) * half).round().clamp(0.0, 2 * half).to(dtype)


def to_eight_bits(pixels: Tensor) -> Tensor:
    """Return uint8 (...) as it is, and of uint16 the nearest uint8, 65535 to 255; InputError for other types."""
    _half_range(pixels)
    if pixels.dtype == torch.uint8:
        return pixels
    return ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)


def _half_range(pixels: Tensor) -> float:
    if pixels.dtype not in HALF_RANGE:
        raise InputError(f"stored pixels are uint8 or uint16, not {pixels.dtype}: convert them with .to(torch.uint8)")
    return HALF_RANGE[pixels.dtype]
