"""Orthogonality, exact distributions, purity and refusals of the noise of several generators."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from freqgan.errors import InputError
from freqgan.model import noise
from freqgan.model.noise import draw_noise, orthogonal_noises
from freqgan.model.noise_settings import (
    NoiseMode,
    NoiseSettings,
    check_noise,
    hurwitz_radon_number,
    smallest_dimensions,
)

NORMAL_MODES: list[NoiseMode] = ["haar", "hurwitz", "independent"]


def largest_cosine(noises: Tensor) -> float:
    unit = noises / noises.norm(dim=2, keepdim=True)
    gram = torch.einsum("ibn,jbn->bij", unit, unit)
    return float((gram - torch.eye(len(noises))).abs().max())


def matrices(dimensions: int, count: int) -> list[NDArray[np.int64]]:
    """The U_i, read off from what they do to the unit vectors."""
    images = orthogonal_noises(torch.eye(dimensions), count)
    return [image.T.numpy().astype(np.int64) for image in images]


@pytest.mark.parametrize("mode", ["haar", "hurwitz", "split"])
@pytest.mark.parametrize(("count", "dimensions"), [(1, 3), (4, 12), (8, 8), (9, 32), (12, 64), (16, 128)])
def test_noises_of_a_sample_are_orthogonal(mode: NoiseMode, count: int, dimensions: int) -> None:
    if mode == "hurwitz" and hurwitz_radon_number(dimensions) < count:
        dimensions = smallest_dimensions(mode, count)
    noises = draw_noise(mode, 7, 3, 20, count, dimensions)
    assert noises.shape == (count, 20, dimensions)
    assert noises.dtype == torch.float32
    assert noises.is_contiguous()
    assert largest_cosine(noises) <= 1e-6


@pytest.mark.parametrize("dimensions", [2, 17, 64])
def test_haar_fills_the_space(dimensions: int) -> None:
    """Square Gaussian matrices are badly conditioned at times: one Cholesky pass would not do."""
    assert largest_cosine(draw_noise("haar", 0, 0, 50, dimensions, dimensions)) <= 1e-6


def test_independent_noises_are_not_orthogonal() -> None:
    """The cosine test itself must be able to fail."""
    assert largest_cosine(draw_noise("independent", 0, 0, 20, 4, 64)) > 0.1


@pytest.mark.parametrize("mode", NORMAL_MODES)
@pytest.mark.parametrize(("count", "dimensions"), [(4, 4), (8, 16)])
def test_first_and_last_noise_are_standard_normal(mode: NoiseMode, count: int, dimensions: int) -> None:
    noises = draw_noise(mode, 11, 0, 4000, count, dimensions)
    for vector in (noises[0], noises[-1]):
        for coordinate in (0, dimensions - 1):
            assert stats.kstest(vector[:, coordinate].numpy(), "norm").pvalue > 1e-3
        squares = vector.double().square().sum(1).numpy()
        assert stats.kstest(squares, "chi2", args=(dimensions,)).pvalue > 1e-3


def test_the_raw_triangle_or_raw_signs_would_be_noticed() -> None:
    """Two mistakes of practice, made here on purpose, must fail the tests above."""
    gaussian = torch.randn(4000, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis, triangle = torch.linalg.qr(gaussian.mT)
    last_norms = triangle[:, -1, -1].square().numpy()
    assert stats.kstest(last_norms, "chi2", args=(4,)).pvalue < 1e-6
    assert float(basis[:, 0, 0].mean().abs()) > 0.1


def test_haar_has_no_sign_bias() -> None:
    noises = draw_noise("haar", 5, 0, 4000, 4, 4)
    assert float(noises.mean(dim=1).abs().max()) < 4 / 4000**0.5


def test_haar_norms_of_a_sample_are_independent() -> None:
    """One norm shared by all vectors would pass every test of a single vector."""
    norms = draw_noise("haar", 6, 0, 4000, 3, 8).norm(dim=2)
    correlation = torch.corrcoef(norms) - torch.eye(3)
    assert float(correlation.abs().max()) < 4 / 4000**0.5


def test_split_blocks_are_normal_and_disjoint() -> None:
    noises = draw_noise("split", 2, 0, 4000, 3, 8)
    assert [int((block != 0).any(dim=0).sum()) for block in noises] == [3, 3, 2]
    whole = noises.sum(dim=0)
    assert stats.kstest(whole.flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(noises[0, :, 3:], torch.zeros(4000, 5))
    assert torch.equal(whole, draw_noise("split", 2, 0, 4000, 1, 8)[0])


@pytest.mark.parametrize("dimensions", [1, 2, 4, 6, 8, 16, 24, 32, 64, 128, 256, 512])
def test_hurwitz_families_are_exact(dimensions: int) -> None:
    family = matrices(dimensions, hurwitz_radon_number(dimensions))
    assert np.array_equal(family[0], np.eye(dimensions))
    for member in family:
        assert np.array_equal(member.T @ member, np.eye(dimensions))
    for first, second in itertools.combinations([m.astype(np.float32) for m in family], 2):
        product = first.T @ second  # entries are 0 and +-1: exact in float32
        assert np.array_equal(product, -product.T)


def test_hurwitz_radon_numbers() -> None:
    known = {1: 1, 2: 2, 3: 1, 4: 4, 8: 8, 12: 4, 16: 9, 32: 10, 64: 12, 128: 16, 256: 17, 512: 18, 4096: 25, 99: 1}
    assert {n: hurwitz_radon_number(n) for n in known} == known


def test_smallest_dimensions_is_the_first_that_fits() -> None:
    for count in range(1, 19):
        first = next(n for n in itertools.count(1) if hurwitz_radon_number(n) >= count)
        assert smallest_dimensions("hurwitz", count) == first
    assert [smallest_dimensions(mode, 12) for mode in ("haar", "split", "independent")] == [12, 12, 1]


def test_orthogonal_noises_starts_with_the_target_and_keeps_its_norm() -> None:
    target = torch.randn(5, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noises = orthogonal_noises(target, 12)
    assert torch.equal(noises[0], target)
    assert noises.dtype == torch.float64
    torch.testing.assert_close(noises.norm(dim=2), target.norm(dim=1).expand(12, 5))


def test_orthogonal_noises_passes_gradients() -> None:
    target = torch.ones(2, 8, requires_grad=True)
    torch.autograd.backward(orthogonal_noises(target, 8).square().sum())  # = 8 ||target||^2
    assert target.grad is not None
    assert torch.equal(target.grad, torch.full((2, 8), 16.0))


def test_hurwitz_draw_is_the_rotation_of_its_first_noise() -> None:
    noises = draw_noise("hurwitz", 3, 4, 6, 12, 64)
    assert torch.equal(noises, orthogonal_noises(noises[0], 12))


@pytest.mark.parametrize("mode", ["haar", "hurwitz", "split", "independent"])
def test_noise_is_a_function_of_seed_and_step(mode: NoiseMode) -> None:
    first = draw_noise(mode, 1, 2, 4, 3, 16)
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(first, draw_noise(mode, 1, 2, 4, 3, 16))
    assert not torch.equal(first, draw_noise(mode, 1, 3, 4, 3, 16))
    assert not torch.equal(first, draw_noise(mode, 2, 2, 4, 3, 16))


def test_noise_of_no_samples() -> None:
    for mode in ("haar", "hurwitz", "split", "independent"):
        assert draw_noise(mode, 0, 0, 0, 4, 16).shape == (4, 0, 16)


def test_cholesky_and_householder_give_one_basis() -> None:
    rows = torch.randn(10, 6, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(noise._orthonormal_rows(rows), noise._householder_rows(rows))


def test_dependent_rows_are_still_made_orthogonal() -> None:
    rows = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    rows[1, 2] = rows[1, 0]
    rows[2, 1] = 0.0  # Cholesky meets a pivot of exactly 0 and gives up
    basis = noise._orthonormal_rows(rows)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


def test_too_many_generators_are_refused_with_both_remedies() -> None:
    with pytest.raises(InputError) as caught:
        draw_noise("hurwitz", 0, 0, 2, 16, 64)
    message = str(caught.value)
    for part in ("noise.dimensions = 64", "12", "16", "to 128", "haar"):
        assert part in message
    with pytest.raises(InputError, match=r"noise\.dimensions = 64 .* 12 .* 13"):
        orthogonal_noises(torch.zeros(1, 64), 13)


@pytest.mark.parametrize("mode", ["haar", "split"])
def test_more_generators_than_dimensions_are_refused(mode: NoiseMode) -> None:
    check_noise(mode, 8, 8)
    with pytest.raises(InputError, match=r"noise\.dimensions = 8 .* set noise\.dimensions to 9$"):
        check_noise(mode, 9, 8)


def test_any_number_of_independent_noises_fits() -> None:
    assert draw_noise("independent", 0, 0, 2, 9, 3).shape == (9, 2, 3)


def test_settings_refuse_what_means_nothing() -> None:
    assert NoiseSettings().generation == "hurwitz"
    for wrong in ({"dimensions": 0}, {"training": "gaussian"}, {"dimension": 64}):
        with pytest.raises(ValidationError):
            NoiseSettings.model_validate(wrong)
    with pytest.raises(InputError, match="1 or more"):
        check_noise("haar", 1, 0)
