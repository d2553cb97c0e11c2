"""Transfer of a style between bands: distributions become the style's, edges stay the content's, nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import sobel
from torch import Tensor

from freqgan.bands import Band
from freqgan.errors import InputError
from freqgan.generation.band_style import band_deviation, edge_correlation, transfer_bands, transport
from freqgan.pixels import from_pixels, to_pixels
from freqgan.transforms import BandTransform, parse_transform
from tests.support.photographs import as_tensor, photograph

Floats = NDArray[np.float64]


def bands_of(image: Tensor, transform: BandTransform) -> dict[str, Floats]:
    """Coefficients by band, (C, n): all high bands and the coarsest low one."""
    bands = transform.analyse(image)
    held = {band: x for band, x in bands.items() if band.orientation != "LL" or band.level == transform.levels}
    return {str(band): x[0].flatten(1).numpy() for band, x in held.items()}


def energy_error(image: Tensor, style: Tensor, transform: BandTransform) -> float:
    mine, theirs = (bands_of(x, transform) for x in (image, style))
    return max(float(np.abs((mine[b] ** 2).mean(1) / (theirs[b] ** 2).mean(1) - 1).max()) for b in theirs)


def distance(image: Tensor, style: Tensor, transform: BandTransform) -> float:
    """The largest of all Wasserstein distances between a band and a channel of it, in deviations of the style's."""
    mine, theirs = (bands_of(x, transform) for x in (image, style))
    shares = (np.arange(500) + 0.5) / 500
    return max(
        float((np.abs(np.quantile(mine[b], shares, axis=1) - np.quantile(y, shares, axis=1)).mean(0) / y.std(1)).max())
        for b, y in theirs.items()
    )


def edges(image: Tensor) -> Floats:
    grey = np.tensordot([0.299, 0.587, 0.114], image[0].numpy(), axes=1)
    gradient: Floats = np.hypot(sobel(grey, 0), sobel(grey, 1))[1:-1, 1:-1]
    return gradient


def noise_image(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Stored pixels of a smooth picture with some noise, as floats."""
    numbers = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 4, generator=numbers, dtype=torch.float64) * 1.6 - 0.8
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    noisy = smooth + 0.1 * torch.randn(1, channels, height, width, generator=numbers, dtype=torch.float64)
    return from_pixels(to_pixels(noisy)).double()


PAIRS = [("coffee", "chelsea", 144), ("motorcycle", "astronaut", 160)]


@pytest.mark.parametrize(("content", "style", "side"), PAIRS)
def test_photographs_take_the_style_and_keep_their_edges(content: str, style: str, side: int) -> None:
    before, texture = (as_tensor(photograph(name, side)) for name in (content, style))
    transform = parse_transform("dwt:db4", 4)
    result = transfer_bands(before, texture, transform)
    assert result.shape == before.shape
    assert float(result.abs().max()) <= 1
    stored = from_pixels(to_pixels(result)).double()
    assert energy_error(stored, texture, transform) < 0.02
    correlation = float(np.corrcoef(edges(before).ravel(), edges(stored).ravel())[0, 1])
    assert correlation > 0.8
    assert edge_correlation(before, stored) == pytest.approx(correlation, abs=1e-9)
    assert band_deviation(stored, texture, transform) == pytest.approx(energy_error(stored, texture, transform))
    assert distance(before, texture, transform) > 0.2  # it is not a pair of which nothing is asked


def test_unclipped_distributions_are_those_of_the_style() -> None:
    before, texture = (as_tensor(photograph(name, 144)) for name in ("hopper", "ihc"))
    before = before[..., : before.shape[2] // 16 * 16, : before.shape[3] // 16 * 16]  # no side has to be extended
    transform = parse_transform("dwt:db4", 4)
    result = transfer_bands(before, texture, transform, clipped=False)
    assert energy_error(result, texture, transform) < 1e-6
    assert distance(result, texture, transform) < 0.02


@pytest.mark.parametrize("spec", ["dwt:db4", "dwt:haar", "dct", "fft:meyer", "radial:2,3"])
@pytest.mark.parametrize("size", [(32, 48), (37, 29)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_in_its_own_style_is_itself(spec: str, size: tuple[int, int], channels: int) -> None:
    image = noise_image(*size, channels)
    result = transfer_bands(image, image, parse_transform(spec, 2))
    assert torch.equal(to_pixels(result), to_pixels(image))


@pytest.mark.parametrize("spec", ["dwt:db4", "dwt:haar", "dct", "radial:2,3"])
def test_sizes_may_differ_and_be_odd(spec: str) -> None:
    content, style, transform = noise_image(41, 67), noise_image(90, 33, seed=1), parse_transform(spec, 2)
    result = transfer_bands(content, style, transform, clipped=False)
    assert result.shape == content.shape
    is_frame = spec.startswith("radial")  # rings hold less than their numbers could: not all that is asked for
    assert energy_error(result, style, transform) < (0.1 if is_frame else 0.02)


def test_strengths() -> None:
    content, style, transform = noise_image(24, 32), noise_image(32, 32, seed=1), parse_transform("dwt:haar", 2)
    unchanged = transfer_bands(content, style, transform, strength=lambda band: 0.0)
    assert torch.equal(to_pixels(unchanged), to_pixels(content))
    whole, some = (
        transform.analyse(transfer_bands(content, style, transform, strength=strength))
        for strength in (lambda band: 1.0, lambda band: 0.25 if band.level == 1 else float(band.orientation != "LL"))
    )
    before = transform.analyse(content)
    for band, x in some.items():
        share = 0.25 if band.level == 1 else float(band.orientation != "LL")
        if band != Band(1, "LL"):
            torch.testing.assert_close(x, torch.lerp(before[band], whole[band], share), atol=1e-9, rtol=0)


def test_below_a_mask_the_content_has_the_styles_distributions() -> None:
    content, style, transform = noise_image(64, 96), noise_image(64, 64, seed=1), parse_transform("dwt:haar", 2)
    content[..., :48] = -content[..., :48]
    mask = torch.zeros(1, 1, 64, 96)
    mask[..., :48] = 1
    result = transfer_bands(content, style, transform, mask=mask, clipped=False)
    below = result[..., :48]
    assert energy_error(below, style, transform) < 0.02
    assert distance(below, style, transform) < 0.02
    assert distance(result[..., 48:], style, transform) > 0.1


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_flat_images_stay_flat(flat: int) -> None:
    content, style = noise_image(32, 32), noise_image(32, 32, seed=1)
    if flat in (0, 2):
        content = torch.full_like(content, 0.25)
    if flat in (1, 2):
        style = torch.tensor([0.5, -0.5, 0.0]).double()[None, :, None, None].expand(style.shape)
    result = transfer_bands(content, style, parse_transform("dwt:db2", 2))
    assert bool(result.isfinite().all())
    means = style.mean(dim=(2, 3))
    torch.testing.assert_close(result.mean(dim=(2, 3)), means, atol=0.01, rtol=0)
    assert float(result.std(dim=(2, 3)).max()) < 1e-6


def test_one_seed_gives_one_result_and_grey_needs_none() -> None:
    content, style, transform = noise_image(32, 32), noise_image(32, 32, seed=1), parse_transform("dwt:haar", 2)
    first, again, other = (transfer_bands(content, style, transform, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    greys = [transfer_bands(content[:, :1], style[:, :1], transform, seed=seed) for seed in (0, 1)]
    assert torch.equal(*greys)


def test_progress_reaches_its_end() -> None:
    told: list[tuple[int, int]] = []
    transfer_bands(
        noise_image(32, 32), noise_image(32, 32, seed=1), parse_transform("dwt:haar", 2),
        advance=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


def test_transport_moves_colours_together() -> None:
    """Distributions that are not Gaussian: in the end the axes are equal, and so is how they go together."""
    numbers = np.random.default_rng(0)
    content = numbers.laplace(size=(4000, 3)) @ numbers.standard_normal((3, 3))
    style = (numbers.random((3000, 3)) ** 2) @ numbers.standard_normal((3, 3))
    rotations = [*np.linalg.qr(numbers.standard_normal((5, 3, 3)))[0], np.eye(3)]
    moved = transport(content, style, rotations, np.ones(len(content), dtype=bool))
    shares = np.linspace(0.005, 0.995, 100)
    scale = style.std(axis=0)
    np.testing.assert_allclose(
        np.quantile(moved, shares, axis=0) / scale, np.quantile(style, shares, axis=0) / scale, atol=0.02
    )
    np.testing.assert_allclose(np.corrcoef(moved.T), np.corrcoef(style.T), atol=0.05)
    directions = numbers.standard_normal((3, 20))
    before, after, wanted = (np.quantile(x @ directions, shares, axis=0) for x in (content, moved, style))
    errors = [np.abs(x - wanted).mean(axis=0) / (style @ directions).std(axis=0) for x in (before, after)]
    assert float(errors[1].max()) < 0.15
    assert float(errors[0].min()) > 0.3


def test_images_that_do_not_go_together_are_refused() -> None:
    transform = parse_transform("dwt:haar", 2)
    with pytest.raises(InputError, match="content has 3 channels and style 1"):
        transfer_bands(noise_image(32, 32), noise_image(32, 32, 1), transform)
    with pytest.raises(InputError, match=r"are \(1, C, H, W\), not \(2, 3, 32, 32\)"):
        transfer_bands(noise_image(32, 32).repeat(2, 1, 1, 1), noise_image(32, 32), transform)
    with pytest.raises(InputError, match=r"the mask is \(1, 1, 32, 31\)"):
        transfer_bands(noise_image(32, 32), noise_image(32, 32), transform, mask=torch.ones(1, 1, 32, 31))
    with pytest.raises(InputError, match="too small for 2 levels"):
        transfer_bands(noise_image(32, 32), noise_image(32, 3), transform)
