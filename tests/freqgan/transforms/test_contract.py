"""The contract of transforms: names, sizes, padding, what is left out, precision, layouts and refusals."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.transforms import BandTransform, Quad, parse_transform
from tests.support.transforms import SPECS, assert_same, coarsest_and_high, derivatives, image


@pytest.fixture(params=SPECS)
def transform(request: pytest.FixtureRequest) -> BandTransform:
    return parse_transform(request.param, 2)


def test_the_spec_names_family_and_wavelet() -> None:
    transform = parse_transform("dwt:DB2", 3)
    assert (transform.spec, transform.levels) == ("dwt:db2", 3)
    assert repr(transform) == "WaveletTransform('dwt:db2', levels=3)"


@pytest.mark.parametrize(("size", "padded"), [((32, 32), (32, 32)), ((33, 47), (40, 48)), ((8, 9), (8, 16))])
def test_sizes(size: tuple[int, int], padded: tuple[int, int]) -> None:
    transform = parse_transform("dwt:db2", 3)
    assert transform.padded_size(size) == padded
    assert transform.band_size(size, 1) == (padded[0] // 2, padded[1] // 2)
    assert transform.band_size(size, 3) == (padded[0] // 8, padded[1] // 8)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(16, 16), (33, 47), (5, 130)])
def test_every_band_has_the_size_of_its_level(transform: BandTransform, size: tuple[int, int], channels: int) -> None:
    sub_images = transform.analyse(image(2, channels, *size))
    assert set(sub_images) == set(transform.bands())
    assert len(sub_images) == (6 if transform.spec.startswith("radial") else 8)
    for band, value in sub_images.items():
        assert value.shape == (2, channels, *transform.band_size(size, band))


def test_odd_sizes_are_reflected_without_repeating_the_border(transform: BandTransform) -> None:
    pixels = image(2, 3, 33, 46)
    padded = torch.nn.functional.pad(pixels, (0, 2, 0, 3), mode="reflect")
    assert_same(transform.analyse(pixels), transform.analyse(padded))


def test_the_smallest_image_of_a_transform(transform: BandTransform) -> None:
    pixels = image(1, 1, 4, 5, dtype=torch.float64)
    back = transform.synthesise(coarsest_and_high(transform.analyse(pixels)), (4, 5))
    torch.testing.assert_close(back, pixels, rtol=0, atol=1e-10)


def test_a_given_low_band_wins_over_the_coarser_level(transform: BandTransform) -> None:
    sub_images = transform.analyse(image(1, 3, 16, 16))
    last = transform.bands()[3 if len(sub_images) == 8 else 2]
    changed = sub_images | {Band(1, "LL"): sub_images[Band(1, "LL")] + 1, last: torch.ones_like(sub_images[last])}
    finest = [changed[Band(1, orientation)] for orientation in transform.orientations(1)]
    assert torch.equal(transform.synthesise(changed, (16, 16)), transform.synthesise_level(finest))


def test_missing_high_bands_count_as_zeros(transform: BandTransform) -> None:
    sub_images = transform.analyse(image(1, 3, 16, 16))
    first, last = transform.orientations(1)[1], transform.orientations(1)[-1]
    kept = {band: sub_images[band] for band in (Band(2, "LL"), Band(2, first), Band(1, last))}
    missing = [band for band in coarsest_and_high(sub_images) if band not in kept]
    zeros = {band: torch.zeros_like(sub_images[band]) for band in missing}
    assert torch.equal(transform.synthesise(kept, (16, 16)), transform.synthesise(kept | zeros, (16, 16)))


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.uint8, torch.uint16, torch.int16, torch.bool])
def test_other_numbers_are_lifted_to_float32(transform: BandTransform, given: torch.dtype) -> None:
    pixels = (image(1, 3, 9, 14) * 100).abs().to(given)
    assert_same(transform.analyse(pixels), transform.analyse(pixels.float()))


def test_half_sub_images_are_lifted(transform: BandTransform) -> None:
    sub_images = transform.analyse(image(1, 3, 16, 16))
    halves = {band: value.bfloat16() for band, value in sub_images.items()}
    lifted = {band: value.float() for band, value in halves.items()}
    assert torch.equal(transform.synthesise(halves, (16, 16)), transform.synthesise(lifted, (16, 16)))
    last = Band(1, transform.orientations(1)[-1])
    mixed = sub_images | {last: sub_images[last].double()}
    assert transform.synthesise(mixed, (16, 16)).dtype == torch.float64


def test_autocast_changes_nothing(transform: BandTransform) -> None:
    pixels = image(2, 3, 18, 32)
    plain = derivatives(transform, pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = derivatives(transform, pixels)
        # The transform must hold its ground in a region that does change other products.
        assert (pixels @ pixels.mT).dtype == torch.bfloat16
    for ours, expected in zip(cast, plain, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


@pytest.fixture
def reduced_products() -> Iterator[None]:
    """The setting that lets float32 products run in bfloat16 on processors that can."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("reduced_products")
@pytest.mark.parametrize("spec", ["dwt:db4", "dwt:bior4.4"])
def test_reduced_precision_of_products_is_avoided(spec: str) -> None:
    """Then everything is computed in float64 and rounded once, which shows on every processor."""
    transform, pixels = parse_transform(spec, 1), image(1, 3, 32, 96)
    quad = transform.analyse_level(pixels)
    exact = transform.analyse_level(pixels.double())
    assert all(torch.equal(ours, expected.float()) for ours, expected in zip(quad, exact, strict=True))
    back = transform.synthesise_level(quad)
    assert torch.equal(back, transform.synthesise_level(Quad(*(band.double() for band in quad))).float())


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (1, 3, 16, 16), (0, 1, 9, 200), (2, 0, 16, 16)])
def test_empty_and_single_batches(transform: BandTransform, shape: tuple[int, int, int, int]) -> None:
    pixels = image(*shape).requires_grad_()
    sub_images = coarsest_and_high(transform.analyse(pixels))
    back = transform.synthesise(sub_images, shape[2:])
    assert back.shape == shape
    torch.testing.assert_close(back, pixels, rtol=0, atol=2e-6)
    (gradient,) = torch.autograd.grad(back.sum(), pixels)
    assert gradient.shape == shape


def test_layout_in_memory_does_not_matter(transform: BandTransform) -> None:
    pixels = image(2, 3, 12, 72)
    expected = transform.analyse(pixels)
    wide = image(2, 6, 24, 73)
    wide[:, ::2, ::2, 1:] = pixels
    layouts = (
        pixels.to(memory_format=torch.channels_last),
        wide[:, ::2, ::2, 1:],
        pixels.mT.contiguous().mT,
        pixels.flip(-1).flip(-1),
    )
    for layout in layouts:
        assert_same(transform.analyse(layout), expected)
    strided = {band: value.mT.contiguous().mT for band, value in expected.items()}
    assert torch.equal(transform.synthesise(strided, (12, 72)), transform.synthesise(expected, (12, 72)))
    stretched = image(1, 1, 12, 1).expand(2, 3, 12, 72)
    assert_same(transform.analyse(stretched), transform.analyse(stretched.contiguous()))


@pytest.mark.parametrize("side", [16, 128])
def test_inputs_are_left_alone_and_outputs_may_be_changed(transform: BandTransform, side: int) -> None:
    pixels = image(1, 2, side, side).requires_grad_()
    before = pixels.detach().clone()
    quad = transform.analyse_level(pixels)
    copies = [band.detach().clone() for band in quad]
    torch.autograd.grad(transform.synthesise_level(quad).mul_(2).sum(), pixels, retain_graph=True)
    assert torch.equal(pixels.detach(), before)
    assert all(torch.equal(band, copy) for band, copy in zip(quad, copies, strict=True))
    quad[0].mul_(2)
    assert all(torch.equal(band, copy) for band, copy in zip(quad[1:], copies[1:], strict=True))


@pytest.mark.parametrize("spec", ["dwt:sym7", "dct", "fft:meyer", "radial:1,4"])
def test_matrices_first_used_in_inference_serve_training_later(spec: str) -> None:
    transform, pixels = parse_transform(spec, 1), image(1, 1, 72, 88)
    with torch.inference_mode():
        inferred = transform.analyse_level(pixels)
    trained = transform.analyse_level(pixels.requires_grad_())
    (gradient,) = torch.autograd.grad(trained[3].square().sum(), pixels)
    assert gradient.abs().max() > 0
    assert torch.equal(inferred[3], trained[3])


def test_a_transform_travels_to_another_process(transform: BandTransform) -> None:
    """By what it holds: a few numbers, no tensors; deepcopy rebuilds it by the same protocol as pickle."""
    pixels = image(1, 1, 16, 16)
    sub_images = transform.analyse(pixels)
    assert len(pickle.dumps(transform)) < 2000
    assert_same(copy.deepcopy(transform).analyse(pixels), sub_images)


@pytest.mark.parametrize("name", ["db1", "bior1.1", "rbio1.1"])
def test_other_names_of_haar_are_exact_too(name: str) -> None:
    pixels = image(1, 1, 8, 8)
    assert_same(parse_transform(f"dwt:{name}", 2).analyse(pixels), parse_transform("dwt:haar", 2).analyse(pixels))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu_whatever_tf32_says(transform: BandTransform) -> None:
    pixels = image(2, 3, 33, 130)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        ours = derivatives(transform, pixels.cuda())
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    for value, expected in zip(ours, derivatives(transform, pixels), strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("spec", "levels", "message"),
    [
        ("dvt:haar", 2, r"unknown family 'dvt' \(did you mean dwt, dct\?\)"),
        ("haar", 2, "unknown family 'haar'; known: dwt, dct, fft, radial; write for example dwt:haar"),
        ("dwt", 2, "no wavelet named; write for example dwt:haar"),
        ("dwt:bior4.5", 2, r"unknown wavelet 'bior4.5' \(did you mean .*bior4.4"),
        ("dwt:xyz", 2, "unknown wavelet 'xyz'; families: haar, db, sym"),
        ("dwt:morl", 2, "morl is a continuous wavelet, which has no inverse"),
        ("dwt:cmor1.5-1.0", 2, "cmor1.5-1.0 is a continuous wavelet"),
        ("dct:haar", 2, "there is one cosine transform; write dct"),
        ("fft", 2, "no taper named; write fft:shannon or fft:meyer"),
        ("fft:meier", 2, r"unknown taper 'meier' \(did you mean meyer\?\)"),
        ("radial", 2, "write the number of resolutions and that of frequency classes, for example radial:2,3"),
        ("radial:2", 2, "write the number of resolutions"),
        ("radial:2,x", 2, "write the number of resolutions"),
        ("radial:2,1", 2, r"1 frequency classes; give from 2 \(low, high\) to 9"),
        ("radial:2,10", 2, "10 frequency classes; give from 2"),
        ("radial:3,2", 2, "has 3 resolutions, but levels is 2: make them equal"),
        ("dwt:haar", -1, "levels is -1, but must be a whole number, 0 or more"),
        ("dwt:db2", -1, "levels is -1"),
        ("dwt:db2", True, "levels is True"),
        ("dwt:db2", 2.0, "levels is 2.0"),
    ],
)
def test_unusable_names_are_refused(spec: str, levels: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_transform(spec, levels)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 3, 7, 40),
            "7 x 40 pixels is too small for 3 levels, which need sides of at least 8; at most 2 levels fit",
        ),
        ((1, 3, 40, 2), "40 x 2 pixels .* at most 1 level fit"),
        ((1, 3, 1, 9), "1 x 9 pixels .* no level fits"),
        ((1, 3, 0, 9), "0 x 9 pixels .* no level fits"),
        ((3, 16, 16), r"shape \(3, 16, 16\) is not \(images, channels, H, W\)"),
    ],
)
def test_unusable_images_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_transform("dwt:db2", 3).analyse(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (1, 1, 4, 7), (1, 1, 0, 4), (4, 4)])
def test_one_level_needs_even_sides(transform: BandTransform, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="even and at least 2"):
        transform.analyse_level(torch.zeros(shape))


def test_complex_images_are_refused(transform: BandTransform) -> None:
    with pytest.raises(InputError, match=r"real images, not torch\.complex64"):
        transform.analyse(torch.zeros(1, 1, 8, 8, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({Band(2, "LL"): None, Band(1, "LL"): None}, "no low band given; give LL2, the coarsest"),
        ({Band(1, "HL"): torch.zeros(1, 3, 4, 8)}, r"HL1 has shape \(1, 3, 4, 8\), expected \(1, 3, 8, 8\)"),
        ({Band(2, "HH"): torch.zeros(2, 3, 4, 4)}, r"HH2 has shape \(2, 3, 4, 4\), expected \(1, 3, 4, 4\)"),
        ({Band(3, "HH"): torch.zeros(1, 3, 2, 2)}, "level 3 is not among its levels 1 to 2"),
    ],
)
def test_unusable_sub_images_are_refused(changes: dict[Band, Tensor | None], message: str) -> None:
    transform = parse_transform("dwt:haar", 2)
    given = {**transform.analyse(image(1, 3, 16, 16)), **changes}
    with pytest.raises(InputError, match=message):
        transform.synthesise({band: value for band, value in given.items() if value is not None}, (16, 16))


@pytest.mark.filterwarnings("ignore")
def test_it_can_be_compiled(transform: BandTransform) -> None:
    """Traced by torch.compile as one graph, and so are its gradients; then run as it is, with no compiler of C."""
    torch.compiler.reset()  # else each transform tested before counts as one more recompilation, of which eight may be
    pixels = image(2, 3, 32, 32)

    def there_and_back(x: Tensor) -> Tensor:
        bands = coarsest_and_high(transform.analyse(x))
        return transform.synthesise({band: value.square() for band, value in bands.items()}, (32, 32))

    compiled = torch.compile(there_and_back, backend="aot_eager", fullgraph=True)
    outcomes = []
    for function in (there_and_back, compiled):
        given = pixels.clone().requires_grad_()
        out = function(given)
        (gradient,) = torch.autograd.grad(out.square().sum(), given)
        outcomes.append((out.detach(), gradient))
    for ours, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, expected)
    whole = torch.compile(transform.analyse, backend="aot_eager", fullgraph=True)
    for band, expected in transform.analyse(pixels).items():
        torch.testing.assert_close(whole(pixels)[band], expected)


@pytest.mark.parametrize("spec", ["dwt:haar", "dwt:bior4.4", "dct", "fft:shannon"])
def test_without_levels_the_image_is_the_one_band(spec: str) -> None:
    none, pixels = parse_transform(spec, 0), image(2, 3, 33, 47)
    bands = none.analyse(pixels)
    assert list(bands) == none.bands() == [Band(0, "LL")]
    assert torch.equal(bands[Band(0, "LL")], pixels)
    assert torch.equal(none.synthesise(bands, (33, 47)), pixels)
    with pytest.raises(InputError, match="level 1 is not among"):
        none.band_size((33, 47), 1)
