"""The cosine bank ("dct"): the coefficients of an axis cut in halves, each half back as a signal of half the length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.transforms.banks import plane_chunks
from freqgan.transforms.protocol import Quad


class Place(NamedTuple):
    """The rows and columns of a block of coefficients in those of a whole image, and whether they run backwards."""

    top: int
    left: int
    height: int
    width: int
    backwards_y: bool = False
    backwards_x: bool = False

    def of(self, coefficients: NDArray[Any]) -> NDArray[Any]:
        """Return the view (..., height, width) of this block in the ``coefficients`` (..., H, W) of a whole image."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        block = coefficients[..., rows, columns]
        return block[..., :: -1 if self.backwards_y else 1, :: -1 if self.backwards_x else 1]


@dataclass(frozen=True)
class Cosine:
    """X = DCT-II(x), orthonormal; low = IDCT of its first half, high = IDCT of its second half, flipped.

    Even at both ends, like images that are mirrored there. Flipped, the highest frequency becomes the lowest of the
    high channel, as when a wavelet's high channel is decimated. Without kernels through SciPy. With them through
    Fourier transforms of real images: of samples in the order 0, 2, 4 ... 5, 3, 1 (Makhoul, A fast cosine transform in
    one and two dimensions, 1980),

        C[k] - i C[N-k] = e^{-it} V[k],   t = pi k / 2N, before scaling, along each axis,

    and back from C by V's Hartley transform A = Re V - Im V, since v = (Re F - Im F) / N with F that of A.
    """

    family: ClassVar[str] = "cosine"

    def split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low and the high channel, (..., N/2) each, of float64 ``rows`` (..., N)."""
        from scipy.fft import dct, idct  # loading it takes a third of torch's time, and few processes need it

        spectrum = dct(rows.numpy(), norm="ortho")
        half = spectrum.shape[-1] // 2
        halves = (spectrum[..., :half], spectrum[..., : half - 1 : -1])
        low, high = (torch.from_numpy(idct(part, norm="ortho")) for part in halves)
        return low, high

    def split(self, images: Tensor, quads: Sequence[Quad], kernels: ModuleType | None) -> None:
        """Write the bands (n, h, w) of every level of ``images`` (n, H, W) to ``quads``."""
        if kernels is not None:
            kernels.cosine_split(images, quads)
            return
        for planes in plane_chunks(images):
            coefficients = _to_coefficients(images[planes])
            for quad in quads:
                for band, place in zip(quad, places_in_spectrum(*quad.ll.shape[1:]), strict=True):
                    _to_image(place.of(coefficients), band[planes])

    def merge(self, quads: Sequence[Quad], images: Tensor, kernels: ModuleType | None) -> None:
        """Write the images (n, H, W) of ``quads`` to ``images``: the inverse of :meth:`split`."""
        if kernels is not None:
            kernels.cosine_merge(quads, images)
            return
        for planes in plane_chunks(images):
            coefficients = images[planes].numpy()
            for quad in quads:
                for band, place in zip(quad, places_in_spectrum(*quad.ll.shape[1:]), strict=True):
                    if band is not quad.ll or quad is quads[-1]:
                        place.of(coefficients)[:] = _to_coefficients(band[planes])
            _to_image(coefficients, images[planes])


def places_in_spectrum(height: int, width: int) -> list[Place]:
    """Return the places of LL, HL, LH and HH (height, width) in an image's coefficients, of whatever level.

    The first of them are those of its LL, and of those the first those of that one's.
    """
    y, x = height, width
    high = [Place(0, x, y, x, False, True), Place(y, 0, y, x, True, False), Place(y, x, y, x, True, True)]
    return [Place(0, 0, y, x), *high]


def _to_coefficients(images: Tensor) -> NDArray[Any]:
    from scipy.fft import dctn

    coefficients: NDArray[Any] = dctn(images.numpy(), axes=(-2, -1), norm="ortho")
    return coefficients


def _to_image(coefficients: NDArray[Any], out: Tensor) -> None:
    """Write the image of ``coefficients`` to ``out``; in place, where SciPy can, which saves a tenth of the time."""
    from scipy.fft import idctn

    pixels = out.numpy()
    np.copyto(pixels, coefficients)
    image = idctn(pixels, axes=(-2, -1), norm="ortho", overwrite_x=True)
    if not np.may_share_memory(image, pixels):
        np.copyto(pixels, image)


def gains_of(images: Tensor, *, inverse: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the gains (2, N/2 + 1) along x and along y of ``images`` (n, H, W), as (re, im)."""
    height, width = images.shape[-2:]
    return _gains(width, images.dtype, inverse), _gains(height, images.dtype, inverse)


@lru_cache(maxsize=64)
def _gains(side: int, dtype: torch.dtype, inverse: bool) -> NDArray[Any]:
    """Return e^{it} as (re, im), (2, N/2 + 1).

    They are scaled so that coefficients are orthonormal and a sum of two is a mean.
    """
    k = torch.arange(side // 2 + 1, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(1 / (2 * side if inverse else side)))
    scale[0] = math.sqrt(1 / (side if inverse else 2 * side))
    t = math.pi * k / (2 * side)
    gains: NDArray[Any] = (torch.stack((t.cos(), t.sin())) * scale).to(dtype).numpy()
    return gains
