"""Transforms and images that tests of transforms share."""

from __future__ import annotations

import torch
from torch import Tensor

from freqgan.bands import SubImages
from freqgan.transforms import BandTransform

SPECS = ("dwt:haar", "dwt:db4", "dwt:bior4.4", "dct", "fft:shannon", "fft:meyer", "radial:2,3")


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) * 2 - 1


def assert_same(ours: SubImages, expected: SubImages) -> None:
    assert ours.keys() == expected.keys()
    for band in ours:
        torch.testing.assert_close(ours[band], expected[band], rtol=0, atol=0)


def coarsest_and_high(sub_images: SubImages, levels: int = 2) -> SubImages:
    return {band: value for band, value in sub_images.items() if band.orientation != "LL" or band.level == levels}


def derivatives(transform: BandTransform, pixels: Tensor) -> list[Tensor]:
    """Sub-images, image, first and second derivative, of a function that is not linear."""
    pixels = pixels.clone().requires_grad_()
    sub_images = coarsest_and_high(transform.analyse(pixels), transform.levels)
    bent = {band: value**3 for band, value in sub_images.items()}
    back = transform.synthesise(bent, (pixels.shape[2], pixels.shape[3]))
    (first,) = torch.autograd.grad(back.square().sum(), pixels, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), pixels)
    return [*sub_images.values(), back, first, second]
