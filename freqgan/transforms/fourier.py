"""The Fourier banks ("fft:shannon", "fft:meyer"): two filters with periodic borders, given by their responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from freqgan.transforms.banks import plane_chunks
from freqgan.transforms.protocol import Quad

Taper = Literal["shannon", "meyer"]


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
        """See :class:`freqgan.transforms.spectral.Spectral`."""
        gains = _gains(self.taper, (rows.shape[-1], rows.shape[-1]), rows.dtype, inverse=False)
        channels = torch.fft.ifft(_mixed(torch.fft.fft(_pairs_of(rows)), gains, (-1,)))
        return channels.real, channels.imag

    def split(self, images: Tensor, quads: Sequence[Quad], kernels: ModuleType | None) -> None:
        """See :class:`freqgan.transforms.spectral.Spectral`."""
        room: Tensor | None = None  # the same for all planes: new memory takes as long as the kernels
        for planes in plane_chunks(images):
            image = images[planes]
            room = torch.empty_like(image) if room is None else room
            for quad in (Quad(*(band[planes] for band in bands)) for bands in quads):
                self._split_level(image, quad, _start_of(room, image), kernels)
                image = quad.ll

    def merge(self, quads: Sequence[Quad], images: Tensor, kernels: ModuleType | None) -> None:
        """See :class:`freqgan.transforms.spectral.Spectral`."""
        room: Tensor | None = None
        for planes in plane_chunks(images):
            image = images[planes]
            room = torch.empty_like(image) if room is None else room
            chunk = [Quad(*(band[planes] for band in bands)) for bands in quads]
            lows = [image, *(quad.ll for quad in chunk)]
            for quad, low in zip(reversed(chunk), reversed(lows[:-1]), strict=True):
                self._merge_level(quad, low, _start_of(room, low), kernels)

    def _split_level(self, planes: Tensor, quad: Quad, room: Tensor, kernels: ModuleType | None) -> None:
        gains = _gains(self.taper, tuple(planes.shape[-2:]), planes.dtype, inverse=False)
        spectrum = torch.fft.fft2(_pairs_of(planes))
        if kernels is None:
            spectra = _split(_mixed(spectrum, gains, (-2, -1)), gains)
        else:
            spectra = kernels.fourier_split(spectrum, *gains, _pairs_of(room))
        for pair, (first, second) in zip(torch.fft.ifft2(spectra), (quad[:2], quad[2:]), strict=True):
            if kernels is None:
                first.copy_(pair.real)
                second.copy_(pair.imag)
            else:
                kernels.parted(pair, first, second)

    def _merge_level(self, quad: Quad, planes: Tensor, room: Tensor, kernels: ModuleType | None) -> None:
        gains = _gains(self.taper, tuple(planes.shape[-2:]), planes.dtype, inverse=True)
        if kernels is None:
            spectra = torch.fft.fft2(torch.stack((torch.complex(*quad[:2]), torch.complex(*quad[2:]))))
            spectrum = _mixed(_merged(spectra, gains), gains, (-2, -1))
        else:
            pairs = kernels.joined(quad, _pairs_of(room))
            spectrum = kernels.fourier_merge(torch.fft.fft2(pairs), *gains, _pairs_of(room))
        planes.copy_(torch.view_as_real(torch.fft.ifft2(spectrum)).flatten(-2))


def _start_of(room: Tensor, planes: Tensor) -> Tensor:
    """As much of it, of the shape of ``planes``."""
    return room.view(-1)[: planes.numel()].view(planes.shape)


def _pairs_of(images: Tensor) -> Tensor:
    """Real (..., N) -> complex (..., N/2): samples 2m and 2m + 1."""
    return torch.view_as_complex(images.reshape(*images.shape[:-1], -1, 2))


class Gains(NamedTuple):
    """What spectra of images (H, W) are multiplied by.

    Attributes:
        x: (3, W/2): real and imaginary part of the factor of Z[k], and that of Z*[-k].
        y: (4, H/2): a, b and e^{iw} as (re, im).

    """

    x: Tensor
    y: Tensor


@lru_cache(maxsize=64)
def _gains(taper: Taper, size: tuple[int, ...], dtype: torch.dtype, *, inverse: bool) -> Gains:
    """For images of ``size``."""
    w, a, b = _responses(taper, size[1])
    sign = -1 if inverse else 1
    x = torch.stack(((a + b) / 2, -sign * (a - b) / 2 * w.cos(), -sign * (a - b) / 2 * w.sin()))
    w, a, b = _responses(taper, size[0])
    scale = 1 if inverse else 0.5
    return Gains(x.to(dtype), torch.stack((scale * a, scale * b, w.cos(), w.sin())).to(dtype))


def _responses(taper: Taper, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """w, H0(w) and H0(pi - w) of the lower half of the frequencies of ``side`` samples."""
    w = 2 * math.pi * torch.arange(side // 2, dtype=torch.float64) / side
    return w, TAPERS[taper](w), TAPERS[taper](math.pi - w)


def _mixed(spectrum: Tensor, gains: Gains, axes: tuple[int, ...]) -> Tensor:
    """Along x: of the spectrum Z of pairs of samples that of pairs of channels, or back; see :class:`Fourier`."""
    re, im, opposite = gains.x
    negated = spectrum.flip(axes).roll((1,) * len(axes), axes)
    mixed: Tensor = torch.complex(re, im) * spectrum - opposite * negated.conj()
    return mixed


def _split(spectrum: Tensor, gains: Gains) -> Tensor:
    """Along y: (..., H, n) -> the low and the high channel (2, ..., H/2, n)."""
    a, b, re, im = gains.y[..., None]
    upper, lower = spectrum.chunk(2, -2)
    return torch.stack((a * upper + b * lower, torch.complex(re, im) * (b * upper - a * lower)))


def _merged(spectra: Tensor, gains: Gains) -> Tensor:
    """The inverse of :func:`_split`, with the gains of the inverse."""
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
