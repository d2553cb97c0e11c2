"""Transforms of four quadrants a level: two filters along each axis, every second sample kept.

Analysis is the ``split`` of a bank made from the analysis filters; synthesis is the ``merge`` (the transpose of
``split``) of a bank made from the synthesis filters.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from freqgan.bands import HIGH_ORIENTATIONS, ORIENTATIONS, Band, SubImages
from freqgan.transforms.banks import Bank
from freqgan.transforms.operators import Operators
from freqgan.transforms.protocol import BandTransform, Quad, as_float, check_even_sides


class QuadrantTransform(BandTransform):
    """LL, HL, LH and HH per level by a bank for analysis and one for synthesis; the same where it is orthogonal."""

    def __init__(self, spec: str, levels: int, analysis: Bank, synthesis: Bank | None = None) -> None:
        """Raises InputError when levels < 1."""
        super().__init__(spec, levels)
        self._analysis = Operators(analysis)
        self._synthesis = self._analysis if synthesis is None else Operators(synthesis)

    def analyse_level(self, low: Tensor, level: int = 1) -> Quad:
        """One level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""
        check_even_sides(self.spec, low)
        (low,) = as_float(low)
        return Quad(*self._analysis.split(low, 1))

    def synthesise_level(self, bands: Sequence[Tensor], level: int = 1) -> Tensor:
        """The (B, C, H, W) image of the four quadrants: the exact inverse of :meth:`analyse_level`."""
        return self._synthesis.merge(*as_float(*bands))

    def analyse(self, image: Tensor) -> SubImages:
        """See :meth:`BandTransform.analyse`; all levels are one operation."""
        parts = self._analysis.split(self._padded(image), self.levels)
        names = (Band(level, o) for level in range(1, self.levels + 1) for o in ORIENTATIONS)
        return dict(zip(names, parts, strict=True))

    def _synthesised(self, low: Tensor, sub_images: SubImages, start: int) -> Tensor:
        given = [(level, sub_images.get(Band(level, o))) for level in range(1, start + 1) for o in HIGH_ORIENTATIONS]
        tensors = as_float(low, *(x for _, x in given if x is not None))
        low, floats = tensors[0], iter(tensors[1:])
        parts: list[Tensor | None] = []
        for number, (level, x) in enumerate(given):
            if number % len(HIGH_ORIENTATIONS) == 0:
                parts.append(low if level == start else None)
            scale = start - level
            shape = (*low.shape[:-2], low.shape[-2] << scale, low.shape[-1] << scale)
            parts.append(low.new_zeros(shape) if x is None else next(floats))
        return self._synthesis.merge(*parts)
