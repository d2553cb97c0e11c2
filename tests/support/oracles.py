"""Images, and what other libraries say of them, that tests against oracles share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from freqgan.bands import SubImages

COARSE_TABLES = (
    *(f"sym{order}" for order in range(2, 21)),
    *(f"{family}{order}" for family in ("bior", "rbio") for order in ("4.4", "5.5", "6.8")),
)


TRUNCATED_TABLES = ("dmey",)


def image(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1), the range of pixels in training."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)


def coarsest_and_high(sub_images: SubImages, levels: int) -> SubImages:
    """Without the finer low bands, so that every level has to be inverted."""
    return {band: value for band, value in sub_images.items() if band.orientation != "LL" or band.level == levels}


def shifts() -> Iterator[tuple[int, int]]:
    yield from ((8, 0), (0, -8), (16, 24))
