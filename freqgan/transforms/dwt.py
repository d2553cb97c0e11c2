"""Discrete wavelet transforms ("dwt:haar", "dwt:db2" ...) with periodic borders, as in PyWavelets.

Periodization is the one border rule with exactly N/2 coefficients per axis and level, and the one that
keeps Parseval's identity for orthogonal wavelets. Analysis is the ``split`` of a bank made from the analysis
filters; synthesis is the ``merge`` (the transpose of ``split``) of a bank made from the synthesis filters.
Since each operator is the other's derivative, two autograd functions serve gradients of every order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pywt
import torch
from torch import Tensor

from freqgan.errors import InputError, nearest
from freqgan.transforms.filters import PeriodicBank
from freqgan.transforms.protocol import BandTransform, Quad, as_float, check_even_sides


class Bank(Protocol):
    """A linear operator from an image to its quadrants, and that operator's transpose."""

    def split(self, image: Tensor) -> Quad:
        """(B, C, H, W) -> four quadrants (B, C, H/2, W/2)."""

    def merge(self, quad: Quad) -> Tensor:
        """Four quadrants -> (B, C, H, W); the transpose of ``split``."""


class WaveletTransform(BandTransform):
    """The periodized transform of any discrete wavelet of PyWavelets; ``spec`` is "dwt:<its name>".

    a[k] = sum_j dec_lo[j] x[(2k + F/2 - j) mod N] and the same with dec_hi, along x and then along y; the inverse adds
    a[k] rec_lo[j] + d[k] rec_hi[j] at (2k - (F/2 - 1) + j) mod N. Equal to ``pywt.wavedec2(mode="periodization")``.

    In float64 the inverse is exact to 1e-14 for most wavelets. It can be no better than PyWavelets' tables, which hold
    fewer digits for sym2 to sym20 (5e-11) and for bior and rbio 4.4, 5.5, 6.8 (4e-12), and a truncated filter for dmey
    (1e-2: use another wavelet where the inverse matters).
    """

    def __init__(self, wavelet: str, levels: int) -> None:
        """Raises InputError when ``wavelet`` is not the name of a discrete wavelet, or levels < 1."""
        filters = _filters(wavelet)
        super().__init__(f"dwt:{filters.name}", levels)
        self._analysis, self._synthesis = _banks(filters)

    def analyse_level(self, low: Tensor) -> Quad:
        """One level of ``low`` (B, C, H, W); InputError unless H and W are even and at least 2."""
        check_even_sides(self.spec, low)
        return Quad(*_split(*as_float(low), self._analysis))

    def synthesise_level(self, quad: Quad) -> Tensor:
        """The (B, C, H, W) image of ``quad``: the exact inverse of :meth:`analyse_level`."""
        return _merge(*as_float(*quad), self._synthesis)


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


def _filters(name: str) -> pywt.Wavelet:
    """PyWavelets' wavelet ``name`` (in any case of letters); InputError when there is no such discrete wavelet."""
    discrete = pywt.wavelist(kind="discrete")
    if name.lower() in discrete:
        return pywt.Wavelet(name.lower())
    scene = f"transform 'dwt:{name}'"
    if not name:
        raise InputError(f"{scene}: no wavelet named; write for example dwt:haar")
    if any(name.lower().startswith(family) for family in pywt.wavelist(kind="continuous")):
        raise InputError(
            f"{scene}: {name} is a continuous wavelet, which has no inverse; use a discrete one, as dwt:haar"
        )
    raise InputError(
        f"{scene}: unknown wavelet {name!r}{nearest(name.lower(), discrete)}; families: {', '.join(pywt.families())}"
    )


def _banks(filters: pywt.Wavelet) -> tuple[Bank, Bank]:
    """The analysis and the synthesis bank of ``filters``; every name of the Haar filters gets the butterfly."""
    haar = pywt.Wavelet("haar")
    if filters.filter_bank == haar.filter_bank:
        return HaarBank(), HaarBank()
    # The analysis formula runs through its filter backwards (x at 2k + F/2 - j), the synthesis formula forwards.
    analysis = PeriodicBank(tuple(filters.dec_lo[::-1]), tuple(filters.dec_hi[::-1]))
    return analysis, PeriodicBank(tuple(filters.rec_lo), tuple(filters.rec_hi))
