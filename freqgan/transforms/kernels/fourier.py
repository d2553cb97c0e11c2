"""What surrounds fast Fourier transforms in Fourier banks on a CPU, as kernels that Numba compiles.

Imported where a large tensor is transformed and Numba is there; :mod:`freqgan.transforms.fourier` says the formulas.
Transforms themselves are torch's. A low band is never transformed back and forth: the next level takes the spectrum of
LL + i HL, of which LL's is the half that is Hermitian, and gives LL's own to add to that of i HL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from freqgan.layouts.members import Taper
from freqgan.transforms.fourier import gains_of
from freqgan.transforms.kernels.flat_arrays import (
    Array,
    _0,
    _1,
    _2,
    _3,
    chunks,
    compiled,
    flat,
    planes_in,
    size_of,
    sizes,
)
from freqgan.transforms.protocol import Quad


@compiled
def _join(bands, has_low, pairs):
    """LL + i HL, or i HL where there is no LL, and LH + i HH."""
    half = bands[3].size
    for i in range(half):
        pairs[2 * i] = bands[0][i] if has_low else 0
        pairs[2 * i + 1] = bands[1][i]
    rest = pairs[2 * half :]
    for i in range(half):
        rest[2 * i] = bands[2][i]
        rest[2 * i + 1] = bands[3][i]


@compiled
def _part(pairs, bands):
    """The inverse of :func:`_join`."""
    half = bands[3].size
    for i in range(half):
        bands[0][i] = pairs[2 * i]
        bands[1][i] = pairs[2 * i + 1]
    rest = pairs[2 * half :]
    for i in range(half):
        bands[2][i] = rest[2 * i]
        bands[3][i] = rest[2 * i + 1]


@compiled
def _mix_row(rows, at, opposite, gains, count, out, start):
    """c[k] Z[k] - d[k] Z*[-k], for a row of ``count`` numbers; ``opposite`` is that at minus the frequency along y."""
    re, im, d = gains[_0, _0], gains[_1, _0], gains[_2, _0]
    out[start] = re * rows[at] - im * rows[at + _1] - d * rows[opposite]
    out[start + _1] = re * rows[at + _1] + im * rows[at] + d * rows[opposite + _1]
    end = opposite + _2 * count
    for k in range(_1, count):
        re, im, d = gains[_0, k], gains[_1, k], gains[_2, k]
        x, y = rows[at + _2 * k], rows[at + _2 * k + _1]
        out[start + _2 * k] = re * x - im * y - d * rows[end - _2 * k]
        out[start + _2 * k + _1] = re * y + im * x + d * rows[end - _2 * k + _1]


@compiled
def _split_number(rows, own, own_half, other, other_half, gains, k, out, at):
    """A + i D of L[k] and L[k+M]; L is the Hermitian half of numbers whose opposites are ``other`` ones."""
    half = rows.dtype.type(0.5)
    x, y = half * (rows[own] + rows[other]), half * (rows[own + _1] - rows[other + _1])
    u, v = half * (rows[own_half] + rows[other_half]), half * (rows[own_half + _1] - rows[other_half + _1])
    a, b, re, im = gains[_0, k], gains[_1, k], gains[_2, k], gains[_3, k]
    p, q = x * b - u * a, y * b - v * a
    out[at] = x * a + u * b - (p * im + q * re)
    out[at + _1] = y * a + v * b + (p * re - q * im)


@compiled
def _split_low_row(rows, at, opposite, gains, count, out, start):
    """Along x: of a row of the spectrum of LL + i HL, of 2 ``count`` numbers, that of both channels of LL."""
    middle, mirrored = at + _2 * count, opposite + _2 * count
    _split_number(rows, at, middle, opposite, mirrored, gains, _0, out, start)
    end = mirrored + _2 * count
    for k in range(_1, count):
        step = _2 * k
        _split_number(rows, at + step, middle + step, end - step, mirrored - step, gains, k, out, start + step)


@compiled
def _merge_number(rows, own, other, gains, k, out, at, at_half):
    """The inverse of :func:`_split_number`, added to L[k] and L[k+M]."""
    half = rows.dtype.type(0.5)
    x, y = half * (rows[own] + rows[other]), half * (rows[own + _1] - rows[other + _1])
    p, q = half * (rows[own + _1] + rows[other + _1]), half * (rows[other] - rows[own])
    a, b, re, im = gains[_0, k], gains[_1, k], gains[_2, k], gains[_3, k]
    u, v = p * re + q * im, q * re - p * im
    out[at] += x * a + u * b
    out[at + _1] += y * a + v * b
    out[at_half] += x * b - u * a
    out[at_half + _1] += y * b - v * a


@compiled
def _merge_low_row(rows, at, opposite, gains, count, out, start):
    """Along x: the inverse of :func:`_split_low_row`, added to a row of 2 ``count`` numbers."""
    middle, end = start + _2 * count, opposite + _2 * count
    _merge_number(rows, at, opposite, gains, _0, out, start, middle)
    for k in range(_1, count):
        step = _2 * k
        _merge_number(rows, at + step, end - step, gains, k, out, start + step, middle + step)


@compiled
def _split_rows(upper, lower, a, b, low, high, at):
    for i in range(size_of(upper)):
        low[at + i] = upper[i] * a + lower[i] * b
        high[at + i] = upper[i] * b - lower[i] * a


@compiled
def _turn_row(rows, at, count, re, im):
    for k in range(count):
        x, y = rows[at + _2 * k], rows[at + _2 * k + _1]
        rows[at + _2 * k] = x * re - y * im
        rows[at + _2 * k + _1] = x * im + y * re


@compiled
def _merge_rows(low, high, at, gains, k, count, rows, upper, lower):
    a, b, re, im = gains[_0, k], gains[_1, k], gains[_2, k], gains[_3, k]
    for i in range(count):
        left, right = at + _2 * i, at + _2 * i + _1
        x, y = high[left] * re + high[right] * im, high[right] * re - high[left] * im
        rows[upper + _2 * i] = low[left] * a + x * b
        rows[upper + _2 * i + _1] = low[right] * a + y * b
        rows[lower + _2 * i] = low[left] * b - x * a
        rows[lower + _2 * i + _1] = low[right] * b - y * a


@compiled
def _split(spectrum, of_low, shape, along_x, along_y, pairs):
    """A spectrum of images (n, H, W) -> those of LL + i HL and LH + i HH, each (n, H/2, W/2).

    ``of_low``: it is that of LL + i HL, (n, H, W); else that of the pairs of columns, (n, H, W/2).
    """
    planes, height, width = sizes(shape)
    half, count = height // _2, width // _2
    row, source = _2 * count, _2 * (width if of_low else count)
    low, high = pairs[: planes * half * row], pairs[planes * half * row :]
    upper, lower = np.empty(row, spectrum.dtype), np.empty(row, spectrum.dtype)
    for p in range(planes):
        start = p * height * source
        for k in range(half):
            above, below = start + k * source, start + (k + half) * source
            minus_above, minus_below = start + (height - k) % height * source, start + (half - k) * source
            if of_low:
                _split_low_row(spectrum, above, minus_above, along_x, count, upper, _0)
                _split_low_row(spectrum, below, minus_below, along_x, count, lower, _0)
            else:
                _mix_row(spectrum, above, minus_above, along_x, count, upper, _0)
                _mix_row(spectrum, below, minus_below, along_x, count, lower, _0)
            at = (p * half + k) * row
            _split_rows(upper, lower, along_y[_0, k], along_y[_1, k], low, high, at)
            _turn_row(high, at, count, along_y[_2, k], along_y[_3, k])


@compiled
def _merge(pairs, to_low, shape, along_x, along_y, spectrum):
    """The inverse of :func:`_split`, with the gains of the inverse; added where ``to_low``."""
    planes, height, width = sizes(shape)
    half, count = height // _2, width // _2
    row, target = _2 * count, _2 * (width if to_low else count)
    low, high = pairs[: planes * half * row], pairs[planes * half * row :]
    rows = np.empty(height * row, spectrum.dtype)
    for p in range(planes):
        for k in range(half):
            _merge_rows(low, high, (p * half + k) * row, along_y, k, count, rows, k * row, (k + half) * row)
        for k in range(height):
            at, opposite, out = k * row, (height - k) % height * row, (p * height + k) * target
            if to_low:
                _merge_low_row(rows, at, opposite, along_x, count, spectrum, out)
            else:
                _mix_row(rows, at, opposite, along_x, count, spectrum, out)


class _Level(NamedTuple):
    """The bands of a level as flat arrays, the size of each, and the gains along x and y."""

    bands: tuple[Array, ...]
    size: tuple[int, int]
    gains: tuple[Array, Array]


def _levels_of(quads: Sequence[Quad], taper: Taper, *, inverse: bool) -> list[_Level]:
    levels = []
    for number, quad in enumerate(quads):
        height, width = quad.ll.shape[-2:]
        gains = gains_of(taper, (2 * height, 2 * width), quad.ll.dtype, inverse=inverse)
        along_x = gains.x if number else gains.pairs
        levels.append(_Level(tuple(map(flat, quad)), (height, width), (along_x.numpy(), gains.y.numpy())))
    return levels


def fourier_split(images: Tensor, quads: Sequence[Quad], taper: Taper) -> None:
    """Write the bands (n, h, w) of every level of images (n, H, W); all contiguous."""
    levels = _levels_of(quads, taper, inverse=False)
    for chunk in chunks(images):
        count, height, width = chunk.shape
        spectrum = _transformed(torch.fft.fft2, chunk.pixels, (count, height, width // 2))
        for number, level in enumerate(levels):
            pairs = chunk.rooms[number % 2][: 4 * count * level.size[0] * level.size[1]]
            shape = (count, 2 * level.size[0], 2 * level.size[1])
            _split(spectrum, number > 0, shape, *level.gains, pairs)
            bands = planes_in(level.bands, level.size, chunk.planes)
            _part(_transformed(torch.fft.ifft2, pairs, (2, count, *level.size)), bands)
            spectrum = pairs


def fourier_merge(quads: Sequence[Quad], images: Tensor, taper: Taper) -> None:
    """Write images (n, H, W): the inverse of :func:`fourier_split`; of the low bands, only the coarsest is read."""
    levels = _levels_of(quads, taper, inverse=True)
    for chunk in chunks(images):
        count, height, width = chunk.shape
        spectra = []
        for level in levels:
            pairs = chunk.rooms[0][: 4 * count * level.size[0] * level.size[1]]
            _join(planes_in(level.bands, level.size, chunk.planes), level is levels[-1], pairs)
            spectra.append(_transformed(torch.fft.fft2, pairs, (2, count, *level.size)))
        whole = chunk.rooms[0]
        for number in reversed(range(len(levels))):
            level = levels[number]
            shape = (count, 2 * level.size[0], 2 * level.size[1])
            _merge(spectra[number], number > 0, shape, *level.gains, spectra[number - 1] if number else whole)
        chunk.pixels[:] = _transformed(torch.fft.ifft2, whole, (count, height, width // 2))


def _transformed(transform: Callable[[Tensor], Tensor], numbers: Array, shape: tuple[int, ...]) -> Array:
    """Of complex numbers, flat."""
    spectrum = torch.view_as_complex(torch.from_numpy(numbers).view(*shape, 2))
    return flat(transform(spectrum))


def check(device: torch.device) -> None:
    """Compile and run a kernel; raise whatever Numba raises where it cannot."""
    arrays = tuple(flat(torch.zeros(1, device=device)) for _ in range(4))
    _part(flat(torch.zeros(4)), arrays)
