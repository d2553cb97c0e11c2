"""Banks of two filters along each axis, every second sample kept: Haar's, and what banks have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from freqgan.transforms.kernels.choice import kernels_for
from freqgan.transforms.protocol import Quad

CHUNK_BYTES = 2**21
"""Size of the images that are transformed together on a CPU: about what the cache of a core holds."""

SPECTRAL_CHUNK_BYTES = 2**20
"""The same where the spectra between the steps are as large as the images; less or more slowed cosine banks."""


class Bank(ABC):
    """A linear operator from an image to its quadrants, and that operator's transpose; of one level, and of several.

    Parts of several levels are a flat list, finest level first, LL, HL, LH and HH of each. Instances hold no tensors.
    """

    @abstractmethod
    def split(self, image: Tensor) -> Quad:
        """Return four quadrants (B, C, H/2, W/2) of ``image`` (B, C, H, W)."""

    @abstractmethod
    def merge(self, quad: Quad) -> Tensor:
        """Return the image (B, C, H, W) of four quadrants (B, C, H/2, W/2); the transpose of ``split``."""

    @abstractmethod
    def channels(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the low and the high channel of an axis of N = ``side`` samples as matrices (N/2, N), float64."""

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """Return the quadrants of ``image`` (B, C, H, W), of its low quadrant, and so on, in a flat list."""
        return split_by(self.split, image, levels)

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Return the image (B, C, H, W) of ``parts``: the transpose of :meth:`split_levels`.

        Low quadrants that are None, never the coarsest, count as zeros.
        """
        return merge_by(self.merge, parts)


def split_by(split: Callable[[Tensor], Quad], image: Tensor, levels: int) -> list[Tensor]:
    """Return the quadrants of ``levels`` levels of ``image`` (B, C, H, W) by the split of one level."""
    parts: list[Tensor] = []
    for _ in range(levels):
        quad = split(image)
        parts += quad
        image = quad.ll
    return parts


def merge_by(merge: Callable[[Quad], Tensor], parts: Sequence[Tensor | None]) -> Tensor:
    """Return the image (B, C, H, W) of the parts of all levels by the merge of one level."""
    low: Tensor | None = None
    for own, hl, lh, hh in reversed(by_level(parts)):
        low = merge(Quad(added(own, low), hl, lh, hh))
    return added(low, None)


Level = tuple[Tensor | None, Tensor, Tensor, Tensor]


def by_level(parts: Sequence[Tensor | None]) -> list[Level]:
    """Return a flat list of parts, (B, C, h, w) each, as four to a level."""
    levels: list[Level] = []
    for low, *high in (parts[i : i + 4] for i in range(0, len(parts), 4)):
        hl, lh, hh = (x for x in high if x is not None)
        levels.append((low, hl, lh, hh))
    return levels


def added(first: Tensor | None, second: Tensor | None) -> Tensor:
    """Return the sum of two tensors of one shape (...), or the only one where the other is None."""
    if first is None or second is None:
        only = second if first is None else first
        if only is None:
            raise ValueError("the coarsest low band is missing")
        return only
    return first + second


@dataclass(frozen=True)
class HaarBank(Bank):
    """The 2 x 2 butterfly: its 4 x 4 matrix is symmetric and orthogonal, its own inverse and its own transpose.

    With pixels a b above c d: LL = (a+b+c+d)/2, HL = (a-b+c-d)/2, LH = (a+b-c-d)/2, HH = (a-b-c+d)/2.
    Rows are combined first, because whole rows are contiguous and the strided half of the work is then on half the
    data: their mean m, and u - m = (u - v) / 2 in place of a difference and a scaling. A few planes at a time, so that
    what is between the two steps stays in the cache. Integers up to 16 bits stay exact in float32 for 4 levels.
    """

    def split(self, image: Tensor) -> Quad:
        """Return four quadrants (B, C, H/2, W/2) of ``image`` (B, C, H, W)."""
        batch, channels, height, width = image.shape
        quad = Quad(*(image.new_empty(batch, channels, height // 2, width // 2) for _ in range(4)))
        rows: Tensor | None = None
        for planes, ll, hl, lh, hh in zip(planes_of(image, 1), *(planes_of(band, 4) for band in quad), strict=True):
            if rows is None:
                rows = image.new_empty(2, len(planes), height // 2, width)
            low, high = rows[0, : len(planes)], rows[1, : len(planes)]
            upper = planes[:, 0::2]
            torch.lerp(planes[:, 1::2], upper, 0.5, out=low)
            torch.sub(upper, low, out=high)
            for part, sums, differences in ((low, ll, hl), (high, lh, hh)):
                left, right = part[..., 0::2], part[..., 1::2]
                torch.add(left, right, out=sums)
                torch.sub(left, right, out=differences)
        return quad

    def merge(self, quad: Quad) -> Tensor:
        """Return the image (B, C, H, W) of four quadrants (B, C, H/2, W/2): the inverse of ``split``."""
        batch, channels, height, width = quad.ll.shape
        image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width)
        rows: Tensor | None = None
        for planes, ll, hl, lh, hh in zip(planes_of(image, 1), *(planes_of(band, 4) for band in quad), strict=True):
            if rows is None:
                rows = image.new_empty(2, len(planes), height, 2 * width)
            low, high = rows[0, : len(planes)], rows[1, : len(planes)]
            for part, sums, differences in ((low, ll, hl), (high, lh, hh)):
                torch.add(sums, differences, out=part[..., 0::2])
                torch.sub(sums, differences, out=part[..., 1::2])
            upper = planes[:, 0::2]
            torch.lerp(high, low, 0.5, out=upper)
            torch.sub(upper, high, out=planes[:, 1::2])
        return image

    def channels(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the matrices (N/2, N) of sums and of differences of pairs, over sqrt 2, for N = ``side``."""
        pairs = torch.eye(side, dtype=torch.float64).view(side // 2, 2, side) / math.sqrt(2)
        return pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """Return the quadrants of all levels of ``image`` (B, C, H, W), by one kernel for all, where there is one."""
        if (kernels := kernels_for(image)) is None:
            return super().split_levels(image, levels)
        return [x for quad in kernels.haar_split(image, levels) for x in quad]

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Return the image (B, C, H, W) of ``parts``, by one kernel for all levels, where there is one."""
        levels = by_level(parts)
        if (kernels := kernels_for(levels[0][1], 4)) is None:
            return super().merge_levels(parts)
        image: Tensor = kernels.haar_merge(levels)
        return image


def planes_of(x: Tensor, share: int) -> tuple[Tensor, ...]:
    """Return the planes (n, h, w) of ``x`` (B, C, h, w), as many at a time as are 1 / ``share`` of a chunk.

    They are views where they can be.

    On a GPU all at once; so where there are none.
    """
    planes = x.reshape(-1, *x.shape[-2:])
    if not x.numel() or x.device.type != "cpu":
        return (planes,)
    count = max(1, CHUNK_BYTES // (share * x.shape[-2] * x.shape[-1] * x.element_size()))
    if count >= len(planes):
        return (planes,)
    parts: tuple[Tensor, ...] = planes.split(count)  # type: ignore[no-untyped-call]
    return parts


def plane_chunks(planes: Tensor) -> list[slice]:
    """Return which of planes (n, H, W), n at least 1, a cosine or Fourier bank transforms together."""
    count = max(1, SPECTRAL_CHUNK_BYTES // (planes[0].numel() * planes.element_size()))
    return [slice(start, min(start + count, len(planes))) for start in range(0, len(planes), count)]
