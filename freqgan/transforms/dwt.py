"""Discrete wavelet transforms ("dwt:haar", "dwt:db2" ...) with periodic borders, as in PyWavelets.

Periodization is the one border rule with exactly N/2 coefficients per axis and level, and the one that
keeps Parseval's identity for orthogonal wavelets.
"""

from __future__ import annotations

from collections.abc import Sequence

import pywt

from freqgan.layouts.members import wavelet_named
from freqgan.transforms.banks import Bank, HaarBank
from freqgan.transforms.filters import PeriodicBank
from freqgan.transforms.quadrants import QuadrantTransform


class WaveletTransform(QuadrantTransform):
    """The periodized transform of any discrete wavelet of PyWavelets; ``spec`` is "dwt:<its name>".

    a[k] = sum_j dec_lo[j] x[(2k + F/2 - j) mod N] and the same with dec_hi, along x and then along y; the inverse adds
    a[k] rec_lo[j] + d[k] rec_hi[j] at (2k - (F/2 - 1) + j) mod N. Equal to ``pywt.wavedec2(mode="periodization")``.

    In float64 the inverse is exact to 1e-14 for most wavelets. It can be no better than PyWavelets' tables, which hold
    fewer digits for sym2 to sym20 (5e-11) and for bior and rbio 4.4, 5.5, 6.8 (4e-12), and a truncated filter for dmey
    (1e-2: use another wavelet where the inverse matters).
    """

    def __init__(self, wavelet: str, levels: int) -> None:
        """Raise InputError when ``wavelet`` is not the name of a discrete wavelet, or levels < 0."""
        filters = wavelet_filters(wavelet)
        super().__init__(f"dwt:{filters.name}", levels, *wavelet_banks(filters.filter_bank))


def wavelet_filters(name: str) -> pywt.Wavelet:
    """PyWavelets' wavelet ``name`` (in any case of letters); InputError when there is no such discrete wavelet."""
    return pywt.Wavelet(wavelet_named(name))


def wavelet_banks(filter_bank: Sequence[Sequence[float]]) -> tuple[Bank, Bank]:
    """Return the analysis and the synthesis bank of (dec_lo, dec_hi, rec_lo, rec_hi).

    The Haar filters get the butterfly.
    """
    taps = [tuple(float(tap) for tap in channel) for channel in filter_bank]
    if taps == [tuple(channel) for channel in pywt.Wavelet("haar").filter_bank]:
        return HaarBank(), HaarBank()
    # The analysis formula runs through its filter backwards (x at 2k + F/2 - j), the synthesis formula forwards.
    dec_lo, dec_hi, rec_lo, rec_hi = taps
    return PeriodicBank(dec_lo[::-1], dec_hi[::-1]), PeriodicBank(rec_lo, rec_hi)
