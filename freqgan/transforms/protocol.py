"""What every transform gives: exactly invertible levels, chained into 4 sub-images per level.

A family (wavelets now; cosine and Fourier banks have the same quadrants) supplies one level and its
exact inverse. Padding, the order of levels and the checks of sizes live here, once for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bands import HIGH_ORIENTATIONS, Band, Orientation, SubImages
from freqgan.errors import InputError


class Quad(NamedTuple):
    """The four quadrants of one level, each (B, C, H/2, W/2); HL is high along x, LH along y."""

    ll: Tensor
    hl: Tensor
    lh: Tensor
    hh: Tensor


class BandTransform(ABC):
    """An image (B, C, H, W) as 4 sub-images per level, and back; level 1 is the finest.

    Differentiable any number of times. float64 stays float64 and everything else is computed and
    returned as float32, under autocast too. An instance holds no tensors, so it can be sent to
    another process and used on every device.
    """

    def __init__(self, spec: str, levels: int) -> None:
        """``spec`` is the name the transform is parsed from; InputError when ``levels`` is not 1 or more."""
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise InputError(f"transform {spec}: levels is {levels!r}, but must be a whole number, 1 or more")
        self.spec = spec
        self.levels = levels

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r}, levels={self.levels})"

    @abstractmethod
    def analyse_level(self, low: Tensor) -> Quad:
        """One level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""

    @abstractmethod
    def synthesise_level(self, quad: Quad) -> Tensor:
        """The (B, C, H, W) image of ``quad``: the exact inverse of :meth:`analyse_level`."""

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """``size`` (H, W) in pixels with each side rounded up to a multiple of 2**levels.

        Raises InputError when a side is under 2**levels: the coarsest band would be padding only.
        """
        unit = 2**self.levels
        if min(size) < unit:
            raise InputError(_too_small(self.spec, size, self.levels))
        return -(-size[0] // unit) * unit, -(-size[1] // unit) * unit

    def band_size(self, size: tuple[int, int], level: int) -> tuple[int, int]:
        """The (h, w) of the sub-images of ``level`` for images of ``size`` (H, W); errors as for padded_size."""
        if not 1 <= level <= self.levels:
            raise InputError(f"transform {self.spec}: level {level} is not among its levels 1 to {self.levels}")
        height, width = self.padded_size(size)
        return height >> level, width >> level

    def analyse(self, image: Tensor) -> SubImages:
        """All 4 * levels sub-images of ``image`` (B, C, H, W), the LL of every level among them.

        Sides that are not multiples of 2**levels are extended once by reflection, to the right and below.
        Raises InputError when the image has another number of axes or is too small.
        """
        sub_images: SubImages = {}
        low = self._padded(image)
        for level in range(1, self.levels + 1):
            quad = self.analyse_level(low)
            sub_images[Band(level, "LL")] = low = quad.ll
            for orientation, high in zip(HIGH_ORIENTATIONS, quad[1:], strict=True):
                sub_images[Band(level, orientation)] = high
        return sub_images

    def synthesise(self, sub_images: SubImages, size: tuple[int, int]) -> Tensor:
        """The (B, C, H, W) image of ``size`` (H, W) made of ``sub_images``, from coarse to fine.

        The low band of a level is the LL given for it, else the synthesis of the next coarser level; so levels
        coarser than the finest LL given have no effect. A missing high band counts as zeros.
        Raises InputError when no LL is given, or a shape is not that of its band.
        """
        self._check_sub_images(sub_images, size)
        start = min((band.level for band in sub_images if band.orientation == "LL"), default=None)
        if start is None:
            raise InputError(f"transform {self.spec}: no low band given; give LL{self.levels}, the coarsest")
        low = sub_images[Band(start, "LL")]
        for level in range(start, 0, -1):
            hl, lh, hh = (_or_zeros(sub_images, level, orientation, low) for orientation in HIGH_ORIENTATIONS)
            low = self.synthesise_level(Quad(low, hl, lh, hh))
        return low[..., : size[0], : size[1]]

    def _padded(self, image: Tensor) -> Tensor:
        if image.dim() != 4:
            raise InputError(f"transform {self.spec}: shape {tuple(image.shape)} is not (images, channels, H, W)")
        height, width = self.padded_size((image.shape[2], image.shape[3]))
        (image,) = as_float(image)
        return _reflected(_reflected(image, -2, height), -1, width)

    def _check_sub_images(self, sub_images: SubImages, size: tuple[int, int]) -> None:
        """InputError unless all ``sub_images`` are of one batch and of the sizes of their bands."""
        batch: tuple[int, ...] | None = None
        for band, sub_image in sub_images.items():
            batch = batch or tuple(sub_image.shape[:2])
            expected = (*batch, *self.band_size(size, band.level))
            if tuple(sub_image.shape) != expected:
                raise InputError(
                    f"transform {self.spec}, images of {size[0]} x {size[1]}: {band} has shape "
                    f"{tuple(sub_image.shape)}, expected {expected}"
                )


def as_float(*tensors: Tensor) -> list[Tensor]:
    """``tensors`` in their common precision: float64 if any of them is, else float32; InputError for complex ones."""
    common = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    if common.is_complex:
        raise InputError(f"a transform takes real images, not {common}: give the real and imaginary parts as channels")
    dtype = torch.float64 if common == torch.float64 else torch.float32
    return [tensor.to(dtype) for tensor in tensors]


def check_even_sides(spec: str, low: Tensor) -> None:
    """InputError unless ``low`` is (B, C, H, W) with H and W even and at least 2."""
    height, width = low.shape[-2:] if low.dim() == 4 else (0, 0)
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise InputError(
            f"transform {spec}: one level needs (images, channels, H, W) with H and W even and at least 2, "
            f"not {tuple(low.shape)}; `analyse` pads images of any other size"
        )


def _or_zeros(sub_images: SubImages, level: int, orientation: Orientation, like: Tensor) -> Tensor:
    given = sub_images.get(Band(level, orientation))
    return torch.zeros_like(like) if given is None else given


def _reflected(image: Tensor, axis: int, side: int) -> Tensor:
    """``image`` extended at the end of ``axis`` to ``side`` by reflection that does not repeat the border.

    Written with flip and cat because the backward pass of F.pad(mode="reflect") is not deterministic on CUDA.
    """
    extra = side - image.shape[axis]
    if extra == 0:
        return image
    mirrored = image.narrow(axis, image.shape[axis] - 1 - extra, extra).flip(axis)
    return torch.cat((image, mirrored), axis)


def _too_small(spec: str, size: tuple[int, int], levels: int) -> str:
    fits = max(min(size), 1).bit_length() - 1
    remedy = f"at most {fits} level{'s' if fits > 1 else ''} fit" if fits else "no level fits, sides start at 2"
    return (
        f"transform {spec}: an image of {size[0]} x {size[1]} pixels is too small for {levels} levels, "
        f"which need sides of at least {2**levels}; {remedy}"
    )
