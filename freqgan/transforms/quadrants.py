"""Transforms of four quadrants a level: two filters along each axis, every second sample kept.

Analysis is the ``split`` of a bank made from the analysis filters; synthesis is the ``merge`` (the transpose of
``split``) of a bank made from the synthesis filters.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from freqgan.bands import HIGH_ORIENTATIONS, ORIENTATIONS, Band, SubImages
from freqgan.transforms.arrays import ArrayLike, as_float
from freqgan.transforms.banks import Bank
from freqgan.transforms.operators import Operators
from freqgan.transforms.protocol import BandTransform, Quad, check_even_sides


class QuadrantTransform(BandTransform):
    """LL, HL, LH and HH per level by a bank for analysis and one for synthesis; the same where it is orthogonal."""

    def __init__(self, spec: str, levels: int, analysis: Bank, synthesis: Bank | None = None) -> None:
        """Raise InputError when levels < 0."""
        super().__init__(spec, levels)
        self._analysis = Operators(analysis)
        self._synthesis = self._analysis if synthesis is None else Operators(synthesis)

    def analyse_level(self, low: ArrayLike, level: int = 1) -> Quad:
        """Return one level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""
        (image,) = as_float(low)
        check_even_sides(self.spec, image)
        return Quad(*self._analysis.split(image, 1))

    def synthesise_level(self, bands: Sequence[ArrayLike], level: int = 1) -> Tensor:
        """Return the (B, C, H, W) image of four quadrants of one shape: the inverse of :meth:`analyse_level`."""
        quadrants = as_float(*bands) if len(bands) == len(ORIENTATIONS) else []
        if not quadrants or quadrants[0].dim() != 4 or any(x.shape != quadrants[0].shape for x in quadrants):
            quadrants = self._checked_level(bands, level)  # which says what is wrong
        return self._synthesis.merge(*quadrants)

    def analyse(self, image: ArrayLike) -> SubImages:
        """Return all sub-images of ``image`` (B, C, H, W), in one operation for all levels.

        Padding and errors are those of :meth:`BandTransform.analyse`.
        """
        if not self.levels:
            return super().analyse(image)
        parts = self._analysis.split(self._padded(image), self.levels)
        names = (Band(level, o) for level in range(1, self.levels + 1) for o in ORIENTATIONS)
        return dict(zip(names, parts, strict=True))

    def _synthesised(self, low: Tensor, sub_images: SubImages, start: int) -> Tensor:
        if not start:
            return low
        high = [(level, sub_images.get(Band(level, o))) for level in range(1, start + 1) for o in HIGH_ORIENTATIONS]
        parts: list[Tensor | None] = []
        for number, (level, x) in enumerate(high):
            if number % len(HIGH_ORIENTATIONS) == 0:
                parts.append(low if level == start else None)
            scale = start - level
            shape = (*low.shape[:-2], low.shape[-2] << scale, low.shape[-1] << scale)
            parts.append(low.new_zeros(shape) if x is None else x)
        return self._synthesis.merge(*parts)
