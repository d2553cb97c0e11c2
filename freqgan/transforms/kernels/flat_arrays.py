"""Tensors as the kernels of spectral banks see them on a CPU: flat arrays, complex ones as real and imaginary parts.

Making a view of each row would take longer than a short row. Indices are unsigned, so that the compiler knows that none
counts from the end, and reads backwards in vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freqgan.transforms.banks import plane_chunks

Array = NDArray[Any]
compiled = numba.njit(nogil=True, error_model="numpy")
_0, _1, _2, _3 = (np.uintp(number) for number in range(4))


@compiled
def size_of(array):
    """Return the size of an array, unsigned."""
    return np.uintp(array.size)


@compiled
def sizes(shape):
    """Return a shape of three, unsigned."""
    return np.uintp(shape[0]), np.uintp(shape[1]), np.uintp(shape[2])


def flat(x: Tensor) -> Array:
    """Return an array (n,) of the memory of ``x``, (2n,) of a complex one."""
    array: Array = (torch.view_as_real(x) if x.is_complex() else x).view(-1).numpy()
    return array


def planes_in(arrays: tuple[Array, ...], size: tuple[int, int], planes: slice) -> tuple[Array, ...]:
    """Return the planes ``planes`` of flat arrays of planes of one size."""
    area = size[0] * size[1]
    return tuple(array[planes.start * area : planes.stop * area] for array in arrays)


class Chunk(NamedTuple):
    """Images (n, H, W) that are transformed together: their numbers, their shape, pixels, and two rooms of their size.

    The rooms are the same for all chunks: new memory takes as long as the kernels.
    """

    planes: slice
    shape: tuple[int, int, int]
    pixels: Array
    rooms: tuple[Array, Array]


def chunks(images: Tensor) -> Iterator[Chunk]:
    """Yield chunks of contiguous images (n, H, W)."""
    _, height, width = images.shape
    area, slices, pixels = height * width, plane_chunks(images), flat(images)
    first, second = images.new_empty(2, slices[0].stop * area).numpy()
    for planes in slices:
        count = planes.stop - planes.start
        (own,), size = planes_in((pixels,), (height, width), planes), count * area
        yield Chunk(planes, (count, height, width), own, (first[:size], second[:size]))
