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
from freqgan.transforms.wavedec import Details

_INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)


def integer_wavedec2(data: Tensor, level: int = 1) -> list[Tensor | Details]:
    """The 5/3 transform of ``data`` (..., H, W), in the order of :func:`~freqgan.transforms.wavedec2`.

    The low band stays in the range of the pixels, give or take; details of b-bit pixels need b + 2 bits.

    Args:
        data: integers of at most 16 bits, or int32 with room for two more bits.
        level: of decomposition, 0 or more.

    Returns:
        [cA_n, (cH_n, cV_n, cD_n), ... (cH_1, cV_1, cD_1)] in int32; of N samples cA has N/2, rounded up.

    Raises:
        InputError: not integers, fewer than two axes, a level below 0.

    """
    if data.dtype not in _INTEGERS or data.dim() < 2:
        raise InputError(
            f"integer_wavedec2 takes integers of up to 32 bits, (..., H, W), not {data.dtype} of shape "
            f"{tuple(data.shape)}; for other numbers there is wavedec2"
        )
    if level < 0:
        raise InputError(f"integer_wavedec2: level is {level}, but must be 0 or more")
    low, details = data.to(torch.int32), list[Tensor | Details]()
    for _ in range(level):
        left, right = _split(low, -1)
        (low, horizontal), (vertical, diagonal) = _split(left, -2), _split(right, -2)
        details.insert(0, (horizontal, vertical, diagonal))
    return [low, *details]


def integer_waverec2(coeffs: Sequence[Tensor | Details]) -> Tensor:
    """The exact inverse of :func:`integer_wavedec2`: int32 (..., H, W), equal to what was taken apart.

    Raises InputError for what :func:`integer_wavedec2` cannot have given.
    """
    if not coeffs or not isinstance(coeffs[0], Tensor):
        raise InputError("integer_waverec2: coeffs is [cA_n, (cH_n, cV_n, cD_n), ...]; it begins with a tensor")
    low = coeffs[0]
    for number, details in enumerate(coeffs[1:], start=1):
        if isinstance(details, Tensor) or len(details) != 3 or not _fits(low, details):
            raise InputError(f"integer_waverec2: coeffs[{number}] is not the details (cH, cV, cD) of what comes before")
        horizontal, vertical, diagonal = details
        low = _merge(_merge(low, horizontal, -2), _merge(vertical, diagonal, -2), -1)
    return low


def _fits(low: Tensor, details: Details) -> bool:
    horizontal, vertical, diagonal = details
    rows, columns = low.shape[-2] - horizontal.shape[-2], low.shape[-1] - vertical.shape[-1]
    return (
        rows in (0, 1)
        and columns in (0, 1)
        and horizontal.shape[-1] == low.shape[-1]
        and vertical.shape[-2] == low.shape[-2]
        and diagonal.shape[-2:] == (horizontal.shape[-2], vertical.shape[-1])
        and all(part.dtype == torch.int32 for part in (low, *details))
    )


def _split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """s and d along ``axis``; a single sample is its own s."""
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
