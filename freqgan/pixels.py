"""Stored pixels, and the range [-1, 1] in which networks and transforms see them.

Stored pixels are unsigned integers of 8 or 16 bits, or float32: who reads these has mapped their range to [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.bit_depth import FLOAT_BITS, BitDepth
from freqgan.errors import InputError

HALF_RANGE: dict[torch.dtype, float] = {torch.uint8: 255 / 2, torch.uint16: 65535 / 2}
"""How far apart stored integers are, for one unit of [-1, 1]."""

DTYPES: dict[BitDepth, torch.dtype] = {8: torch.uint8, 16: torch.uint16, FLOAT_BITS: torch.float32}
"""The type of stored pixels by their bits."""


def from_pixels(pixels: Tensor, device: torch.device | None = None) -> Tensor:
    """Return stored ``images``, of any shape (...), as float32 in [-1, 1] on ``device``: of integers 0 is -1.

    They stay where they are if no device is given.

    Raises InputError for types other than uint8, uint16 and float32.
    """
    half = _half_range(pixels)
    floats = pixels.to(pixels.device if device is None else device, torch.float32)
    return floats if half is None else floats / half - 1


def to_pixels(images: Tensor, bit_depth: BitDepth = 8) -> Tensor:
    """Return images (...) in [-1, 1] as stored pixels, clipped: uint8 or uint16, rounded to nearest, or float32.

    Raises InputError for another depth.
    """
    if bit_depth not in DTYPES:
        raise InputError(f"bit_depth is {bit_depth!r}, but must be 8, 16 or 32")
    dtype = DTYPES[bit_depth]
    if bit_depth == FLOAT_BITS:
        return images.to(dtype).clamp(-1.0, 1.0)
    half = HALF_RANGE[dtype]
    floats = images.to(torch.promote_types(images.dtype, torch.float32))  # float16 ends below 65535
    return ((floats + 1) * half).round().clamp(0.0, 2 * half).to(dtype)


def to_values(pixels: Tensor, ends: tuple[float, float]) -> Tensor:
    """Return pixels (...) in [-1, 1] as the values that they stand for: -1 is the first of ``ends``, 1 the second."""
    least, greatest = ends
    return (pixels + 1) * ((greatest - least) / 2) + least


def to_eight_bits(pixels: Tensor) -> Tensor:
    """Return uint8 (...) as it is, and of uint16 and float32 the nearest uint8, 65535 and 1 to 255.

    Raises InputError for other types.
    """
    half = _half_range(pixels)
    if pixels.dtype == torch.uint8:
        return pixels
    if half is None:
        return to_pixels(pixels)
    return ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)


def _half_range(pixels: Tensor) -> float | None:
    if pixels.dtype == torch.float32:
        return None
    if pixels.dtype not in HALF_RANGE:
        raise InputError(
            f"stored pixels are uint8, uint16 or float32, not {pixels.dtype}: convert them with .to(torch.uint8)"
        )
    return HALF_RANGE[pixels.dtype]
