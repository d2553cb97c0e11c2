"""Transforms of four quadrants a level: two filters along each axis, every second sample kept.

Analysis is the ``split`` of a bank made from the analysis filters; synthesis is the ``merge`` (the transpose of
``split``) of a bank made from the synthesis filters. Since each operator is the other's derivative, two autograd
functions serve gradients of every order, and nothing is saved for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from freqgan.transforms.protocol import BandTransform, Quad, as_float, check_even_sides


class Bank(Protocol):
    """A linear operator from an image to its quadrants, and that operator's transpose."""

    def split(self, image: Tensor) -> Quad:
        """(B, C, H, W) -> four quadrants (B, C, H/2, W/2)."""

    def merge(self, quad: Quad) -> Tensor:
        """Four quadrants -> (B, C, H, W); the transpose of ``split``."""


class QuadrantTransform(BandTransform):
    """LL, HL, LH and HH per level by a bank for analysis and one for synthesis; the same where it is orthogonal."""

    def __init__(self, spec: str, levels: int, analysis: Bank, synthesis: Bank | None = None) -> None:
        """Raises InputError when levels < 1."""
        super().__init__(spec, levels)
        self._analysis, self._synthesis = analysis, analysis if synthesis is None else synthesis

    def analyse_level(self, low: Tensor, level: int = 1) -> Quad:
        """One level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""
        check_even_sides(self.spec, low)
        return Quad(*_split(*as_float(low), self._analysis))

    def synthesise_level(self, bands: Sequence[Tensor], level: int = 1) -> Tensor:
        """The (B, C, H, W) image of the four quadrants: the exact inverse of :meth:`analyse_level`."""
        return _merge(*as_float(*bands), self._synthesis)


class HaarBank:
    """The 2 x 2 butterfly: its 4 x 4 matrix is symmetric and orthogonal, its own inverse and its own transpose.

    With pixels a b above c d: LL = (a+b+c+d)/2, HL = (a-b+c-d)/2, LH = (a+b-c-d)/2, HH = (a-b-c+d)/2.
    Rows are combined first, because whole rows are contiguous and the strided half of the work is then on half the
    data. Integers up to 16 bits stay exact in float32 for 4 levels.
    """

    def split(self, image: Tensor) -> Quad:
        """(B, C, H, W) -> four quadrants (B, C, H/2, W/2)."""
        upper, lower = image[..., 0::2, :], image[..., 1::2, :]
        low, high = torch.add(upper, lower).mul_(0.5), torch.sub(upper, lower).mul_(0.5)
        left, right = low[..., 0::2], low[..., 1::2]
        high_left, high_right = high[..., 0::2], high[..., 1::2]
        return Quad(left + right, left - right, high_left + high_right, high_left - high_right)

    def merge(self, quad: Quad) -> Tensor:
        """Four quadrants -> (B, C, H, W); the inverse and the transpose of ``split``."""
        batch, channels, height, width = quad.ll.shape
        row_pairs = quad.ll.new_empty(2, batch, channels, height, 2 * width)
        for rows, low, high in zip(row_pairs, (quad.ll, quad.lh), (quad.hl, quad.hh), strict=True):
            torch.add(low, high, out=rows[..., 0::2])
            torch.sub(low, high, out=rows[..., 1::2])
        low_rows, high_rows = row_pairs.mul_(0.5)
        image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width)
        torch.add(low_rows, high_rows, out=image[..., 0::2, :])
        torch.sub(low_rows, high_rows, out=image[..., 1::2, :])
        return image


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(image: Tensor, bank: Bank) -> tuple[Tensor, ...]:
        with torch.autocast(image.device.type, enabled=False):
            return tuple(bank.split(image))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.bank = inputs[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _merge(*gradients, ctx.bank), None


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ll: Tensor, hl: Tensor, lh: Tensor, hh: Tensor, bank: Bank) -> Tensor:
        with torch.autocast(ll.device.type, enabled=False):
            return bank.merge(Quad(ll, hl, lh, hh))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.bank = inputs[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *_split(gradient, ctx.bank), None


# Each with its operands and the bank last; named here because ``apply`` carries no types.
_split: Callable[..., tuple[Tensor, ...]] = _Split.apply
_merge: Callable[..., Tensor] = _Merge.apply
