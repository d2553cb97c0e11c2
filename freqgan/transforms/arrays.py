"""What transforms are given: tensors, NumPy arrays or lists of numbers, checked, in the precision that holds them.

float64 stays float64, and integers of 32 and 64 bits become it, for float32 holds whole numbers up to 2^24 only. All
else becomes float32, in which all of its numbers are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.errors import InputError

ArrayLike = Tensor | NDArray[Any] | Sequence[Any]
"""Numbers of one array; lists of lists of numbers are float64, as in NumPy, or int64."""

_WIDE = (torch.int64, torch.uint64)
_EXACT = 2.0**53
"""Whole numbers from here on are not all in float64."""

_LIFTED: dict[torch.dtype, torch.dtype] = {
    **dict.fromkeys((torch.float64, torch.int32, torch.uint32, *_WIDE), torch.float64),
    **dict.fromkeys((torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16), torch.float32),
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float32),
    **dict.fromkeys((torch.float8_e4m3fn, torch.float8_e5m2), torch.float32),
    **dict.fromkeys((torch.float8_e4m3fnuz, torch.float8_e5m2fnuz), torch.float32),
}


def as_float(*arrays: ArrayLike) -> list[Tensor]:
    """Return ``arrays`` (...) as dense tensors in the precision that holds all of them: float64 or float32, see above.

    Raises:
        InputError: what is no array, as for :func:`as_tensor`; complex and quantised numbers; sparse and nested
            tensors; tensors on different devices; and whole numbers of 64 bits that float64 cannot hold, which
            torch.compile and vmap do not look for.

    """
    tensors = [x if isinstance(x, Tensor) else as_tensor(x) for x in arrays]
    precision, device = torch.float32, tensors[0].device
    for tensor in tensors:
        if lifted(tensor) is torch.float64:
            precision = torch.float64
        if tensor.device != device:
            raise InputError(
                f"a transform takes tensors of one device, not some on {device} and some on {tensor.device}: "
                "move them with .to(device)"
            )
    return [x if x.dtype is precision else _converted(x, precision) for x in tensors]


def as_tensor(array: ArrayLike) -> Tensor:
    """Return ``array`` (...) as a tensor: itself, or that of an array or a list of numbers.

    Memory is shared where it can be.

    Raises:
        InputError: another type; masks, complex numbers, objects, strings, more than 64 bits; lists of unequal length.

    """
    if isinstance(array, Tensor):
        return array
    if not isinstance(array, np.ndarray | list | tuple):
        raise InputError(
            f"a transform takes tensors, NumPy arrays and lists of numbers, not {_name(array)}; numpy.asarray makes an "
            "array of much else: of an image with the axes y, x and, where it has colours, channels"
        )
    return torch.from_numpy(_native(array if isinstance(array, np.ndarray) else _listed(array)))


def lifted(tensor: Tensor) -> torch.dtype:
    """Return the precision in which ``tensor`` (...) is transformed; InputError for what is neither dense nor real."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        raise InputError(
            f"a transform takes dense tensors, not {kind} ones: "
            + ("stack images of one size" if tensor.is_nested else "write .to_dense()")
        )
    precision = _LIFTED.get(tensor.dtype)
    if precision is None:
        raise _no_real_number(str(tensor.dtype), tensor.is_complex())
    return precision


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which products of tensors on ``device`` are computed in their own precision."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _converted(tensor: Tensor, precision: torch.dtype) -> Tensor:
    floats = tensor.to(precision)
    if tensor.dtype in _WIDE and not torch.compiler.is_compiling() and _is_rounded(floats):
        raise InputError(
            f"{str(tensor.dtype).removeprefix('torch.')} data has numbers from 2^53 on, not all of which float64 can "
            "hold; where rounded ones will do, give them as .double() or .astype(float)"
        )
    return floats


def _is_rounded(floats: Tensor) -> bool:
    try:
        return bool((floats.abs() >= _EXACT).any())
    except RuntimeError:  # on "meta" or under vmap, where there is no number to look at
        return False


def _listed(numbers: Sequence[Any]) -> NDArray[Any]:
    try:
        return np.asarray(numbers)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"a list of {len(numbers)} is not an array of numbers: {error}; make all rows of one length, and put "
            "tensors together with torch.stack"
        ) from error


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Return ``array`` as torch reads it: in the byte order of this machine, forwards, writable.

    It is a copy where it is not so.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("a transform takes every number of an array, not a masked one: fill it with .filled(value)")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise _no_real_number(str(array.dtype), array.dtype.kind == "c")
    return np.require(array, array.dtype.newbyteorder("="), ("C", "A", "W", "E"))


def _no_real_number(dtype: str, is_complex: bool) -> InputError:
    if is_complex:
        return InputError(f"a transform takes real images, not {dtype}: give the real and imaginary parts as channels")
    return InputError(f"a transform takes real numbers of up to 64 bits, not {dtype}: convert them to float64")


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
