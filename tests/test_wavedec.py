"""``wavedec2`` and ``waverec2`` against PyWavelets on every size, and the integer transform against its formula."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.transforms import integer_wavedec2, integer_waverec2, wavedec2, waverec2
from tests.test_transform_oracles import COARSE_TABLES, TRUNCATED_TABLES, image


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyWavelets: levels too deep for the filter, wanted here
        yield


def flat(coefficients: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    parts = [coefficients[0], *(part for details in coefficients[1:] for part in details)]
    return [np.asarray(part) for part in parts]


def differences(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    pairs = list(zip(flat(ours), flat(theirs), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "bior4.4"])
def test_every_size_from_1_to_130_agrees_with_pywavelets(wavelet: str) -> None:
    for side in range(1, 131):
        pixels = image(2, side, 131 - side)
        for level in (1, 3):
            ours = wavedec2(pixels, wavelet, level=level)
            theirs = pywt.wavedec2(pixels.numpy(), wavelet, "periodization", level)
            assert differences(ours, theirs) <= 1e-12
            back = waverec2(ours, wavelet)
            assert back.shape == pywt.waverec2(theirs, wavelet, "periodization").shape
            assert (back[:, :side, : 131 - side] - pixels).abs().max() <= 1e-10


def test_every_discrete_wavelet_agrees_and_inverts() -> None:
    pixels = image(1, 45, 62)
    for wavelet in pywt.wavelist(kind="discrete"):
        ours = wavedec2(pixels, wavelet, level=2)
        assert differences(ours, pywt.wavedec2(pixels.numpy(), wavelet, "periodization", 2)) <= 1e-12, wavelet
        allowed = 5e-2 if wavelet in TRUNCATED_TABLES else 1e-9 if wavelet in COARSE_TABLES else 1e-12
        assert (waverec2(ours, wavelet)[:, :45] - pixels).abs().max() <= allowed, wavelet


@pytest.mark.parametrize("size", [(7, 9), (64, 64), (512, 100)])
@pytest.mark.parametrize("wavelet", ["haar", "db8"])
def test_the_usual_level_is_that_of_pywavelets(size: tuple[int, int], wavelet: str) -> None:
    pixels = image(*size)
    theirs = pywt.wavedec2(pixels.numpy(), wavelet, "periodization")
    assert len(wavedec2(pixels, wavelet)) == len(theirs)


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (-1, 1)])
def test_other_axes(axes: tuple[int, int]) -> None:
    pixels = image(12, 10, 16)
    ours = wavedec2(pixels, "db2", level=2, axes=axes)
    assert differences(ours, pywt.wavedec2(pixels.numpy(), "db2", "periodization", 2, axes)) <= 1e-12
    torch.testing.assert_close(waverec2(ours, "db2", axes=axes), pixels, rtol=0, atol=1e-10)


def test_a_wavelet_of_ones_own() -> None:
    filters = pywt.Wavelet("mine", filter_bank=pywt.Wavelet("db3").filter_bank)
    pixels = image(24, 18)
    assert differences(wavedec2(pixels, filters, level=1), wavedec2(pixels, "db3", level=1)) == 0


def test_details_that_are_none_count_as_zeros() -> None:
    first, *rest = wavedec2(image(16, 16), "db2", level=2)
    assert isinstance(rest[0], tuple)
    assert isinstance(rest[1], tuple)
    assert isinstance(first, Tensor)
    vertical = rest[0][1]
    partly: list[Any] = [first, (None, vertical, None), (None, None, None)]
    expected = pywt.waverec2([first, (None, vertical, None), (None, None, None)], "db2", "periodization")
    np.testing.assert_allclose(waverec2(partly, "db2").numpy(), expected, rtol=0, atol=1e-12)


def test_derivatives() -> None:
    pixels = image(1, 5, 6).requires_grad_()

    def there(x: Tensor) -> tuple[Tensor, ...]:
        low, details = wavedec2(x, "db2", level=1)
        assert isinstance(low, Tensor)
        return low, *details

    assert torch.autograd.gradcheck(there, (pixels,))
    assert torch.autograd.gradgradcheck(there, (pixels,))


def test_level_0_and_no_samples() -> None:
    pixels = image(3, 4)
    assert torch.equal(waverec2(wavedec2(pixels, "haar", level=0), "haar"), pixels)
    empty = wavedec2(torch.zeros(0, 3, 8, 8), "db2", level=1)
    assert waverec2(empty, "db2").shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: wavedec2(x, "haar", "symmetric"), "mode 'symmetric': the one there is 'periodization'"),
        (lambda x: wavedec2(x, "harr"), "did you mean haar"),
        (lambda x: wavedec2(x, "haar", level=-1), "level is -1"),
        (lambda x: wavedec2(x, "haar", axes=(1, 1)), r"axes \(1, 1\) are not two axes"),
        (lambda x: wavedec2(x, "haar", axes=(0, 2)), r"axes \(0, 2\) are not two axes"),
        (lambda x: wavedec2(x[:0], "haar"), "has no samples along axes"),
        (lambda x: wavedec2(x.to(torch.complex64), "haar"), "real images"),
        (lambda x: waverec2([], "haar"), "begins with a tensor"),
        (lambda x: waverec2([x, x], "haar"), r"coeffs\[1\] must be three details"),
        (lambda x: waverec2([x, (x[:2], x, x)], "haar"), "all must be of one shape"),
        (lambda x: integer_wavedec2(x), "takes integers"),
        (lambda x: integer_wavedec2(x.int(), -1), "level is -1"),
        (lambda x: integer_waverec2([x.int(), (x.int(), x.int(), x.int()[:2])]), r"coeffs\[1\] is not the details"),
        (lambda x: integer_waverec2([]), "begins with a tensor"),
    ],
)
def test_what_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(image(8, 8))


# -- integers --------------------------------------------------------------------------------------


def lifted(x: list[int]) -> tuple[list[int], list[int]]:
    """s and d of one row, by the formula of ISO/IEC 15444-1, F.3.8.2.1, sample by sample."""
    last = len(x) - 1
    if last == 0:
        return x, []

    def mirrored(values: dict[int, int], i: int) -> int:
        return values[-i if i < 0 else 2 * last - i if i > last else i]

    values = dict(enumerate(x))
    for i in range(1, last + 1, 2):
        values[i] = x[i] - (x[i - 1] + x[2 * last - i - 1 if i + 1 > last else i + 1]) // 2
    for i in range(0, last + 1, 2):
        values[i] = x[i] + (mirrored(values, i - 1) + mirrored(values, i + 1) + 2) // 4
    return [values[i] for i in range(0, last + 1, 2)], [values[i] for i in range(1, last + 1, 2)]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 13])
def test_rows_follow_the_standard(length: int) -> None:
    rows = torch.randint(0, 65536, (3, length), generator=torch.Generator().manual_seed(length))
    low, (horizontal, vertical, diagonal) = integer_wavedec2(rows[:, None].int().expand(3, 1, length), 1)
    assert isinstance(low, Tensor)
    for row, s, d in zip(rows.tolist(), low[:, 0].tolist(), vertical[:, 0].tolist(), strict=True):
        assert lifted(row) == (s, d)
    assert horizontal.numel() == diagonal.numel() == 0


@pytest.mark.parametrize("level", [0, 1, 3, 6])
def test_16_bit_images_of_every_size_come_back_exactly(level: int) -> None:
    rng = torch.Generator().manual_seed(0)
    for side in range(1, 40):
        pixels = torch.randint(0, 65536, (2, side, 41 - side), generator=rng).to(torch.uint16)
        back = integer_waverec2(integer_wavedec2(pixels, level))
        assert torch.equal(back, pixels.to(torch.int32))
    extremes = torch.tensor([0, 65535], dtype=torch.int32).repeat(8, 8)
    assert torch.equal(integer_waverec2(integer_wavedec2(extremes, level)), extremes)


def test_without_floors_it_is_bior2_2() -> None:
    """Away from the borders, within the rounding of two steps each way; their low band is ours times two."""
    pixels = torch.randint(0, 65536, (64, 64), generator=torch.Generator().manual_seed(0))
    low, details = integer_wavedec2(pixels.int(), 1)
    exact = pywt.wavedec2(pixels.numpy().astype(float), "bior2.2", "periodization", 1)
    assert isinstance(low, Tensor)
    inner = slice(4, -4)
    assert np.abs(low.numpy() * 2 - exact[0])[inner, inner].max() <= 4
    for ours, theirs in zip(details, exact[1], strict=True):
        gain = np.abs(theirs).std() / np.abs(ours.numpy()).std()
        assert min(abs(gain - g) for g in (0.5, 1.0, 2.0)) < 0.05
        sign = np.sign((ours.numpy() * theirs).sum())
        assert np.abs(ours.numpy() * sign * round(gain * 2) / 2 - theirs)[inner, inner].max() <= 4
