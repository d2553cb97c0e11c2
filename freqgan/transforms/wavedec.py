"""``wavedec2`` and ``waverec2`` in the order of arguments and results of PyWavelets, on tensors of any device.

They take tensors, NumPy arrays and lists, and give tensors; they are differentiable any number of times, backwards and
forwards. They compute in float64 for float64 and for integers of 32 and 64 bits, else in float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import index
from typing import Any

import pywt
import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.transforms.arrays import ArrayLike, as_float
from freqgan.transforms.dwt import wavelet_banks, wavelet_filters
from freqgan.transforms.quadrants import QuadrantTransform

Details = tuple[Tensor, Tensor, Tensor]
"""cH, cV, cD of a level, as PyWavelets calls LH, HL and HH: horizontal detail changes along y."""
Axes = tuple[int, int]
_MODE = "periodization"


def wavedec2(
    data: ArrayLike, wavelet: str | pywt.Wavelet, mode: str = _MODE, level: int | None = None, axes: Axes = (-2, -1)
) -> list[Tensor | Details]:
    """Return the multilevel 2D discrete wavelet transform of ``data``; as ``pywt.wavedec2(..., mode="periodization")``.

    Args:
        data: (..., H, W) of any number of axes from 2 on: a tensor, a NumPy array or lists, of any real dtype. No
            integer is rounded before the arithmetic: those of 32 and 64 bits are transformed in float64.
        wavelet: the name of a discrete wavelet of PyWavelets, or such a wavelet, custom ones among them.
        mode: "periodization", the one border rule with half the coefficients per axis and level.
        level: of decomposition, 1 or more; the most that is useful for these sizes if not given, at least 0.
        axes: that of y and that of x.

    Returns:
        [cA_n, (cH_n, cV_n, cD_n), ... (cH_1, cV_1, cD_1)], tensors, from coarse to fine. Sides are halved and rounded
        up: an odd side is made even by its last row or column once more, as PyWavelets does.

    Raises:
        InputError: another mode, no such wavelet, a level that is no number from 0 on, axes that are not there or
            equal; ``data`` that is no dense array of real numbers, or has whole ones that float64 rounds, from 2^53 on.

    """
    transform = _transform(wavelet, mode)
    low, batch = _planes(as_float(data)[0], axes)
    if level is None:
        level = pywt.dwtn_max_level(low.shape[-2:], _filters(wavelet))
    check_level("wavedec2", level)
    details: list[Tensor | Details] = []
    for _ in range(level):
        ll, hl, lh, hh = transform.analyse_level(_evened(_evened(low, -2), -1))
        details.insert(0, (_restored(lh, batch, axes), _restored(hl, batch, axes), _restored(hh, batch, axes)))
        low = ll
    return [_restored(low, batch, axes), *details]


def waverec2(
    coeffs: Sequence[ArrayLike | Sequence[ArrayLike | None]],
    wavelet: str | pywt.Wavelet,
    mode: str = _MODE,
    axes: Axes = (-2, -1),
) -> Tensor:
    """Return the array (..., H, W) of ``coeffs``, the inverse of :func:`wavedec2`.

    It is as ``pywt.waverec2(..., mode="periodization")``.

    Of an odd side one sample too many comes back, equal to the last, where the finest level alone cannot tell. For the
    same reason an approximation may have one row or column more than the details beside it, which is dropped, as
    PyWavelets does.

    Args:
        coeffs: as :func:`wavedec2` or PyWavelets give them; a detail that is None counts as zeros. All are computed in
            the precision that holds each of them.
        wavelet: as in :func:`wavedec2`.
        mode: likewise.
        axes: likewise.

    Raises:
        InputError: as :func:`wavedec2`, and coefficients whose shapes or devices do not go together.

    """
    transform = _transform(wavelet, mode)
    nested = nested_coefficients("waverec2", coeffs)
    floats = iter(as_float(*(x for x in nested if x is not None)))
    first, *parts = (None if x is None else _planes(next(floats), axes) for x in nested)
    if first is None:
        raise InputError("waverec2: coeffs[0] is None, but must be the coarsest approximation, cA_n")
    low, batch = first
    for number in range(0, len(parts), 3):
        low, details = _of_one_shape(low, batch, parts[number : number + 3], number // 3 + 1)
        lh, hl, hh = (torch.zeros_like(low) if part is None else part for part in details)
        low = transform.synthesise_level((low, hl, lh, hh))
    return _restored(low, batch, axes)


def nested_coefficients(scene: str, coeffs: Sequence[Any]) -> list[Any]:
    """Return [cA_n, (cH_n, cV_n, cD_n), ...] as one list, cA_n, cH_n, cV_n ...

    Raises InputError for what is nested otherwise.
    """
    if not isinstance(coeffs, list | tuple) or not coeffs:
        raise InputError(f"{scene}: coeffs is a list [cA_n, (cH_n, cV_n, cD_n), ...]; it begins with a tensor")
    for number, details in enumerate(coeffs[1:], start=1):
        if not isinstance(details, list | tuple) or len(details) != 3:
            raise InputError(f"{scene}: coeffs[{number}] must be three details (cH, cV, cD)")
    return [coeffs[0], *(part for details in coeffs[1:] for part in details)]


def check_level(scene: str, level: int) -> None:
    """Raise InputError unless ``level`` is a whole number, 0 or more."""
    try:
        is_level = index(level) >= 0 and not isinstance(level, bool)
    except TypeError:
        is_level = False
    if not is_level:
        raise InputError(f"{scene}: level is {level!r}, but must be a whole number, 0 or more")


def _of_one_shape(
    low: Tensor, batch: torch.Size, parts: Sequence[tuple[Tensor, torch.Size] | None], number: int
) -> tuple[Tensor, list[Tensor | None]]:
    """Return ``low`` as large as the details ``parts`` of level ``number``, and these.

    Raises InputError where they do not match.
    """
    present = [part for part in parts if part is not None]
    shape = present[0][0].shape if present else low.shape
    # What was made even for the level above has one row or column too many.
    rows, columns = low.shape[-2] - shape[-2], low.shape[-1] - shape[-1]
    if rows in (0, 1) and columns in (0, 1) and all(part.shape == shape and own == batch for part, own in present):
        return low[..., : shape[-2], : shape[-1]], [None if part is None else part[0] for part in parts]
    shapes = [None if part is None else (*part[1], *part[0].shape[-2:]) for part in parts]
    raise InputError(
        f"waverec2: coeffs[{number}] has details of {shapes} for an approximation of {(*batch, *low.shape[-2:])}: "
        "all must be of one shape, but for one row or column more of the approximation"
    )


def _filters(wavelet: str | pywt.Wavelet) -> pywt.Wavelet:
    if isinstance(wavelet, str):
        return wavelet_filters(wavelet)
    if not isinstance(wavelet, pywt.Wavelet):
        raise InputError(
            f"wavelet is {wavelet!r}, but must be the name of a discrete wavelet or a pywt.Wavelet; of filters of "
            "one's own write pywt.Wavelet('mine', filter_bank=...)"
        )
    return wavelet


def _transform(wavelet: str | pywt.Wavelet, mode: str) -> QuadrantTransform:
    if mode != _MODE:
        raise InputError(f"mode {mode!r}: the one there is {_MODE!r}, with half the coefficients per axis and level")
    filters = _filters(wavelet)
    return _of_filters(filters.name, *(tuple(taps) for taps in filters.filter_bank))


@lru_cache(maxsize=64)
def _of_filters(name: str, *filter_bank: tuple[float, ...]) -> QuadrantTransform:
    return QuadrantTransform(f"dwt:{name}", 1, *wavelet_banks(filter_bank))


def _planes(data: Tensor, axes: Axes) -> tuple[Tensor, torch.Size]:
    """Return ``data`` as (1, planes, H, W), and the shape of its other axes."""
    images = data.movedim(_two_axes(axes, data), (-2, -1))
    if min(images.shape[-2:]) < 1:
        raise InputError(f"an array of shape {tuple(data.shape)} has no samples along axes {axes}")
    planes = images.shape[:-2].numel()
    return images.reshape(1, planes, *images.shape[-2:]), images.shape[:-2]


def _two_axes(axes: Axes, data: Tensor) -> Axes:
    dims = data.dim()
    try:
        y, x = (index(axis) for axis in axes)
    except (TypeError, ValueError):
        y = x = 0
    if dims < 2 or not -dims <= y < dims or not -dims <= x < dims or y % dims == x % dims:
        raise InputError(f"axes {axes} are not two axes of an array of shape {tuple(data.shape)}")
    return y, x


def _restored(planes: Tensor, batch: torch.Size, axes: Axes) -> Tensor:
    return planes.reshape(*batch, *planes.shape[-2:]).movedim((-2, -1), tuple(axes))


def _evened(image: Tensor, axis: int) -> Tensor:
    """Return ``image`` with its last row or column once more, where their number is odd."""
    side = image.shape[axis]
    return torch.cat((image, image.narrow(axis, side - 1, 1)), axis) if side % 2 else image
