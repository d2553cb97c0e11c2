"""A pyramid of rings ("radial:P,Q"): P resolutions of Q frequency classes, cut by distance from frequency zero.

The masks are telescoping differences m_i = L_{i+1} - L_i of monotone low-passes with L_0 = 0 and L_Q = 1, so that
their sum is 1 exactly, whatever the size. Class 0 is what lies below half of the Nyquist frequency of an axis; the
octave above it, with the corners, is shared by Q - 1 rings at equal ratios, so that every class of every resolution
holds something. The low class is kept at half the resolution, which loses nothing, and is the next resolution's image.

The low-passes are steps. So the masks are projections that are orthogonal to each other: each of the bands of a
generated image is what was generated, once that was projected by its mask, and no content can be in two bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from freqgan.bands import RINGS, Band
from freqgan.layouts import RingLayout
from freqgan.transforms.arrays import ArrayLike, as_float, as_tensor, without_autocast
from freqgan.transforms.protocol import LOW_RANGE, BandTransform, check_even_sides

LOW_EDGE = 0.5
"""Share of the Nyquist frequency of an axis: below it lies what half the resolution can hold."""


class RadialTransform(RingLayout, BandTransform):
    """Per level LL (class 0) with half the sides, and Q - 1 rings with the sides of the level's image.

    Analysis: LL = 2 crop(m_0 x) at half the size, R_i = m_i x. Synthesis: x = lift(m_0 LL) / 2 + sum_i m_i R_i, so that
    each band is projected by its mask. LL_q / 2^q is in the range of the pixels.
    """

    def analyse_level(self, low: ArrayLike, level: int = 1) -> tuple[Tensor, ...]:
        """Return one level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""
        (image,) = as_float(low)
        check_even_sides(self.spec, image)
        height, width = image.shape[-2:]
        with without_autocast(image.device):
            spectrum = _spectrum(image)
            masks = _masks(self.rings, (height, width), image.device)
            coarse = _image(LOW_RANGE * _cropped(spectrum * masks[0]), (height // 2, width // 2))
            rings = [_image(spectrum * mask, (height, width)) for mask in masks[1:]]
        return coarse, *rings

    def synthesise_level(self, bands: Sequence[ArrayLike], level: int = 1) -> Tensor:
        """Return the (B, C, H, W) image of LL (B, C, H/2, W/2) and the rings (B, C, H, W).

        Each is projected by its mask.
        """
        coarse, *rings = self._checked_level(bands, level)
        size = (rings[0].shape[-2], rings[0].shape[-1])
        with without_autocast(coarse.device):
            spectrum = _lifted(_spectrum(coarse) / LOW_RANGE, size)
            for mask, ring in zip(_masks(self.rings, size, coarse.device)[1:], rings, strict=True):
                spectrum = spectrum + mask * _spectrum(ring)
            return _image(spectrum, size)

    def projected(self, band: Band, x: ArrayLike) -> Tensor:
        """Return ``x`` (B, C, h, w) as far as a sub-image of ``band`` can hold it.

        From the second level on the image of a level is itself a low class, without corners; so are its low band and
        its outermost ring.
        """
        (band_image,) = as_float(x)
        size = (band_image.shape[-2], band_image.shape[-1])
        with without_autocast(band_image.device):
            mask = _disc(size, band_image.device)
            if band.orientation != "LL":
                ring = _masks(self.rings, size, band_image.device)[1 + RINGS.index(band.orientation)]
                mask = ring if band.level == 1 else ring * mask
            return _image(_spectrum(band_image) * mask, size)

    def low_beside(self, band: Band, low: ArrayLike) -> Tensor:
        """Return LL (B, C, 2h, 2w) on the grid of the rings of its level, with the values that it has there."""
        if band.orientation == "LL":
            return as_tensor(low)
        (coarse,) = as_float(low)
        size = (2 * coarse.shape[-2], 2 * coarse.shape[-1])
        with without_autocast(coarse.device):
            return _image(_lifted(_spectrum(coarse), size), size)


def low_pass_edges(rings: int) -> list[float]:
    """Return the radii up to which L_1 ... L_{Q-1} pass, over the Nyquist frequency of an axis.

    They go from 1/2 to 1 at equal ratios.
    """
    return [LOW_EDGE * 2 ** (i / rings) for i in range(rings)]


@lru_cache(maxsize=64)
def _masks(rings: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
    """Return m_0 ... m_{Q-1} on the half spectrum (H, W/2 + 1, 1) of images of ``size``: 1 or 0, and 1 in all."""
    with torch.inference_mode(False):  # they are kept, and may serve training later
        radius = _radius(size)
        passed = [radius < edge - 1e-9 for edge in low_pass_edges(rings)]
        steps = [torch.zeros_like(passed[0]), *passed, torch.ones_like(passed[0])]
        return tuple((wide & ~narrow).float()[..., None].to(device) for narrow, wide in pairwise(steps))


@lru_cache(maxsize=64)
def _disc(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return what a low class can hold at its own resolution, (H, W/2 + 1, 1): all below the Nyquist frequency."""
    with torch.inference_mode(False):
        return (_radius(size) < 2 * LOW_EDGE - 1e-9).float()[..., None].to(device)


def _radius(size: tuple[int, int]) -> Tensor:
    """Return the distance from frequency zero over the Nyquist frequency of an axis, (H, W/2 + 1) float64."""
    rows, columns = torch.fft.fftfreq(size[0], 0.5), torch.fft.rfftfreq(size[1], 0.5)
    return torch.hypot(rows.double()[:, None], columns.double()[None, :])


def _spectrum(image: Tensor) -> Tensor:
    """Return the half of the Fourier coefficients of (B, C, H, W) that says all, (B, C, H, W/2 + 1, 2).

    It is free of the size. Real and imaginary parts are numbers of their own: not every runtime knows complex ones.
    """
    if image.numel() == 0:  # which Fourier transforms refuse
        half = image[..., : image.shape[-1] // 2 + 1]
        return torch.stack((half, half), dim=-1)
    spectrum: Tensor = torch.fft.rfft2(image, norm="forward")
    return torch.view_as_real(spectrum)


def _image(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the inverse of :func:`_spectrum`."""
    if spectrum.numel() == 0:
        return functional.pad(spectrum[..., 0], (0, size[1] - spectrum.shape[-2]))
    image: Tensor = torch.fft.irfft2(torch.view_as_complex(spectrum), s=size, norm="forward")
    return image


def _cropped(spectrum: Tensor) -> Tensor:
    """Return the half spectrum (H, W/2 + 1, 2) without what half the size (H/2, W/4 + 1) cannot hold."""
    height, columns = spectrum.shape[-3] // 2, (spectrum.shape[-2] - 1) // 2 + 1
    first = (height + 1) // 2
    left = spectrum[..., :columns, :]
    return torch.cat((left[..., :first, :, :], left[..., left.shape[-3] - (height - first) :, :, :]), dim=-3)


def _lifted(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the half spectrum of an image of half of ``size``, as that of an image of ``size``.

    It is projected by its disc.
    """
    height, columns = spectrum.shape[-3:-1]
    spectrum = spectrum * _disc((height, size[1] // 2), spectrum.device)
    first = (height + 1) // 2
    rows = spectrum.new_zeros(*spectrum.shape[:-3], size[0] - height, columns, 2)
    tall = torch.cat((spectrum[..., :first, :, :], rows, spectrum[..., first:, :, :]), dim=-3)
    return functional.pad(tall, (0, 0, 0, size[1] // 2 + 1 - columns))
