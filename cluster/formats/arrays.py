"""Arrays of any number of channels as images: the .npy of a sample, and which numbers can be stored.

The format of .npy is that of NumPy Enhancement Proposal 1. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from cluster.formats.source_format import MOST_CHANNELS, Values
from freqgan.errors import InputError

NPY_MAGIC = b"\x93NUMPY"
MOST_PIXELS = 64 * 2**20
"""Of an image; the bound of ``ingest.max_pixels`` by default."""
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
"""Of the length of a .npy file's header, by version; others have fields, and no numbers alone."""
_STORED = ("|u1", "<u2", "<f4")
_LARGEST = 2**16 - 1


# -- .npy ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NpyHeader:
    """What the header of a .npy file says.

    Attributes:
        shape: of the array.
        in_columns: whether it is in Fortran's order.
        dtype: of its numbers.
        end: where they begin, in bytes.

    """

    shape: tuple[int, ...]
    in_columns: bool
    dtype: np.dtype[Any]
    end: int


def npy_header(data: bytes) -> NpyHeader:
    """Return the header at the start of ``data``, which may end with it.

    Raises:
        Exception: any, for what is no header: it is a Python literal, and what is wrong with one may be anything.

    """
    version = npy_format.read_magic(io.BytesIO(data[: npy_format.MAGIC_LEN]))
    if version not in _LENGTH_BYTES:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    start = npy_format.MAGIC_LEN + _LENGTH_BYTES[version]
    end = start + int.from_bytes(data[npy_format.MAGIC_LEN : start], "little")
    return _parsed_header(data[:end])


@lru_cache(64)
def _parsed_header(header: bytes) -> NpyHeader:
    """Parse a whole header, which takes longer than all the rest."""
    return NpyHeader(*read_npy_header(io.BytesIO(header)), len(header))


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and the type of the numbers; the file is left where these begin.

    Raises:
        Exception: any, as of :func:`npy_header`.

    """
    version = npy_format.read_magic(file)
    if version not in _LENGTH_BYTES:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, in_columns, dtype = read(file)
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return shape, bool(in_columns), dtype


def decode_npy(data: bytes, name: str, max_pixels: int = MOST_PIXELS) -> Values:
    """Return the image (H, W, C) of a ``KEY.image.npy``: uint8, uint16 or float32, a view of ``data``.

    Raises:
        InputError: it is no .npy file of (H, W) or (H, W, C) in C order, of one of these types in little-endian order,
            C from 1 to 64; more than ``max_pixels`` pixels, which is seen before anything is read; another length than
            its header says; a number that is not finite.

    """
    try:
        header = npy_header(data)
    except Exception as error:  # a header is a Python literal: what is wrong with one may be anything
        raise InputError(f"{name} is no .npy file ({error}): write it by numpy.save") from error
    shape, dtype = header.shape, header.dtype
    if dtype.str not in _STORED:
        raise InputError(f"{name} holds {dtype}: images are uint8, uint16 or float32 (little-endian)")
    if len(shape) not in (2, 3) or not all(shape) or (len(shape) == 3 and shape[2] > MOST_CHANNELS):
        raise InputError(
            f"{name} has the shape {shape}: images are (height, width) or (height, width, channels), with 1 to "
            f"{MOST_CHANNELS} channels"
        )
    if header.in_columns and min(shape) > 1:
        raise InputError(f"{name} is in Fortran's order: write it by numpy.save(numpy.ascontiguousarray(...))")
    if shape[0] * shape[1] > max_pixels:
        raise InputError(
            f"{name} has {shape[0]} x {shape[1]} pixels, more than the {max_pixels} allowed: make it smaller"
        )
    there, wanted = len(data) - header.end, math.prod(shape) * dtype.itemsize
    if there != wanted:
        how = "is cut off" if there < wanted else "is longer than its header says"
        raise InputError(f"{name} {how}: {there} bytes of pixels, and {shape} of {dtype} are {wanted}; write it again")
    pixels = np.frombuffer(data, dtype, offset=header.end).reshape(*shape[:2], -1)
    check_finite(pixels, name)
    return pixels


def encode_npy(pixels: Values) -> bytes:
    """Return the .npy file of an array: C order, little-endian, version 1.0, the same bytes for the same numbers."""
    buffer = io.BytesIO()
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    npy_format.write_array(buffer, little, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


# -- numbers ---------------------------------------------------------------------------------------


def check_finite(values: NDArray[Any], name: str) -> None:
    """Raise InputError where a number of ``values`` (...) is not finite, with its place."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values)
    place = tuple(map(int, np.argwhere(bad)[0]))
    raise InputError(
        f"{name} holds {np.count_nonzero(bad)} numbers that are not finite, the first is {values[place]} at "
        f"{list(place)}: replace them"
    )


def stored_values(values: NDArray[Any], name: str) -> Values:
    """Return numbers (...) as uint8, uint16 or float32, whichever holds them exactly.

    Whole numbers that fit into uint8 by their type or into uint16 stay as they are; False and True become 0 and 255.
    float16 and float32 become float32; so does float64,
    of which a float32 keeps 24 bits, an error of at most 6e-8 of each number.

    Raises:
        InputError: whole numbers below 0 or above 65535, numbers that are not finite or too large for a float32, or
            anything else than numbers.

    """
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if kind in "ui":
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low < 0 or high > _LARGEST:
            raise InputError(
                f"{name} holds whole numbers from {low} to {high}, and 0 to {_LARGEST} can be stored: subtract the "
                "least of all files, or write them as float32, which is exact up to 16,777,216"
            )
        return values.astype(np.uint16)
    if kind != "f":
        raise InputError(f"{name} holds {values.dtype}, no numbers: write whole or floating-point numbers")
    check_finite(values, name)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise InputError(f"{name} holds {np.abs(values).max():.4g}, too large for a float32: divide all by a number")
    return single
