from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from freqgan.companions.vae import VariationalAutoencoder
from tests.support.companions import companion_of, companion_settings, fitted, real_images

RNG_SEED = 3


def vae_of(**stage: dict[str, float]) -> VariationalAutoencoder:
    companion = companion_of("vae", stage)
    assert isinstance(companion, VariationalAutoencoder)
    return companion


def test_terms_are_sums_over_pixels_and_dimensions() -> None:
    """Against torch.distributions; means would be hundreds of times less."""
    vae, images = vae_of(), torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        vae.log_deviation.fill_(-1.5)
        terms = vae.terms(images, None, noise)
        mean, log_variance = vae.encoder(images, None)
        decoded = vae.sample(mean + (0.5 * log_variance).exp() * noise, None)
        deviation = vae.loss(images, None, torch.Generator().manual_seed(0), 1.0).metrics["deviation"]
    expected = -Normal(decoded, deviation).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(terms.reconstruction, expected, rtol=1e-4, atol=0)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(terms.kl, divergence, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)])
def test_the_kl_divergence_is_warmed_up(progress: float, weight: float) -> None:
    vae = vae_of(vae={"latent": 8, "warmup": 0.2, "free_bits": 0.0})
    images = real_images(companion_settings("vae"))
    with torch.no_grad():
        vae.encoder.head.bias.add_(0.7)
        loss = vae.loss(images, None, torch.Generator().manual_seed(RNG_SEED), progress)
    whole = -loss.metrics["elbo"]
    assert float(loss.metrics["kl"]) > 1
    torch.testing.assert_close(loss.value, whole - (1 - weight) * loss.metrics["kl"], rtol=1e-5, atol=1e-2)


def test_free_bits_are_of_the_mean_over_the_batch() -> None:
    """A fresh encoder's divergence is next to nothing: what is paid is 8 dimensions times the free bits."""
    images = real_images(companion_settings("vae"))
    losses = []
    for free in (0.0, 0.5):
        vae = vae_of(vae={"latent": 8, "warmup": 0.0, "free_bits": free})
        with torch.no_grad():
            vae.encoder.head.weight.zero_()
            losses.append(float(vae.loss(images, None, torch.Generator().manual_seed(RNG_SEED), 1.0).value))
    assert math.isclose(losses[1] - losses[0], 8 * 0.5, abs_tol=1e-2)


def test_the_bound_rises_and_reconstructions_beat_the_mean_image() -> None:
    vae, losses = fitted("vae", 250, {"companion_optimiser": {"warmup_images": 0, "learning_rate": 1e-2}})
    assert isinstance(vae, VariationalAutoencoder)
    images = real_images(companion_settings("vae", batch=16))
    assert losses[-1] < losses[0] - 100
    mean, _ = vae.encoder(images, None)
    error = (vae.sample(mean, None) - images).square().mean()
    assert error < 0.7 * (images - images.mean(0)).square().mean()
    metrics = vae.loss(images, None, torch.Generator().manual_seed(0), 1.0).metrics
    assert 1 <= metrics["active_units"] <= 8
    assert 0.03 < metrics["deviation"] < 0.7
