"""Filter banks on a CPU as kernels that Numba compiles: one pass over the pixels a level, in vector instructions.

Imported where a large tensor is transformed and Numba is there. Haar's are equal to plain torch's to the bit: they
round the same sums in the same order. Compiled code is not kept on the disk, where Numba would keep it as pickles.
Planes are independent of each other: torch's number of threads share them, with the same bits for any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.transforms.protocol import Quad

CHUNK_BYTES = 2**20
"""Of the image in one piece of work: what is read again by the next level is then still in the cache of the core."""

Array = NDArray[Any]
_compiled = numba.njit(nogil=True, error_model="numpy")


# -- Haar ------------------------------------------------------------------------------------------


@_compiled
def _haar_split(x, ll, hl, lh, hh):
    """Planes (n, H, W) -> four quadrants (n, H/2, W/2)."""
    half = x.dtype.type(0.5)
    planes, height, width = ll.shape
    for p in range(planes):
        for i in range(height):
            upper, lower = x[p, 2 * i], x[p, 2 * i + 1]
            row_ll, row_hl, row_lh, row_hh = ll[p, i], hl[p, i], lh[p, i], hh[p, i]
            for j in range(width):
                a, b, c, d = upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1]
                low, low_right = a - (a - c) * half, b - (b - d) * half
                high, high_right = a - low, b - low_right
                row_ll[j] = low + low_right
                row_hl[j] = low - low_right
                row_lh[j] = high + high_right
                row_hh[j] = high - high_right


@_compiled
def _haar_merge(x, ll, hl, lh, hh):
    """The inverse of _haar_split; writes into x.

    A row at a time, though sums are made twice: of so many rows in one loop the compiler does not see that they are
    apart, and would not use vectors.
    """
    half = x.dtype.type(0.5)
    planes, height, width = ll.shape
    for p in range(planes):
        for i in range(height):
            row_ll, row_hl, row_lh, row_hh = ll[p, i], hl[p, i], lh[p, i], hh[p, i]
            upper = x[p, 2 * i]
            for j in range(width):
                low, low_right = row_ll[j] + row_hl[j], row_ll[j] - row_hl[j]
                high, high_right = row_lh[j] + row_hh[j], row_lh[j] - row_hh[j]
                upper[2 * j] = low - (low - high) * half
                upper[2 * j + 1] = low_right - (low_right - high_right) * half
            lower = x[p, 2 * i + 1]
            for j in range(width):
                low, low_right = row_ll[j] + row_hl[j], row_ll[j] - row_hl[j]
                high, high_right = row_lh[j] + row_hh[j], row_lh[j] - row_hh[j]
                lower[2 * j] = (low - (low - high) * half) - high
                lower[2 * j + 1] = (low_right - (low_right - high_right) * half) - high_right


def haar_split(image: Tensor, levels: int) -> list[Quad]:
    """Return the quadrants of every level of an image (B, C, H, W), finest first."""
    batch, channels, height, width = image.shape
    quads = [
        Quad(*(image.new_empty(batch, channels, height >> level, width >> level) for _ in range(4)))
        for level in range(1, levels + 1)
    ]
    source, targets = _planes(image), [[_planes(band) for band in quad] for quad in quads]

    def work(planes: slice) -> None:
        x = source[planes]
        for target in targets:
            bands = [band[planes] for band in target]
            _haar_split(x, *bands)
            x = bands[0]

    _share(work, source)
    return quads


def haar_merge(quads: Sequence[tuple[Tensor | None, Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the image (B, C, H, W) of ``levels``: the transpose of :func:`haar_split`.

    It is also the inverse where every ``ll`` but the coarsest is None.
    """
    finest = quads[0][1]
    batch, channels, height, width = finest.shape
    image = finest.new_empty(batch, channels, 2 * height, 2 * width)
    target = _planes(image)
    sources = [(None if low is None else _planes(low), [_planes(band) for band in high]) for low, *high in quads]

    def work(planes: slice) -> None:
        low: Array | None = None
        for level, (own, high) in reversed(list(enumerate(sources, 1))):
            if low is None:
                assert own is not None
                low = own[planes]
            elif own is not None:
                low += own[planes]
            count, rows, columns = low.shape
            x = target[planes] if level == 1 else np.empty((count, 2 * rows, 2 * columns), low.dtype)
            _haar_merge(x, low, *(band[planes] for band in high))
            low = x

    _share(work, target)
    return image


# -- filter banks ----------------------------------------------------------------------------------


@_compiled
def _accumulate(taps, first, x0, x1, x2, x3, low, high):
    """Add taps ``first`` to ``first`` + 3, or + 1 where there are no more, times as many rows to both channels."""
    a0, a1 = taps[0, first], taps[0, first + 1]
    b0, b1 = taps[1, first], taps[1, first + 1]
    if first + 2 < taps.shape[1]:
        a2, a3 = taps[0, first + 2], taps[0, first + 3]
        b2, b3 = taps[1, first + 2], taps[1, first + 3]
        for n in range(low.shape[0]):
            low[n] += a0 * x0[n] + a1 * x1[n] + a2 * x2[n] + a3 * x3[n]
            high[n] += b0 * x0[n] + b1 * x1[n] + b2 * x2[n] + b3 * x3[n]
    else:
        for n in range(low.shape[0]):
            low[n] += a0 * x0[n] + a1 * x1[n]
            high[n] += b0 * x0[n] + b1 * x1[n]


@_compiled
def _spread(taps, first, low, high, low_before, high_before, even, odd):
    """Add taps ``first`` and + 1 times coefficients k, and, where there are more taps, + 2 and + 3 times k - 1."""
    a0, b0 = taps[0, first], taps[1, first]
    c0, d0 = taps[0, first + 1], taps[1, first + 1]
    if first + 2 < taps.shape[1]:
        a1, b1 = taps[0, first + 2], taps[1, first + 2]
        c1, d1 = taps[0, first + 3], taps[1, first + 3]
        for n in range(even.shape[0]):
            even[n] += a0 * low[n] + b0 * high[n] + a1 * low_before[n] + b1 * high_before[n]
        for n in range(even.shape[0]):
            odd[n] += c0 * low[n] + d0 * high[n] + c1 * low_before[n] + d1 * high_before[n]
    else:
        for n in range(even.shape[0]):
            even[n] += a0 * low[n] + b0 * high[n]
            odd[n] += c0 * low[n] + d0 * high[n]


@lru_cache
def _bank_split_of(length: int) -> Callable[..., None]:
    """Return the kernel for ``length`` taps: a number that the compiler knows keeps sums along x in registers."""
    reach = length // 2

    @_compiled
    def split_row(line, taps, even, odd, low, high):
        """One row (W,) -> its channels (W/2,). even, odd: room for its samples, continued over the borders."""
        width, start = line.shape[0], 1 - reach
        half = width // 2
        inner, outer = reach // 2, half + (reach - 2) // 2
        for m in range(half + reach - 1):
            here = 2 * m + start
            even[m] = line[here] if inner <= m < outer else line[here % width]
            odd[m] = line[here + 1] if inner <= m < outer else line[(here + 1) % width]
        for k in range(half):
            sums, differences = line.dtype.type(0), line.dtype.type(0)
            for j in range(reach):
                sums += taps[0, 2 * j] * even[k + j]
                sums += taps[0, 2 * j + 1] * odd[k + j]
                differences += taps[1, 2 * j] * even[k + j]
                differences += taps[1, 2 * j + 1] * odd[k + j]
            low[k] = sums
            high[k] = differences

    @_compiled
    def bank_split(x, taps, ll, hl, lh, hh):
        """a[k] = sum_j g[j] x[(2k - F/2 + 1 + j) mod N] along y, of whole rows, and then along x."""
        planes, height, width = x.shape
        low, high = np.empty(width, x.dtype), np.empty(width, x.dtype)
        even, odd = np.empty(width // 2 + length, x.dtype), np.empty(width // 2 + length, x.dtype)
        for p in range(planes):
            plane = x[p]
            for k in range(height // 2):
                low[:] = 0
                high[:] = 0
                for j in range(0, length, 4):
                    y = 2 * k - reach + 1 + j
                    _accumulate(
                        taps, j, plane[y % height], plane[(y + 1) % height], plane[(y + 2) % height],
                        plane[(y + 3) % height], low, high,
                    )  # fmt: skip
                split_row(low, taps, even, odd, ll[p, k], hl[p, k])
                split_row(high, taps, even, odd, lh[p, k], hh[p, k])

    return bank_split


@lru_cache
def _bank_merge_of(length: int) -> Callable[..., None]:
    """Return the kernel for ``length`` taps."""
    reach = length // 2

    @_compiled
    def merge_row(low, high, taps, low_room, high_room, even_room, odd_room, line):
        """The transpose of split_row. Room: of channels, with what comes before their start, and of samples."""
        half, ahead, start = low.shape[0], reach - 1, 1 - reach
        width = 2 * half
        for t in range(ahead):
            low_room[t] = low[(t - ahead) % half]
            high_room[t] = high[(t - ahead) % half]
        for t in range(half):
            low_room[ahead + t] = low[t]
            high_room[ahead + t] = high[t]
        inner = min(reach // 2, half)
        for m in range(half):
            even, odd = line.dtype.type(0), line.dtype.type(0)
            for t in range(reach):
                a, b = low_room[m + t], high_room[m + t]
                even += taps[0, 2 * (ahead - t)] * a + taps[1, 2 * (ahead - t)] * b
                odd += taps[0, 2 * (ahead - t) + 1] * a + taps[1, 2 * (ahead - t) + 1] * b
            even_room[m] = even
            odd_room[m] = odd
        for m in range(inner):
            line[(2 * m + start) % width] = even_room[m]
            line[(2 * m + start + 1) % width] = odd_room[m]
        rest, evens, odds = line[2 * inner + start :], even_room[inner:], odd_room[inner:]
        for m in range(half - inner):
            rest[2 * m] = evens[m]
            rest[2 * m + 1] = odds[m]

    @_compiled
    def bank_merge(x, taps, ll, hl, lh, hh):
        """x[(2k - F/2 + 1 + j) mod N] += g[j] a[k] along x, and then along y, of whole rows; writes into x."""
        planes, half_height, half = ll.shape
        height = 2 * half_height
        lows, highs = np.empty((half_height, 2 * half), x.dtype), np.empty((half_height, 2 * half), x.dtype)
        low_room, high_room = np.empty(half + length, x.dtype), np.empty(half + length, x.dtype)
        even_room, odd_room = np.empty(half, x.dtype), np.empty(half, x.dtype)
        for p in range(planes):
            for k in range(half_height):
                merge_row(ll[p, k], hl[p, k], taps, low_room, high_room, even_room, odd_room, lows[k])
                merge_row(lh[p, k], hh[p, k], taps, low_room, high_room, even_room, odd_room, highs[k])
            for m in range(half_height):
                even, odd = x[p, (2 * m + 1 - reach) % height], x[p, (2 * m + 2 - reach) % height]
                even[:] = 0
                odd[:] = 0
                for i in range(0, reach, 2):
                    k, before = (m - i) % half_height, (m - i - 1) % half_height
                    _spread(taps, 2 * i, lows[k], highs[k], lows[before], highs[before], even, odd)

    return bank_merge


def bank_split(image: Tensor, taps: Tensor) -> Quad:
    """Return four quadrants (B, C, H/2, W/2) of an image (B, C, H, W).

    The taps (2, F) are those of the low and the high channel.
    """
    batch, channels, height, width = image.shape
    quad = Quad(*(image.new_empty(batch, channels, height // 2, width // 2) for _ in range(4)))
    source, targets, factors = _planes(image), [_planes(band) for band in quad], taps.numpy()
    split = _bank_split_of(taps.shape[1])
    _share(lambda planes: split(source[planes], factors, *(band[planes] for band in targets)), source)
    return quad


def bank_merge(quad: Quad, taps: Tensor) -> Tensor:
    """Return the image (B, C, H, W) of four quadrants: the transpose of :func:`bank_split`."""
    batch, channels, height, width = quad.ll.shape
    image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width)
    target, sources, factors = _planes(image), [_planes(band) for band in quad], taps.numpy()
    merge = _bank_merge_of(taps.shape[1])
    _share(lambda planes: merge(target[planes], factors, *(band[planes] for band in sources)), target)
    return image


# -- planes ----------------------------------------------------------------------------------------


def _planes(x: Tensor) -> Array:
    """(B, C, h, w) -> (B * C, h, w); the same memory where ``x`` is contiguous."""
    planes: Array = x.contiguous().numpy(force=True).reshape(-1, *x.shape[-2:])
    return planes


def _share(work: Callable[[slice], None], planes: Array) -> None:
    """Do all the work, some planes at a time, by as many threads as torch has."""
    count = len(planes)
    if count == 0:
        return
    step = max(1, CHUNK_BYTES // max(1, planes[0].nbytes))
    parts = [slice(start, start + step) for start in range(0, count, step)]
    threads = min(torch.get_num_threads(), len(parts))
    if threads == 1:
        for part in parts:
            work(part)
        return
    # Made anew each time: threads that are kept do not live through a fork.
    with ThreadPoolExecutor(threads, "transform") as pool:
        list(pool.map(work, parts))


def check(device: torch.device) -> None:
    """Compile and run a kernel; raise whatever Numba raises where it cannot."""
    haar_split(torch.zeros(1, 1, 2, 2, device=device), 1)
