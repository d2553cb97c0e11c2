"""A two-channel filter bank with periodic borders, as products with small banded matrices.

Along one axis of N samples, with taps g of even length F and a channel of N/2 coefficients,

    split   a[k] = sum_j g[j] x[(2k - F/2 + 1 + j) mod N]        (a correlation, every second sample)
    merge   x[(2k - F/2 + 1 + j) mod N] += g[j] a[k]             (its transpose)

Both are multiplications by one banded circulant matrix. On a long axis it is cut into blocks of equal
content, so a sample costs about 2 * BLOCK + F multiplications whatever N is; a short axis is one block. For
db4 and bior4.4 on one CPU thread this took a third to two thirds of the time of a strided convolution, and a third to
nine tenths of that of a sum of shifted samples; only at F = 4 and large sides is a convolution faster.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from freqgan.transforms.banks import Bank, by_level, merge_by, planes_of, split_by
from freqgan.transforms.kernels.choice import kernels_for
from freqgan.transforms.protocol import Quad

Taps = tuple[float, ...]
BLOCK = 16  # coefficients per block: the fastest of 4, 8 ... 128 for filters of 2 to 10 taps at 64 and 256 pixels
SHORT_SIDE = 64  # up to here one block is as fast as several


@dataclass(frozen=True)
class AxisPlan:
    """The matrices of the two channels for one axis, and how far apart their blocks lie.

    A matrix is (coefficients, samples of a window) for ``split`` and (samples, coefficients of a window) for ``merge``.
    ``margin`` entries are borrowed from the other end of the axis before and after it; block b reads from b * ``step``.
    """

    low: Tensor
    high: Tensor
    blocks: int
    step: int
    margin: int

    @classmethod
    def of(cls, length: int, side: int, merging: bool, matrices: tuple[Tensor, Tensor]) -> AxisPlan:
        """Return the plan with ``matrices`` (n, m) of filters of ``length`` taps for an axis of ``side`` samples."""
        size, margin = _block_of(length, side, merging)
        return cls(*matrices, side // 2 // size, size if merging else 2 * size, margin)


class MatrixBank(Bank):
    """Two channels as products with matrices, along both axes of images; a few planes at a time, for the cache.

    Splits go along y first and merges last: a product with each plane is faster the wider it is, and along x all rows
    are one product.
    """

    def split(self, image: Tensor) -> Quad:
        """Return four quadrants (B, C, H/2, W/2) of ``image`` (B, C, H, W)."""
        batch, channels, height, width = image.shape
        work = image.to(_exact_dtype(image))
        quad = Quad(*(work.new_empty(batch, channels, height // 2, width // 2) for _ in range(4)))
        along_x, along_y = self._plan(width, False, work), self._plan(height, False, work)
        chunks = planes_of(work, 1)
        room = work.new_empty(len(chunks[0]), height // 2, width)  # one: new memory takes as long as a product
        for part, ll, hl, lh, hh in zip(chunks, *(planes_of(band, 4) for band in quad), strict=True):
            windows, rows = _windows(part, along_y), room[: len(part)]
            for matrix, bands in ((along_y.low, (ll, hl)), (along_y.high, (lh, hh))):
                _multiply(matrix, windows, rows)
                _split_columns(rows, along_x, bands)
        return Quad(*(band.to(image.dtype) for band in quad))

    def merge(self, quad: Quad) -> Tensor:
        """Return the image (B, C, H, W) of four quadrants (B, C, H/2, W/2); the transpose of ``split``."""
        batch, channels, height, width = quad.ll.shape
        dtype = _exact_dtype(quad.ll)
        image = quad.ll.new_empty(batch, channels, 2 * height, 2 * width, dtype=dtype)
        along_x, along_y = self._plan(2 * width, True, image), self._plan(2 * height, True, image)
        bands = (planes_of(band.to(dtype), 4) for band in quad)
        for part, ll, hl, lh, hh in zip(planes_of(image, 1), *bands, strict=True):
            _merge_rows(_merge_columns(ll, hl, along_x), _merge_columns(lh, hh, along_x), along_y, part)
        return image.to(quad.ll.dtype)

    @abstractmethod
    def _plan(self, side: int, merging: bool, like: Tensor) -> AxisPlan:
        """Return the matrices for an axis of ``side`` samples, of the device and the precision of ``like``."""


@dataclass(frozen=True)
class PeriodicBank(MatrixBank):
    """Two periodic filters of even length F."""

    low: Taps
    high: Taps

    def split_levels(self, image: Tensor, levels: int) -> list[Tensor]:
        """Return the quadrants of all levels of ``image`` (B, C, H, W), by kernels where there are any."""
        if (kernels := kernels_for(image, taps=len(self.low))) is None:
            return super().split_levels(image, levels)
        taps = _taps(self.low, self.high, image.device, image.dtype)
        return split_by(lambda low: kernels.bank_split(low, taps), image, levels)

    def merge_levels(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Return the image (B, C, H, W) of ``parts``, by kernels where there are any."""
        finest = by_level(parts)[0][1]
        if (kernels := kernels_for(finest, 4, len(self.low))) is None:
            return super().merge_levels(parts)
        taps = _taps(self.low, self.high, finest.device, finest.dtype)
        return merge_by(lambda quad: kernels.bank_merge(quad, taps), parts)

    def channels(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the low and the high channel as circulant matrices (N/2, N) for N = ``side``, float64."""
        return _wrapped(self.low, side), _wrapped(self.high, side)

    def _plan(self, side: int, merging: bool, like: Tensor) -> AxisPlan:
        return _axis_plan(self.low, self.high, side, merging, like.device, like.dtype)


@lru_cache(maxsize=64)
def _taps(low: Taps, high: Taps, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the taps (2, F) of the low and of the high channel."""
    return torch.tensor((low, high), dtype=torch.float64).to(device, dtype)


@lru_cache(maxsize=256)
def _axis_plan(low: Taps, high: Taps, side: int, merging: bool, device: torch.device, dtype: torch.dtype) -> AxisPlan:
    """Return the plan for an axis of ``side`` samples; cached, because a run uses a few sides over and over."""
    size, margin = _block_of(len(low), side, merging)
    if size == side // 2:
        matrices = [_wrapped(taps, side) for taps in (low, high)]
    elif merging:
        matrices = [_banded(taps, range(-margin, size + margin), range(2 * size)) for taps in (low, high)]
    else:
        matrices = [_banded(taps, range(size), range(-margin, 2 * size + margin)) for taps in (low, high)]
    low_matrix, high_matrix = ((matrix.T if merging else matrix).to(device, dtype).contiguous() for matrix in matrices)
    return AxisPlan.of(len(low), side, merging, (low_matrix, high_matrix))


def _block_of(length: int, side: int, merging: bool) -> tuple[int, int]:
    """Return coefficients of a block, and the entries that it borrows, for filters of so many taps."""
    half, reach = side // 2, length // 2
    size = half if side <= SHORT_SIDE or 2 * reach > side else _block_size(half)
    if size == half:
        return size, 0
    return size, reach // 2 if merging else reach - 1


def _block_size(half: int) -> int:
    """Return the divisor of ``half`` nearest to BLOCK; ``half`` itself when none is of a useful size."""
    divisors = [size for size in range(BLOCK // 2, 2 * BLOCK + 1) if half % size == 0]
    return min(divisors, key=lambda size: abs(size - BLOCK), default=half)


def _banded(taps: Taps, rows: range, columns: range) -> Tensor:
    """Return the part [rows, columns] of the endless matrix M[k, n] = taps[n - 2k + F/2 - 1], float64."""
    index = torch.tensor(columns)[None, :] - 2 * torch.tensor(rows)[:, None] + len(taps) // 2 - 1
    inside = (index >= 0) & (index < len(taps))
    return torch.tensor(taps, dtype=torch.float64)[index.clamp(0, len(taps) - 1)] * inside


def _wrapped(taps: Taps, side: int) -> Tensor:
    """Return the circulant (side / 2, side) matrix of one channel.

    A filter longer than the axis wraps several times.
    """
    turns = len(taps) // side + 1
    endless = _banded(taps, range(side // 2), range(-turns * side, (turns + 1) * side))
    return endless.view(side // 2, 2 * turns + 1, side).sum(1)


def _exact_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision to multiply in: float32 only where such a product is not silently rounded.

    On CUDA float32 products may run in TF32 (3 digits), on a CPU in bfloat16 under "medium" precision; float64 is
    beyond the reach of both settings. It costs little there: these matrices are small.
    """
    if tensor.device.type != "cpu" or tensor.dtype == torch.float64:
        return torch.float64
    setting = getattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", None)
    is_exact = (setting or torch.get_float32_matmul_precision()) in ("none", "ieee", "highest")
    return torch.float32 if is_exact else torch.float64


def _extended(image: Tensor, axis: int, margin: int) -> Tensor:
    """Return ``image`` with ``margin`` entries of the other end before and after ``axis``; contiguous."""
    if margin == 0:
        return image.contiguous()
    side = image.shape[axis]
    return torch.cat((image.narrow(axis, side - margin, margin), image, image.narrow(axis, 0, margin)), axis)


def _windows(image: Tensor, plan: AxisPlan) -> Tensor:
    """Return the blocks of rows of ``image`` (R, H, W) that ``plan`` reads: (R * blocks, rows of a window, W)."""
    rows = plan.low.shape[1]
    windows = _extended(image, 1, plan.margin).unfold(1, rows, plan.step).transpose(2, 3)
    return windows.reshape(image.shape[0] * plan.blocks, rows, image.shape[2])


def _multiply(matrix: Tensor, windows: Tensor, out: Tensor) -> None:
    """Write ``matrix`` times each of ``windows`` into ``out``, which has as many numbers."""
    batched = out.view(len(windows), len(matrix), windows.shape[2])
    torch.bmm(matrix.expand(len(windows), -1, -1), windows, out=batched)


def _split_columns(image: Tensor, plan: AxisPlan, channels: tuple[Tensor, Tensor]) -> None:
    """Write the low and the high channel of (R, H, W) along x, each (R, H, W/2) and contiguous."""
    rows = image.shape[0] * image.shape[1]
    source = _extended(image.view(rows, image.shape[2]), 1, plan.margin)
    size, window = plan.low.shape
    for channel, matrix in zip(channels, (plan.low, plan.high), strict=True):
        out = channel.view(rows, channel.shape[2])
        for block in range(plan.blocks):
            part = source.narrow(1, block * plan.step, window)
            torch.mm(part, matrix.T, out=out.narrow(1, block * size, size))


def _merge_columns(low: Tensor, high: Tensor, plan: AxisPlan) -> Tensor:
    """Return the channels along x, each (R, H, W/2) -> (R, H, W)."""
    count, height, half = low.shape
    low, high = (_extended(channel.reshape(count * height, half), 1, plan.margin) for channel in (low, high))
    size, window = plan.low.shape
    merged = low.new_empty(count * height, 2 * half)
    for block in range(plan.blocks):
        target = merged.narrow(1, block * size, size)
        torch.mm(low.narrow(1, block * plan.step, window), plan.low.T, out=target)
        target.addmm_(high.narrow(1, block * plan.step, window), plan.high.T)
    return merged.view(count, height, 2 * half)


def _merge_rows(low: Tensor, high: Tensor, plan: AxisPlan, image: Tensor) -> None:
    """Write the merge along y of the channels, each (R, H/2, W), into ``image`` (R, H, W), contiguous."""
    _multiply(plan.low, _windows(low, plan), image)
    windows = _windows(high, plan)
    image.view(len(windows), len(plan.low), image.shape[2]).baddbmm_(plan.high.expand(len(windows), -1, -1), windows)
