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


def noise_image(vector: Tensor, rest: Tensor, channels: int, side: int) -> Tensor:
    """Return the starting noise (B, C, h, h) of vectors (B, n) and further numbers (B, D - n), D = C h h.

    Of a vector longer than D the first D numbers are taken, and ``rest`` has none.
    """
    dimensions = channels * side**2
    numbers = torch.cat([vector[:, :dimensions], rest], dim=1)
    coefficients = torch.empty_like(numbers)
    coefficients[:, _order(channels, side).to(numbers.device)] = numbers
    cosines = _cosines(side).to(numbers)
    out: Tensor = cosines.mT @ coefficients.view(-1, channels, side, side) @ cosines
    return out


def noise_numbers(image: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the vectors (B, n), n = ``length`` or C h h, and the further numbers of noise images (B, C, h, h)."""
    channels, side = image.shape[1], image.shape[-1]
    cosines = _cosines(side).to(image)
    coefficients = (cosines @ image @ cosines.mT).flatten(1)
    numbers = coefficients[:, _order(channels, side).to(image.device)]
    return numbers[:, :length], numbers[:, length:]


def rest_length(channels: int, side: int, length: int) -> int:
    """Return how many numbers a noise image (C, h, h) needs beside a vector of ``length`` numbers."""
    return max(0, channels * side**2 - length)


@lru_cache(maxsize=32)
def _cosines(side: int) -> Tensor:
    """Return the orthonormal cosine transform of ``side`` numbers as a matrix (h, h), frequencies as rows."""
    place = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi / side * (place + 0.5) * place[:, None]) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


@lru_cache(maxsize=32)
def _order(channels: int, side: int) -> Tensor:
    """Return the places (D,) of coefficients (C, h, h) from the lowest frequency to the highest, channel by channel."""
    rows, columns = torch.arange(side)[:, None], torch.arange(side)[None]
    radius = (rows.square() + columns.square()).flatten()
    frequencies = torch.argsort(radius, stable=True)
    return (frequencies[:, None] + torch.arange(channels)[None] * side**2).flatten()
