"""The Triton kernels in Triton's interpreter, on the CPU, against plain torch: run with TRITON_INTERPRET=1.

Prints the largest difference of every wavelet, size and direction; ends with 1 if one is above :data:`LARGEST`.
"""

from __future__ import annotations

import sys
from unittest import mock

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.transforms import BandTransform, parse_transform
from freqgan.transforms.kernels.choice import kernels_for
from tests.support.transforms import derivatives, image

LARGEST = {torch.float32: 1e-6, torch.float64: 1e-12}
CASES = (
    ("haar", 2, (16, 80), 1, torch.float32),
    ("haar", 1, (16, 80), 2, torch.float64),
    ("haar", 1, (24, 136), 3, torch.float32),
    ("haar", 1, (16, 80), 4, torch.float32),
    ("db4", 1, (2, 4), 1, torch.float64),
    ("db2", 2, (20, 140), 2, torch.float32),
    ("db2", 1, (6, 136), 1, torch.float64),
    ("bior4.4", 1, (18, 136), 1, torch.float32),
    ("bior4.4", 1, (4, 12), 1, torch.float64),
    ("sym5", 1, (18, 6), 1, torch.float32),
)
"""Wavelet, planes, size, levels: more than one tile, tiles that are cut off, two launches, filters that wrap."""


def outcomes(transform: BandTransform, pixels: Tensor) -> list[Tensor]:
    """Sub-images, the image again, and in float64 derivatives of two orders, with gradients of the finer low bands."""
    bands = transform.analyse(pixels)
    made = [*bands.values(), transform.synthesise(held(transform, bands), (pixels.shape[2], pixels.shape[3]))]
    if pixels.dtype == torch.float32:
        return made
    given = pixels.clone().requires_grad_()
    total = torch.stack([(x**3).sum() for x in transform.analyse(given).values()]).sum()
    (gradient,) = torch.autograd.grad(total, given)
    return [*made, *(x.detach() for x in derivatives(transform, pixels)), gradient]


def held(transform: BandTransform, bands: SubImages) -> SubImages:
    """What is kept of them: all but the finer low ones."""
    return {band: x for band, x in bands.items() if band.orientation != "LL" or band.level == transform.levels}


def main() -> int:
    """Every case, with the kernels and without."""
    assert kernels_for(torch.zeros(1)) is not None, "the kernels do not work here"
    wrong = 0
    for wavelet, planes, size, levels, dtype in CASES:
        pixels, transform = image(1, planes, *size, dtype=dtype), parse_transform(f"dwt:{wavelet}", levels)
        made, expected = outcomes(transform, pixels), _plain(transform, pixels)
        scale = max(1.0, *(float(x.abs().max()) for x in expected)) if dtype == torch.float64 else 1.0
        difference = max(float((a - b).abs().max()) for a, b in zip(made, expected, strict=True)) / scale
        wrong += difference > LARGEST[dtype]
        print(f"{wavelet} {planes} x {size} {levels} levels, {dtype}: largest difference {difference:.1e}")
    return int(wrong > 0)


def _plain(transform: BandTransform, pixels: Tensor) -> list[Tensor]:
    """The same without kernels."""
    with (
        mock.patch("freqgan.transforms.banks.kernels_for", return_value=None),
        mock.patch("freqgan.transforms.filters.kernels_for", return_value=None),
    ):
        return outcomes(transform, pixels)


if __name__ == "__main__":
    sys.exit(main())
