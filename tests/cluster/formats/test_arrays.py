"""The .npy of a sample is read as it was written, or refused before anything is allocated; numbers stay exact."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from cluster.formats.arrays import decode_npy, encode_npy, stored_values
from freqgan.errors import InputError
from tests.support.shards import npy_bytes


def header_of(shape: str, kind: str = "|u1", order: str = "False") -> bytes:
    buffer = io.BytesIO()
    text = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    buffer.write(npy_format.magic(1, 0) + len(text).to_bytes(2, "little") + text)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 64), (1, 1, 1)])
def test_arrays_come_back(kind: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 256, shape).astype(kind)
    for data in (encode_npy(values), npy_bytes(values)):
        pixels = decode_npy(data, "x")
        assert pixels.dtype == kind
        assert pixels.shape == (*shape[:2], shape[2] if len(shape) == 3 else 1)
        assert (pixels.reshape(shape) == values).all()


def test_the_same_numbers_give_the_same_bytes() -> None:
    values = np.arange(24, dtype=np.uint16).reshape(4, 6)
    assert encode_npy(values) == encode_npy(np.asfortranarray(values)) == encode_npy(values.astype(">u2"))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "x is no .npy file"),
        (b"\x93NUMPY\x01\x00", "x is no .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "x is no .npy file"),
        (header_of("__import__('os')"), "x is no .npy file"),
        (header_of("(-1, 5)"), "x is no .npy file"),
        (npy_bytes(np.zeros((4, 4), np.uint8))[:-3], "x is cut off: 13 bytes of pixels, and .* are 16"),
        (npy_bytes(np.zeros((4, 4), np.uint8)) + b"0", "x is longer than its header says: 17 bytes"),
        (npy_bytes(np.zeros((4, 4))), "x holds float64: images are uint8, uint16 or float32"),
        (npy_bytes(np.zeros((4, 4), ">u2")), "x holds >u2"),
        (npy_bytes(np.zeros((4, 4), np.int32)), "x holds int32"),
        (npy_bytes(np.array([["a"]])), "x holds <U1"),
        (npy_bytes(np.zeros(9, np.uint8)), r"shape \(9,\): images are \(height, width\)"),
        (npy_bytes(np.zeros((2, 4, 4, 3), np.uint8)), r"shape \(2, 4, 4, 3\)"),
        (npy_bytes(np.zeros((4, 4, 65), np.uint8)), r"shape \(4, 4, 65\).* 1 to 64 channels"),
        (npy_bytes(np.zeros((0, 4), np.uint8)), r"shape \(0, 4\)"),
        (npy_bytes(np.asfortranarray(np.zeros((4, 5), np.uint8))), "x is in Fortran's order"),
        (header_of("(10**9, 10**9)"), "x is no .npy file"),
        (header_of("(1000000000, 1000000000)"), "x has 1000000000 x 1000000000 pixels, more than the 67108864 allowed"),
        (npy_bytes(np.array([[0, 1], [np.nan, np.inf]], np.float32)), r"2 numbers that are not finite, .* \[1, 0"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what):
        decode_npy(data, "x")


def test_nothing_is_unpickled() -> None:
    buffer = io.BytesIO()
    npy_format.write_array(buffer, np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="x holds object"):
        decode_npy(buffer.getvalue(), "x")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 255], np.uint8), np.array([0, 255], np.uint8)),
        (np.array([False, True]), np.array([0, 255], np.uint8)),
        (np.array([0, 65535], np.int64), np.array([0, 65535], np.uint16)),
        (np.array([3, 4], ">i2"), np.array([3, 4], np.uint16)),
        (np.array([1.5], np.float16), np.array([1.5], np.float32)),
        (np.array([0.1, -3e38]), np.array([0.1, -3e38], np.float32)),
    ],
)
def test_numbers_that_are_stored(values: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    stored = stored_values(values, "x")
    assert stored.dtype == expected.dtype
    assert stored.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (np.array([-1, 5]), "whole numbers from -1 to 5, and 0 to 65535 .*subtract"),
        (np.array([0, 65536]), "whole numbers from 0 to 65536"),
        (np.array([[0.0, np.inf]]), r"1 numbers that are not finite, the first is inf at \[0, 1\]"),
        (np.array([1e39]), "holds 1e\\+39, too large for a float32"),
        (np.array([1j]), "holds complex128, no numbers"),
        (np.array(["a"]), "holds <U1, no numbers"),
    ],
)
def test_numbers_that_are_refused(values: NDArray[np.generic], what: str) -> None:
    with pytest.raises(InputError, match=f"^x {what}|^x holds {what}"):
        stored_values(values, "x")
