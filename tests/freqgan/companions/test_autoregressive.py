from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from freqgan.companions.autoregressive import PixelCnn, PixelMixture
from tests.support.companions import companion_of, fitted


def network_of(layers: int, **changes: Any) -> PixelCnn:
    sizes = {"autoregressive": {"width": 8, "layers": layers, "mixtures": 2}}
    companion = companion_of("autoregressive", sizes, **changes)
    assert isinstance(companion, PixelCnn)
    return companion.requires_grad_(False)


def stored_pixels(shape: tuple[int, ...], bits: int = 8) -> Tensor:
    levels = torch.randint(2**bits, shape, generator=torch.Generator().manual_seed(2))
    pixels: Tensor = levels * (2 / (2**bits - 1)) - 1
    return pixels


def test_a_pixel_sees_all_pixels_before_it_and_none_after() -> None:
    """By derivatives: exactly 0 for all later ones, not 0 for any earlier one, with layers enough: no blind spot."""
    network = network_of(8)
    images = stored_pixels((1, 3, 8, 8)).requires_grad_()
    outputs = network.parameters_of(images, None)[0]
    for row, column in [(0, 0), (0, 5), (3, 0), (4, 4), (7, 7)]:
        (gradient,) = torch.autograd.grad(outputs[row, column].square().sum(), images, retain_graph=True)
        seen = gradient[0].abs().amax(0).flatten()
        place = row * 8 + column
        assert torch.all(seen[place:] == 0), (row, column)
        assert torch.all(seen[:place] > 0), (row, column)


def test_a_part_of_an_image_is_enough_for_a_pixel() -> None:
    network, images = network_of(1), stored_pixels((2, 3, 12, 12))
    reach, (row, column) = network.reach, (8, 6)
    whole = network.parameters_of(images, None)[:, row, column]
    part = images[:, :, row - reach : row + 1, column - reach : column + reach + 1]
    torch.testing.assert_close(network.parameters_of(part, None)[:, reach, reach], whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [-9.0, -3.0, 0.0, 3.0])
def test_probabilities_of_all_values_sum_to_one(scale: float) -> None:
    """Of narrow and wide distributions, and of means beyond the range."""
    for mean in (-1.7, -0.3, 1.2):
        parameters = torch.tensor([0.2, -0.4, mean, 0.1, scale, scale + 0.5])
        values = torch.arange(256) * (2 / 255) - 1
        nats = PixelMixture(parameters.expand(256, 6), 1, 8).log_likelihood(values[:, None])
        assert math.isclose(float(nats.exp().sum()), 1.0, abs_tol=1e-4)


def test_colours_given_each_other_sum_to_one() -> None:
    """The joint distribution of three colours of 16 levels each."""
    parameters = torch.randn(2 * 10, generator=torch.Generator().manual_seed(1))
    steps = torch.arange(16) * (2 / 15) - 1
    values = torch.cartesian_prod(steps, steps, steps)
    nats = PixelMixture(parameters.expand(len(values), 20), 3, 4).log_likelihood(values)
    assert math.isclose(float(nats.exp().sum()), 1.0, abs_tol=1e-4)


def test_a_logistic_distribution_has_its_probability() -> None:
    """One wide logistic: the step's share is the density times the step, in closed form."""
    parameters = torch.tensor([0.0, 0.1, -1.0])
    value = torch.tensor([[-1 + 150 * 2 / 255]])
    nats = PixelMixture(parameters.expand(1, 3), 1, 8).log_likelihood(value)
    x = (float(value) - 0.1) * math.e
    density = math.e * math.exp(-x) / (1 + math.exp(-x)) ** 2
    assert math.isclose(float(nats.exp()), density * 2 / 255, rel_tol=1e-3)


@pytest.mark.parametrize("bits", [4, 16])
def test_quantiles_have_the_distribution(bits: int) -> None:
    """Values at even places are as frequent as they are likely; two colours, the second given the first."""
    parameters = torch.tensor([0.3, -0.3, -0.5, 0.4, 0.2, -0.2, -1.5, -2.0, -1.0, -1.2, 0.8, -0.8])
    count = 40_000
    places = torch.quasirandom.SobolEngine(2).draw(count).clamp(1e-6, 1 - 1e-6)
    mixture = PixelMixture(parameters.expand(count, 12), 2, bits)
    pixels = mixture.quantile(places)
    side = 4
    cells = ((pixels + 1) / 2 * (side - 1e-6)).long().clamp_max(side - 1)
    frequencies = torch.bincount(cells[:, 0] * side + cells[:, 1], minlength=side**2) / count
    levels = torch.arange(2**4) * (2 / 15) - 1
    grid = torch.cartesian_prod(levels, levels)
    likely = PixelMixture(parameters.expand(len(grid), 12), 2, 4).log_likelihood(grid).exp()
    grid_cells = ((grid + 1) / 2 * (side - 1e-6)).long().clamp_max(side - 1)
    expected = torch.zeros(side**2).index_add_(0, grid_cells[:, 0] * side + grid_cells[:, 1], likely)
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=0.004 if bits == 4 else 0.03)


def test_samples_are_stored_pixels_and_a_function_of_the_noise() -> None:
    network = network_of(1, image_size=6, levels=0)
    noise = torch.randn(3, network.numbers, generator=torch.Generator().manual_seed(0))
    first = network.sample(noise, None)
    steps = (first + 1) / 2 * 255
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    moved = noise.clone()
    moved[:, 3 * 20 :] += 1  # the pixels from the 21st on
    second = network.sample(moved, None)
    assert torch.equal(first.flatten(2)[..., :20], second.flatten(2)[..., :20])
    assert not torch.equal(first, second)


def test_the_loss_falls_and_gradients_are_finite_at_both_ends() -> None:
    _, losses = fitted("autoregressive", 40)
    assert losses[-1] < losses[0] - 0.3
    parameters = torch.tensor([[0.0, 5.0, -20.0], [0.0, -5.0, -20.0]], requires_grad=True)
    ends = torch.tensor([[-1.0], [1.0]])
    PixelMixture(parameters, 1, 8).log_likelihood(ends).sum().backward()
    assert parameters.grad is not None
    assert torch.isfinite(parameters.grad).all()
