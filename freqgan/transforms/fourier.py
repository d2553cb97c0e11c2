"""The Fourier banks ("fft:shannon", "fft:meyer"): two filters with periodic borders, given by their responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from freqgan.layouts.members import Taper
from freqgan.transforms.banks import plane_chunks
from freqgan.transforms.protocol import Quad


@dataclass(frozen=True)
class Fourier:
    """A periodic conjugate mirror bank given by its low filter's response H0, real and even.

    H0(w)^2 + H0(w + pi)^2 = 2 and H1(w) = e^{-iw} H0(w + pi). Analysis A[k] = (X[k] H0*[k] + X[k+M] H0*[k+M]) / 2 with
    M = N/2, and the same with H1; synthesis X[k] = H0[k] A[k mod M] + H1[k] D[k mod M]. Along x, samples 2m and 2m + 1
    are taken as one complex number, of which Z is the spectrum, of half the length, and a transform back gives both
    channels, low + i high. With w = 2 pi k / N, a = H0(w), b = H0(pi - w) and g = e^{-iw} (a - b) / 2,

        A[k] + i D[k] = ((a + b) / 2 - i Re g) Z[k] - Im g Z*[-k],

    whose inverse is the same with -g. That is linear in Z, and so is what then happens along y, where

        A[k] = (X[k] a + X[k+M] b) / 2,   D[k] = e^{iw} (X[k] b - X[k+M] a) / 2.

    Attributes:
        taper: "shannon": sqrt 2 below pi/2, 1 at pi/2, 0 above. "meyer": sqrt 2 cos(pi/2 nu(3w/pi - 1)) from pi/3 to
            2 pi/3 with nu(t) = t^4 (35 - 84t + 70t^2 - 20t^3) (Daubechies, Ten Lectures, section 5.2).

    """

    family: ClassVar[str] = "fourier"
    taper: Taper

    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low and the high channel, (..., N/2) each, of float64 ``rows`` (..., N)."""
        gains = gains_of(self.taper, (rows.shape[-1], rows.shape[-1]), rows.dtype, inverse=False)
        channels = torch.fft.ifft(_mixed(torch.fft.fft(_pairs_of(rows)), gains, (-1,)))
        return channels.real, channels.imag

    def split(self, images: Tensor, quads: Sequence[Quad], kernels: ModuleType | None) -> None:
        """Write the bands (n, h, w) of every level of ``images`` (n, H, W) to ``quads``."""
        if kernels is not None:
            kernels.fourier_split(images, quads, self.taper)
            return
        for planes in plane_chunks(images):
            image = images[planes]
            for quad in quads:
                gains = gains_of(self.taper, tuple(image.shape[-2:]), image.dtype, inverse=False)
                spectra = _split(_mixed(torch.fft.fft2(_pairs_of(image)), gains, (-2, -1)), gains)
                for pair, (first, second) in zip(torch.fft.ifft2(spectra), (quad[:2], quad[2:]), strict=True):
                    first[planes] = pair.real
                    second[planes] = pair.imag
                image = quad.ll[planes]

    def merge(self, quads: Sequence[Quad], images: Tensor, kernels: ModuleType | None) -> None:
        """Write the images (n, H, W) of ``quads`` to ``images``: the inverse of :meth:`split`."""
        if kernels is not None:
            kernels.fourier_merge(quads, images, self.taper)
            return
        for planes in plane_chunks(images):
            low = quads[-1].ll[planes]
            for hl, lh, hh in ((band[planes] for band in quad[1:]) for quad in reversed(quads)):
                size = (2 * low.shape[-2], 2 * low.shape[-1])
                gains = gains_of(self.taper, size, low.dtype, inverse=True)
                spectra = torch.fft.fft2(torch.stack((torch.complex(low, hl), torch.complex(lh, hh))))
                pairs = torch.fft.ifft2(_mixed(_merged(spectra, gains), gains, (-2, -1)))
                low = torch.view_as_real(pairs).flatten(-2)
            images[planes] = low


def _pairs_of(images: Tensor) -> Tensor:
    """Return real (..., N) as complex (..., N/2): samples 2m and 2m + 1."""
    return torch.view_as_complex(images.reshape(*images.shape[:-1], -1, 2))


class Gains(NamedTuple):
    """What spectra of images (H, W) are multiplied by.

    Attributes:
        pairs: (3, W/2), along x where Z is taken: real and imaginary part of the factor of Z[k], and that of Z*[-k].
        x: (4, W/2): a, b and e^{iw} as (re, im), where X is.
        y: (4, H/2): the same along y.

    """

    pairs: Tensor
    x: Tensor
    y: Tensor


@lru_cache(maxsize=64)
def gains_of(taper: Taper, size: tuple[int, ...], dtype: torch.dtype, *, inverse: bool) -> Gains:
    """Return the gains for images of ``size`` (H, W)."""
    w, a, b = _responses(taper, size[1])
    sign = -1 if inverse else 1
    pairs = torch.stack(((a + b) / 2, -sign * (a - b) / 2 * w.cos(), -sign * (a - b) / 2 * w.sin()))
    scale = 1 if inverse else 0.5
    y, x = (torch.stack((scale * a, scale * b, w.cos(), w.sin())) for w, a, b in (_responses(taper, n) for n in size))
    return Gains(*(gains.to(dtype) for gains in (pairs, x, y)))


def _responses(taper: Taper, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return w, H0(w) and H0(pi - w) of the lower half of the frequencies of ``side`` samples."""
    w = 2 * math.pi * torch.arange(side // 2, dtype=torch.float64) / side
    return w, TAPERS[taper](w), TAPERS[taper](math.pi - w)


def _mixed(spectrum: Tensor, gains: Gains, axes: tuple[int, ...]) -> Tensor:
    """Return, along x, the spectrum of pairs of channels from that of pairs of samples, Z, or back."""
    re, im, opposite = gains.pairs
    negated = spectrum.flip(axes).roll((1,) * len(axes), axes)
    mixed: Tensor = torch.complex(re, im) * spectrum - opposite * negated.conj()
    return mixed


def _split(spectrum: Tensor, gains: Gains) -> Tensor:
    """Return the low and the high channel (2, ..., H/2, n) of (..., H, n) along y."""
    a, b, re, im = gains.y[..., None]
    upper, lower = spectrum.chunk(2, -2)
    return torch.stack((a * upper + b * lower, torch.complex(re, im) * (b * upper - a * lower)))


def _merged(spectra: Tensor, gains: Gains) -> Tensor:
    """Return the inverse of :func:`_split`, with the gains of the inverse."""
    a, b, re, im = gains.y[..., None]
    low, high = spectra[0], torch.complex(re, -im) * spectra[1]
    return torch.cat((a * low + b * high, b * low - a * high), -2)


def _shannon(w: Tensor) -> Tensor:
    # Compared with room for rounding: pi - w and w must fall on the same side of pi/2, or together on it.
    edge = (w - math.pi / 2).abs() < 1e-9
    return torch.where(w < math.pi / 2, math.sqrt(2) * torch.ones_like(w), 0).masked_fill(edge, 1)


def _meyer(w: Tensor) -> Tensor:
    t = (3 * w / math.pi - 1).clamp(0, 1)
    return math.sqrt(2) * torch.cos(math.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))


TAPERS: dict[Taper, Callable[[Tensor], Tensor]] = {"shannon": _shannon, "meyer": _meyer}
"""H0 on [0, pi]."""
