"""Clips as bands over time: an exactly invertible transform along the frames, then that of images on what it gives.

A clip (B, T C, H, W) has the channels of its frames one after the other. What changes along time is split first, into
tL, the averages, and tH1, tH2 ..., the differences from fast to slow; each of these is an image of as many channels as
it has coefficients, times C, and is split as images are. The order does not matter, both being linear along different
axes: the bands are those of ``pywt.wavedecn`` along all three. Three-dimensional wavelets of clips: Karlsson and
Vetterli, "Three dimensional sub-band coding of video", ICASSP 1988.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from freqgan.bands import TIME_LOW, Band, SubImages
from freqgan.errors import InputError
from freqgan.layouts import ClipLayout
from freqgan.transforms.arrays import ArrayLike, as_float
from freqgan.transforms.dwt import wavelet_banks, wavelet_filters
from freqgan.transforms.protocol import BandTransform

ORTHOGONAL_TO = 1e-10
"""How far the product of a matrix and its transpose may be from one, of an orthogonal wavelet of PyWavelets' tables."""


class ClipTransform(ClipLayout, BandTransform):
    """``still``, the transform of images, on the temporal bands of clips of ``frames`` frames.

    Args:
        still: splits what the transform along time gives.
        frames: of a clip; a multiple of 2^time_levels.
        time_levels: how often time is halved.
        wavelet: of PyWavelets, periodic along time; "haar" averages and subtracts neighbouring frames.

    """

    def __init__(self, still: BandTransform, frames: int, time_levels: int, wavelet: str = "haar") -> None:
        """Raises InputError for an unknown wavelet, and as of :class:`ClipLayout`."""
        super().__init__(still, frames, time_levels)
        self.still: BandTransform = still
        self.wavelet = wavelet_filters(wavelet).name

    # -- time ----------------------------------------------------------------------------------

    def split_time(self, clips: ArrayLike) -> dict[str, Tensor]:
        """Return the temporal bands (B, n C, H, W) of ``clips`` (B, T C, H, W), n the coefficients of each.

        Raises InputError where the channels are no multiple of the frames.
        """
        (x,) = as_float(clips)
        if x.dim() != 4 or x.shape[1] % self.frames:
            raise InputError(
                f"transform {self.spec}: shape {tuple(x.shape)} is not (clips, {self.frames} frames x channels, H, W)"
            )
        low, parts = _apart(x, self.frames), dict[str, Tensor]()
        for level in range(1, self.time_levels + 1):
            averages, differences = _taps(self.wavelet, self.frames >> (level - 1)).split
            parts[f"tH{level}"] = _filtered(low, differences).flatten(1, 2)
            low = _filtered(low, averages)
        parts[TIME_LOW] = low.flatten(1, 2)
        return {time: parts[time] for time in self.times}

    def merge_time(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the clips (B, T C, H, W) of temporal bands (B, n C, H, W): the inverse of :meth:`split_time`.

        Changes that are not given count as zero; InputError without tL.
        """
        if TIME_LOW not in parts:
            raise InputError(f"transform {self.spec}: no band of {TIME_LOW} given, and clips follow from its averages")
        low = _apart(parts[TIME_LOW], self.coefficients(TIME_LOW))
        for level in range(self.time_levels, 0, -1):
            averages, differences = _taps(self.wavelet, self.frames >> (level - 1)).merge
            time = f"tH{level}"
            low, coarse = _spread(low, averages), low
            if time in parts:
                low = low + _spread(_apart(parts[time], coarse.shape[1]), differences)
        return low.flatten(1, 2)

    # -- bands ---------------------------------------------------------------------------------

    def low_range(self, band: Band) -> float:
        """Return the growth of the range of a low band of tL over that of pixels: sqrt 2 more per halving of time."""
        return self.still.low_range(band.still) * math.sqrt(2) ** self.time_levels

    def is_orthonormal(self, size: tuple[int, int]) -> bool:
        """Return whether all bands but finer low ones are a rotation of the pixels of a clip, frames of ``size``."""
        frames = torch.eye(self.frames, dtype=torch.float64)[:, :, None, None]
        rows = torch.cat([*self.split_time(frames).values()], dim=1)[:, :, 0, 0]
        return torch.allclose(rows @ rows.T, rows.new_ones(self.frames).diag(), atol=ORTHOGONAL_TO) and (
            self.still.is_orthonormal(size)
        )

    def projected(self, band: Band, x: ArrayLike) -> Tensor:
        """Return ``x`` (B, n C, h, w) without what no sub-image of ``band`` can hold."""
        return self.still.projected(band.still, x)

    def low_beside(self, band: Band, low: ArrayLike) -> Tensor:
        """Return LL of the level of ``band``, (B, n C, h, w), brought to the size of the sub-images of ``band``."""
        return self.still.low_beside(band.still, low)

    def analyse_level(self, low: ArrayLike, level: int = 1) -> tuple[Tensor, ...]:
        """Return the bands of ``level`` of ``low`` (B, n C, H, W), the low band of a temporal band; errors as there."""
        return self.still.analyse_level(low, level)

    def synthesise_level(self, bands: Sequence[ArrayLike], level: int = 1) -> Tensor:
        """Return the (B, n C, H, W) low band of ``bands``: the exact inverse of :meth:`analyse_level`."""
        return self.still.synthesise_level(bands, level)

    # -- all levels ----------------------------------------------------------------------------

    def analyse(self, image: ArrayLike) -> SubImages:
        """Return all sub-images (B, n C, h, w) of clips (B, T C, H, W); errors as of :meth:`split_time`."""
        return {
            band._replace(time=time): x
            for time, part in self.split_time(image).items()
            for band, x in self.still.analyse(part).items()
        }

    def synthesise(self, sub_images: Mapping[Band, ArrayLike], size: tuple[int, int]) -> Tensor:
        """Return the clips (B, T C, H, W), frames of ``size``, of ``sub_images``; see :meth:`BandTransform.synthesise`.

        Changes without any band count as zero.
        """
        by_time: dict[str, dict[Band, ArrayLike]] = {}
        for band, x in sub_images.items():
            by_time.setdefault(band.time, {})[band.still] = x
        if unknown := by_time.keys() - set(self.times):
            raise InputError(
                f"transform {self.spec}: bands of {', '.join(sorted(map(repr, unknown)))}, and the temporal bands are "
                f"{', '.join(self.times)}"
            )
        return self.merge_time({time: self.still.synthesise(bands, size) for time, bands in by_time.items()})

    def synthesise_onto(self, low: ArrayLike, sub_images: Mapping[Band, ArrayLike], level: int) -> Tensor:
        """Return one level of one temporal band, (B, n C, 2h, 2w): of ``low``, its LL, and of its high bands."""
        return self.still.synthesise_onto(low, {band.still: x for band, x in sub_images.items()}, level)


def _apart(x: Tensor, count: int) -> Tensor:
    """Return ``x`` (B, n C, H, W) as (B, n, C, H, W), n = ``count``."""
    batch, channels, *size = x.shape
    return x.reshape(batch, count, channels // count, *size)


Taps = tuple[tuple[int, float], ...]
"""A filter: what of which of the samples from 2k on is added up for coefficient k."""


class _TimeTaps(NamedTuple):
    """Filters of the averages and of the differences, to split time by and to merge it by."""

    split: tuple[Taps, Taps]
    merge: tuple[Taps, Taps]


@lru_cache(maxsize=64)
def _taps(wavelet: str, frames: int) -> _TimeTaps:
    """Return the filters for an axis of ``frames``; they are periodic, and shorter axes have them added up."""
    banks = wavelet_banks(wavelet_filters(wavelet).filter_bank)
    pairs = [tuple(_nonzero(channel[0]) for channel in bank.channels(frames)) for bank in banks]
    return _TimeTaps(*((low, high) for low, high in pairs))


def _nonzero(row: Tensor) -> Taps:
    return tuple((offset, float(weight)) for offset, weight in enumerate(row.tolist()) if weight)


def _filtered(x: Tensor, taps: Taps) -> Tensor:
    """Return (B, n / 2, ...) of ``x`` (B, n, ...): sums over ``taps`` of every second sample.

    They are added up one by one and not by a matrix product, whose rounding depends on how many clips there are.
    """
    terms = [x.roll(-offset, 1)[:, ::2] * weight for offset, weight in taps]
    return sum(terms[1:], terms[0])


def _spread(x: Tensor, taps: Taps) -> Tensor:
    """Return (B, 2 n, ...) of ``x`` (B, n, ...): the transpose of :func:`_filtered`."""
    phases: list[Tensor | None] = [None, None]
    for offset, weight in taps:
        half, odd = divmod(offset, 2)
        term, so_far = x.roll(half, 1) * weight, phases[odd]
        phases[odd] = term if so_far is None else so_far + term
    both = [torch.zeros_like(x) if phase is None else phase for phase in phases]
    return torch.stack(both, dim=2).flatten(1, 2)
