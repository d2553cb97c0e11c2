from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from freqgan.companions.glow import Glow, bits_per_dimension
from tests.support.companions import companion_of, companion_settings, fitted, real_images


def glow_of(**changes: Any) -> Glow:
    companion = companion_of("flow", **changes)
    assert isinstance(companion, Glow)
    return companion.requires_grad_(False)


def stirred(model: Glow, size: float) -> Glow:
    """The model with all weights moved at random: layers that start at zero do something."""
    rng = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(size * torch.randn(parameter.shape, generator=rng))
    return model


@pytest.mark.parametrize("changes", [{}, {"channels": 1}, {"classes": 3}], ids=["colour", "grey", "labels"])
def test_the_inverse_is_exact(changes: dict[str, Any]) -> None:
    model = stirred(glow_of(**changes), 0.05)
    settings = companion_settings("flow", **changes)
    images, labels = real_images(settings), torch.arange(16) % 3 if settings.classes else None
    model.prepare(images)
    noise = model.encode(images, labels).noise
    assert noise.shape == (16, model.numbers)
    torch.testing.assert_close(model.sample(noise, labels), images, rtol=0, atol=1e-5)
    drawn = torch.randn(4, model.numbers, generator=torch.Generator().manual_seed(0))
    own = None if labels is None else labels[:4]
    torch.testing.assert_close(model.encode(model.sample(drawn, own), own).noise, drawn, rtol=0, atol=2e-4)


def test_the_inverse_is_exact_after_training_and_the_loss_falls() -> None:
    model, losses = fitted("flow", 120)
    assert isinstance(model, Glow)
    assert losses[-1] < losses[0] - 0.3
    images = real_images(companion_settings("flow", batch=16))
    torch.testing.assert_close(model.sample(model.encode(images).noise, None), images, rtol=0, atol=1e-4)


def test_the_log_determinant_is_that_of_the_derivative() -> None:
    model = stirred(
        glow_of(image_size=4, levels=0, stage={"glow": {"levels": 2, "steps": 2, "width": 8}}), 0.1
    ).double()
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: model.encode(x).noise.flatten())(images).view(48, 48)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(model.encode(images).log_determinant[0], expected, rtol=1e-5, atol=1e-5)


def test_bits_per_dimension_of_a_known_density() -> None:
    """A normal distribution in units of pixels: log2 of the root of 2 pi e times its deviation, 20 steps."""
    deviation = 20 / 127.5
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(deviation)
    bits = bits_per_dimension(torch.tensor(-48 * entropy), 48, 127.5)
    assert math.isclose(float(bits), 0.5 * math.log2(2 * math.pi * math.e) + math.log2(20), rel_tol=1e-5)


def test_the_likelihood_of_a_gaussian_is_its_density() -> None:
    """With the couplings at their start, the map is linear: N(0, W) whose density is known from the map alone."""
    model = glow_of(image_size=4, levels=0, stage={"glow": {"levels": 1, "steps": 2, "width": 8}}).double()
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = torch.func.jacrev(lambda x: model.encode(x).noise.flatten())(images[:1]).view(48, 48)
    covariance = torch.linalg.inv(matrix.mT @ matrix)
    known = torch.distributions.MultivariateNormal(torch.zeros(48, dtype=torch.float64), covariance)
    torch.testing.assert_close(model.log_likelihood(images, None), known.log_prob(images.flatten(1)))


def test_act_norm_is_set_once_from_real_images_and_remembers_it() -> None:
    model, images = glow_of(), real_images(companion_settings("flow"))
    images[:, 2] = 0.25  # a constant channel
    model.prepare(images)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert before["prepared"] == 1
    assert all(bool(x.isfinite().all()) for x in before.values())
    assert before["levels.0.steps.0.norm.shift"].abs().max() > 0
    other = glow_of()
    other.load_state_dict(before)
    other.prepare(-images)
    assert all(torch.equal(x, before[name]) for name, x in other.state_dict().items())
