"""The starting noise of a flow expert: the GAN's noise vector and as many further numbers as the band has.

The vector is the target vector of the band: it becomes the lowest frequencies of the noise image, by an orthonormal
cosine transform, so the image is N(0, I) as the vector is, and the vectors of all bands stay orthogonal. A vector that
entered as a condition would be ignored, since nothing in training depends on it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from freqgan.sizes import Size, area


def noise_image(vector: Tensor, rest: Tensor, channels: int, size: Size) -> Tensor:
    """Return the starting noise (B, C, h, w) of vectors (B, n) and further numbers (B, D - n), D = C h w.

    Of a vector longer than D the first D numbers are taken, and ``rest`` has none.
    """
    dimensions = channels * area(size)
    numbers = torch.cat([vector[:, :dimensions], rest], dim=1)
    coefficients = torch.empty_like(numbers)
    coefficients[:, _order(channels, size).to(numbers.device)] = numbers
    down, across = (_cosines(side).to(numbers) for side in size)
    out: Tensor = down.mT @ coefficients.view(-1, channels, *size) @ across
    return out


def noise_numbers(image: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the vectors (B, n), n = ``length`` or C h w, and the further numbers of noise images (B, C, h, w)."""
    channels, height, width = image.shape[1:]
    down, across = (_cosines(side).to(image) for side in (height, width))
    coefficients = (down @ image @ across.mT).flatten(1)
    numbers = coefficients[:, _order(channels, (height, width)).to(image.device)]
    return numbers[:, :length], numbers[:, length:]


def rest_length(channels: int, size: Size, length: int) -> int:
    """Return how many numbers a noise image (C, h, w), ``size``, needs beside a vector of ``length`` numbers."""
    return max(0, channels * area(size) - length)


@lru_cache(maxsize=32)
def _cosines(side: int) -> Tensor:
    """Return the orthonormal cosine transform of ``side`` numbers as a matrix (h, h), frequencies as rows."""
    place = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi / side * (place + 0.5) * place[:, None]) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


@lru_cache(maxsize=32)
def _order(channels: int, size: Size) -> Tensor:
    """Return the places (D,) of coefficients (C, h, w) from the lowest frequency to the highest, channel by channel.

    A frequency has as many periods a pixel down as across: rows and columns are counted in units of 1 / (h w).
    """
    height, width = size
    rows, columns = torch.arange(height)[:, None] * width, torch.arange(width)[None] * height
    radius = (rows.square() + columns.square()).flatten()
    frequencies = torch.argsort(radius, stable=True)
    return (frequencies[:, None] + torch.arange(channels)[None] * area(size)).flatten()
