"""Likelihoods of chains of flow experts against those of a Gaussian, before and after training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from freqgan.errors import InputError
from freqgan.generation.likelihood import (
    bits_per_dimension,
    dequantised,
    dimensions_of,
    is_whole,
    log_likelihoods,
    total_of,
    why_no_likelihood,
)
from freqgan.generation.synthesiser import Synthesiser
from freqgan.pixels import from_pixels, to_pixels
from tests.support.flows import flow_model, flow_stages, step_of, synthesiser_of
from tests.support.gaussians import GaussianToy
from tests.support.models import pictures

NET: dict[str, Any] = {"width": 16, "coarse_width": 16, "heads": 1}
BATCH, STEPS = 64, 150
LEARNT_WITHIN = 2.0
"""Nats of 64 numbers, 2.6 % of their entropy after normalisation, by some seconds of training (measured: 1.2, and .4
without conditions). Without attention twice as many steps left .8 nats, 1 %, and four times as many .7."""


def exact_nats(toy: GaussianToy, images: Tensor) -> Tensor:
    return toy.images.log_density(images.flatten(1).double())


def test_with_exact_experts_the_chain_has_the_likelihood_of_the_joint() -> None:
    toy = GaussianToy()
    images = toy.draw(32, seed=3)
    nats = log_likelihoods(toy.exact_model(), images, steps=128)
    torch.testing.assert_close(total_of(nats), exact_nats(toy, images), atol=1e-3, rtol=0)


def test_without_conditions_it_is_worse_by_the_mutual_information() -> None:
    """In the mean over images; each image's difference is known in closed form, too."""
    toy, blind = GaussianToy(), GaussianToy(plan={"condition": "none"})
    images = toy.draw(128, seed=4)
    apart = total_of(log_likelihoods(blind.exact_model(), images, steps=64))
    difference = exact_nats(toy, images) - apart
    assert toy.mutual_information > 8
    error = float(difference.std()) / math.sqrt(len(images))
    assert abs(float(difference.mean()) - toy.mutual_information) < 4 * error
    normal = toy.statistics.normalise_all(toy.chain.transform.analyse(images.double()))
    parts = torch.arange(64).chunk(4)
    bands = [normal[gan.bands[0]].flatten(1) for gan in toy.chain.plan.gans]
    logs = sum(16 * float(toy.statistics.stds[gan.bands[0]].double().log()) for gan in toy.chain.plan.gans)
    marginals = [toy.bands.marginal(part).log_density(x) for part, x in zip(parts, bands, strict=True)]
    torch.testing.assert_close(apart, torch.stack(marginals).sum(0) - logs, atol=5e-3, rtol=0)


def learnt(condition: str) -> tuple[GaussianToy, Synthesiser]:
    """A model of four experts after some seconds of flow matching on images of the toy, each expert apart."""
    rates = {"warmup_images": 20 * BATCH, "learning_rate": 6e-3, "learning_rate_final": 3e-4}
    flow = {"coarse_network": NET, "band_network": NET, "condition_noise": 0.0, "optimiser": rates}
    toy = GaussianToy(batch=BATCH, images=STEPS * BATCH, plan={"condition": condition}, flow=flow)
    stages = flow_stages(toy.chain)
    for step in range(STEPS):
        images = to_pixels(toy.draw(BATCH, seed=1000 + step), 16)
        for stage in stages:
            step_of(stage, step, images)
    return toy, synthesiser_of(toy.chain, stages)


@pytest.mark.long
def test_experts_trained_apart_learn_the_joint_likelihood() -> None:
    """The mean of log p_exact - log p_model is the divergence: 0 is perfect, and it cannot be below but by chance.

    Without conditions it is the mutual information more.
    """
    divergences: dict[str, float] = {}
    for condition in ("all", "none"):
        toy, model = learnt(condition)
        images = toy.draw(128, seed=5)
        lacking = exact_nats(toy, images) - total_of(log_likelihoods(model, images, steps=16))
        divergences[condition] = float(lacking.mean())
        if condition == "none":
            divergences[condition] -= toy.mutual_information
    assert 0 < divergences["all"] < LEARNT_WITHIN
    assert abs(divergences["none"]) < LEARNT_WITHIN < toy.mutual_information / 4


def test_bits_per_dimension_of_pixels_are_those_of_the_gaussian_in_levels() -> None:
    """Of stored pixels in levels of 16 bits: the density of N(m, S) in them, without any transform or network."""
    toy = GaussianToy()
    pixels = to_pixels(toy.draw(64, seed=6), 16)
    images = dequantised(pixels, seed=0)
    nats = total_of(log_likelihoods(toy.exact_model(), images, steps=64))
    found = bits_per_dimension(nats, 64, 65535 / 2)
    levels = (images.flatten(1).double() + 1) * 65535 / 2
    mean, covariance = (toy.images.mean + 1) * 65535 / 2, toy.images.covariance * (65535 / 2) ** 2
    in_levels = torch.distributions.MultivariateNormal(mean, covariance).log_prob(levels)
    torch.testing.assert_close(found, -in_levels / (64 * math.log(2)), atol=1e-3, rtol=0)


def test_dequantised_pixels_are_the_pixels_again() -> None:
    for depth, dtype in ((8, torch.uint8), (16, torch.uint16)):
        pixels = torch.arange(0, 256, dtype=torch.int64).view(1, 1, 16, 16).to(dtype)
        images = dequantised(pixels, seed=1)
        assert torch.equal(dequantised(pixels, seed=1), images)
        assert not torch.equal(dequantised(pixels, seed=2), images)
        inside = to_pixels(images, 8 if depth == 8 else 16).int()
        assert torch.equal(inside, pixels.int())
        half = 255 / 2 if depth == 8 else 65535 / 2
        places = (images - from_pixels(pixels)) * half
        assert -0.51 < float(places.min()) < -0.4
        assert 0.4 < float(places.max()) < 0.51


def test_the_normal_is_the_likelihood_of_experts_that_did_not_train() -> None:
    """Of an untrained network the velocity is (2t - 1) / (t^2 + (1 - t)^2) x, whose flow keeps N(0, I) as it is."""
    model = flow_model(steps=0)
    images = from_pixels(pictures(model.settings, 3))
    nats = log_likelihoods(model, images, steps=32)
    real = model.analysed(images)
    for gan in model.chain.plan.gans:
        z = real[gan.bands[0]]
        logs = z[0, 0].numel() * float(model.chain.statistics.stds[gan.bands[0]].log().sum())
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(z.double()).flatten(1).sum(1) - logs
        torch.testing.assert_close(nats[gan.name], normal, atol=2e-3 * z[0].numel(), rtol=0)
    assert is_whole(model)
    assert sum(dimensions_of(model).values()) == 3 * 16 * 16


def test_an_ensemble_is_the_mixture_of_its_members() -> None:
    model = flow_model(plan={"low_gans": {1: 2}})
    images = from_pixels(pictures(model.settings, 3))
    nats = log_likelihoods(model, images)
    assert list(nats) == ["LL1", "HL1", "LH1", "HH1"]
    alone = []
    for name in list(model.flows)[:2]:
        flow, real = model.flows[name], model.analysed(images)
        band, condition = model.chain.stacked(flow.gan, real), model.chain.condition(flow.gan, real)
        alone.append(flow.log_likelihood(band, condition, torch.zeros(3), None, steps=16, probes=1).nats.double())
    logs = 64 * float(model.chain.statistics.stds[model.chain.plan.gans[0].bands[0]].double().log().sum())
    expected = (torch.stack(alone).double().exp().mean(0)).log() - logs
    torch.testing.assert_close(nats["LL1"], expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"experts": {"default": "gan"}}, "no expert is of the kind flow"),
        ({"transform": "dwt:bior4.4"}, "dwt:bior4.4 is not orthonormal for images of 16 x 16 pixels"),
        ({"image_size": 19}, "dwt:haar is not orthonormal for images of 19 x 19 pixels"),
    ],
)
def test_what_has_no_likelihood_says_why(changes: dict[str, Any], reason: str) -> None:
    from tests.support.models import TinyRun, tiny_settings

    gans = "experts" in changes
    model = TinyRun(tiny_settings()).synthesiser() if gans else flow_model(steps=0, **changes)
    assert why_no_likelihood(model) == reason
    with pytest.raises(InputError, match=f"log-likelihoods cannot be computed: {reason}"):
        log_likelihoods(model, torch.zeros(1, 3, *model.settings.size))
