"""What transforms take: tensors, arrays and lists of every kind of number, and what they refuse, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from PIL import Image
from torch import Tensor

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.pixels import from_pixels, to_eight_bits, to_pixels
from freqgan.transforms import BandTransform, integer_wavedec2, integer_waverec2, parse_transform, wavedec2, waverec2
from tests.support.transform_inputs import flat, named
from tests.support.transforms import SPECS, assert_same, coarsest_and_high, image

PAST_FLOAT32 = 2**24 + 1
"""The first whole number that float32 rounds."""

EXACT = (torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32)
WIDE = (torch.int32, torch.uint32, torch.int64, torch.uint64)


@pytest.fixture(params=[*SPECS, "packets"])
def transform(request: pytest.FixtureRequest) -> BandTransform:
    return named(request.param)


def ones(*shape: int, **options: Any) -> Tensor:
    return torch.ones(shape, **options)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", WIDE)
def test_integers_past_float32_keep_their_digits(transform: BandTransform, dtype: torch.dtype) -> None:
    """PyWavelets computes integers in float64, too. Noise and a constant, whose low band is the number times two."""
    pixels = (image(1, 1, 12, 8, dtype=torch.float64).abs() * 2**31).to(dtype)
    bands = transform.analyse(pixels)
    assert_same(bands, transform.analyse(pixels.double()))
    back = transform.synthesise(coarsest_and_high(bands, transform.levels), (12, 8))
    assert torch.equal(back.round().to(torch.int64), pixels.to(torch.int64))
    constant = transform.analyse_level(torch.full((1, 1, 4, 4), PAST_FLOAT32, dtype=dtype))[0]
    assert (constant / 2).sub(PAST_FLOAT32).abs().max() < 1e-5
    whole = {band: x.abs().to(dtype) for band, x in bands.items()}
    assert transform.synthesise(whole, (12, 8)).dtype == torch.float64
    finest = [whole[Band(1, orientation)] for orientation in transform.orientations(1)]
    assert transform.synthesise_level(finest).dtype == torch.float64


@pytest.mark.parametrize("dtype", WIDE)
def test_wavedec2_keeps_the_digits_of_integers(dtype: torch.dtype) -> None:
    low, details = wavedec2(torch.full((2, 2), PAST_FLOAT32, dtype=dtype), "haar", level=1)
    assert isinstance(low, Tensor)
    assert float(low / 2) == PAST_FLOAT32
    assert float(waverec2([torch.full((1, 1), 2 * PAST_FLOAT32, dtype=dtype), details], "haar")[0, 0]) == PAST_FLOAT32


@pytest.mark.parametrize("dtype", EXACT)
def test_numbers_that_float32_holds_are_computed_in_it(dtype: torch.dtype) -> None:
    pixels = (image(6, 8) * 100).abs().to(dtype)
    for ours, expected in zip(
        flat(wavedec2(pixels, "db2", level=1)), flat(wavedec2(pixels.float(), "db2", level=1)), strict=True
    ):
        assert torch.equal(ours, expected)
        assert ours.dtype == torch.float32


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, 2**62 + 1])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_whole_numbers_that_float64_rounds_are_refused(number: int, dtype: torch.dtype) -> None:
    pixels = torch.full((1, 1, 8, 8), number, dtype=dtype)
    calls: list[Callable[[Tensor], Any]] = [
        lambda x: wavedec2(x, "haar", level=1),
        lambda x: waverec2([x, (None, None, None)], "haar"),
        *(parse_transform(spec, 1).analyse for spec in SPECS[:-1]),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"has numbers from 2\^53 on, .* give them as .double\(\)"):
            call(pixels)
        call(pixels.double())
    exact = torch.full((1, 1, 2, 2), 2**53 - 1, dtype=dtype)
    assert float(parse_transform("dwt:haar", 1).analyse(exact)[Band(1, "LL")] / 2) == 2**53 - 1


def test_all_sub_images_are_computed_in_the_precision_that_holds_each(transform: BandTransform) -> None:
    """Also where the coarse ones are float32, and where torch knows no common type: uint16 beside int32."""
    bands = coarsest_and_high(transform.analyse(image(1, 2, 16, 16)), transform.levels)
    finest = list(bands)[-1]
    exact = {band: x.double() for band, x in bands.items()}
    assert torch.equal(
        transform.synthesise(bands | {finest: exact[finest]}, (16, 16)), transform.synthesise(exact, (16, 16))
    )
    whole = {band: (x * 100).abs() for band, x in bands.items()}
    mixed = {band: x.to(torch.int32 if band == finest else torch.uint16) for band, x in whole.items()}
    expected = transform.synthesise({band: x.double() for band, x in mixed.items()}, (16, 16))
    assert torch.equal(transform.synthesise(mixed, (16, 16)), expected)


def test_all_coefficients_are_computed_in_the_precision_that_holds_each() -> None:
    low, coarse, fine = wavedec2(image(16, 16), "db2", level=2)
    exact = tuple(x.double() for x in fine)
    expected = waverec2([low.double(), tuple(x.double() for x in coarse), exact], "db2")  # type: ignore[union-attr]
    assert torch.equal(waverec2([low, coarse, exact], "db2"), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(1, 1, 8, 8, dtype=torch.complex128), "real images, not torch.complex128"),
        (ones(1, 1, 8, 8).to_sparse(), r"dense tensors, not sparse_coo ones: write .to_dense\(\)"),
        (ones(1, 1, 8, 8).to_mkldnn(), "dense tensors, not _mkldnn ones"),
        (torch.nested.nested_tensor([ones(8, 8), ones(4, 8)], layout=torch.jagged), "not nested ones: stack images"),
        (ones(1, 1, 8, 8).to(torch.uint8).view(torch.bits8), "real numbers of up to 64 bits, not torch.bits8"),
        (np.zeros((1, 1, 8, 8), complex), "real images, not complex128"),
        (np.zeros((1, 1, 8, 8), np.longdouble), "real numbers of up to 64 bits, not float128"),
        (np.full((1, 1, 8, 8), 2**70, object), "not object: convert them to float64"),
        (np.full((1, 1, 8, 8), "1"), "not <U1"),
        (np.zeros((1, 1, 8, 8), "datetime64[s]"), "not datetime64"),
        (np.zeros((1, 1, 8, 8), [("r", "u1")]), "real numbers"),
        (np.ma.masked_less(np.zeros((1, 1, 8, 8)), 1), r"fill it with .filled\(value\)"),
        ([[1.0, 2.0], [3.0]], "a list of 2 is not an array of numbers: .* rows of one length"),
        ([[1.0, "a"]], "not <U"),
        ([[2**70, 1]], "not object"),
        ([[None, 1.0]], "not object"),
        ([[1j, 1]], "real images, not complex128"),
        ([ones(8, requires_grad=True)] * 8, "torch.stack"),
        (
            Image.new("RGB", (8, 8)),
            r"not PIL.Image.Image; numpy.asarray makes an array .* the axes y, x and",
        ),
        (None, r"not NoneType|coeffs\[0\] is None"),
        (3.0, "not float"),
        ("image.png", "not str"),
        ({"a": 1}, "not dict"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_by_name(given: Any, message: str) -> None:
    transform = parse_transform("dwt:db2", 1)
    low = ones(1, 1, 8, 8)
    for call in (
        lambda: wavedec2(given, "haar", level=1),
        lambda: waverec2([given, (low, low, low)], "haar"),
        lambda: transform.analyse(given),
        lambda: transform.analyse_level(given),
        lambda: transform.synthesise({Band(1, "LL"): given}, (16, 16)),
        lambda: transform.synthesise_level([given, low, low, low]),
        lambda: parse_transform("radial:1,3", 1).projected(Band(1, "RA"), given),
        lambda: parse_transform("radial:1,3", 1).low_beside(Band(1, "RA"), given),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_one_list_of_details_is_refused_where_one_detail_is() -> None:
    with pytest.raises(InputError, match="not str"):
        waverec2([ones(8, 8), (ones(8, 8), "no", ones(8, 8))], "haar")


# -- arrays ----------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x,
    "negative strides": lambda x: x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "rows of Fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(np.repeat(x, 2, -1), 2, -2)[..., ::2, ::2],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "little-endian": lambda x: x.astype(x.dtype.newbyteorder("<")),
    "a field of records": lambda x: _field(x),
    "a matrix of its own class": lambda x: x.view(type("Own", (np.ndarray,), {})),
    "lists": lambda x: x.tolist(),
    "tuples of arrays": lambda x: tuple(x),
}


def _field(x: Any) -> Any:
    records = np.zeros(x.shape, [("flag", "u1"), ("value", x.dtype)])  # whose values lie across the alignment
    records["value"] = x
    return records["value"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint16, np.int64])
def test_arrays_and_lists_are_taken_as_tensors_are(layout: str, dtype: Any) -> None:
    pixels = (image(1, 2, 8, 12, dtype=torch.float64) * 1000).abs().numpy().astype(dtype)
    given = LAYOUTS[layout](pixels)
    is_list = layout == "lists"  # whose numbers have no type: they are float64 or int64
    tensor = torch.from_numpy(pixels).double() if is_list else torch.from_numpy(pixels)
    kept = np.array(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, expected = wavedec2(given, "db2", level=1), wavedec2(tensor, "db2", level=1)
        transform = parse_transform("dct", 1)
        assert_same(transform.analyse(given), transform.analyse(tensor))
    for a, b in zip(flat(ours), flat(expected), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.array(given), kept)


@pytest.mark.parametrize("change", ["frozen", "broadcast"])
def test_arrays_that_may_not_be_written_are_taken_without_a_warning(change: str) -> None:
    pixels = image(8, 8, dtype=torch.float64).numpy()
    if change == "frozen":
        pixels.flags.writeable = False
    else:
        pixels = np.broadcast_to(pixels[0], (8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (low,) = wavedec2(pixels, "haar", level=0)
    assert isinstance(low, Tensor)
    low.zero_()
    assert np.abs(pixels).max() > 0


def test_coefficients_of_pywavelets_go_straight_in() -> None:
    pixels = image(3, 13, 18, dtype=torch.float64).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pywt.wavedec2(pixels, "bior4.4", "periodization", 2)
        expected = pywt.waverec2(theirs, "bior4.4", "periodization")
    ours = waverec2(theirs, "bior4.4")
    assert isinstance(ours, Tensor)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-12)


def test_every_method_takes_arrays(transform: BandTransform) -> None:
    pixels = image(2, 3, 16, 16)
    bands = transform.analyse(pixels)
    arrays = {band: x.numpy() for band, x in bands.items()}
    assert_same(transform.analyse(pixels.numpy()), bands)
    assert torch.equal(transform.synthesise(arrays, (16, 16)), transform.synthesise(bands, (16, 16)))
    level = transform.analyse_level(pixels)
    for ours, expected in zip(transform.analyse_level(pixels.numpy()), level, strict=True):
        assert torch.equal(ours, expected)
    assert torch.equal(transform.synthesise_level([x.numpy() for x in level]), transform.synthesise_level(level))
    low, last = level[0], transform.bands()[-1]
    onto = transform.synthesise_onto(low.numpy(), {}, 1)
    assert torch.equal(onto, transform.synthesise_onto(low, {}, 1))
    assert torch.equal(transform.low_beside(last, low.numpy()), transform.low_beside(last, low))
    assert torch.equal(transform.projected(last, bands[last].numpy()), transform.projected(last, bands[last]))


def test_integers_of_arrays_and_lists() -> None:
    scan = np.arange(60, dtype=">u2").reshape(6, 10)[:, ::-1]
    expected = integer_wavedec2(torch.from_numpy(scan.astype(np.int32)), 2)
    for given in (scan, scan.tolist()):
        for a, b in zip(flat(integer_wavedec2(given, 2)), flat(expected), strict=True):
            assert torch.equal(a, b)
    arrays = [x.numpy() if isinstance(x, Tensor) else tuple(part.numpy() for part in x) for x in expected]
    lists = [x.tolist() if isinstance(x, Tensor) else [part.tolist() for part in x] for x in expected]
    for coefficients in (arrays, lists):
        assert np.array_equal(integer_waverec2(coefficients).numpy(), scan)
    with pytest.raises(InputError, match="takes integers of up to 32 bits"):
        integer_wavedec2([[2**31, 0], [0, 0]])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_bands(number: float, transform: BandTransform) -> None:
    pixels = image(1, 1, 16, 16)
    pixels[0, 0, 5, 5] = number
    low = transform.analyse(pixels)[Band(1, "LL")]
    assert not bool(low[0, 0, 2, 2].isfinite())


# -- what does not go together ---------------------------------------------------------------------


def test_shapes_are_told_without_numbers(transform: BandTransform) -> None:
    """On "meta" as anywhere else."""
    pixels = image(2, 3, 18, 16)
    bands = transform.analyse(pixels.to("meta"))
    assert {band: x.shape for band, x in bands.items()} == {b: x.shape for b, x in transform.analyse(pixels).items()}
    back = transform.synthesise(bands, (18, 16))
    assert (back.device.type, back.shape) == ("meta", pixels.shape)


@pytest.mark.parametrize("spec", SPECS)
def test_bands_of_a_level_that_do_not_go_together_are_refused(spec: str) -> None:
    transform = parse_transform(spec, 2)
    first, *rest = transform.analyse_level(image(2, 3, 16, 16))
    names = ", ".join(transform.orientations(1))
    last = rest[-1]
    cases: list[tuple[list[Any], str]] = [
        ([first, *rest[:-1]], f"a level has {len(rest) + 1} bands, {names}, not {len(rest)}"),
        ([first, *rest, last], f"a level has {len(rest) + 1} bands"),
        ([first[:, :, :4], *rest], "has shape"),
        ([first, *rest[:-1], last[..., :6]], f"{transform.orientations(1)[-1]}1 has shape"),
        ([first.transpose(0, 1), *rest], r"has shape \(2, 3, .* expected \(3, 2,"),
        ([first[:1], *rest], r"expected \(1, 3,"),
        ([first[0], *(x[0] for x in rest)], "LL1 has shape"),
        ([first, *rest[:-1], last.to("meta")], "some on cpu and some on meta"),
        ([first, *rest[:-1], None], "not NoneType"),
    ]
    for bands, message in cases:
        with pytest.raises(InputError, match=message):
            transform.synthesise_level(bands)


@pytest.mark.parametrize(
    ("sub_images", "size", "message"),
    [
        ({"LL1": ones(1, 1, 4, 4)}, (8, 8), "sub-images are given by band"),
        ({(1, "LL"): ones(1, 1, 4, 4)}, (8, 8), "sub-images are given by band"),
        ([ones(1, 1, 4, 4)], (8, 8), "sub-images are given by band"),
        ({Band(1, "LL"): None}, (8, 8), "not NoneType"),
        ({Band(1, "LL"): ones(4)}, (8, 8), r"LL1 has shape \(4,\), expected \(1, 1, 4, 4\)"),
        ({Band(1, "LL"): ones(1, 4, 4)}, (8, 8), r"LL1 has shape \(1, 4, 4\), expected \(1, 1, 4, 4\)"),
        ({Band(1, "LL"): ones(1, 1, 4, 4), Band(1, "HL"): ones(1, 1, 4, 4, device="meta")}, (8, 8), "some on meta"),
        ({Band(1, "LL"): ones(1, 1, 4, 4)}, 8, r"size is 8, but must be \(H, W\)"),
        ({Band(1, "LL"): ones(1, 1, 4, 4)}, (1, 8, 8), r"size is \(1, 8, 8\), but must be"),
        ({Band(1, "LL"): ones(1, 1, 4, 4)}, (8.0, 8), r"size is \(8.0, 8\), but must be"),
    ],
)
def test_sub_images_that_do_not_go_together_are_refused(sub_images: Any, size: Any, message: str) -> None:
    transform = parse_transform("dwt:haar", 1)
    transform.synthesise({Band(1, "LL"): ones(1, 1, 4, 4)}, (8, 8))  # so that the sizes are known
    with pytest.raises(InputError, match=message):
        transform.synthesise(sub_images, size)


def test_a_size_is_any_two_whole_numbers() -> None:
    bands = {Band(1, "LL"): ones(1, 1, 4, 4)}
    for size in ([8, 7], np.array([8, 7]), torch.Size([8, 7])):
        assert parse_transform("dwt:haar", 1).synthesise(bands, size).shape == (1, 1, 8, 7)  # type: ignore[arg-type]


# -- stored pixels ---------------------------------------------------------------------------------


def test_pixels_of_other_types_are_refused() -> None:
    for call in (from_pixels, to_eight_bits):
        with pytest.raises(InputError, match=r"pixels are uint8, uint16 or float32, not torch\.int32"):
            call(ones(2, 2).int())
    with pytest.raises(InputError, match="bit_depth is 12, but must be 8, 16 or 32"):
        to_pixels(ones(2, 2), 12)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_white_is_white_in_every_precision(dtype: torch.dtype) -> None:
    assert (to_pixels(ones(2, 2).to(dtype), 16).to(torch.int64) == 65535).all()
    assert (to_pixels(ones(2, 2).to(dtype)) == 255).all()
