"""The starting noise of a flow expert is an orthogonal map of its numbers, the vector first."""

from __future__ import annotations

import pytest
import torch

from freqgan.model.flow_noise import noise_image, noise_numbers, rest_length
from freqgan.sizes import Size, area

SHAPES = [(1, (4, 4), 8), (3, (4, 4), 16), (3, (5, 5), 16), (9, (8, 8), 64), (1, (4, 4), 64), (2, (3, 7), 11)]
"""Channels, height and width, and length of the vector: shorter than the band, odd, and longer."""


def map_of(channels: int, size: Size, length: int) -> torch.Tensor:
    """The matrix (D, D) from the numbers, vector first, to the image."""
    numbers = torch.eye(channels * area(size), dtype=torch.float64)
    image = noise_image(numbers[:, :length], numbers[:, length:], channels, size)
    assert image.shape[1:] == (channels, *size)
    return image.flatten(1).mT


@pytest.mark.parametrize(("channels", "size", "length"), SHAPES)
def test_the_map_is_orthogonal_so_the_image_is_normal_as_the_numbers_are(
    channels: int, size: Size, length: int
) -> None:
    matrix = map_of(channels, size, length)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(len(matrix), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("channels", "size", "length"), SHAPES)
def test_numbers_of_an_image_are_those_it_was_made_of(channels: int, size: Size, length: int) -> None:
    dimensions = channels * area(size)
    vector, rest = torch.randn(6, length), torch.randn(6, rest_length(channels, size, length))
    assert min(length, dimensions) + rest.shape[1] == dimensions
    first, others = noise_numbers(noise_image(vector, rest, channels, size), length)
    torch.testing.assert_close(first, vector[:, :dimensions], atol=1e-5, rtol=0)
    torch.testing.assert_close(others, rest, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "size", "length"), SHAPES)
def test_the_vector_is_the_lowest_frequencies(channels: int, size: Size, length: int) -> None:
    """Frequencies by SciPy's cosine transform: none outside the vector's is nearer to zero than one of its own."""
    from scipy.fft import dctn

    dimensions = channels * area(size)
    if length < dimensions:
        image = noise_image(torch.randn(2, length), torch.zeros(2, dimensions - length), channels, size)
        coefficients = torch.from_numpy(dctn(image.double().numpy(), axes=(2, 3), norm="ortho"))
        own = coefficients.abs().amax(0) > 1e-5
        down, across = (torch.arange(side) / side for side in size)
        radius = (down[:, None].square() + across.square()).expand(channels, *size)
        assert int(own.sum()) == length
        assert radius[own].max() <= radius[~own].min()


def test_vectors_of_bands_stay_orthogonal_in_their_images() -> None:
    first, second = torch.randn(5, 16), torch.randn(5, 16)
    second = second - first * ((first * second).sum(1) / first.square().sum(1))[:, None]
    images = [noise_image(vector, torch.zeros(5, 3 * 36 - 16), 3, (6, 6)).flatten(1) for vector in (first, second)]
    torch.testing.assert_close((images[0] * images[1]).sum(1), torch.zeros(5), atol=1e-4, rtol=0)
