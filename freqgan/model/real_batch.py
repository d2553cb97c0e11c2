"""The real images of one step as the stages train on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.pixels import from_pixels


class RealBatch:
    """Augmented images of a step, brought into the forms that stages ask for, each once.

    Args:
        pixels: uint8 or uint16 (B, C, N, N), augmented.
        analyse: gives the normalised sub-images of such pixels.
        device: of what the stages get.

    """

    def __init__(self, pixels: Tensor, analyse: Callable[[Tensor], SubImages], device: torch.device) -> None:
        self._pixels, self._analyse, self._device = pixels, analyse, device

    @cached_property
    def images(self) -> Tensor:
        """The images (B, C, N, N) as float32 in [-1, 1]."""
        return from_pixels(self._pixels, self._device)

    @cached_property
    def sub_images(self) -> SubImages:
        """The normalised sub-images (B, C, h, w) of all bands."""
        return self._analyse(self._pixels)
