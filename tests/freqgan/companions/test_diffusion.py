from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from freqgan.companions.diffusion import Diffusion, cosine_alphas, ddim_step, ddpm_mean, trailing_steps
from tests.support.companions import companion_of

HAS_DIFFUSERS = importlib.util.find_spec("diffusers") is not None


def diffusion_of(**values: Any) -> Diffusion:
    companion = companion_of("diffusion", {"diffusion": {"steps": 50, "evaluations": 4, **values}})
    assert isinstance(companion, Diffusion)
    return companion


def test_samples_are_a_function_of_the_noise_alone() -> None:
    model, rng = diffusion_of(), torch.Generator().manual_seed(0)
    noise = torch.randn(4, model.numbers, generator=rng)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
        first, again = model.sample(noise, None), model.sample(noise.clone(), None)
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 0.1


def test_ddim_moves_a_gaussian_to_itself() -> None:
    """With the exact prediction of x_0 ~ N(0, 4), steps in plenty take N(0, 1) to it: x_T at 1 ends near 2."""
    alphas = cosine_alphas(2000).double()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for level, following in pairwise([*range(2000, 0, -1), 0]):
        alpha, below = alphas[level - 1], alphas[following - 1] if following else torch.ones((), dtype=torch.float64)
        start = alpha.sqrt() * 4 / (4 * alpha + 1 - alpha) * x
        x = ddim_step(x, start, alpha, below)
    torch.testing.assert_close(x, 2 * torch.linspace(-2, 2, 9, dtype=torch.float64), rtol=1e-2, atol=1e-6)


def test_the_ddpm_mean_is_the_gaussian_posterior() -> None:
    """By conditioning the joint normal distribution of two neighbouring noise levels given x_0."""
    alphas = cosine_alphas(10).double()
    for level in (2, 5, 10):
        alpha, below = alphas[level - 1], alphas[level - 2]
        start, x = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-1.1, dtype=torch.float64)
        ratio = (alpha / below).sqrt()
        prior_mean, prior_variance = below.sqrt() * start, 1 - below
        gain = prior_variance * ratio / (1 - alpha)
        expected = prior_mean + gain * (x - ratio * prior_mean)
        torch.testing.assert_close(ddpm_mean(x, start, alpha, below), expected)


def test_the_last_noise_level_is_visited() -> None:
    assert trailing_steps(1000, 4) == [1000, 750, 500, 250]
    assert trailing_steps(3, 10) == [3, 2, 1]


@pytest.mark.parametrize("target", ["v", "epsilon"])
def test_the_start_is_found_again_from_the_exact_prediction(target: str) -> None:
    model = diffusion_of(target=target)
    start, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    alpha = model.alphas[20]
    x = alpha.sqrt() * start + (1 - alpha).sqrt() * noise
    exact = noise if target == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * start
    torch.testing.assert_close(model._start(x, exact, alpha), start, rtol=1e-4, atol=1e-4)


def test_the_losses_of_all_noise_levels_make_up_the_loss() -> None:
    """Unweighted and of as many samples in each, their mean is that over all."""
    model = diffusion_of(target="epsilon", snr_limit=1e9)
    images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        loss = model.loss(images, None, torch.Generator().manual_seed(1), 0.0)
    assert list(loss.metrics) == ["noise_1", "noise_2", "noise_3", "noise_4"]
    torch.testing.assert_close(torch.stack(list(loss.metrics.values())).mean(), loss.value, rtol=0.15, atol=0)


@pytest.mark.skipif(not HAS_DIFFUSERS, reason="diffusers is not installed")
@pytest.mark.parametrize("target", ["v_prediction", "epsilon"])
def test_steps_are_those_of_diffusers(target: str) -> None:
    """DDIM step by step from the noisiest level, and DDPM's means, without the clipping that is its default."""
    from diffusers import DDIMScheduler, DDPMScheduler

    options: dict[str, Any] = {
        "num_train_timesteps": 100, "prediction_type": target, "clip_sample": False, "timestep_spacing": "trailing",
        "beta_schedule": "squaredcos_cap_v2",
    }  # fmt: skip
    ddim, ddpm = DDIMScheduler(**options, set_alpha_to_one=True), DDPMScheduler(**options)
    ddim.set_timesteps(10)
    alphas = cosine_alphas(100)
    torch.testing.assert_close(alphas, ddim.alphas_cumprod, rtol=1e-4, atol=1e-6)
    model = diffusion_of(steps=100, target="v" if target == "v_prediction" else "epsilon")
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 4, 4, generator=rng)
    levels = trailing_steps(100, 10)
    assert [level - 1 for level in levels] == ddim.timesteps.tolist()

    def predicted(x: Tensor) -> Tensor:
        return 0.7 * x.roll(1, -1)

    for level, below in pairwise([*levels, 0]):
        alpha, alpha_below = model._alpha(level), model._alpha(below)
        ours = ddim_step(x, model._start(x, predicted(x), alpha), alpha, alpha_below)
        theirs = ddim.step(predicted(x), level - 1, x, eta=0.0).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        x = ours
    ddpm.set_timesteps(100)
    x = torch.randn(1, 3, 4, 4, generator=rng)
    for level in (2, 30, 90):
        start = model._start(x, predicted(x), model._alpha(level))
        ours = ddpm_mean(x, start, model._alpha(level), model._alpha(level - 1))
        means = [ddpm.step(predicted(x), level - 1, x, generator=torch.Generator().manual_seed(i)).prev_sample
                 for i in range(2)]  # fmt: skip
        noises = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i in range(2)]
        deviation = (means[0] - means[1]) / (noises[0] - noises[1])
        torch.testing.assert_close(ours, means[0] - deviation.median() * noises[0], rtol=1e-3, atol=1e-3)
