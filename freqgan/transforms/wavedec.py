"""``wavedec2`` and ``waverec2`` in the order of arguments and results of PyWavelets, on tensors of any device.

They are differentiable any number of times, and computed in float64 for float64, else in float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pywt
import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.transforms.dwt import wavelet_banks, wavelet_filters
from freqgan.transforms.protocol import as_float
from freqgan.transforms.quadrants import QuadrantTransform

Details = tuple[Tensor, Tensor, Tensor]
"""cH, cV, cD of a level, as PyWavelets calls LH, HL and HH: horizontal detail changes along y."""
Axes = tuple[int, int]
_MODE = "periodization"


def wavedec2(
    data: Tensor, wavelet: str | pywt.Wavelet, mode: str = _MODE, level: int | None = None, axes: Axes = (-2, -1)
) -> list[Tensor | Details]:
    """The multilevel 2D discrete wavelet transform of ``data``; as ``pywt.wavedec2(..., mode="periodization")``.

    Args:
        data: (..., H, W) of any number of axes from 2 on; any real dtype, no integer is rounded before the arithmetic.
        wavelet: the name of a discrete wavelet of PyWavelets, or such a wavelet, custom ones among them.
        mode: "periodization", the one border rule with half the coefficients per axis and level.
        level: of decomposition, 1 or more; the most that is useful for these sizes if not given, at least 0.
        axes: that of y and that of x.

    Returns:
        [cA_n, (cH_n, cV_n, cD_n), ... (cH_1, cV_1, cD_1)], from coarse to fine. Sides are halved and rounded up: an odd
        side is made even by its last row or column once more, as PyWavelets does.

    Raises:
        InputError: another mode, no such wavelet, a level below 0, axes that are not there or equal, complex ``data``.

    """
    transform = _transform(wavelet, mode)
    low, batch = _planes(data, axes)
    if level is None:
        level = pywt.dwtn_max_level(low.shape[-2:], _filters(wavelet))
    if level < 0:
        raise InputError(f"wavedec2: level is {level}, but must be 0 or more")
    details: list[Tensor | Details] = []
    for _ in range(level):
        ll, hl, lh, hh = transform.analyse_level(_evened(_evened(low, -2), -1))
        details.insert(0, (_restored(lh, batch, axes), _restored(hl, batch, axes), _restored(hh, batch, axes)))
        low = ll
    return [_restored(low, batch, axes), *details]


def waverec2(
    coeffs: Sequence[Tensor | tuple[Tensor | None, Tensor | None, Tensor | None]],
    wavelet: str | pywt.Wavelet,
    mode: str = _MODE,
    axes: Axes = (-2, -1),
) -> Tensor:
    """The inverse of :func:`wavedec2`; as ``pywt.waverec2(..., mode="periodization")``.

    Of an odd side one sample too many comes back, equal to the last, where the finest level alone cannot tell.

    Args:
        coeffs: as :func:`wavedec2` gives them; a detail that is None counts as zeros.
        wavelet: as in :func:`wavedec2`.
        mode: likewise.
        axes: likewise.

    Raises:
        InputError: as :func:`wavedec2`, and coefficients whose shapes do not go together.

    """
    transform = _transform(wavelet, mode)
    if not coeffs or not isinstance(coeffs[0], Tensor):
        raise InputError("waverec2: coeffs is [cA_n, (cH_n, cV_n, cD_n), ...]; it begins with a tensor")
    low, batch = _planes(coeffs[0], axes)
    for number, details in enumerate(coeffs[1:]):
        if isinstance(details, Tensor) or len(details) != 3:
            raise InputError(f"waverec2: coeffs[{number + 1}] must be three details (cH, cV, cD)")
        parts = [None if part is None else _planes(part, axes)[0] for part in details]
        shape = next((part.shape for part in parts if part is not None), low.shape)
        # What was made even for the level above has one row or column too many.
        low = low[..., : shape[-2], : shape[-1]]
        if any(part is not None and part.shape != low.shape for part in parts):
            shapes = [None if part is None else tuple(part.shape[-2:]) for part in parts]
            raise InputError(
                f"waverec2: coeffs[{number + 1}] has details of {shapes} for an approximation of "
                f"{tuple(low.shape[-2:])} (and {low.shape[1]} planes): all must be of one shape"
            )
        lh, hl, hh = (torch.zeros_like(low) if part is None else part for part in parts)
        low = transform.synthesise_level((low, hl, lh, hh))
    return _restored(low, batch, axes)


def _filters(wavelet: str | pywt.Wavelet) -> pywt.Wavelet:
    return wavelet_filters(wavelet) if isinstance(wavelet, str) else wavelet


def _transform(wavelet: str | pywt.Wavelet, mode: str) -> QuadrantTransform:
    if mode != _MODE:
        raise InputError(f"mode {mode!r}: the one there is {_MODE!r}, with half the coefficients per axis and level")
    filters = _filters(wavelet)
    return _of_filters(filters.name, *(tuple(taps) for taps in filters.filter_bank))


@lru_cache(maxsize=64)
def _of_filters(name: str, *filter_bank: tuple[float, ...]) -> QuadrantTransform:
    return QuadrantTransform(f"dwt:{name}", 1, *wavelet_banks(filter_bank))


def _planes(data: Tensor, axes: Axes) -> tuple[Tensor, torch.Size]:
    """``data`` as (1, planes, H, W), and the shape of its other axes."""
    dims = data.dim()
    if dims < 2 or any(not -dims <= axis < dims for axis in axes) or axes[0] % dims == axes[1] % dims:
        raise InputError(f"axes {axes} are not two axes of an array of shape {tuple(data.shape)}")
    (moved,) = as_float(data.movedim(axes, (-2, -1)))
    if min(moved.shape[-2:]) < 1:
        raise InputError(f"an array of shape {tuple(data.shape)} has no samples along axes {axes}")
    planes = moved.shape[:-2].numel()
    return moved.reshape(1, planes, *moved.shape[-2:]), moved.shape[:-2]


def _restored(planes: Tensor, batch: torch.Size, axes: Axes) -> Tensor:
    return planes.reshape(*batch, *planes.shape[-2:]).movedim((-2, -1), axes)


def _evened(image: Tensor, axis: int) -> Tensor:
    """``image`` with its last row or column once more, where their number is odd."""
    side = image.shape[axis]
    return torch.cat((image, image.narrow(axis, side - 1, 1)), axis) if side % 2 else image
