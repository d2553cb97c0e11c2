"""The transforms against PyWavelets, SciPy and NumPy, against their own inverse, and against the mathematics."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import pywt
import torch
from torch import Tensor

from freqgan.bands import Band, SubImages, all_bands
from freqgan.transforms import Quad, parse_transform
from tests.support.oracles import COARSE_TABLES, TRUNCATED_TABLES, coarsest_and_high, image, shifts

WAVELETS = ("haar", "db2", "db4", "sym4", "coif1", "bior2.2", "bior4.4")
ORTHOGONAL = ("haar", "db2", "db4", "sym4", "coif1")
# PyWavelets' tables hold fewer digits for these, so no inverse built from them can be better.
Array = npt.NDArray[np.float64]


def tolerance(wavelet: str) -> float:
    return 1e-10 if wavelet in COARSE_TABLES else 1e-13


def reference(pixels: Array, wavelet: str, levels: int) -> dict[Band, Array]:
    """All 4 * levels sub-images by PyWavelets, whose details are cH (ours LH), cV (HL) and cD (HH)."""
    bands: dict[Band, Array] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "all coefficients will experience boundary effects": wanted here
        for level in range(1, levels + 1):
            low, (lh, hl, hh), *_ = pywt.wavedec2(pixels, wavelet, mode="periodization", level=level)
            bands |= {Band(level, "LL"): low, Band(level, "HL"): hl, Band(level, "LH"): lh, Band(level, "HH"): hh}
    return bands


def largest_difference(ours: SubImages, theirs: dict[Band, Array]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[band].numpy() - theirs[band]).max()) for band in ours)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("wavelet", WAVELETS)
# Dense matrices, matrices in blocks, a block size other than 16, no block size (166 = 2 * 83), filters that wrap.
@pytest.mark.parametrize("size", [(32, 48), (128, 8), (16, 200), (8, 664)])
def test_every_band_agrees_with_pywavelets(wavelet: str, levels: int, size: tuple[int, int]) -> None:
    pixels = image(2, 3, *size)
    ours = parse_transform(f"dwt:{wavelet}", levels).analyse(pixels)
    assert largest_difference(ours, reference(pixels.numpy(), wavelet, levels)) <= 1e-13


@pytest.mark.parametrize("size", [(2, 4), (32, 128)])
def test_every_discrete_wavelet_agrees_and_inverts(size: tuple[int, int]) -> None:
    pixels = image(1, 1, *size)
    wrong = []
    for wavelet in pywt.wavelist(kind="discrete"):
        transform = parse_transform(f"dwt:{wavelet}", 1)
        sub_images = transform.analyse(pixels)
        disagreement = largest_difference(sub_images, reference(pixels.numpy(), wavelet, 1))
        error = float((transform.synthesise(sub_images, size) - pixels).abs().max())
        allowed = 2e-2 if wavelet in TRUNCATED_TABLES else tolerance(wavelet)
        if disagreement > 1e-13 or error > allowed:
            wrong.append((wavelet, disagreement, error))
    assert not wrong


def test_the_inverse_is_as_good_as_the_one_of_pywavelets() -> None:
    pixels = image(1, 1, 64, 64)
    for wavelet in (*COARSE_TABLES, *TRUNCATED_TABLES):
        transform = parse_transform(f"dwt:{wavelet}", 1)
        ours = transform.synthesise(transform.analyse(pixels), (64, 64))
        theirs = pywt.idwt2(pywt.dwt2(pixels.numpy(), wavelet, "periodization"), wavelet, "periodization")
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 8), (130, 20)])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_perfect_reconstruction(wavelet: str, size: tuple[int, int], levels: int) -> None:
    transform = parse_transform(f"dwt:{wavelet}", levels)
    for dtype, allowed in ((torch.float64, tolerance(wavelet)), (torch.float32, 2e-6)):
        pixels = image(2, 3, *size, dtype=dtype)
        back = transform.synthesise(coarsest_and_high(transform.analyse(pixels), levels), size)
        assert back.dtype == dtype
        assert back.shape == pixels.shape
        assert (back - pixels).abs().max() <= allowed


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_stripes_give_the_orientations_their_names(wavelet: str) -> None:
    """The authority on names: an image that varies along x alone has energy in LL and HL alone."""
    along_x = image(1, 1, 1, 32).expand(1, 1, 32, 32)
    transform = parse_transform(f"dwt:{wavelet}", 2)
    energies = {band: float(value.square().sum()) for band, value in transform.analyse(along_x).items()}
    for band, energy in energies.items():
        assert (energy > 0.1) == (band.orientation in ("LL", "HL")), band
    turned = transform.analyse(along_x.mT)
    for level in (1, 2):
        assert float(turned[Band(level, "LH")].square().sum()) == pytest.approx(energies[Band(level, "HL")])
        assert float(turned[Band(level, "HL")].square().sum()) < 1e-18


def energy_ratio(wavelet: str) -> float:
    pixels = image(1, 2, 32, 80)
    bands = coarsest_and_high(parse_transform(f"dwt:{wavelet}", 3).analyse(pixels), 3)
    return float(sum(value.square().sum() for value in bands.values()) / pixels.square().sum())


@pytest.mark.parametrize("wavelet", ORTHOGONAL)
def test_orthogonal_wavelets_keep_the_energy(wavelet: str) -> None:
    assert energy_ratio(wavelet) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("wavelet", ["bior2.2", "bior4.4"])
def test_biorthogonal_wavelets_do_not_keep_the_energy(wavelet: str) -> None:
    assert abs(energy_ratio(wavelet) - 1) > 1e-3


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior4.4"])
@pytest.mark.parametrize("size", [(4, 6), (2, 96)])
def test_first_and_second_derivatives(wavelet: str, size: tuple[int, int]) -> None:
    transform = parse_transform(f"dwt:{wavelet}", 1)
    low = image(1, 1, *size).requires_grad_()
    quad = [value.detach().requires_grad_() for value in transform.analyse_level(low)]

    def synthesise(*bands: Tensor) -> Tensor:
        return transform.synthesise_level(Quad(*bands))

    for function, inputs in ((transform.analyse_level, [low]), (synthesise, quad)):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_derivatives_through_padding_levels_and_cropping() -> None:
    transform = parse_transform("dwt:db2", 2)

    def there_and_back(pixels: Tensor) -> Tensor:
        bands = coarsest_and_high(transform.analyse(pixels), 2)
        return transform.synthesise({band: value.square() for band, value in bands.items()}, (5, 7))

    pixels = image(1, 1, 5, 7).requires_grad_()
    assert torch.autograd.gradcheck(there_and_back, (pixels,))
    assert torch.autograd.gradgradcheck(there_and_back, (pixels,))


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("size", [(8, 8), (128, 4), (4, 200)])
def test_backward_is_the_adjoint(wavelet: str, size: tuple[int, int]) -> None:
    """<A x, q> = <x, A' q> for analysis and for synthesis, with A' from autograd."""
    transform = parse_transform(f"dwt:{wavelet}", 1)
    low = image(2, 1, *size, seed=1).requires_grad_()
    stacked = image(4, 2, 1, size[0] // 2, size[1] // 2, seed=2).requires_grad_()
    analysed = (torch.stack(transform.analyse_level(low)) * stacked.detach()).sum()
    (adjoint,) = torch.autograd.grad(analysed, low)
    torch.testing.assert_close(analysed, (low * adjoint).sum(), rtol=0, atol=1e-11)
    synthesised = (transform.synthesise_level(Quad(*stacked)) * low.detach()).sum()
    (adjoint,) = torch.autograd.grad(synthesised, stacked)
    torch.testing.assert_close(synthesised, (stacked * adjoint).sum(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("wavelet", ORTHOGONAL)
def test_backward_of_orthogonal_analysis_is_synthesis(wavelet: str) -> None:
    transform = parse_transform(f"dwt:{wavelet}", 1)
    low = image(1, 1, 16, 16).requires_grad_()
    gradients = list(image(4, 1, 1, 8, 8, seed=3))
    (gradient,) = torch.autograd.grad(list(transform.analyse_level(low)), low, gradients)
    torch.testing.assert_close(gradient, transform.synthesise_level(Quad(*gradients)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_shifts_by_two_to_the_levels_shift_the_bands(wavelet: str) -> None:
    pixels, transform = image(1, 2, 32, 96), parse_transform(f"dwt:{wavelet}", 3)
    still = transform.analyse(pixels)
    for dy, dx in shifts():
        moved = transform.analyse(pixels.roll((dy, dx), (2, 3)))
        for band in all_bands(3):
            expected = still[band].roll((dy >> band.level, dx >> band.level), (2, 3))
            torch.testing.assert_close(moved[band], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_haar_is_exact_on_16_bit_pixels_in_float32(levels: int) -> None:
    pixels = torch.randint(0, 65536, (2, 3, 48, 64), generator=torch.Generator().manual_seed(0))
    pixels[0, 0], pixels[0, 1] = 65535, 0
    transform = parse_transform("dwt:haar", levels)
    for given in (pixels.float(), pixels.to(torch.uint16)):
        back = transform.synthesise(coarsest_and_high(transform.analyse(given), levels), (48, 64))
        assert back.dtype == torch.float32
        assert torch.equal(back, pixels.float())


@pytest.mark.parametrize("wavelet", ["db4", "sym4", "bior4.4"])
def test_16_bit_pixels_survive_rounding(wavelet: str) -> None:
    pixels = torch.randint(0, 65536, (1, 3, 33, 128), generator=torch.Generator().manual_seed(0))
    transform = parse_transform(f"dwt:{wavelet}", 3)
    back = transform.synthesise(coarsest_and_high(transform.analyse(pixels), 3), (33, 128))
    assert torch.equal(back.round().long(), pixels)


def test_range_of_the_low_band_doubles_with_every_level() -> None:
    transform = parse_transform("dwt:haar", 4)
    white = transform.analyse(torch.ones(1, 1, 16, 16))
    noise = transform.analyse(image(4, 3, 32, 32))
    for level in range(1, 5):
        assert (white[Band(level, "LL")] == 2**level).all()
        assert noise[Band(level, "LL")].abs().max() <= 2**level
        assert all((white[Band(level, high)] == 0).all() for high in ("HL", "LH", "HH"))
