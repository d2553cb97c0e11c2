"""Filter banks on a GPU as Triton kernels: all levels of Haar in one launch, one launch a level of other wavelets.

Imported where a tensor lies on a GPU and Triton is there, and nowhere else. Values are float32 or float64, as in
plain torch; products are not rounded to fewer digits, since these kernels use no tensor cores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from freqgan.transforms.protocol import Quad

LEVELS_AT_ONCE = 3
"""Of Haar in one launch: a tile is split in registers, and each level needs tiles of twice the side."""
TILE_ROWS, TILE_COLUMNS = 16, 64
"""Of the image in one program: whole lines of 256 bytes are read and written."""
ROWS, COLUMNS = 8, 64
"""Coefficients of each quadrant in one program of a filter bank."""


# -- Haar ------------------------------------------------------------------------------------------


@triton.jit
def _tile(width, rows: tl.constexpr, columns: tl.constexpr):
    """The plane of this program, and the row and column where its tile begins: tiles of a row are neighbours."""
    across = tl.cdiv(width, columns)
    number = tl.program_id(0)
    return number // across, tl.program_id(1) * rows, (number % across) * columns


@triton.jit
def _place(plane, row, column, rows: tl.constexpr, columns: tl.constexpr, height, width):
    """Offsets and mask of a tile that begins at (row, column) of a plane."""
    r = row + tl.arange(0, rows)[:, None]
    c = column + tl.arange(0, columns)[None, :]
    return plane.to(tl.int64) * height * width + r * width + c, (r < height) & (c < width)


@triton.jit
def _quarters(x, rows: tl.constexpr, columns: tl.constexpr):
    """A tile -> its pixels of even and odd rows and columns: a b above c d."""
    cells = tl.permute(tl.reshape(x, (rows // 2, 2, columns // 2, 2)), (0, 2, 1, 3))
    left, right = tl.split(cells)
    a, c = tl.split(left)
    b, d = tl.split(right)
    return a, b, c, d


@triton.jit
def _whole(a, b, c, d, rows: tl.constexpr, columns: tl.constexpr):
    """The inverse of _quarters; rows and columns are those of the quarters."""
    cells = tl.join(tl.join(a, c), tl.join(b, d))
    return tl.reshape(tl.permute(cells, (0, 2, 1, 3)), (rows * 2, columns * 2))


@triton.jit
def _haar_level(x, ll, hl, lh, hh, plane, row, column, rows: tl.constexpr, columns: tl.constexpr, height, width):
    """Store the quadrants of a tile, and return its low one."""
    a, b, c, d = _quarters(x, rows, columns)
    low, high = (a + c) * 0.5, (a - c) * 0.5
    low_right, high_right = (b + d) * 0.5, (b - d) * 0.5
    at, inside = _place(plane, row // 2, column // 2, rows // 2, columns // 2, height // 2, width // 2)
    quadrant = low + low_right
    tl.store(ll + at, quadrant, mask=inside)
    tl.store(hl + at, low - low_right, mask=inside)
    tl.store(lh + at, high + high_right, mask=inside)
    tl.store(hh + at, high - high_right, mask=inside)
    return quadrant


@triton.jit
def _haar_split(
    image, ll1, hl1, lh1, hh1, ll2, hl2, lh2, hh2, ll3, hl3, lh3, hh3,
    height, width, LEVELS: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    plane, row, column = _tile(width, R, C)
    at, inside = _place(plane, row, column, R, C, height, width)
    x = tl.load(image + at, mask=inside, other=0.0)
    x = _haar_level(x, ll1, hl1, lh1, hh1, plane, row, column, R, C, height, width)
    if LEVELS > 1:
        x = _haar_level(x, ll2, hl2, lh2, hh2, plane, row // 2, column // 2, R // 2, C // 2, height // 2, width // 2)
    if LEVELS > 2:
        _haar_level(x, ll3, hl3, lh3, hh3, plane, row // 4, column // 4, R // 4, C // 4, height // 4, width // 4)


@triton.jit
def _haar_unlevel(low, hl, lh, hh, plane, row, column, rows: tl.constexpr, columns: tl.constexpr, height, width):
    """The tile of which ``low`` is the low quadrant; row, column, rows ... are those of the quadrant."""
    at, inside = _place(plane, row, column, rows, columns, height, width)
    right = tl.load(hl + at, mask=inside, other=0.0)
    below = tl.load(lh + at, mask=inside, other=0.0)
    across = tl.load(hh + at, mask=inside, other=0.0)
    even, odd = (low + right) * 0.5, (low - right) * 0.5
    even_high, odd_high = (below + across) * 0.5, (below - across) * 0.5
    return _whole(even + even_high, odd + odd_high, even - even_high, odd - odd_high, rows, columns)


@triton.jit
def _haar_merge(
    image, ll1, hl1, lh1, hh1, ll2, hl2, lh2, hh2, ll3, hl3, lh3, hh3,
    height, width, LEVELS: tl.constexpr, ADD1: tl.constexpr, ADD2: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """ADD1, ADD2: LL of a level that is not the coarsest is given, and is added to the synthesis of the next."""
    plane, row, column = _tile(width, R, C)
    if LEVELS > 2:
        at, inside = _place(plane, row // 8, column // 8, R // 8, C // 8, height // 8, width // 8)
        x = tl.load(ll3 + at, mask=inside, other=0.0)
        x = _haar_unlevel(x, hl3, lh3, hh3, plane, row // 8, column // 8, R // 8, C // 8, height // 8, width // 8)
    if LEVELS > 1:
        at, inside = _place(plane, row // 4, column // 4, R // 4, C // 4, height // 4, width // 4)
        if LEVELS == 2:
            x = tl.load(ll2 + at, mask=inside, other=0.0)
        elif ADD2:
            x += tl.load(ll2 + at, mask=inside, other=0.0)
        x = _haar_unlevel(x, hl2, lh2, hh2, plane, row // 4, column // 4, R // 4, C // 4, height // 4, width // 4)
    at, inside = _place(plane, row // 2, column // 2, R // 2, C // 2, height // 2, width // 2)
    if LEVELS == 1:
        x = tl.load(ll1 + at, mask=inside, other=0.0)
    elif ADD1:
        x += tl.load(ll1 + at, mask=inside, other=0.0)
    x = _haar_unlevel(x, hl1, lh1, hh1, plane, row // 2, column // 2, R // 2, C // 2, height // 2, width // 2)
    at, inside = _place(plane, row, column, R, C, height, width)
    tl.store(image + at, x, mask=inside)


def haar_split(image: Tensor, levels: int) -> list[Quad]:
    """Return the quadrants of every level of an image (B, C, H, W), finest first.

    Up to three levels are one launch.
    """
    image = image.contiguous()
    batch, channels, height, width = image.shape
    quads = [
        Quad(*(image.new_empty(batch, channels, height >> level, width >> level) for _ in range(4)))
        for level in range(1, min(levels, LEVELS_AT_ONCE) + 1)
    ]
    if image.numel():
        _haar_split[_grid(image)](image, *_pointers(quads, image), height, width, len(quads), TILE_ROWS, TILE_COLUMNS)
    further = levels - len(quads)
    return quads + haar_split(quads[-1].ll, further) if further else quads


def haar_merge(quads: Sequence[tuple[Tensor | None, Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the image (B, C, H, W) of ``levels``: the transpose of :func:`haar_split`.

    It is also the inverse where every ``ll`` but the coarsest is None.
    """
    first, rest = list(quads[:LEVELS_AT_ONCE]), quads[LEVELS_AT_ONCE:]
    if rest:
        coarse, own = haar_merge(rest), first[-1][0]
        first[-1] = (coarse if own is None else coarse + own, *first[-1][1:])
    first = [
        (None if ll is None else ll.contiguous(), hl.contiguous(), lh.contiguous(), hh.contiguous())
        for ll, hl, lh, hh in first
    ]
    batch, channels, height, width = first[0][1].shape
    image = first[0][1].new_empty(batch, channels, 2 * height, 2 * width)
    adds = [quad[0] is not None for quad in first] + [False] * 2
    if image.numel():
        _haar_merge[_grid(image)](
            image, *_pointers(first, image), 2 * height, 2 * width, len(first), adds[0], adds[1],
            TILE_ROWS, TILE_COLUMNS,
        )  # fmt: skip
    return image


def _grid(image: Tensor, rows: int = TILE_ROWS, columns: int = TILE_COLUMNS) -> tuple[int, int]:
    """Programs: planes are beside tiles of a row, for that axis of a grid alone has room for any number."""
    batch, channels, height, width = image.shape
    return batch * channels * triton.cdiv(width, columns), triton.cdiv(height, rows)


def _pointers(quads: Sequence[Sequence[Tensor | None]], unused: Tensor) -> list[Tensor]:
    """Twelve: those of levels that are not there are never followed."""
    pointers = [unused if tensor is None else tensor for quad in quads for tensor in quad]
    return pointers + [unused] * (4 * LEVELS_AT_ONCE - len(pointers))


# -- filter banks ----------------------------------------------------------------------------------


@triton.jit
def _bank_split(
    image, taps, ll, hl, lh, hh, height, width, F: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """a[k] = sum_j g[j] x[(2k - F/2 + 1 + j) mod N] along both axes; taps: F of the low and F of the high channel."""
    plane, row, column = _tile(width // 2, R, C)
    k = row + tl.arange(0, R)[:, None]
    m = column + tl.arange(0, C)[None, :]
    inside = (k < height // 2) & (m < width // 2)
    source = image + plane.to(tl.int64) * height * width
    zero = tl.zeros((R, C), dtype=image.dtype.element_ty)
    low_low, low_high, high_low, high_high = zero, zero, zero, zero
    for i in tl.static_range(F):
        y = (2 * k + (i - F // 2 + 1 + F * height)) % height
        low, high = zero, zero
        for j in tl.static_range(F):
            x = (2 * m + (j - F // 2 + 1 + F * width)) % width
            pixels = tl.load(source + y * width + x, mask=inside, other=0.0)
            low += tl.load(taps + j) * pixels
            high += tl.load(taps + F + j) * pixels
        along, across = tl.load(taps + i), tl.load(taps + F + i)
        low_low += along * low
        high_low += along * high
        low_high += across * low
        high_high += across * high
    at, inside = _place(plane, row, column, R, C, height // 2, width // 2)
    tl.store(ll + at, low_low, mask=inside)
    tl.store(hl + at, high_low, mask=inside)
    tl.store(lh + at, low_high, mask=inside)
    tl.store(hh + at, high_high, mask=inside)


@triton.jit
def _bank_merge(
    image, taps, ll, hl, lh, hh, height, width, F: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """The transpose: sample n takes tap j of coefficient k = (n + F/2 - 1 - j) / 2 where that is whole.

    A program makes R x C samples of every parity of row and column. height and width are those of the image.
    """
    half_height, half_width = height // 2, width // 2
    plane, row, column = _tile(half_width, R, C)
    k = row + tl.arange(0, R)[:, None]
    m = column + tl.arange(0, C)[None, :]
    inside = (k < half_height) & (m < half_width)
    start = plane.to(tl.int64) * half_height * half_width
    target = image + plane.to(tl.int64) * height * width
    for odd_row in tl.static_range(2):
        for odd_column in tl.static_range(2):
            total = tl.zeros((R, C), dtype=image.dtype.element_ty)
            for i in tl.static_range((odd_row + F // 2 - 1) % 2, F, 2):
                y = (k + ((odd_row + F // 2 - 1 - i) // 2 + F * half_height)) % half_height
                along, across = tl.load(taps + i), tl.load(taps + F + i)
                for j in tl.static_range((odd_column + F // 2 - 1) % 2, F, 2):
                    x = (m + ((odd_column + F // 2 - 1 - j) // 2 + F * half_width)) % half_width
                    at = start + y * half_width + x
                    low, high = tl.load(taps + j), tl.load(taps + F + j)
                    total += along * (
                        low * tl.load(ll + at, mask=inside, other=0.0) + high * tl.load(hl + at, mask=inside, other=0.0)
                    )
                    total += across * (
                        low * tl.load(lh + at, mask=inside, other=0.0) + high * tl.load(hh + at, mask=inside, other=0.0)
                    )
            tl.store(target + (2 * k + odd_row) * width + 2 * m + odd_column, total, mask=inside)


def bank_split(image: Tensor, taps: Tensor) -> Quad:
    """Return four quadrants (B, C, H/2, W/2) of an image (B, C, H, W).

    The taps (2, F) are those of the low and the high channel.
    """
    image = image.contiguous()
    batch, channels, height, width = image.shape
    quad = Quad(*(image.new_empty(batch, channels, height // 2, width // 2) for _ in range(4)))
    if image.numel():
        _bank_split[_grid(quad.ll, ROWS, COLUMNS)](image, taps, *quad, height, width, taps.shape[1], ROWS, COLUMNS)
    return quad


def bank_merge(quad: Quad, taps: Tensor) -> Tensor:
    """Return the image (B, C, H, W) of four quadrants: the transpose of :func:`bank_split`."""
    quad = Quad(*(x.contiguous() for x in quad))
    batch, channels, height, width = quad.ll.shape
    image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width)
    if image.numel():
        _bank_merge[_grid(quad.ll, ROWS, COLUMNS)](
            image, taps, *quad, 2 * height, 2 * width, taps.shape[1], ROWS, COLUMNS
        )
    return image


def check(device: torch.device) -> None:
    """Compile and run a kernel on ``device``; raise whatever Triton raises where it cannot."""
    haar_split(torch.zeros(1, 1, 8, 8, device=device), 1)
