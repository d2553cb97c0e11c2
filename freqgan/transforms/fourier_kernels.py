"""What surrounds fast Fourier transforms in Fourier banks on a CPU, as kernels that Numba compiles.

Imported where a large tensor is transformed and Numba is there; :mod:`freqgan.transforms.fourier` says the formulas.
Transforms themselves are torch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from freqgan.transforms.flat_arrays import _0, _1, _2, _3, compiled, flat, size_of, sizes
from freqgan.transforms.protocol import Quad


@compiled
def _join(first, second, pairs):
    for i in range(first.size):
        pairs[2 * i] = first[i]
        pairs[2 * i + 1] = second[i]


@compiled
def _part(pairs, first, second):
    for i in range(first.size):
        first[i] = pairs[2 * i]
        second[i] = pairs[2 * i + 1]


def joined(quad: Quad, room: Tensor) -> Tensor:
    """LL + i HL and LH + i HH (2, n, h, w) of bands (n, h, w), in the memory of ``room``; all contiguous."""
    pairs = room.view(2, *quad.ll.shape)
    for pair, first, second in zip(pairs, quad[::2], quad[1::2], strict=True):
        _join(flat(first), flat(second), flat(pair))
    return pairs


def parted(pair: Tensor, first: Tensor, second: Tensor) -> None:
    """Writes the real and the imaginary part of a pair; all contiguous."""
    _part(flat(pair), flat(first), flat(second))


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
def _fourier_split(spectrum, shape, along_x, along_y, low, high):
    planes, height, width = sizes(shape)
    half, row = height // _2, _2 * width
    upper, lower = np.empty(row, spectrum.dtype), np.empty(row, spectrum.dtype)
    for p in range(planes):
        start = p * height * row
        for k in range(half):
            opposite = start + (height - k) % height * row
            _mix_row(spectrum, start + k * row, opposite, along_x, width, upper, _0)
            _mix_row(spectrum, start + (k + half) * row, start + (half - k) * row, along_x, width, lower, _0)
            at = (p * half + k) * row
            _split_rows(upper, lower, along_y[_0, k], along_y[_1, k], low, high, at)
            _turn_row(high, at, width, along_y[_2, k], along_y[_3, k])


@compiled
def _fourier_merge(low, high, shape, along_x, along_y, spectrum):
    planes, height, width = sizes(shape)
    half, row = height // _2, _2 * width
    rows = np.empty(height * row, spectrum.dtype)
    for p in range(planes):
        for k in range(half):
            _merge_rows(low, high, (p * half + k) * row, along_y, k, width, rows, k * row, (k + half) * row)
        for k in range(height):
            _mix_row(rows, k * row, (height - k) % height * row, along_x, width, spectrum, (p * height + k) * row)


def fourier_split(spectrum: Tensor, along_x: Tensor, along_y: Tensor, room: Tensor) -> Tensor:
    """The spectrum (n, H, W/2) of pairs of columns -> those of pairs of bands (2, n, H/2, W/2), in ``room``."""
    count, height, width = spectrum.shape
    pairs = room.view(2, count, height // 2, width)
    low, high = (flat(pair) for pair in pairs)
    _fourier_split(flat(spectrum), tuple(spectrum.shape), along_x.numpy(), along_y.numpy(), low, high)
    return pairs


def fourier_merge(pairs: Tensor, along_x: Tensor, along_y: Tensor, room: Tensor) -> Tensor:
    """The inverse of :func:`fourier_split`, with the gains of the inverse."""
    _, count, height, width = pairs.shape
    spectrum = room.view(count, 2 * height, width)
    low, high = (flat(pair) for pair in pairs)
    _fourier_merge(low, high, tuple(spectrum.shape), along_x.numpy(), along_y.numpy(), flat(spectrum))
    return spectrum


def check(device: torch.device) -> None:
    """Compiles and runs a kernel; raises whatever Numba raises where it cannot."""
    parted(torch.zeros(1, dtype=torch.complex64, device=device), torch.zeros(1), torch.zeros(1))
