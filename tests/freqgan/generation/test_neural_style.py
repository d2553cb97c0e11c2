"""Style transfer by VGG19's features: the losses are what they are said to be, and they fall."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from freqgan.errors import RunError
from freqgan.generation.neural_style import CONTENT_LAYER, STYLE_LAYERS, gram, transfer_style
from freqgan.networks.vgg import Vgg19
from tests.support.vgg import random_weights


@pytest.fixture(scope="module")
def network() -> Vgg19:
    return Vgg19(random_weights(), "average")


def image(height: int, width: int, seed: int) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.nn.functional.interpolate(
        torch.rand(1, 3, 8, 8, generator=numbers), (height, width), mode="bicubic"
    ).clamp(0, 1)


def test_a_gram_matrix() -> None:
    features = np.random.default_rng(0).random((2, 3, 4, 5))
    expected = np.einsum("bchw,bdhw->bcd", features, features) / (3 * 4 * 5)
    np.testing.assert_allclose(gram(torch.from_numpy(features)).numpy(), expected)


def test_both_losses_are_those_of_the_image_and_the_sum_falls(network: Vgg19) -> None:
    content, style, told = image(32, 40, 0), image(48, 32, 1), list[tuple[int, int]]()
    styled = transfer_style(
        network, content, style, steps=4, style_weight=1e4, advance=lambda done, total: told.append((done, total))
    )
    assert styled.image.shape == content.shape
    assert 0 <= float(styled.image.min()) <= float(styled.image.max()) <= 1
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert styled.first.content == 0
    assert styled.last.style < 0.5 * styled.first.style
    assert styled.last.content + 1e4 * styled.last.style < 1e4 * styled.first.style
    with torch.no_grad():
        result, texture, before = (
            network.features(x, [*STYLE_LAYERS, CONTENT_LAYER]) for x in (styled.image, style, content)
        )
    difference = sum(float((gram(result[name]) - gram(texture[name])).square().mean()) for name in STYLE_LAYERS)
    assert styled.last.style == pytest.approx(difference, rel=1e-4)
    content_loss = float((result[CONTENT_LAYER] - before[CONTENT_LAYER]).square().mean())
    assert styled.last.content == pytest.approx(content_loss, rel=1e-4)


def test_an_image_in_its_own_style_is_itself(network: Vgg19) -> None:
    content = image(32, 32, 0)
    styled = transfer_style(network, content, content, steps=2)
    assert torch.equal(styled.image, content)
    assert styled.last == (0, 0)


def test_a_weight_that_leaves_no_numbers_is_refused(network: Vgg19) -> None:
    with pytest.raises(RunError, match="the loss is inf after 0 steps: give a smaller style weight than 1e"):
        transfer_style(network, image(32, 32, 0), image(32, 32, 1), steps=2, style_weight=1e60)
