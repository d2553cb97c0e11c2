"""Tensors as the kernels of spectral banks see them on a CPU: flat arrays, complex ones as real and imaginary parts.

Making a view of each row would take longer than a short row. Indices are unsigned, so that the compiler knows that none
counts from the end, and reads backwards in vectors.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
compiled = numba.njit(nogil=True, error_model="numpy")
_0, _1, _2, _3 = (np.uintp(number) for number in range(4))


@compiled
def size_of(array):
    """Of an array, unsigned."""
    return np.uintp(array.size)


@compiled
def sizes(shape):
    """A shape of three, unsigned."""
    return np.uintp(shape[0]), np.uintp(shape[1]), np.uintp(shape[2])


def flat(x: Tensor) -> Array:
    """An array (n) of the same memory, (2n) of a complex one."""
    array: Array = (torch.view_as_real(x) if x.is_complex() else x).view(-1).numpy()
    return array
