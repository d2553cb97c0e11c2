"""Wavelet packets: the high bands of some levels split again by the same transform (Coifman and Wickerhauser 1992)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from freqgan.bands import HIGH_ORIENTATIONS, Band
from freqgan.layouts import PacketLayout
from freqgan.transforms.arrays import ArrayLike, as_tensor
from freqgan.transforms.protocol import LOW_RANGE, BandTransform, Quad
from freqgan.transforms.quadrants import QuadrantTransform


class PacketTransform(PacketLayout, BandTransform):
    """``base``, with each high band of a level split ``splits[level]`` times more, into 4 to that power packets.

    A packet is named by every step to it: HLLH1 is the LH of HL1. Its sides are halved once more per split. The low
    bands are those of ``base``.
    """

    def __init__(self, base: QuadrantTransform, splits: Mapping[int, int]) -> None:
        """Raise InputError for a level that ``base`` does not have, and for more than 3 splits."""
        super().__init__(base.spec, base.levels, splits)
        self.base = base

    def analyse_level(self, low: ArrayLike, level: int = 1) -> tuple[Tensor, ...]:
        """Return one level of ``low`` (B, C, H, W).

        Raises InputError unless H and W are even, and as often as they are halved.
        """
        quad, times = self.base.analyse_level(low), self.splits.get(level, 0)
        return quad.ll, *(packet for high in quad[1:] for packet in self._split(high, times))

    def synthesise_level(self, bands: Sequence[ArrayLike], level: int = 1) -> Tensor:
        """Return the image (B, C, H, W) of ``bands``: the exact inverse of :meth:`analyse_level`."""
        low, *packets = self._checked_level(bands, level)
        times = self.splits.get(level, 0)
        of_each = len(packets) // len(HIGH_ORIENTATIONS)
        highs = [self._merged(packets[i : i + of_each], times) for i in range(0, len(packets), of_each)]
        return self.base.synthesise_level(Quad(low, *highs))

    def low_beside(self, band: Band, low: ArrayLike) -> Tensor:
        """Return LL of the level, (B, C, h, w), at the size of the packet ``band``, in LL's range.

        It is as often reduced by the transform's own low-pass as the packet was.
        """
        reduced = as_tensor(low)
        for _ in range(self.halvings(band) - band.level):
            reduced = self.base.analyse_level(reduced).ll / LOW_RANGE
        return reduced

    def _split(self, high: Tensor, times: int) -> list[Tensor]:
        if times == 0:
            return [high]
        return [packet for part in self.base.analyse_level(high) for packet in self._split(part, times - 1)]

    def _merged(self, packets: Sequence[Tensor], times: int) -> Tensor:
        if times == 0:
            return packets[0]
        quarter = len(packets) // 4
        parts = (self._merged(packets[i * quarter : (i + 1) * quarter], times - 1) for i in range(4))
        return self.base.synthesise_level(Quad(*parts))
