"""Cosine and Fourier transforms as banks of four quadrants ("dct", "fft:shannon", "fft:meyer"): ideal filters.

The coefficients of an axis are cut in halves, and each half is transformed back as a signal of half the length: an
orthogonal, critically sampled bank, so that networks and losses see images, as with wavelets. On short axes, and on
GPUs, an axis is one product with a matrix, made once from the formulas below; a long axis on a CPU goes through fast
transforms.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.errors import InputError, nearest
from freqgan.transforms.banks import QuadrantTransform, added, by_level, planes_of
from freqgan.transforms.filters import AxisPlan, MatrixBank

Taper = Literal["shannon", "meyer"]

Spectrum = Any
"""An array or a tensor, as its maker likes it."""

DENSE_SIDE = 64
"""Up to here a product with a matrix is as fast as a fast transform, on one CPU thread."""


@dataclass(frozen=True)
class Spectral(ABC):
    """An orthogonal split of axes of even length N into a low and a high channel of N/2, by their spectra.

    The spectrum of a channel comes from that of the whole, so that a level needs no transform there and back before
    the next.
    """

    @abstractmethod
    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., N) float64 -> the low and the high channel, (..., N/2) each. Matrices are made by it."""

    @abstractmethod
    def spectrum(self, image: Tensor) -> Spectrum:
        """Of an image."""

    @abstractmethod
    def image(self, spectrum: Spectrum, out: Tensor) -> None:
        """Writes the image whose spectrum it is into ``out`` (..., H, W), which is contiguous."""

    @abstractmethod
    def quarters(self, spectrum: Spectrum, size: tuple[int, int]) -> list[Spectrum]:
        """The spectra of LL, HL, LH, HH of an image of ``size``."""

    @abstractmethod
    def whole(self, quarters: Sequence[Spectrum], size: tuple[int, int]) -> Spectrum:
        """The inverse of :meth:`quarters`, which is also its transpose; ``size`` is that of the whole."""


@dataclass(frozen=True)
class Cosine(Spectral):
    """X = DCT-II(x), orthonormal; low = IDCT of its first half, high = IDCT of its second half, flipped.

    Even at both ends, like images that are mirrored there. Flipped, the highest frequency becomes the lowest of the
    high channel, as when a wavelet's high channel is decimated.
    """

    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Spectral`."""
        spectrum = scipy.fft.dct(rows.numpy(), norm="ortho")
        channels = (scipy.fft.idct(half, norm="ortho") for half in _halves(spectrum))
        low, high = (torch.from_numpy(channel) for channel in channels)
        return low, high

    def spectrum(self, image: Tensor) -> NDArray[Any]:
        """See :class:`Spectral`: an array, since tensors cannot run backwards, as the high halves do."""
        spectrum: NDArray[Any] = scipy.fft.dctn(image.numpy(), axes=(-2, -1), norm="ortho")
        return spectrum

    def image(self, spectrum: NDArray[Any], out: Tensor) -> None:
        """See :class:`Spectral`; in place, where SciPy can, which saves a tenth of the time."""
        pixels = out.numpy()
        np.copyto(pixels, spectrum)
        image = scipy.fft.idctn(pixels, axes=(-2, -1), norm="ortho", overwrite_x=True)
        if not np.may_share_memory(image, pixels):
            np.copyto(pixels, image)

    def quarters(self, spectrum: NDArray[Any], size: tuple[int, int]) -> list[NDArray[Any]]:
        """See :class:`Spectral`."""
        return _quadrants(spectrum)

    def whole(self, quarters: Sequence[NDArray[Any]], size: tuple[int, int]) -> NDArray[Any]:
        """See :class:`Spectral`."""
        spectrum: NDArray[Any] = np.empty((*quarters[0].shape[:-2], *size), quarters[0].dtype)
        for target, part in zip(_quadrants(spectrum), quarters, strict=True):
            target[:] = part
        return spectrum


def _halves(spectrum: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    half = spectrum.shape[-1] // 2
    return spectrum[..., :half], spectrum[..., : half - 1 : -1]


def _quadrants(spectrum: NDArray[Any]) -> list[NDArray[Any]]:
    """Views of what becomes LL, HL, LH and HH."""
    height = spectrum.shape[-2] // 2
    low_rows, high_rows = spectrum[..., :height, :], spectrum[..., : height - 1 : -1, :]
    return [*_halves(low_rows), *_halves(high_rows)]


@dataclass(frozen=True)
class Fourier(Spectral):
    """A periodic conjugate mirror bank given by its low filter's response H0, real and even.

    H0(w)^2 + H0(w + pi)^2 = 2 and H1(w) = e^{-iw} H0(w + pi). Analysis A[k] = (X[k] H0*[k] + X[k+M] H0*[k+M]) / 2 with
    M = N/2, and the same with H1; synthesis X[k] = H0[k] A[k mod M] + H1[k] D[k mod M]. Where only half of the spectrum
    is kept, X[k+M] = X*[M-k], and with w = 2 pi k / N, a = H0(w), b = H0(pi - w)

        A[k] = (X[k] a + X*[M-k] b) / 2,   D[k] = e^{iw} (X[k] b - X*[M-k] a) / 2.

    Attributes:
        taper: "shannon": sqrt 2 below pi/2, 1 at pi/2, 0 above. "meyer": sqrt 2 cos(pi/2 nu(3w/pi - 1)) from pi/3 to
            2 pi/3 with nu(t) = t^4 (35 - 84t + 70t^2 - 20t^3) (Daubechies, Ten Lectures, section 5.2).

    """

    taper: Taper

    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Spectral`."""
        side = rows.shape[-1]
        first, second = _folded(torch.fft.rfft(rows).unsqueeze(-2), side // 2)
        low, high = _apart(first, second, _gains(self.taper, side, side // 4 + 1, rows.dtype))
        return torch.fft.irfft(low.squeeze(-2), side // 2), torch.fft.irfft(high.squeeze(-2), side // 2)

    def spectrum(self, image: Tensor) -> Tensor:
        """See :class:`Spectral`: the half that says all, (B, C, H, W/2 + 1)."""
        spectrum: Tensor = torch.fft.rfft2(image)
        return spectrum

    def image(self, spectrum: Tensor, out: Tensor) -> None:
        """See :class:`Spectral`."""
        out.copy_(torch.fft.irfft2(spectrum, s=out.shape[-2:]))

    def quarters(self, spectrum: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """See :class:`Spectral`."""
        height, width = size[0] // 2, size[1] // 2
        upper, lower = spectrum[..., :height, :], spectrum[..., height:, :]
        quarters: list[Tensor] = []
        dtype = spectrum.real.dtype
        for rows in _apart(upper, lower, _gains(self.taper, size[0], height, dtype).of_rows):
            quarters += _apart(*_folded(rows, width), _gains(self.taper, size[1], width // 2 + 1, dtype))
        return quarters

    def whole(self, quarters: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """See :class:`Spectral`."""
        height, width = size[0] // 2, size[1] // 2
        dtype, count = quarters[0].real.dtype, width // 2 + 1
        halves = [quarters[0].new_empty(*quarters[0].shape[:-2], height, width + 1) for _ in range(2)]
        for half, (a, d) in zip(halves, (quarters[:2], quarters[2:]), strict=True):
            second = torch.empty_like(half[..., :count])
            _together(a, d, _gains(self.taper, size[1], count, dtype, 2), half[..., :count], second)
            half[..., count:] = _negated(second[..., : width + 1 - count]).flip(-1).conj_physical_()
        spectrum = quarters[0].new_empty(*quarters[0].shape[:-2], 2 * height, width + 1)
        upper, lower = spectrum.chunk(2, -2)
        _together(halves[0], halves[1], _gains(self.taper, size[0], height, dtype, 2).of_rows, upper, lower)
        return spectrum


def _folded(spectrum: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """X[k] and what X[k+M] is, X*[M-k], for k up to M / 2; along y, where there is one, at -k."""
    count = half // 2 + 1
    return spectrum[..., :count], _negated(spectrum[..., half + 1 - count : half + 1]).flip(-1).conj_physical_()


def _negated(spectrum: Tensor) -> Tensor:
    """Row -k in the place of row k."""
    if spectrum.shape[-2] == 1:
        return spectrum
    return torch.cat((spectrum[..., :1, :], spectrum[..., 1:, :].flip(-2)), -2)


class Gains(NamedTuple):
    """a = H0(w), b = H0(pi - w) and e^{iw} of frequencies w = 2 pi k / N from 0 on, as (re, im) pairs: (count, 2).

    a and b are there twice, since torch is slow to repeat a number along the last axis.
    """

    a: Tensor
    b: Tensor
    turn: Tensor

    @property
    def of_rows(self) -> Gains:
        """For the axis before the last."""
        return Gains(self.a[:, None, :1], self.b[:, None, :1], self.turn[:, None])


@lru_cache(maxsize=64)
def _gains(taper: Taper, side: int, count: int, dtype: torch.dtype, scale: int = 1) -> Gains:
    """For an axis of ``side`` samples, times ``scale`` / 2."""
    w = 2 * math.pi * torch.arange(count, dtype=torch.float64) / side
    a, b = ((TAPERS[taper](x) * scale / 2).to(dtype)[:, None].repeat(1, 2) for x in (w, (math.pi - w).abs()))
    return Gains(a, b, torch.stack((w.cos(), w.sin()), -1).to(dtype))


def _apart(first: Tensor, second: Tensor, gains: Gains) -> tuple[Tensor, Tensor]:
    """Of X[k] and X[k+M] the spectra a X[k] + b X[k+M] and e^{iw} (b X[k] - a X[k+M]): a and b are real."""
    x, y = torch.view_as_real(first), torch.view_as_real(second)
    low = (x * gains.a).addcmul_(y, gains.b)
    high = (x * gains.b).addcmul_(y, gains.a, value=-1)
    return torch.view_as_complex(low), torch.view_as_complex(high).mul_(torch.view_as_complex(gains.turn))


def _together(low: Tensor, high: Tensor, gains: Gains, first: Tensor, second: Tensor) -> None:
    """Writes the transpose of :func:`_apart`, which with gains twice as large is its inverse, to first and second."""
    x, y = torch.view_as_real(low), torch.view_as_real(high * torch.view_as_complex(gains.turn).conj())
    torch.mul(x, gains.a, out=torch.view_as_real(first)).addcmul_(y, gains.b)
    torch.mul(x, gains.b, out=torch.view_as_real(second)).addcmul_(y, gains.a, value=-1)


def _shannon(w: Tensor) -> Tensor:
    # Compared with room for rounding: pi - w and w must fall on the same side of pi/2, or together on it.
    edge = (w - math.pi / 2).abs() < 1e-9
    return torch.where(w < math.pi / 2, math.sqrt(2) * torch.ones_like(w), 0).masked_fill(edge, 1)


def _meyer(w: Tensor) -> Tensor:
    t = (3 * w / math.pi - 1).clamp(0, 1)
    return math.sqrt(2) * torch.cos(math.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))


TAPERS: dict[Taper, Callable[[Tensor], Tensor]] = {"shannon": _shannon, "meyer": _meyer}
"""H0 on [0, pi]."""


@dataclass(frozen=True)
class SpectralBank(MatrixBank):
    """Its ``merge`` is the inverse of its ``split``."""

    spectral: Spectral

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """See :class:`Bank`."""
        if _goes_through_matrices(image):
            return super().split_levels(image, levels)
        batch, channels, height, width = image.shape
        sizes = [(height >> level, width >> level) for level in range(1, levels + 1) for _ in range(4)]
        parts = [image.new_empty(batch, channels, *size) for size in sizes]
        for planes, *bands in zip(planes_of(image, 1), *_alike(parts, height * width), strict=True):
            size, spectrum = (height, width), self.spectral.spectrum(planes)
            for level in range(levels):
                quarters = self.spectral.quarters(spectrum, size)
                size, spectrum = (size[0] // 2, size[1] // 2), quarters[0]
                for band, quarter in zip(bands[4 * level : 4 * level + 4], quarters, strict=True):
                    self.spectral.image(quarter, band)
        return parts

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """See :class:`Bank`."""
        finest = by_level(parts)[0][1]
        if _goes_through_matrices(finest, 2):
            return super().merge_levels(parts)
        batch, channels, height, width = (*finest.shape[:2], 2 * finest.shape[2], 2 * finest.shape[3])
        image = finest.new_empty(batch, channels, height, width)
        given = [x for x in parts if x is not None]
        for planes, *bands in zip(planes_of(image, 1), *_alike(given, height * width), strict=True):
            left = iter(bands)
            levels = by_level([None if x is None else next(left) for x in parts])
            low: Spectrum = None
            for own, *high in reversed(levels):
                size = (2 * high[0].shape[-2], 2 * high[0].shape[-1])
                low = added(None if own is None else self.spectral.spectrum(own), low)
                low = self.spectral.whole([low, *(self.spectral.spectrum(x) for x in high)], size)
            self.spectral.image(low, planes)
        return image

    def _plan(self, side: int, merging: bool, like: Tensor) -> AxisPlan:
        return _dense_plan(self.spectral, side, merging, like.device, like.dtype)


@lru_cache(maxsize=64)
def _dense_plan(spectral: Spectral, side: int, merging: bool, device: torch.device, dtype: torch.dtype) -> AxisPlan:
    """The matrices of the two channels of an axis of ``side`` samples: what becomes of each unit vector."""
    channels = spectral.split_rows(torch.eye(side, dtype=torch.float64))
    low, high = ((matrix if merging else matrix.T).to(device, dtype).contiguous() for matrix in channels)
    return AxisPlan(low, high, 1, side // 2 if merging else side, 0)


def _alike(bands: Sequence[Tensor], whole: int) -> list[tuple[Tensor, ...]]:
    """The planes of ``bands``, as many at a time as of images of ``whole`` pixels."""
    return [planes_of(band, whole // band.shape[-2:].numel()) for band in bands]


def _goes_through_matrices(x: Tensor, scale: int = 1) -> bool:
    """Where fast transforms do not pay, or do not exist."""
    return x.device.type != "cpu" or x.numel() == 0 or scale * max(x.shape[-2:]) <= DENSE_SIDE


class CosineTransform(QuadrantTransform):
    """``spec`` is "dct"; see :class:`Cosine`."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError when there is a ``member``, or levels < 1."""
        if member:
            raise InputError(f"transform 'dct:{member}': there is one cosine transform; write dct")
        super().__init__("dct", levels, SpectralBank(Cosine()))


class FourierTransform(QuadrantTransform):
    """``spec`` is "fft:shannon" or "fft:meyer": see :class:`Fourier`."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError when ``member`` is not the name of a taper, or levels < 1."""
        taper = next((taper for taper in TAPERS if taper == member.lower()), None)
        if taper is None:
            raise InputError(
                f"transform 'fft:{member}': {f'unknown taper {member!r}' if member else 'no taper named'}"
                f"{nearest(member, list(TAPERS))}; write fft:shannon or fft:meyer"
            )
        super().__init__(f"fft:{taper}", levels, SpectralBank(Fourier(taper)))
