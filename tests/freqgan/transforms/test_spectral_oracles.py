"""The cosine, Fourier and radial transforms and packets against the formulas, their own inverse and the mathematics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from freqgan.bands import RINGS, Band, SubImages
from freqgan.errors import InputError
from freqgan.transforms import BandTransform, parse_transform
from freqgan.transforms.radial import low_pass_edges
from tests.support.oracles import coarsest_and_high, image, shifts

QUADRANTS = ("dct", "fft:shannon", "fft:meyer")
CRITICAL = (*QUADRANTS, "dwt:haar+packets")
ALL = (*CRITICAL, "radial:2,2", "radial:2,3", "radial:2,6")
SIZES = [(32, 32), (33, 47), (16, 8), (130, 20), (72, 200)]  # through matrices, and through fast transforms
PACKETS = {1: 1, 2: 1}


def made(spec: str, levels: int = 2) -> BandTransform:
    if spec.endswith("+packets"):
        return parse_transform(spec.removesuffix("+packets"), levels, {q: n for q, n in PACKETS.items() if q <= levels})
    return parse_transform(spec.replace("radial:2", f"radial:{levels}"), levels)


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("size", SIZES)
def test_perfect_reconstruction(spec: str, size: tuple[int, int]) -> None:
    transform = made(spec)
    for dtype, allowed in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        pixels = image(2, 3, *size, dtype=dtype)
        back = transform.synthesise(coarsest_and_high(transform.analyse(pixels), 2), size)
        assert (back.dtype, back.shape) == (dtype, pixels.shape)
        assert (back - pixels).abs().max() <= allowed


@pytest.mark.parametrize("spec", ALL)
def test_every_size_from_1_to_130(spec: str) -> None:
    """A side of one pixel has no level; from there on odd and even ones."""
    transform = made(spec, 1)
    with pytest.raises(InputError, match="no level fits"):
        transform.analyse(image(1, 1, 1, 130))
    for side in range(4 if "packets" in spec else 2, 131):
        pixels = image(1, 1, side, 132 - side if side < 129 else side)
        size = (pixels.shape[2], pixels.shape[3])
        back = transform.synthesise(coarsest_and_high(transform.analyse(pixels), 1), size)
        assert (back - pixels).abs().max() <= 1e-13, size


@pytest.mark.parametrize("spec", CRITICAL)
@pytest.mark.parametrize("size", [(32, 48), (16, 200)])
def test_the_energy_is_kept(spec: str, size: tuple[int, int]) -> None:
    pixels = image(1, 2, *size)
    bands = coarsest_and_high(made(spec).analyse(pixels), 2)
    energy = float(sum(value.square().sum() for value in bands.values()))
    assert energy == pytest.approx(float(pixels.square().sum()), rel=1e-10)
    assert sum(value.numel() for value in bands.values()) == pixels.numel()


@pytest.mark.parametrize("side", [6, 32, 130])
def test_dct_is_what_scipy_says(side: int) -> None:
    """Along both axes: the first and the flipped second half of the coefficients, each transformed back."""
    pixels = image(2, 1, side, side)
    spectrum = scipy.fft.dctn(pixels.numpy(), axes=(2, 3), norm="ortho")
    half = side // 2
    low, high = slice(half), slice(side, half - 1, -1)
    places = {"LL": (low, low), "HL": (low, high), "LH": (high, low), "HH": (high, high)}
    parts = {name: spectrum[..., rows, columns] for name, (rows, columns) in places.items()}
    bands = parse_transform("dct", 1).analyse(pixels)
    for orientation, part in parts.items():
        expected = scipy.fft.idctn(part, axes=(2, 3), norm="ortho")
        np.testing.assert_allclose(bands[Band(1, orientation)].numpy(), expected, rtol=0, atol=1e-13)


def response(taper: str, w: float) -> float:
    """H0 at the angular frequency ``w``, as algorithm and literature give it."""
    w = abs((w + math.pi) % (2 * math.pi) - math.pi)
    if taper == "shannon":
        return 1.0 if math.isclose(w, math.pi / 2) else math.sqrt(2) * (w < math.pi / 2)
    t = min(1.0, max(0.0, 3 * w / math.pi - 1))
    return math.sqrt(2) * math.cos(math.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))


@pytest.mark.parametrize("taper", ["shannon", "meyer"])
@pytest.mark.parametrize("side", [2, 6, 8, 12, 64, 66, 130, 256])
def test_fft_is_the_filter_bank_of_its_response(taper: str, side: int) -> None:
    """One axis, with NumPy's complex transform and every coefficient in a loop."""
    pixels = image(1, 1, 2, side)
    pixels[0, 0, 1] = pixels[0, 0, 0]  # constant along y: all of it is in LL and HL, times sqrt 2
    spectrum, half = np.fft.fft(pixels[0, 0, 0].numpy()), side // 2
    w = 2 * np.pi * np.arange(side) / side
    low = np.array([response(taper, x) for x in w])
    high = np.exp(-1j * w) * np.array([response(taper, x + math.pi) for x in w])
    np.testing.assert_allclose(low**2 + np.abs(high) ** 2, 2, atol=1e-12)
    bands = parse_transform(f"fft:{taper}", 1).analyse(pixels)
    for name, gain in (("LL", low), ("HL", high)):
        filtered = spectrum * np.conj(gain)
        expected = np.fft.ifft((filtered[:half] + filtered[half:]) / 2)
        assert np.abs(expected.imag).max() < 1e-13
        ours = bands[Band(1, name)][0, 0, 0].numpy() / math.sqrt(2)
        np.testing.assert_allclose(ours, expected.real, rtol=0, atol=1e-13)
    for name in ("LH", "HH"):
        assert bands[Band(1, name)].abs().max() < 1e-13


@pytest.mark.parametrize("spec", QUADRANTS)
def test_long_axes_are_transformed_like_short_ones(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transform, pixels = parse_transform(spec, 1), image(3, 2, 48, 60)
    short = transform.analyse(pixels)
    back = transform.synthesise(short, (48, 60))
    monkeypatch.setattr("freqgan.transforms.spectral.DENSE_SIDE", 8)
    long = transform.analyse(pixels)
    for band, x in long.items():
        torch.testing.assert_close(x, short[band], rtol=0, atol=1e-13)
    torch.testing.assert_close(transform.synthesise(long, (48, 60)), back, rtol=0, atol=1e-13)


@pytest.mark.parametrize("spec", QUADRANTS)
def test_stripes_give_the_orientations_their_names(spec: str) -> None:
    along_x = image(1, 1, 1, 32).expand(1, 1, 32, 32)
    transform = parse_transform(spec, 2)
    for pixels, names in ((along_x, ("LL", "HL")), (along_x.mT, ("LL", "LH"))):
        for band, x in transform.analyse(pixels).items():
            assert (float(x.square().sum()) > 0.1) == (band.orientation in names), band


@pytest.mark.parametrize("spec", ["fft:shannon", "fft:meyer", "radial:3,3"])
def test_shifts_by_two_to_the_levels_shift_the_bands(spec: str) -> None:
    transform, pixels = parse_transform(spec, 3), image(1, 2, 32, 96)
    still = transform.analyse(pixels)
    for dy, dx in shifts():
        moved = transform.analyse(pixels.roll((dy, dx), (2, 3)))
        for band, x in still.items():
            times = transform.halvings(band)
            torch.testing.assert_close(moved[band], x.roll((dy >> times, dx >> times), (2, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("spec", ALL)
def test_range_of_the_low_band_doubles_with_every_level(spec: str) -> None:
    bands = made(spec).analyse(torch.ones(1, 1, 16, 24, dtype=torch.float64))
    for band, x in bands.items():
        expected = 2.0**band.level if band.orientation == "LL" else 0.0
        torch.testing.assert_close(x, torch.full_like(x, expected), rtol=0, atol=1e-13)


def functions(transform: BandTransform) -> tuple[Callable[..., tuple[Tensor, ...]], Callable[..., Tensor]]:
    return transform.analyse_level, lambda *bands: transform.synthesise_level(bands)


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("size", [(4, 8), (2 * 34, 4)])
def test_derivatives_and_adjoints(spec: str, size: tuple[int, int]) -> None:
    transform = made(spec, 1)
    analyse, synthesise = functions(transform)
    low = image(1, 1, *size, seed=1).requires_grad_()
    bands = [torch.randn_like(x).requires_grad_() for x in transform.analyse_level(low)]
    for function, inputs in ((analyse, [low]), (synthesise, bands)):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    product = sum((x * b.detach()).sum() for x, b in zip(transform.analyse_level(low), bands, strict=True))
    assert isinstance(product, Tensor)
    (adjoint,) = torch.autograd.grad(product, low)
    torch.testing.assert_close(product, (low * adjoint).sum(), rtol=0, atol=1e-11)
    if spec in CRITICAL:  # orthogonal: the transpose is the inverse
        torch.testing.assert_close(adjoint, transform.synthesise_level([b.detach() for b in bands]))


@pytest.mark.parametrize("spec", ALL)
def test_16_bit_pixels_survive_rounding(spec: str) -> None:
    pixels = torch.randint(0, 65536, (1, 3, 33, 128), generator=torch.Generator().manual_seed(0))
    transform = made(spec)
    back = transform.synthesise(coarsest_and_high(transform.analyse(pixels), 2), (33, 128))
    assert torch.equal(back.round().long(), pixels)


# -- rings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 5, 9])
def test_rings_hold_what_their_radii_say_and_nothing_else(classes: int) -> None:
    """Every wave of the plane, through the transform: it comes out of one class alone, with all of its energy."""
    transform, side = parse_transform(f"radial:1,{classes}", 1), 16
    edges = [*low_pass_edges(classes - 1), 9.0]
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    seen = set()
    for fy in range(side // 2 + 1):
        for fx in range(side // 2 + 1):
            wave = torch.cos(2 * math.pi * (fy * y + fx * x) / side).double()[None, None]
            bands = transform.analyse(wave)
            energies = [4.0 if o == "LL" else 1.0 for o in transform.orientations(1)]
            shares = [float(bands[Band(1, o)].square().mean()) / e for o, e in
                      zip(transform.orientations(1), energies, strict=True)]  # fmt: skip
            expected = next(i for i, edge in enumerate(edges) if math.hypot(fy, fx) / (side / 2) < edge - 1e-9)
            seen.add(expected)
            total = float(wave.square().mean())
            assert shares[expected] == pytest.approx(total, rel=1e-9), (fy, fx)
            assert sum(shares) == pytest.approx(total, rel=1e-9)
    assert seen == set(range(classes))


def test_the_classes_of_every_level_hold_something() -> None:
    bands = parse_transform("radial:3,4", 3).analyse(image(1, 1, 64, 64))
    assert len(bands) == 3 * 4
    assert all(float(x.square().mean()) > 1e-3 for x in bands.values())


def test_generated_bands_come_back_as_what_the_transform_keeps_of_them() -> None:
    """Whatever a generator makes: projected once, each of the bands of the image is exactly that."""
    transform = parse_transform("radial:2,3", 2)
    made_up: SubImages = {
        band: image(2, 3, *transform.band_size((32, 48), band), seed=i)
        for i, band in enumerate(transform.bands())
        if band != Band(1, "LL")
    }
    kept = {band: transform.projected(band, x) for band, x in made_up.items()}
    again = transform.analyse(transform.synthesise(kept, (32, 48)))
    for band, x in kept.items():
        assert (x - made_up[band]).abs().max() > 0.1
        torch.testing.assert_close(transform.projected(band, x), x, rtol=0, atol=1e-13)
        torch.testing.assert_close(again[band], x, rtol=0, atol=1e-13)


def test_the_low_band_beside_the_rings_is_the_low_class_itself() -> None:
    """On their grid, in its own range: four times the pixels of a band that grows by two a level."""
    transform, pixels = parse_transform("radial:1,2", 1), image(1, 1, 16, 16)
    bands = transform.analyse(pixels)
    ring = Band(1, RINGS[0])
    torch.testing.assert_close(transform.low_beside(ring, bands[Band(1, "LL")]) / 2 + bands[ring], pixels)


# -- packets ---------------------------------------------------------------------------------------


def test_packets_are_the_bands_of_bands() -> None:
    whole, split = parse_transform("dwt:db2", 2), parse_transform("dwt:db2", 2, {1: 2})
    pixels = image(1, 2, 32, 48)
    plain, packets = whole.analyse(pixels), split.analyse(pixels)
    assert len(packets) == 1 + 4 + 3 * 16
    once = parse_transform("dwt:db2", 1)
    for high in ("HL", "LH", "HH"):
        twice = once.analyse(once.analyse(plain[Band(1, high)])[Band(1, "LH")])
        for further in ("LL", "HL", "LH", "HH"):
            torch.testing.assert_close(packets[Band(1, f"{high}LH{further}")], twice[Band(1, further)], rtol=0, atol=0)
    for band in (Band(1, "LL"), Band(2, "HH")):
        assert torch.equal(packets[band], plain[band])


@pytest.mark.parametrize(
    ("spec", "packets", "message"),
    [
        ("dwt:haar", {3: 1}, r"packets: level 3 does not exist; levels are 1 \(finest\) to 2"),
        ("dwt:haar", {1: 4}, "packets: 4 splits at level 1; give a number from 0 to 3"),
        ("radial:2,3", {1: 1}, "packets: the bands of radial:2,3 are rings"),
    ],
)
def test_packets_that_cannot_be(spec: str, packets: dict[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_transform(spec, 2, packets)


def test_packets_need_room() -> None:
    transform = parse_transform("dwt:haar", 1, {1: 2})
    assert transform.band_size((32, 32), Band(1, "HLLLHH")) == (4, 4)
    with pytest.raises(InputError, match="too small for 1 levels and packets 2 deep, which need sides of at least 8"):
        transform.analyse(image(1, 1, 7, 9))
    with pytest.raises(InputError, match="has no band HL1; at level 1 it has LL, HLLLLL, HLLLHL"):
        transform.band_size((32, 32), Band(1, "HL"))
