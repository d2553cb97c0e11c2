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
from tests.support.oracles import COARSE_TABLES, TRUNCATED_TABLES, image

# With what types do not allow.
any_wavedec2: Any = wavedec2
any_waverec2: Any = waverec2
any_integer_wavedec2: Any = integer_wavedec2
any_integer_waverec2: Any = integer_waverec2


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


@pytest.mark.parametrize("size", [(5, 5), (5, 4), (4, 5)])
def test_an_approximation_one_larger_than_the_details_is_trimmed_as_pywavelets_does(size: tuple[int, int]) -> None:
    low, detail = image(2, *size), image(2, 4, 4)
    expected = pywt.waverec2([low.numpy(), (detail.numpy(), None, detail.numpy())], "db2", "periodization")
    np.testing.assert_allclose(waverec2([low, (detail, None, detail)], "db2").numpy(), expected, rtol=0, atol=1e-12)


def test_filters_of_odd_length_are_filled_up_as_pywavelets_does() -> None:
    filters = pywt.Wavelet("odd", filter_bank=([1.0, 2, 3], [1.0, 0, 2], [1.0, 0, 5], [1.0, 4, 0]))
    pixels = image(8, 10)
    ours = wavedec2(pixels, filters, level=1)
    assert differences(ours, pywt.wavedec2(pixels.numpy(), filters, "periodization", 1)) <= 1e-12


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
        (lambda x: any_waverec2([x, (x[:5, :5],) * 3], "haar"), r"details of \[\(5, 5\), .* approximation of \(8, 8\)"),
        (lambda x: any_waverec2([x[:6], (x[:4],) * 3], "haar"), "but for one row or column more of the approximation"),
        (lambda x: any_waverec2([x[:4], (x[:5],) * 3], "haar"), "all must be of one shape"),
        (
            lambda x: any_waverec2([x.expand(2, 3, 8, 8), (x.expand(3, 2, 8, 8),) * 3], "haar"),
            r"\(3, 2, 8, 8\), .*\(2, 3, 8, 8",
        ),
        (
            lambda x: any_waverec2([x.expand(6, 8, 8), (x.expand(2, 3, 8, 8),) * 3], "haar"),
            r"approximation of \(6, 8, 8\)",
        ),
        (lambda x: any_waverec2([x, (x, x[None], x)], "haar"), "all must be of one shape"),
        (lambda x: any_waverec2([x, (x, x.to("meta"), None)], "haar"), "some on cpu and some on meta"),
        (lambda x: any_waverec2([x, (x, x.to(torch.complex64), x)], "haar"), "real images, not torch.complex64"),
        (lambda x: any_waverec2([x.to_sparse(), (x, x, x)], "haar"), "not sparse_coo ones"),
        (lambda x: any_waverec2([x, (x, x)], "haar"), r"coeffs\[1\] must be three details"),
        (lambda x: any_waverec2([x, (x, x, x), None], "haar"), r"coeffs\[2\] must be three details"),
        (lambda x: any_waverec2([x, {"a": x, "b": x, "c": x}], "haar"), r"coeffs\[1\] must be three details"),
        (lambda x: any_waverec2([x, x.expand(3, 8, 8).numpy()], "haar"), r"coeffs\[1\] must be three details"),
        (lambda x: any_waverec2(x.expand(4, 8, 8), "haar"), r"coeffs is a list \[cA_n"),
        (lambda x: any_waverec2({0: x}, "haar"), r"coeffs is a list \[cA_n"),
        (lambda x: any_waverec2([None, (x, x, x)], "haar"), r"coeffs\[0\] is None"),
        (lambda x: any_wavedec2(x, "haar", level=1.0), "level is 1.0, but must be a whole number"),
        (lambda x: any_wavedec2(x, "haar", level=True), "level is True"),
        (lambda x: any_wavedec2(x, "haar", level="1"), "level is '1'"),
        (lambda x: any_wavedec2(x, "haar", axes=(0,)), r"axes \(0,\) are not two axes"),
        (lambda x: any_wavedec2(x[None], "haar", axes=(0, 1, 2)), "are not two axes"),
        (lambda x: any_wavedec2(x, "haar", axes=1), "axes 1 are not two axes"),
        (lambda x: any_wavedec2(x, "haar", axes=(0.0, 1)), "are not two axes"),
        (lambda x: any_wavedec2(x[0], "haar"), r"not two axes of an array of shape \(8,\)"),
        (lambda x: any_wavedec2(x[0, 0], "haar"), r"not two axes of an array of shape \(\)"),
        (lambda x: any_wavedec2(x, None), "wavelet is None, but must be the name"),
        (lambda x: any_wavedec2(x, ("haar", "db2")), "must be the name of a discrete wavelet"),
        (lambda x: any_wavedec2(x, pywt.ContinuousWavelet("morl")), "must be the name of a discrete wavelet"),
        (lambda x: integer_wavedec2(x), "takes integers"),
        (lambda x: integer_wavedec2(x.int(), -1), "level is -1"),
        (lambda x: any_integer_wavedec2(x.int(), 1.5), "level is 1.5"),
        (lambda x: any_integer_wavedec2(x.int()[:0]), "no samples along H or W"),
        (lambda x: any_integer_wavedec2(x.int().to_sparse()), "not sparse_coo ones"),
        (lambda x: any_integer_waverec2([x.int(), (x.int(), x.int(), x.int()[:2])]), r"coeffs\[1\] is not the details"),
        (
            lambda x: any_integer_waverec2([x.int()[None], (x.int().expand(3, 8, 8),) * 3]),
            r"coeffs\[1\] is not the details",
        ),
        (lambda x: any_integer_waverec2([x.int(), (x.int().to("meta"),) * 3]), r"coeffs\[1\] is not the details"),
        (lambda x: any_integer_waverec2([x.int(), (x, x, x)]), r"coeffs\[1\] is not the details"),
        (lambda x: any_integer_waverec2([x.int(), (x.int(), None, x.int())]), "not NoneType"),
        (lambda x: any_integer_waverec2([x.int(), 5]), r"coeffs\[1\] must be three details"),
        (lambda x: any_integer_waverec2([x]), r"coeffs\[0\] is torch.float64 of shape \(8, 8\), but must be int32"),
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
