"""The reversible 5/3 wavelet of integers: lossless for images of 16 bits, whatever their size.

Le Gall and Tabatabai's filters by lifting with floors (Calderbank, Daubechies, Sweldens, Yeo 1998), as in lossless
JPEG 2000 (ISO/IEC 15444-1, annex F): d[n] = x[2n+1] - floor((x[2n] + x[2n+2]) / 2), then
s[n] = x[2n] + floor((d[n-1] + d[n] + 2) / 4), with borders mirrored without repeating the last sample. Every step adds
a function of what it leaves alone, so that it is undone exactly, rounding and all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.transforms.arrays import ArrayLike, as_tensor, lifted
from freqgan.transforms.wavedec import Details, check_level, nested_coefficients

_INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)


def integer_wavedec2(data: ArrayLike, level: int = 1) -> list[Tensor | Details]:
    """Return the 5/3 transform of ``data`` (..., H, W), in the order of :func:`~freqgan.transforms.wavedec2`.

    The low band stays in the range of the pixels, give or take; details of b-bit pixels need b + 2 bits.

    Args:
        data: integers of at most 16 bits, or int32 with room for two more bits; a tensor, a NumPy array or lists.
        level: of decomposition, 0 or more.

    Returns:
        [cA_n, (cH_n, cV_n, cD_n), ... (cH_1, cV_1, cD_1)], int32 tensors; of N samples cA has N/2, rounded up.

    Raises:
        InputError: not integers, fewer than two axes or no samples along them, a level that is no number from 0 on.

    """
    pixels = _integers(data)
    lifted(pixels)  # which knows what is not dense
    if pixels.dtype not in _INTEGERS or pixels.dim() < 2:
        raise InputError(
            f"integer_wavedec2 takes integers of up to 32 bits, (..., H, W), not {pixels.dtype} of shape "
            f"{tuple(pixels.shape)}; for other numbers there is wavedec2"
        )
    if min(pixels.shape[-2:]) < 1:
        raise InputError(f"integer_wavedec2: an array of shape {tuple(pixels.shape)} has no samples along H or W")
    check_level("integer_wavedec2", level)
    low, details = pixels.to(torch.int32), list[Tensor | Details]()
    for _ in range(level):
        left, right = _split(low, -1)
        (low, horizontal), (vertical, diagonal) = _split(left, -2), _split(right, -2)
        details.insert(0, (horizontal, vertical, diagonal))
    return [low, *details]


def integer_waverec2(coeffs: Sequence[ArrayLike | Sequence[ArrayLike]]) -> Tensor:
    """Return int32 (..., H, W): the exact inverse of :func:`integer_wavedec2`.

    Raises InputError for what :func:`integer_wavedec2` cannot have given.
    """
    low, *parts = (_integers(x) for x in nested_coefficients("integer_waverec2", coeffs))
    lifted(low)
    if low.dim() < 2 or low.dtype != torch.int32:
        raise InputError(
            f"integer_waverec2: coeffs[0] is {low.dtype} of shape {tuple(low.shape)}, but must be int32, (..., H, W)"
        )
    for number in range(0, len(parts), 3):
        horizontal, vertical, diagonal = parts[number : number + 3]
        if not _fits(low, (horizontal, vertical, diagonal)):
            raise InputError(
                f"integer_waverec2: coeffs[{number // 3 + 1}] is not the details (cH, cV, cD) of what comes before: "
                f"int32 of shapes that go with {tuple(low.shape)}, on one device"
            )
        low = _merge(_merge(low, horizontal, -2), _merge(vertical, diagonal, -2), -1)
    return low


def _fits(low: Tensor, details: Details) -> bool:
    if any(part.shape[:-2] != low.shape[:-2] or part.dim() != low.dim() for part in details):
        return False
    horizontal, vertical, diagonal = details
    rows, columns = low.shape[-2] - horizontal.shape[-2], low.shape[-1] - vertical.shape[-1]
    return (
        rows in (0, 1)
        and columns in (0, 1)
        and horizontal.shape[-1] == low.shape[-1]
        and vertical.shape[-2] == low.shape[-2]
        and diagonal.shape[-2:] == (horizontal.shape[-2], vertical.shape[-1])
        and all(part.dtype == torch.int32 for part in details)
        and all(part.layout == low.layout and part.device == low.device for part in details)
    )


def _integers(array: ArrayLike) -> Tensor:
    """Return ``given`` as a tensor; of a list, which has no dtype, int32 where that holds it."""
    tensor = as_tensor(array)
    if tensor.dtype != torch.int64 or not isinstance(array, list | tuple):
        return tensor
    narrow = tensor.to(torch.int32)
    return narrow if bool((narrow == tensor).all()) else tensor


def _split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return s and d along ``axis``; a single sample is its own s."""
    index = torch.arange(x.shape[axis], device=x.device)
    even, odd = x.index_select(axis, index[::2]), x.index_select(axis, index[1::2])
    if odd.shape[axis] == 0:
        return even, odd
    high = odd - _predicted(even, odd.shape[axis], axis)
    return even + _updated(high, even.shape[axis], axis), high


def _merge(low: Tensor, high: Tensor, axis: int) -> Tensor:
    if high.shape[axis] == 0:
        return low
    even = low - _updated(high, low.shape[axis], axis)
    odd = high + _predicted(even, high.shape[axis], axis)
    pairs = torch.stack((even.narrow(axis, 0, odd.shape[axis]), odd), even.dim() + axis + 1)
    merged = pairs.flatten(even.dim() + axis, even.dim() + axis + 1)
    last = even.narrow(axis, odd.shape[axis], even.shape[axis] - odd.shape[axis])
    return torch.cat((merged, last), axis)


def _predicted(even: Tensor, count: int, axis: int) -> Tensor:
    """floor((x[2n] + x[2n+2]) / 2) for ``count`` odd samples: behind the last even one comes itself, mirrored."""
    following = torch.cat((even, even.narrow(axis, even.shape[axis] - 1, 1)), axis).narrow(axis, 1, count)
    return (even.narrow(axis, 0, count) + following) >> 1


def _updated(high: Tensor, count: int, axis: int) -> Tensor:
    """floor((d[n-1] + d[n] + 2) / 4) for ``count`` even samples: d[-1] is d[0], and d behind the last is the last."""
    last = high.shape[axis]
    padded = torch.cat((high.narrow(axis, 0, 1), high, high.narrow(axis, last - 1, 1)), axis)
    return (padded.narrow(axis, 0, count) + padded.narrow(axis, 1, count) + 2) >> 2
