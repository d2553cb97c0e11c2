"""What every transform gives: exactly invertible levels, chained into a low band and high bands per level.

A family supplies one level and its exact inverse. Padding, the order of levels and the checks of sizes live here, once
for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from operator import index
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bands import Band, SubImages
from freqgan.errors import InputError
from freqgan.layouts import BandLayout
from freqgan.transforms.arrays import ArrayLike, as_float, as_tensor

LOW_RANGE = 2.0
"""Growth of the low band's range per level: LL_q / 2^q is in the range of the pixels, for every transform."""


RANDOM_IMAGES = 4
"""Images by which a transform shows that it is orthonormal."""

MOST_SIZES = 64
"""Sizes of images whose bands' sizes are remembered."""


class Quad(NamedTuple):
    """The four quadrants of one level, each (B, C, H/2, W/2); HL is high along x, LH along y."""

    ll: Tensor
    hl: Tensor
    lh: Tensor
    hh: Tensor


class BandTransform(BandLayout, ABC):
    """An image (B, C, H, W) as a low band and high bands per level, and back; level 1 is the finest.

    Differentiable any number of times, backwards and forwards, and a subject of torch.func: vmap, jvp, hessian and so
    on. It takes tensors, NumPy arrays and lists of numbers, and gives tensors. float64 stays float64, integers of 32
    and 64 bits become it, and everything else is computed and returned as float32, under autocast too. An instance
    holds no tensors, so it can be sent to another process and used on every device.

    All methods raise InputError for what is no array of real numbers, see :mod:`freqgan.transforms.arrays`.
    """

    def __init__(self, spec: str, levels: int) -> None:
        """``spec`` is the name the transform is parsed from; InputError when ``levels`` is not 0 or more."""
        super().__init__(spec, levels)
        self._sizes: dict[tuple[int, int], dict[Band, tuple[int, int]]] = {}
        self._orthonormal: dict[tuple[int, int], bool] = {}

    # -- one level -----------------------------------------------------------------------------

    @abstractmethod
    def analyse_level(self, low: ArrayLike, level: int = 1) -> tuple[Tensor, ...]:
        """Return the bands of ``level``, LL first, of ``low`` (B, C, H, W), the LL of the level before or the image.

        Raises InputError unless H and W are even and at least 2.
        """

    @abstractmethod
    def synthesise_level(self, bands: Sequence[ArrayLike], level: int = 1) -> Tensor:
        """Return the (B, C, H, W) image of ``bands`` of ``level``: the exact inverse of :meth:`analyse_level`.

        Raises InputError unless there is one for each of :meth:`orientations`, of one batch and of the sizes that go
        with LL's.
        """

    # -- bands ---------------------------------------------------------------------------------

    def projected(self, band: Band, x: ArrayLike) -> Tensor:
        """Return ``x`` (B, C, h, w) without what no sub-image of ``band`` can hold.

        That is all of it where the bands are no frame.
        """
        return as_tensor(x)

    def low_beside(self, band: Band, low: ArrayLike) -> Tensor:
        """Return LL of the level of ``band``, (B, C, h, w), brought to the size of the sub-images of ``band``."""
        return as_tensor(low)

    def split_time(self, clips: ArrayLike) -> dict[str, Tensor]:
        """Return the temporal bands of ``clips``: of images themselves, (B, C, H, W), under one of no name."""
        return {self.times[0]: as_tensor(clips)}

    def merge_time(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return what :meth:`split_time` took: images (B, C, H, W) themselves."""
        return parts[self.times[0]]

    def low_range(self, band: Band) -> float:
        """Return how many times the range of pixels that of ``band`` is, a low band."""
        return LOW_RANGE**band.level

    # -- all levels ----------------------------------------------------------------------------

    def is_orthonormal(self, size: tuple[int, int]) -> bool:
        """Return whether the coarsest low band and all high bands of images of ``size`` are a rotation of the pixels.

        That is asked of the transform itself, once for a size: as many coefficients as pixels, and the same sum of
        squares for random images (in float64, to 1e-9 of it), which no other linear map keeps.
        """
        if size not in self._orthonormal:
            numbers = torch.Generator().manual_seed(0)
            images = torch.randn(RANDOM_IMAGES, 1, *size, generator=numbers, dtype=torch.float64)
            bands = self.analyse(images)
            parts = [bands[b].flatten(1) for b in self.independent_bands()]
            squares, expected = (x.square().sum(1) for x in (torch.cat(parts, 1), images.flatten(1)))
            count = sum(part.shape[1] for part in parts)
            self._orthonormal[size] = count == size[0] * size[1] and torch.allclose(squares, expected, rtol=1e-9)
        return self._orthonormal[size]

    def analyse(self, image: ArrayLike) -> SubImages:
        """Return all sub-images of ``image`` (B, C, H, W), the LL of every level among them.

        Sides that are not multiples of 2**levels are extended once by reflection, to the right and below.
        Raises InputError when the image has another number of axes or is too small.
        """
        low = self._padded(image)
        sub_images: SubImages = {} if self.levels else {Band(0, "LL"): low}
        for level in range(1, self.levels + 1):
            parts = self.analyse_level(low, level)
            low = parts[0]
            for orientation, sub_image in zip(self.orientations(level), parts, strict=True):
                sub_images[Band(level, orientation)] = sub_image
        return sub_images

    def synthesise(self, sub_images: Mapping[Band, ArrayLike], size: tuple[int, int]) -> Tensor:
        """Return the (B, C, H, W) image of ``size`` (H, W) made of ``sub_images``, from coarse to fine.

        The low band of a level is the LL given for it, else the synthesis of the next coarser level; so levels
        coarser than the finest LL given have no effect. A missing high band counts as zeros.
        All are computed in the precision that holds each of them. Raises InputError when no LL is given, or a shape is
        not that of its band.
        """
        height, width = self._size(size)
        checked = self._checked_sub_images(sub_images, (height, width))
        lows = [band.level for band in checked if band.orientation == "LL"]
        if not lows:
            raise InputError(f"transform {self.spec}: no low band given; give LL{self.levels}, the coarsest")
        start = min(lows)
        return self._synthesised(checked[Band(start, "LL")], checked, start)[..., :height, :width]

    def _synthesised(self, low: Tensor, sub_images: SubImages, start: int) -> Tensor:
        """Return the image made from ``low``, LL of level ``start``, and the high bands from there on."""
        for level in range(start, 0, -1):
            low = self.synthesise_onto(low, sub_images, level)
        return low

    def synthesise_onto(self, low: ArrayLike, sub_images: Mapping[Band, ArrayLike], level: int) -> Tensor:
        """Return one level of :meth:`synthesise`, (B, C, 2h, 2w): of ``low``, its LL, and of given high bands."""
        coarse = as_tensor(low)
        bands: list[ArrayLike] = [coarse]
        for orientation in self.orientations(level)[1:]:
            band = Band(level, orientation)
            high = sub_images.get(band)
            bands.append(self._zeros(band, coarse) if high is None else high)
        return self.synthesise_level(bands, level)

    def _zeros(self, band: Band, low: Tensor) -> Tensor:
        """Return a sub-image of ``band`` beside ``low``, LL of its level."""
        return low.new_zeros(*low.shape[:-2], *self._size_beside(band, low))

    def _size_beside(self, band: Band, low: Tensor) -> tuple[int, int]:
        """Return the size of the sub-images of ``band`` where those of LL of its level are as large as ``low``."""
        finer = band.level - self.halvings(band)
        height, width = (side << finer if finer > 0 else side >> -finer for side in low.shape[-2:])
        return height, width

    def _padded(self, image: ArrayLike) -> Tensor:
        (pixels,) = as_float(image)
        if pixels.dim() != 4:
            raise InputError(f"transform {self.spec}: shape {tuple(pixels.shape)} is not (images, channels, H, W)")
        height, width = self.padded_size((pixels.shape[2], pixels.shape[3]))
        return _reflected(_reflected(pixels, -2, height), -1, width)

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        try:
            height, width = size
            return index(height), index(width)
        except (TypeError, ValueError) as error:
            raise InputError(f"transform {self.spec}: size is {size!r}, but must be (H, W) in pixels") from error

    def _checked_sub_images(self, sub_images: Mapping[Band, ArrayLike], size: tuple[int, int]) -> SubImages:
        """Return ``sub_images`` in one precision.

        Raises InputError unless all are of one batch and of the sizes of their bands.
        """
        if not isinstance(sub_images, Mapping) or not all(isinstance(band, Band) for band in sub_images):
            raise InputError(f"transform {self.spec}: sub-images are given by band, as {{Band(1, 'LL'): ...}}")
        if not sub_images:
            return {}
        batch: tuple[int, ...] | None = None
        known, checked = self._known_sizes(size), dict(zip(sub_images, as_float(*sub_images.values()), strict=True))
        for band, sub_image in checked.items():
            batch = batch or _batch_of(sub_image)
            expected = (*batch, *(known.get(band) or self.band_size(size, band)))
            if tuple(sub_image.shape) != expected:
                scene = f"transform {self.spec}, images of {size[0]} x {size[1]}"
                raise InputError(_other_shape(scene, band, sub_image, expected))
        return checked

    def _checked_level(self, bands: Sequence[ArrayLike], level: int) -> list[Tensor]:
        """Return ``bands`` of ``level`` in one precision; InputError unless they are all of them, and go together."""
        known = self.orientations(level)
        if len(bands) != len(known):
            raise InputError(
                f"transform {self.spec}: a level has {len(known)} bands, {', '.join(known)}, not {len(bands)}"
            )
        checked = as_float(*bands)
        for orientation, x in zip(known, checked, strict=True):
            band = Band(level, orientation)
            expected = (*_batch_of(checked[0]), *self._size_beside(band, checked[0]))
            if tuple(x.shape) != expected:
                raise InputError(_other_shape(f"transform {self.spec}", band, x, expected))
        return checked

    def _known_sizes(self, size: tuple[int, int]) -> dict[Band, tuple[int, int]]:
        """Return the sizes of all bands of images of ``size``.

        They are counted once, for small images take no longer to transform.
        """
        if size not in self._sizes:
            if len(self._sizes) == MOST_SIZES:
                self._sizes.clear()
            self._sizes[size] = {band: self.band_size(size, band) for band in self.bands()}
        return self._sizes[size]


def _batch_of(sub_image: Tensor) -> tuple[int, ...]:
    """Return images and channels, as they have to be of all; none of two axes where it has fewer."""
    return tuple(sub_image.shape[:2]) if sub_image.dim() == 4 else (1, 1)


def _other_shape(scene: str, band: Band, sub_image: Tensor, expected: tuple[int, ...]) -> str:
    return f"{scene}: {band} has shape {tuple(sub_image.shape)}, expected {expected}"


def check_even_sides(spec: str, low: Tensor) -> None:
    """Raise InputError unless ``low`` is (B, C, H, W) with H and W even and at least 2."""
    height, width = low.shape[-2:] if low.dim() == 4 else (0, 0)
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise InputError(
            f"transform {spec}: one level needs (images, channels, H, W) with H and W even and at least 2, "
            f"not {tuple(low.shape)}; `analyse` pads images of any other size"
        )


def _reflected(image: Tensor, axis: int, side: int) -> Tensor:
    """Return ``image`` extended at the end of ``axis`` to ``side`` by reflection that does not repeat the border.

    Written with flip and cat because the backward pass of F.pad(mode="reflect") is not deterministic on CUDA.
    """
    extra = side - image.shape[axis]
    if extra == 0:
        return image
    mirrored = image.narrow(axis, image.shape[axis] - 1 - extra, extra).flip(axis)
    return torch.cat((image, mirrored), axis)
