"""What surrounds fast Fourier transforms in cosine banks on a CPU, as kernels that Numba compiles.

Imported where a large tensor is transformed and Numba is there; :mod:`freqgan.transforms.cosine` says the formulas.
Transforms themselves are torch's, of real images to spectra, which take half the time of those of spectra to images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from freqgan.transforms.cosine import Place, gains_of, places_in_spectrum
from freqgan.transforms.kernels.flat_arrays import (
    Array,
    Chunk,
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

Gains = tuple[Array, Array]  # along x and along y


@compiled
def _sorted_planes(images, shape, out):
    """Rows and columns in another order: samples 0, 2, 4 ..., and then the others backwards."""
    planes, height, width = sizes(shape)
    half_y, half_x = (height + _1) // _2, (width + _1) // _2
    rest = width - half_x
    for p in range(planes):
        for y in range(height):
            source = _2 * y if y < half_y else _2 * (height - _1 - y) + _1
            row, at = (p * height + source) * width, (p * height + y) * width
            for j in range(half_x):
                out[at + j] = images[row + _2 * j]
            at += half_x
            for j in range(rest):
                out[at + j] = images[row + _2 * (rest - _1 - j) + _1]


@compiled
def _fold_rows(spectrum, first, second, re, im, sums, differences):
    """F + G and i (F - G) of F = e^{-it} V[k] and G = e^{it} V[-k], k along y and e^{it} = re + i im."""
    for k in range(size_of(sums) // _2):
        x, y = spectrum[first + _2 * k], spectrum[first + _2 * k + _1]
        x, y = x * re + y * im, y * re - x * im
        u, v = spectrum[second + _2 * k], spectrum[second + _2 * k + _1]
        u, v = u * re - v * im, v * re + u * im
        sums[_2 * k] = x + u
        sums[_2 * k + _1] = y + v
        differences[_2 * k] = v - y
        differences[_2 * k + _1] = x - u


@compiled
def _turn_apart(row, turns, width, backwards, out, at):
    """Of e^{-it} times the row the real part to coefficient k, minus the imaginary one to W - k, for k up to W / 2.

    ``out`` holds the coefficients from ``at`` on, from the last one where they run backwards.
    """
    half, end = (width + _1) // _2, at + width
    first = row[_0] * turns[_0, _0]
    if backwards:
        out[end - _1] = first
        for k in range(_1, half):
            x, y, re, im = row[_2 * k], row[_2 * k + _1], turns[_0, k], turns[_1, k]
            out[end - _1 - k] = x * re + y * im
            out[at + k - _1] = x * im - y * re
    else:
        out[at] = first
        for k in range(_1, half):
            x, y, re, im = row[_2 * k], row[_2 * k + _1], turns[_0, k], turns[_1, k]
            out[at + k] = x * re + y * im
            out[end - k] = x * im - y * re
    if _2 * half == width:  # in the middle both are the same
        middle = end - _1 - half if backwards else at + half
        out[middle] = row[_2 * half] * turns[_0, half] + row[_2 * half + _1] * turns[_1, half]


@compiled
def _turn_together(rows, at, turns, width, backwards, out):
    """e^{it} (C[k] - i C[W-k]) for k up to W / 2; C[W], which there is not, counts as 0."""
    count, end = width // _2 + _1, at + width
    first = rows[end - _1] if backwards else rows[at]
    out[_0] = first * turns[_0, _0]
    out[_1] = first * turns[_1, _0]
    if backwards:
        for k in range(_1, count):
            x, y, re, im = rows[end - _1 - k], rows[at + k - _1], turns[_0, k], turns[_1, k]
            out[_2 * k] = x * re + y * im
            out[_2 * k + _1] = x * im - y * re
    else:
        for k in range(_1, count):
            x, y, re, im = rows[at + k], rows[end - k], turns[_0, k], turns[_1, k]
            out[_2 * k] = x * re + y * im
            out[_2 * k + _1] = x * im - y * re


@compiled
def _line(place, plane, k):
    """Where row k of a block begins: ``plane`` is the number of the first coefficient, and that of those in a row."""
    first, row = plane
    top, left, height, _, backwards, _ = place
    at = np.uintp(height) - _1 - k if backwards else k
    return first + (np.uintp(top) + at) * row + np.uintp(left)


@compiled
def _to_cosine(spectrum, along_x, along_y, whole, shape, place):
    """The half spectrum (n, h, w/2 + 1) of sorted images -> their coefficients, in a block."""
    planes, rows, columns = sizes(shape)
    height, width, backwards = np.uintp(place[2]), np.uintp(place[3]), place[5]
    row = _2 * (width // _2 + _1)
    kind = spectrum.dtype
    sums, differences = np.empty(row, kind), np.empty(row, kind)
    for p in range(planes):
        start, plane = p * height * row, (p * rows * columns, columns)
        for k in range(height // _2 + _1):
            other = (height - k) % height
            re, im = along_y[_0, k], along_y[_1, k]
            _fold_rows(spectrum, start + k * row, start + other * row, re, im, sums, differences)
            _turn_apart(sums, along_x, width, backwards, whole, _line(place, plane, k))
            if other != k:
                _turn_apart(differences, along_x, width, backwards, whole, _line(place, plane, other))


@compiled
def _spread(sums, differences, sign, c, s, width, out, at):
    """With P = (c + i s) (S - i E), Q = (c - i s) (S + i E): Re P - Im P to k, Re Q + Im Q to W - k, for k up to W / 2.

    Where ``sign`` is -1, P and Q change places.
    """
    half, end = (width + _1) // _2, at + width
    s *= sign
    for k in range(half + np.uintp(_2 * half == width)):  # and the middle, if there is one
        x, y = sums[_2 * k] + sign * differences[_2 * k + _1], sums[_2 * k + _1] - sign * differences[_2 * k]
        out[at + k] = x * (c - s) - y * (s + c)
    for k in range(_1, half):
        x, y = sums[_2 * k] - sign * differences[_2 * k + _1], sums[_2 * k + _1] + sign * differences[_2 * k]
        out[end - k] = x * (c - s) + y * (s + c)


@compiled
def _to_hartley(whole, shape, place, along_x, along_y, out):
    """Coefficients of images, in a block -> of the sorted images' spectra V, Re V - Im V, which says all."""
    planes, rows, columns = sizes(shape)
    height, width, backwards = np.uintp(place[2]), np.uintp(place[3]), place[5]
    kind = whole.dtype
    plus, minus = kind.type(1), kind.type(-1)
    sums, differences = np.empty(width + _2, kind), np.empty(width + _2, kind)
    for p in range(planes):
        start, plane = p * height * width, (p * rows * columns, columns)
        for k in range(height // _2 + _1):
            other = (height - k) % height
            _turn_together(whole, _line(place, plane, k), along_x, width, backwards, sums)
            if k == 0:
                differences[:] = 0
            else:
                _turn_together(whole, _line(place, plane, other), along_x, width, backwards, differences)
            c, s = along_y[_0, k], along_y[_1, k]
            _spread(sums, differences, plus, c, s, width, out, start + k * width)
            _spread(sums, differences, minus, c, s, width, out, start + other * width)


@compiled
def _from_hartley(spectrum, shape, out):
    """Re F - Im F of the half spectrum (n, h, w/2 + 1), of real ones, with rows and columns unsorted."""
    planes, height, width = sizes(shape)
    half, rest = (height + _1) // _2, width // _2
    row = _2 * (rest + _1)
    for p in range(planes):
        start = p * height * row
        for y in range(height):
            first, other = start + y * row, start + (height - y) % height * row
            line = (p * height + (_2 * y if y < half else _2 * (height - _1 - y) + _1)) * width
            for j in range(rest):
                out[line + _2 * j] = spectrum[first + _2 * j] - spectrum[first + _2 * j + _1]
                out[line + _2 * j + _1] = spectrum[other + _2 * j + _2] + spectrum[other + _2 * j + _3]
            if width > _2 * rest:
                out[line + width - _1] = spectrum[first + width - _1] - spectrum[first + width]


@compiled
def _sorted_bands(bands, first, shape, out):
    size = bands[3].size
    for b in range(first, 4):
        _sorted_planes(bands[b], shape, out[(b - first) * size : (b - first + 1) * size])


@compiled
def _bands_to_cosine(spectra, first, along_x, along_y, whole, shape, places):
    size = spectra.size // (4 - first)
    for b in range(first, 4):
        _to_cosine(spectra[(b - first) * size : (b - first + 1) * size], along_x, along_y, whole, shape, places[b])


@compiled
def _bands_to_hartley(whole, shape, places, along_x, along_y, out):
    size = out.size // 4
    for b in range(4):
        _to_hartley(whole, shape, places[b], along_x, along_y, out[b * size : (b + 1) * size])


@compiled
def _bands_from_hartley(spectra, shape, bands):
    size = spectra.size // 4
    for b in range(4):
        _from_hartley(spectra[b * size : (b + 1) * size], shape, bands[b])


class _Level(NamedTuple):
    """The bands of a level as flat arrays, and what their kernels want to know."""

    bands: tuple[Array, ...]
    size: tuple[int, int]
    gains: Gains
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, quad: Quad, *, inverse: bool) -> _Level:
        height, width = quad.ll.shape[-2:]
        places = tuple(tuple(place) for place in places_in_spectrum(height, width))
        return cls(tuple(map(flat, quad)), (height, width), gains_of(quad.ll, inverse=inverse), places)


def cosine_split(images: Tensor, quads: Sequence[Quad]) -> None:
    """Write the bands (n, h, w) of every level of images (n, H, W); all contiguous."""
    levels, gains = [_Level.of(quad, inverse=True) for quad in quads], gains_of(images, inverse=False)
    for chunk in chunks(images):
        coefficients, room = chunk.rooms
        _sorted_planes(chunk.pixels, chunk.shape, room)
        _to_cosine(_spectra(room, chunk.shape), *gains, coefficients, chunk.shape, _whole(chunk))
        for level in levels:
            stack = (4, chunk.shape[0], *level.size)
            hartley = room[: math.prod(stack)]
            _bands_to_hartley(coefficients, chunk.shape, level.places, *level.gains, hartley)
            bands = planes_in(level.bands, level.size, chunk.planes)
            _bands_from_hartley(_spectra(hartley, stack), stack[1:], bands)


def cosine_merge(quads: Sequence[Quad], images: Tensor) -> None:
    """Write images (n, H, W): the inverse of :func:`cosine_split`; of the low bands, only the coarsest is read."""
    levels, gains = [_Level.of(quad, inverse=False) for quad in quads], gains_of(images, inverse=True)
    for chunk in chunks(images):
        coefficients, room = chunk.rooms
        for level in levels:
            first = 0 if level is levels[-1] else 1
            stack = (4 - first, chunk.shape[0], *level.size)
            ordered = room[: math.prod(stack)]
            _sorted_bands(planes_in(level.bands, level.size, chunk.planes), first, stack[1:], ordered)
            spectra = _spectra(ordered, stack)
            _bands_to_cosine(spectra, first, *level.gains, coefficients, chunk.shape, level.places)
        _to_hartley(coefficients, chunk.shape, _whole(chunk), *gains, room)
        _from_hartley(_spectra(room, chunk.shape), chunk.shape, chunk.pixels)


def _whole(chunk: Chunk) -> tuple[int, ...]:
    """Return the place of all coefficients."""
    return tuple(Place(0, 0, *chunk.shape[1:]))


def _spectra(images: Array, shape: tuple[int, ...]) -> Array:
    """Of real images, flat."""
    spectra: Array = torch.fft.rfft2(torch.from_numpy(images).view(shape)).numpy().view(images.dtype).reshape(-1)
    return spectra


def check(device: torch.device) -> None:
    """Compile and run a kernel; raise whatever Numba raises where it cannot."""
    _sorted_planes(flat(torch.zeros(1, device=device)), (1, 1, 1), flat(torch.zeros(1)))
