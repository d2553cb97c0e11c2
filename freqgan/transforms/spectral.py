"""Cosine and Fourier transforms as banks of four quadrants ("dct", "fft:shannon", "fft:meyer"): ideal filters.

The coefficients of an axis are cut in halves, and each half is transformed back as a signal of half the length: an
orthogonal, critically sampled bank, so that networks and losses see images, as with wavelets. On short axes, and on
GPUs, an axis is one product with a matrix, made once from the formulas below; a long axis on a CPU goes through fast
transforms.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.errors import InputError, nearest
from freqgan.transforms.banks import QuadrantTransform
from freqgan.transforms.filters import AxisPlan, MatrixBank
from freqgan.transforms.protocol import Quad

Taper = Literal["shannon", "meyer"]

DENSE_SIDE = 64
"""Up to here a product with a matrix is as fast as a fast transform, on one CPU thread."""
CHUNK_BYTES = 2**22
"""Of images that go through fast transforms together: their spectra then stay in the cache."""


@dataclass(frozen=True)
class Axis(ABC):
    """An orthogonal split of one axis of even length N into a low and a high channel of N/2, and its inverse."""

    @abstractmethod
    def split(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The low and the high channel."""

    @abstractmethod
    def merge(self, low: Tensor, high: Tensor, axis: int) -> Tensor:
        """The inverse, which is also the transpose."""


@dataclass(frozen=True)
class CosineAxis(Axis):
    """X = DCT-II(x), orthonormal; low = IDCT of its first half, high = IDCT of its second half, flipped.

    Even at both ends, like images that are mirrored there. Flipped, the highest frequency becomes the lowest of the
    high channel, as when a wavelet's high channel is decimated.
    """

    def split(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """See :class:`Axis`."""
        spectrum = scipy.fft.dct(x.numpy(), axis=axis, norm="ortho")
        low, high = np.split(spectrum, 2, axis)
        return _inverse_cosine(low, axis), _inverse_cosine(np.flip(high, axis), axis)

    def merge(self, low: Tensor, high: Tensor, axis: int) -> Tensor:
        """See :class:`Axis`."""
        halves = [scipy.fft.dct(channel.numpy(), axis=axis, norm="ortho") for channel in (low, high)]
        return _inverse_cosine(np.concatenate((halves[0], np.flip(halves[1], axis)), axis), axis)


def _inverse_cosine(spectrum: NDArray[Any], axis: int) -> Tensor:
    return torch.from_numpy(scipy.fft.idct(spectrum, axis=axis, norm="ortho"))


@dataclass(frozen=True)
class FourierAxis(Axis):
    """A periodic conjugate mirror bank given by its low filter's response H0, real and even.

    H0(w)^2 + H0(w + pi)^2 = 2 and H1(w) = e^{-iw} H0(w + pi). Analysis A[k] = (X[k] H0*[k] + X[k+N/2] H0*[k+N/2]) / 2,
    and the same with H1; synthesis X[k] = H0[k] A[k mod N/2] + H1[k] D[k mod N/2]. With M = N/2, w = 2 pi k / N and
    X[k + M] = X*[M - k] for real x, all that is needed of both lies in the first half of the spectrum:

        A[k] = (X[k] a + X*[M-k] b) / 2,   D[k] = e^{iw} (X[k] b - X*[M-k] a) / 2,   a = H0(w), b = H0(pi - w).

    Attributes:
        taper: "shannon": sqrt 2 below pi/2, 1 at pi/2, 0 above. "meyer": sqrt 2 cos(pi/2 nu(3w/pi - 1)) from pi/3 to
            2 pi/3 with nu(t) = t^4 (35 - 84t + 70t^2 - 20t^3) (Daubechies, Ten Lectures, section 5.2).
    """

    taper: Taper

    def split(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """See :class:`Axis`."""
        half = x.shape[axis] // 2
        count, gains = half // 2 + 1, self._gains(x, axis)
        spectrum = torch.fft.rfft(x, dim=axis)
        first = spectrum.narrow(axis, 0, count)
        second = spectrum.narrow(axis, half + 1 - count, count).flip(axis).conj()
        low = (first * gains.low).add_(second * gains.low_folded)
        high = (first * gains.high).add_(second * gains.high_folded)
        return torch.fft.irfft(low, half, dim=axis), torch.fft.irfft(high, half, dim=axis)

    def merge(self, low: Tensor, high: Tensor, axis: int) -> Tensor:
        """See :class:`Axis`."""
        half = low.shape[axis]
        count, gains = half // 2 + 1, self._gains(low, axis, 2)
        a, d = torch.fft.rfft(low, dim=axis), torch.fft.rfft(high, dim=axis)
        first = (a * (2 * gains.low)).add_(d * (2 * gains.high.conj()))
        folded = (a * (2 * gains.low_folded)).add_(d * (2 * gains.high_folded.conj()))
        second = folded.narrow(axis, 0, half + 1 - count).flip(axis).conj()
        merged: Tensor = torch.fft.irfft(torch.cat((first, second), axis), 2 * half, dim=axis)
        return merged

    def _gains(self, like: Tensor, axis: int, scale: int = 1) -> Gains:
        gains = _gains(self.taper, like.shape[axis] * scale, like.dtype)
        return Gains(*(gain.view(-1, *(1,) * (-1 - axis)) for gain in gains))


class Gains(NamedTuple):
    """Factors of X[k] and of X*[M-k] in A[k], and in D[k]; (M // 2 + 1,) complex each."""

    low: Tensor
    low_folded: Tensor
    high: Tensor
    high_folded: Tensor


@lru_cache(maxsize=64)
def _gains(taper: Taper, side: int, dtype: torch.dtype) -> Gains:
    """For an axis of ``side`` samples."""
    k = torch.arange(side // 4 + 1, dtype=torch.float64)
    w = 2 * math.pi * k / side
    a, b = (TAPERS[taper](x) / 2 for x in (w, math.pi - w))
    turn = torch.polar(torch.ones_like(w), w)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return Gains(*(gain.to(complex_dtype) for gain in (a, b, turn * b, -turn * a)))


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
    """An orthogonal split of each axis: its ``merge`` is the inverse of its ``split``."""

    axis: Axis

    def split(self, image: Tensor) -> Quad:
        """(B, C, H, W) -> four quadrants (B, C, H/2, W/2)."""
        if _goes_through_matrices(image):
            return super().split(image)
        batch, channels, height, width = image.shape
        quad = Quad(*(image.new_empty(batch, channels, height // 2, width // 2) for _ in range(4)))
        for planes, *bands in zip(_chunks(image), *map(_chunks, quad, [4] * 4), strict=True):
            for band, made in zip(bands, self._split(planes), strict=True):
                band.copy_(made)
        return quad

    def merge(self, quad: Quad) -> Tensor:
        """Four quadrants -> (B, C, H, W); the inverse of ``split``."""
        if _goes_through_matrices(quad.ll, 2):
            return super().merge(quad)
        batch, channels, height, width = quad.ll.shape
        image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width)
        for planes, *bands in zip(_chunks(image), *map(_chunks, quad, [4] * 4), strict=True):
            planes.copy_(self._merge(*bands))
        return image

    def _split(self, image: Tensor) -> tuple[Tensor, ...]:
        left, right = self.axis.split(image, -1)
        (ll, lh), (hl, hh) = self.axis.split(left, -2), self.axis.split(right, -2)
        return ll, hl, lh, hh

    def _merge(self, ll: Tensor, hl: Tensor, lh: Tensor, hh: Tensor) -> Tensor:
        return self.axis.merge(self.axis.merge(ll, lh, -2), self.axis.merge(hl, hh, -2), -1)

    def _plan(self, side: int, merging: bool, like: Tensor) -> AxisPlan:
        return _dense_plan(self.axis, side, merging, like.device, like.dtype)


@lru_cache(maxsize=64)
def _dense_plan(axis: Axis, side: int, merging: bool, device: torch.device, dtype: torch.dtype) -> AxisPlan:
    """The matrices of the two channels of an axis of ``side`` samples: what becomes of each unit vector."""
    channels = axis.split(torch.eye(side, dtype=torch.float64), -2)
    low, high = ((matrix.T if merging else matrix).to(device, dtype).contiguous() for matrix in channels)
    return AxisPlan(low, high, 1, side // 2 if merging else side, 0)


def _goes_through_matrices(x: Tensor, scale: int = 1) -> bool:
    """Where fast transforms do not pay, or do not exist."""
    return x.device.type != "cpu" or x.numel() == 0 or scale * max(x.shape[-2:]) <= DENSE_SIDE


def _chunks(x: Tensor, share: int = 1) -> tuple[Tensor, ...]:
    """(B, C, h, w) -> its planes, (n, h, w) at a time: views, where ``x`` is contiguous, a 1 / ``share`` of a chunk."""
    planes = x.detach().reshape(-1, *x.shape[-2:])
    plane_bytes = share * planes[0].numel() * planes.element_size()
    return torch.split(planes, max(1, CHUNK_BYTES // plane_bytes))


class CosineTransform(QuadrantTransform):
    """``spec`` is "dct"; see :class:`CosineAxis`."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError when there is a ``member``, or levels < 1."""
        if member:
            raise InputError(f"transform 'dct:{member}': there is one cosine transform; write dct")
        super().__init__("dct", levels, SpectralBank(CosineAxis()))


class FourierTransform(QuadrantTransform):
    """``spec`` is "fft:shannon" or "fft:meyer": see :class:`FourierAxis`."""

    def __init__(self, member: str, levels: int) -> None:
        """Raises InputError when ``member`` is not the name of a taper, or levels < 1."""
        taper = next((taper for taper in TAPERS if taper == member.lower()), None)
        if taper is None:
            raise InputError(
                f"transform 'fft:{member}': {f'unknown taper {member!r}' if member else 'no taper named'}"
                f"{nearest(member, list(TAPERS))}; write fft:shannon or fft:meyer"
            )
        super().__init__(f"fft:{taper}", levels, SpectralBank(FourierAxis(taper)))
