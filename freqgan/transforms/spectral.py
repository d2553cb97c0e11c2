"""Cosine and Fourier transforms as banks of four quadrants ("dct", "fft:shannon", "fft:meyer"): ideal filters.

The coefficients of an axis are cut in halves, and each half is transformed back as a signal of half the length: an
orthogonal, critically sampled bank, so that networks and losses see images, as with wavelets. On short axes, and on
GPUs, an axis is one product with a matrix, made once from the formulas; a long axis on a CPU goes through fast
transforms, with kernels around them where there are some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from freqgan.layouts.members import check_cosine, taper_named
from freqgan.transforms.banks import by_level, merge_by
from freqgan.transforms.cosine import Cosine
from freqgan.transforms.filters import AxisPlan, MatrixBank
from freqgan.transforms.fourier import TAPERS, Fourier
from freqgan.transforms.kernels.choice import spectral_kernels_for
from freqgan.transforms.protocol import Quad
from freqgan.transforms.quadrants import QuadrantTransform

DENSE_SIDE = 64
"""Up to here a product with a matrix is as fast as a fast transform, on one CPU thread."""


class Spectral(Protocol):
    """An orthogonal split of axes of even length N into a low and a high channel of N/2, by their spectra."""

    family: ClassVar[str]
    """The family of its kernels, see :func:`freqgan.transforms.kernels.choice.spectral_kernels_for`."""

    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low and the high channel, (..., N/2) each, of float64 ``rows`` (..., N), to make matrices."""

    def split(self, images: Tensor, quads: Sequence[Quad], kernels: ModuleType | None) -> None:
        """Write LL, HL, LH and HH of ``images`` (n, H, W), and of LL, and so on; all contiguous, on a CPU."""

    def merge(self, quads: Sequence[Quad], images: Tensor, kernels: ModuleType | None) -> None:
        """Write the images (n, H, W) of ``quads``: the inverse of :meth:`split`, which is also its transpose.

        Of the low bands only the coarsest is read; the others may be overwritten.
        """


SPECTRA: dict[str, Spectral] = {"dct": Cosine()} | {f"fft:{taper}": Fourier(taper) for taper in TAPERS}


@dataclass(frozen=True)
class SpectralBank(MatrixBank):
    """An orthogonal bank: ``merge`` is the inverse of ``split``; ``name`` is one of SPECTRA."""

    name: str

    @property
    def spectral(self) -> Spectral:
        """The split of axes that ``name`` stands for."""
        return SPECTRA[self.name]

    def split(self, image: Tensor) -> Quad:
        """Return four quadrants (B, C, H/2, W/2) of ``image`` (B, C, H, W)."""
        return super().split(image) if _goes_through_matrices(image) else Quad(*self.split_levels(image, 1))

    def merge(self, quad: Quad) -> Tensor:
        """Return the image (B, C, H, W) of four quadrants (B, C, H/2, W/2); the inverse of ``split``."""
        return super().merge(quad) if _goes_through_matrices(quad.ll, 2) else self.merge_levels(quad)

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """Return the quadrants of all levels of ``image`` (B, C, H, W), from one spectrum where that pays."""
        if _goes_through_matrices(image):
            return super().split_levels(image, levels)
        batch, channels, height, width = image.shape
        shapes = ((batch, channels, height >> level, width >> level) for level in range(1, levels + 1))
        quads = [Quad(*(image.new_empty(shape) for _ in range(4))) for shape in shapes]
        flat = [Quad(*(band.view(-1, *band.shape[2:]) for band in quad)) for quad in quads]
        kernels = spectral_kernels_for(image, self.spectral.family)
        self.spectral.split(image.reshape(-1, height, width).contiguous(), flat, kernels)
        return [band for quad in quads for band in quad]

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Return the image (B, C, H, W) of ``parts``, through one spectrum where that pays."""
        levels = by_level(parts)
        finest = levels[0][1]
        if _goes_through_matrices(finest, 2) or any(low is not None for low, *_ in levels[:-1]):
            return merge_by(self.merge, parts)
        batch, channels, height, width = finest.shape
        image = finest.new_empty(batch, channels, 2 * height, 2 * width)
        quads = [Quad(torch.empty_like(high[0]) if low is None else low, *high) for low, *high in levels]
        flat = [Quad(*(band.reshape(-1, *band.shape[-2:]).contiguous() for band in quad)) for quad in quads]
        kernels = spectral_kernels_for(image, self.spectral.family)
        self.spectral.merge(flat, image.view(-1, *image.shape[-2:]), kernels)
        return image

    def channels(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the low and the high channel as matrices (N/2, N) for N = ``side``, float64."""
        return _matrices(self.name, side, False, torch.device("cpu"), torch.float64)

    def _plan(self, side: int, merging: bool, like: Tensor) -> AxisPlan:
        low, high = _matrices(self.name, side, merging, like.device, like.dtype)
        return AxisPlan(low, high, 1, side // 2 if merging else side, 0)


@lru_cache(maxsize=64)
def _matrices(name: str, side: int, merging: bool, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return both channels of an axis of N = ``side`` samples, (N/2, N) each, to merge (N, N/2), by their formulas."""
    channels = SPECTRA[name].split_rows(torch.eye(side, dtype=torch.float64))
    low, high = ((matrix if merging else matrix.T).to(device, dtype).contiguous() for matrix in channels)
    return low, high


def _goes_through_matrices(x: Tensor, scale: int = 1) -> bool:
    """Return whether fast transforms do not pay, or do not exist."""
    return x.device.type != "cpu" or x.numel() == 0 or scale * max(x.shape[-2:]) <= DENSE_SIDE


class CosineTransform(QuadrantTransform):
    """``spec`` is "dct"; see :class:`Cosine`."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError when there is a ``member``, or levels < 0."""
        check_cosine(member)
        super().__init__("dct", levels, SpectralBank("dct"))


class FourierTransform(QuadrantTransform):
    """``spec`` is "fft:shannon" or "fft:meyer": see :class:`Fourier`."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError when ``member`` is not the name of a taper, or levels < 0."""
        taper = taper_named(member)
        super().__init__(f"fft:{taper}", levels, SpectralBank(f"fft:{taper}"))
