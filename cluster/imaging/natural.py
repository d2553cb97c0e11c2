"""Images as their files hold them, for what no model has a say in: styles and decompositions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cluster.data.decoding import ImageForm, decode_image, natural_form
from cluster.data.settings import MAX_PIXELS


class NaturalImage(NamedTuple):
    """Stored pixels (1, C, H, W), uint8 of grey or colour or uint16 of grey, and the form they were read in."""

    pixels: Tensor
    form: ImageForm

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


def read_natural(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NaturalImage:
    """Return the image in a file of JPEG, PNG or WebP, as the file holds it.

    Raises:
        InputError: it is no image, damaged, or has more than ``max_pixels`` pixels.

    """
    form = natural_form(data, name, max_pixels)
    pixels = decode_image(data, name, channels=form.channels, max_pixels=max_pixels, bit_depth=form.bit_depth)
    return NaturalImage(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None], form)
